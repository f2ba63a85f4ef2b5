//! Where models come from, as this machine is set up.

use std::path::PathBuf;
use std::time::Duration;

/// Addresses and limits of pulling. [`PullSettings::from_env`] reads them; tests point them at fake servers.
#[derive(Clone, Debug)]
pub struct PullSettings {
    /// Base URL of the Ollama registry.
    pub ollama_registry: String,
    /// Base URL of Hugging Face.
    pub hugging_face: String,
    /// A token for gated models of Hugging Face.
    pub hugging_face_token: Option<String>,
    /// The models folder of the Ollama on this machine, if there can be one.
    pub ollama_models: Option<PathBuf>,
    /// The package index for the built-in model; `None` asks pip.
    pub package_index: Option<String>,
    /// The Python whose pip is asked.
    pub python: PathBuf,
    /// How often a broken connection is taken up again without a byte having come.
    pub attempts: u32,
    /// The pause before the second attempt; it doubles each time.
    pub first_pause: Duration,
    /// How long a server may stay silent.
    pub silence: Duration,
}

impl Default for PullSettings {
    /// The public addresses, and nothing of this machine's environment.
    fn default() -> PullSettings {
        PullSettings {
            ollama_registry: "https://registry.ollama.ai".to_owned(),
            hugging_face: "https://huggingface.co".to_owned(),
            hugging_face_token: None,
            ollama_models: None,
            package_index: None,
            python: PathBuf::from("python3"),
            attempts: 5,
            first_pause: Duration::from_millis(500),
            silence: Duration::from_secs(60),
        }
    }
}

impl PullSettings {
    /// The settings of this machine: `EDGELLM_OLLAMA_REGISTRY`, `HF_ENDPOINT`, `HF_TOKEN`, `OLLAMA_MODELS`,
    /// `EDGELLM_PYPI_INDEX`, `PIP_INDEX_URL` and `EDGELLM_PYTHON`.
    pub fn from_env() -> PullSettings {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let base = |name: &str| var(name).map(|url| url.trim_end_matches('/').to_owned());
        let defaults = PullSettings::default();
        let of_ollama = || directories::BaseDirs::new().map(|dirs| dirs.home_dir().join(".ollama/models"));
        PullSettings {
            ollama_registry: base("EDGELLM_OLLAMA_REGISTRY").unwrap_or(defaults.ollama_registry.clone()),
            hugging_face: base("HF_ENDPOINT").unwrap_or(defaults.hugging_face.clone()),
            hugging_face_token: var("HF_TOKEN"),
            ollama_models: var("OLLAMA_MODELS").map(PathBuf::from).or_else(of_ollama),
            package_index: base("EDGELLM_PYPI_INDEX").or_else(|| base("PIP_INDEX_URL")),
            python: var("EDGELLM_PYTHON").map(PathBuf::from).unwrap_or(defaults.python.clone()),
            ..defaults
        }
    }
}
