use clap::Args;

use super::RunArgs;

/// `bench compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// ollama, ollama=URL, openai=URL or baseline [default: the Ollama of OLLAMA_HOST or 127.0.0.1:11434, and if none
    /// answers the embedded baseline].
    #[arg(long)]
    pub against: Option<String>,
    /// Flags of the run.
    #[command(flatten)]
    pub run: RunArgs,
    /// Print numbers although the parity manifest does not match; no verdict is given then.
    #[arg(long)]
    pub allow_mismatch: bool,
    /// End with 1 where the engine is slower and with 2 where that is not known.
    #[arg(long)]
    pub fail_on_slower: bool,
}
