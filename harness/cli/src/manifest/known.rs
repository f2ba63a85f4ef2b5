//! What can be known of each kind of server, and from where.

use std::collections::BTreeMap;

use reqwest::Url;
use serde_json::Value;

use super::{ALL_LAYERS, Field, Known, Shape};
use crate::machine::process::Seen;
use crate::machine::{self, environment, process};
use crate::model::Model;
use crate::peers::SAMPLER;
use crate::peers::ollama::{EngineState, Loaded};

/// What both sides of a run are asked for.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The model.
    pub model: &'a dyn Model,
    /// Context length.
    pub context: u32,
    /// Threads.
    pub threads: u32,
    /// SHA-256 over the token ids of every prompt of the suite, rendered with a fixed nonce.
    pub prompt_ids: &'a str,
}

/// Fields that are the same for whatever server gets our requests, because the request itself sets them. The stop rule
/// is not among them: it depends on what both sides can do (`agree_on_stop_rule`).
fn sent(a: &Asked<'_>) -> Shape {
    let on_request = "sent in every request";
    [
        (Field::Sampler, Known::is(SAMPLER, on_request)),
        (Field::Thinking, Known::is("off", "raw prompts: no template of the server runs")),
        (Field::PrefixCache, Known::is("defeated", "a fresh nonce stands before all text of every prompt")),
        (Field::Gpu, Known::is(gpu_text(), "driver of this machine")),
    ]
    .into_iter()
    .chain(file_fields(a, "the file itself"))
    .collect()
}

/// Fields that the file decides. They hold for a peer whose digest is the same.
fn file_fields(a: &Asked<'_>, how: &str) -> Vec<(Field, Known)> {
    let f = a.model.facts();
    let types: Vec<String> = f.tensors.iter().map(|(name, g)| format!("{name} x{}", g.count)).collect();
    let bytes: u64 = f.tensors.values().map(|g| g.bytes).sum();
    vec![
        (Field::TensorTypes, Known::is(types.join(", "), how)),
        (Field::BitsPerWeight, Known::is(format!("{:.3}", bytes as f64 * 8.0 / f.parameters.max(1) as f64), how)),
        (Field::Tokenizer, Known::is(a.model.tokenizer(), how)),
        (Field::Bos, Known::is(if a.model.adds_bos() { "added" } else { "none" }, how)),
    ]
}

/// Our own engine, whose every value is ours to set.
pub fn engine(a: &Asked<'_>, version: &str, baseline: bool, state: &EngineState) -> Shape {
    let mut s = sent(a);
    let ours = "set by bench";
    s.insert(Field::WeightsDigest, Known::is(&a.model.facts().sha256, "SHA-256 of the file that is served"));
    s.insert(Field::Context, Known::is(a.context, ours));
    let said = "the engine's own word";
    s.insert(Field::KvType, Known::is(&state.kv_type, said));
    s.insert(Field::Slots, Known::is(1, "the engine runs one request at a time"));
    s.insert(Field::GpuLayers, Known::is(if state.device == "cpu" { "0" } else { ALL_LAYERS }, said));
    s.insert(Field::PromptIds, Known::is(a.prompt_ids, "the same tokenizer in this program"));
    s.insert(Field::Speculation, Known::is("off", "the engine has none"));
    s.insert(Field::Threads, Known::is(a.threads, ours));
    s.insert(Field::Machine, Known::maybe(machine::boot_id(), "boot id of this machine", "no boot id"));
    s.insert(Field::FlashAttention, Known::is("n/a", "the engine's own attention kernel"));
    s.insert(Field::BatchSize, Known::is(if state.device == "cpu" { 128 } else { 512 }, ours));
    s.insert(Field::Version, Known::is(version, "this program"));
    s.insert(Field::Flags, Known::is(if baseline { "every op on its plain kernel" } else { "default table" }, ours));
    s.insert(Field::Environment, Known::is("", ours));
    s
}

/// What is found out about a running Ollama.
pub struct OllamaFound<'a> {
    /// Where.
    pub url: &'a Url,
    /// `/api/version`.
    pub version: &'a str,
    /// Digest of the blob behind the model, by `/api/show`.
    pub digest: Option<String>,
    /// `/api/ps` after loading.
    pub loaded: Option<Loaded>,
    /// Process, if it is seen.
    pub pid: Option<u32>,
    /// Whether the server counted as many tokens as we for every prompt of the suite.
    pub same_counts: Option<bool>,
}

/// Ollama: `/api/show`, `/api/ps`, our requests, and its process on this machine.
pub fn ollama(a: &Asked<'_>, found: &OllamaFound<'_>) -> Shape {
    let mut s = sent(a);
    s.insert(
        Field::WeightsDigest,
        Known::maybe(found.digest.clone(), "blob in the FROM line of /api/show", "/api/show names no blob"),
    );
    imply_by_digest(&mut s, a, found.digest.as_deref());
    let ps = found.loaded.as_ref();
    s.insert(
        Field::Context,
        Known::maybe(
            ps.and_then(|l| l.context),
            "context_length of /api/ps",
            "this version's /api/ps has no context_length",
        ),
    );
    let env = found.pid.and_then(process::environment);
    let unseen = "the server's environment cannot be read";
    let variable = |name: &str, default: &str| {
        let text = env.as_ref().map(|e| e.get(name).filter(|v| !v.is_empty()).map_or(default.to_owned(), Clone::clone));
        Known::maybe(text, &format!("{name} in the server's environment, default {default}"), unseen)
    };
    s.insert(Field::KvType, variable("OLLAMA_KV_CACHE_TYPE", "f16"));
    s.insert(Field::Slots, variable("OLLAMA_NUM_PARALLEL", "1"));
    s.insert(Field::FlashAttention, variable("OLLAMA_FLASH_ATTENTION", "auto"));
    s.insert(Field::BatchSize, Known::is(512, "default of num_batch"));
    let layers = ps.and_then(|l| match (l.size_vram?, l.size?) {
        (0, _) => Some("0".to_owned()),
        (vram, size) if vram == size => Some(ALL_LAYERS.to_owned()),
        (vram, size) => Some(format!("part ({vram} of {size} bytes)")),
    });
    s.insert(Field::GpuLayers, Known::maybe(layers, "size_vram of /api/ps", "/api/ps does not show the model"));
    s.insert(
        Field::PromptIds,
        match (found.digest.as_deref() == Some(a.model.facts().sha256.as_str()), found.same_counts) {
            (true, Some(true)) => Known::is(
                a.prompt_ids,
                "same tokenizer file, and prompt_eval_count equals our count for every prompt (Ollama shows no ids)",
            ),
            (_, Some(false)) => Known::is("other counts", "prompt_eval_count differs from our count"),
            (false, _) => Known::unknown("Ollama shows no ids, and its weights are not known to be ours"),
            (true, None) => Known::unknown("the server reports no prompt_eval_count"),
        },
    );
    s.insert(Field::Speculation, Known::is("off", "the model is one GGUF file without a draft model"));
    s.insert(Field::Threads, Known::is(a.threads, "num_thread sent in every request"));
    s.insert(Field::Machine, same_machine(found.url));
    s.insert(Field::Version, Known::is(found.version, "/api/version"));
    s.insert(Field::Flags, flags(found.pid.and_then(process::command_line).as_deref()));
    s.insert(Field::Environment, relevant_environment(env.as_ref(), "OLLAMA_"));
    s
}

/// What is found out about a server with OpenAI's API.
pub struct OpenAiFound<'a> {
    /// Where.
    pub url: &'a Url,
    /// llama-server's `/props`.
    pub props: Option<Value>,
    /// llama-server's `/slots`.
    pub slots: Option<Value>,
    /// SHA-256 of the file that `/props` names, where it lies on this machine.
    pub digest: Option<String>,
    /// Hash of the ids that `/tokenize` gives for the prompts.
    pub prompt_ids: Option<String>,
    /// Its process, if it is seen.
    pub process: Option<Seen>,
}

/// A setting of llama-server: its flags, and the variable that stands for them.
struct Setting {
    flags: &'static [&'static str],
    variable: &'static str,
}

impl Setting {
    const KEYS: Setting = Setting { flags: &["--cache-type-k", "-ctk"], variable: "LLAMA_ARG_CACHE_TYPE_K" };
    const VALUES: Setting = Setting { flags: &["--cache-type-v", "-ctv"], variable: "LLAMA_ARG_CACHE_TYPE_V" };
    const THREADS: Setting = Setting { flags: &["--threads", "-t"], variable: "LLAMA_ARG_THREADS" };
    const ATTENTION: Setting = Setting { flags: &["--flash-attn", "-fa"], variable: "LLAMA_ARG_FLASH_ATTN" };
    const BATCH: Setting = Setting { flags: &["--ubatch-size", "-ub"], variable: "LLAMA_ARG_UBATCH" };
    const DEVICES: Setting = Setting { flags: &["--device", "-dev"], variable: "LLAMA_ARG_DEVICE" };
    const LAYERS: Setting =
        Setting { flags: &["--n-gpu-layers", "--gpu-layers", "-ngl"], variable: "LLAMA_ARG_N_GPU_LAYERS" };

    /// The value that a process was started with and where it stands: a flag goes before a variable.
    fn of(&self, process: &Seen) -> Option<(String, String)> {
        let flag = process.line.as_ref().and_then(|line| flag_value(line, self.flags));
        let on_line = flag.map(|value| (value, format!("{} on its command line", self.flags[0])));
        let variable = || process.environment.as_ref().and_then(|e| e.get(self.variable).cloned());
        on_line.or_else(|| variable().map(|value| (value, format!("{} in its environment", self.variable))))
    }

    /// As a field of the manifest. llama-server's own default stands only where its line and its environment are seen.
    fn known(&self, process: Option<&Seen>, default: Option<&str>) -> Known {
        let name = self.flags[0];
        match (process.and_then(|p| self.of(p)), default) {
            (Some((value, how)), _) => Known::is(value, how),
            (None, Some(default)) if process.is_some_and(|p| p.line.is_some() && p.environment.is_some()) => {
                Known::is(default, format!("{name} is not on its command line, default {default}"))
            }
            _ => Known::unknown(format!("{name} is not on a command line that can be read; start the server with it")),
        }
    }
}

/// Flags and variables of llama-server that keep weights, keys or values off the GPU whatever the number of layers
/// says.
const KEEPS_OFF_GPU: [&str; 15] = [
    "--override-tensor",
    "-ot",
    "LLAMA_ARG_OVERRIDE_TENSOR",
    "--cpu-moe",
    "-cmoe",
    "LLAMA_ARG_CPU_MOE",
    "--n-cpu-moe",
    "-ncmoe",
    "LLAMA_ARG_N_CPU_MOE",
    "--no-kv-offload",
    "-nkvo",
    "LLAMA_ARG_NO_KV_OFFLOAD",
    "LLAMA_ARG_KV_OFFLOAD",
    "--rpc",
    "LLAMA_ARG_RPC",
];

/// Whether llama-server has a model of so many layers on a GPU as a whole; `weights` are the bytes that decoding reads.
///
/// A program that was built without a GPU takes the flag and ignores it: beside the flag its process must hold as
/// many bytes of the run's GPU as the weights have or, where the driver does not say what it holds, have a GPU open.
fn layers_on_gpu(layers: u32, weights: u64, process: Option<&Seen>) -> Known {
    let asked = Setting::LAYERS.known(process, None);
    // The head counts as one more layer; any number that covers it means the same.
    let covers = |n: &str| n == ALL_LAYERS || n.parse::<u32>().is_ok_and(|n| n > layers);
    let (Some(seen), true) = (process, asked.value.as_deref().is_some_and(covers)) else { return asked };
    let how = asked.how;
    let words = seen.line.iter().flatten().map(|word| word.split('=').next().unwrap_or_default());
    let variables = seen.environment.iter().flat_map(|e| e.keys().map(String::as_str));
    if let Some(kept) = words.chain(variables).find(|word| KEEPS_OFF_GPU.contains(word)) {
        return Known::is("part", format!("{how}, and {kept} keeps a part off the GPU"));
    }
    match (seen.gpu_bytes, seen.gpu_files.as_slice()) {
        _ if Setting::DEVICES.of(seen).is_some_and(|(device, _)| device == "none") => {
            Known::is(0, format!("{}: none", Setting::DEVICES.flags[0]))
        }
        (Some(held), _) if held >= weights => Known::is(
            ALL_LAYERS,
            format!("{how}, and by the driver its process holds {held} bytes of the GPU, the weights being {weights}"),
        ),
        (Some(held), _) => Known::is(
            format!("part ({held} of {weights} bytes)"),
            format!("{how}, and by the driver its process holds less of the GPU than the weights"),
        ),
        (None, []) => Known::unknown(format!("{how}, and its process is not seen to use a GPU")),
        (None, files) => Known::is(ALL_LAYERS, format!("{how}, and its process has {} open", files.join(", "))),
    }
}

/// llama-server: `/props`, `/slots`, `/tokenize` and its process. Another server leaves much unknown.
pub fn openai(a: &Asked<'_>, found: &OpenAiFound<'_>) -> Shape {
    let mut s = sent(a);
    let none = |what: &str| format!("the server has no {what} (llama-server does)");
    s.insert(
        Field::WeightsDigest,
        Known::maybe(
            found.digest.clone(),
            "SHA-256 of model_path in /props",
            "model_path in /props is absent or not readable here",
        ),
    );
    imply_by_digest(&mut s, a, found.digest.as_deref());
    let props = found.props.as_ref();
    let settings = props.map(|p| &p["default_generation_settings"]);
    s.insert(
        Field::Context,
        Known::maybe(settings.and_then(|d| d["n_ctx"].as_u64()), "n_ctx in /props", &none("/props")),
    );
    s.insert(
        Field::Slots,
        Known::maybe(props.and_then(|p| p["total_slots"].as_u64()), "total_slots in /props", &none("/props")),
    );
    s.insert(
        Field::Speculation,
        match found.slots.as_ref().and_then(|v| v[0]["speculative"].as_bool()) {
            Some(on) => Known::is(if on { "on" } else { "off" }, "speculative in /slots"),
            None => Known::unknown(none("/slots")),
        },
    );
    s.insert(
        Field::PromptIds,
        Known::maybe(found.prompt_ids.clone(), "ids that /tokenize gives for every prompt", &none("/tokenize")),
    );
    // Its settings are llama-server's; another program may mean something else by the same words.
    let process = found.process.as_ref().filter(|_| props.is_some());
    let (k, v) = (Setting::KEYS.known(process, Some("f16")), Setting::VALUES.known(process, Some("f16")));
    s.insert(Field::KvType, if k.value == v.value { k } else { Known::is("mixed", "--cache-type-k and -v differ") });
    s.insert(Field::Threads, Setting::THREADS.known(process, None));
    s.insert(Field::FlashAttention, Setting::ATTENTION.known(process, Some("auto")));
    s.insert(Field::BatchSize, Setting::BATCH.known(process, Some("512")));
    // Without a GPU in the machine no flag can put layers on one.
    let no_gpu = process::is_loopback(found.url) && environment::gpus().is_empty();
    let facts = a.model.facts();
    let layers = match no_gpu {
        true => Known::is(0, "this machine has no GPU"),
        false => layers_on_gpu(facts.layers, facts.weight_bytes_per_token, process),
    };
    s.insert(Field::GpuLayers, layers);
    s.insert(Field::Machine, same_machine(found.url));
    let build = props.and_then(|p| p["build_info"].as_str().map(str::to_owned));
    s.insert(Field::Version, Known::maybe(build, "build_info in /props", &none("/props")));
    let seen = found.process.as_ref();
    s.insert(Field::Flags, flags(seen.and_then(|p| p.line.as_deref())));
    s.insert(Field::Environment, relevant_environment(seen.and_then(|p| p.environment.as_ref()), "LLAMA_"));
    s
}

/// Replaces the file's fields by unknown where the peer's file is not known to be ours.
fn imply_by_digest(s: &mut Shape, a: &Asked<'_>, digest: Option<&str>) {
    let same = digest == Some(a.model.facts().sha256.as_str());
    for (field, mut known) in file_fields(a, "implied by the equal digest") {
        if !same {
            known = Known::unknown("the weights are not known to be ours");
        }
        s.insert(field, known);
    }
}

fn same_machine(url: &Url) -> Known {
    if process::is_loopback(url) {
        Known::maybe(machine::boot_id(), "loopback address: the same machine and boot", "no boot id")
    } else {
        Known::unknown("another host")
    }
}

fn flags(line: Option<&[String]>) -> Known {
    // The program's path is the machine's business, its arguments are what matters.
    Known::maybe(line.map(|l| l[1..].join(" ")), "/proc of the process that listens", "the process cannot be seen")
}

fn relevant_environment(env: Option<&BTreeMap<String, String>>, prefix: &str) -> Known {
    // A key or a path in the environment is nobody's business but the user's; names that matter to speed are kept.
    let hidden = ["KEY", "TOKEN", "SECRET", "PASSWORD", "MODELS", "ORIGINS"];
    let shown = env.map(|e| {
        let kept: Vec<String> = e
            .iter()
            .filter(|(k, _)| k.starts_with(prefix) && !hidden.iter().any(|h| k.contains(h)))
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        kept.join(" ")
    });
    Known::maybe(shown, "environment of the process that listens", "the process cannot be seen")
}

fn gpu_text() -> String {
    let gpus = environment::gpus();
    if gpus.is_empty() { "none".to_owned() } else { gpus.join(", ") }
}

/// The value of a flag, written `--flag value`, `--flag=value` or, as the last of several, repeated.
fn flag_value(line: &[String], names: &[&str]) -> Option<String> {
    let mut found = None;
    for (i, word) in line.iter().enumerate() {
        if names.contains(&word.as_str()) {
            found = line.get(i + 1).cloned();
        } else if let Some((name, value)) = word.split_once('=')
            && names.contains(&name)
        {
            found = Some(value.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_repeated_flag_counts() {
        let line: Vec<String> = ["s", "-t", "4", "--threads=2", "-c", "2048"].map(str::to_owned).to_vec();
        assert_eq!(flag_value(&line, &["--threads", "-t"]).as_deref(), Some("2"));
        assert_eq!(flag_value(&line, &["-ctk"]), None);
    }

    /// A llama-server that was started with these words and variables and holds so much of the GPU.
    fn server(words: &[&str], variables: &[(&str, &str)], gpu_files: &[&str], gpu_bytes: Option<u64>) -> Seen {
        Seen {
            line: Some([&["llama-server"], words].concat().into_iter().map(str::to_owned).collect()),
            environment: Some(variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()),
            gpu_files: gpu_files.iter().map(|f| (*f).to_owned()).collect(),
            gpu_bytes,
        }
    }

    #[test]
    fn a_setting_is_the_flag_before_the_variable_before_a_default_that_is_known_to_hold() {
        let known = |seen: &Seen| Setting::BATCH.known(Some(seen), Some("512"));
        let both = server(&["-ub", "256"], &[("LLAMA_ARG_UBATCH", "128")], &[], None);
        assert_eq!(known(&both), Known::is(256, "--ubatch-size on its command line"));
        let variable = server(&[], &[("LLAMA_ARG_UBATCH", "128")], &[], None);
        assert_eq!(known(&variable), Known::is(128, "LLAMA_ARG_UBATCH in its environment"));
        let neither = server(&[], &[], &[], None);
        assert_eq!(known(&neither).value.as_deref(), Some("512"));
        // What is not seen may say otherwise, and how many threads are the default depends on the machine.
        assert_eq!(known(&Seen { environment: None, ..neither.clone() }).value, None);
        assert_eq!(Setting::BATCH.known(None, Some("512")).value, None);
        let threads = Setting::THREADS.known(Some(&neither), None);
        assert!(threads.value.is_none() && threads.how.contains("start the server with it"), "{threads:?}");
    }

    #[test]
    fn layers_are_on_the_gpu_where_the_process_shows_it_and_nowhere_else() {
        let all = ["-m", "m.gguf", "-ngl", "99"];
        let with = |more: &[&'static str]| [&all[..], more].concat();
        let file = ["/dev/nvidia0"];
        for (seen, want, said) in [
            (server(&all, &[], &file, Some(5000)), Some("all"), "holds 5000 bytes"),
            (server(&all, &[], &file, None), Some("all"), "/dev/nvidia0 open"),
            (server(&[], &[("LLAMA_ARG_N_GPU_LAYERS", "all")], &file, None), Some("all"), "in its environment"),
            // Built without a GPU, not asked for, spilled, or kept off it by another setting.
            (server(&all, &[], &[], None), None, "not seen to use a GPU"),
            (server(&[], &[], &file, Some(5000)), None, "not on a command line"),
            (server(&["-ngl", "12"], &[], &file, Some(5000)), Some("12"), "on its command line"),
            (server(&all, &[], &file, Some(4000)), Some("part (4000 of 4500 bytes)"), "less of the GPU"),
            (server(&with(&["-nkvo"]), &[], &file, Some(5000)), Some("part"), "-nkvo"),
            (server(&with(&["--override-tensor=a=CPU"]), &[], &file, None), Some("part"), "--override-tensor"),
            (server(&all, &[("LLAMA_ARG_CPU_MOE", "1")], &file, None), Some("part"), "LLAMA_ARG_CPU_MOE"),
            (server(&with(&["--device", "none"]), &[], &file, None), Some("0"), "none"),
        ] {
            let known = layers_on_gpu(12, 4500, Some(&seen));
            assert_eq!(known.value.as_deref(), want, "{seen:?}: {known:?}");
            assert!(known.how.contains(said), "{known:?}");
        }
        assert_eq!(layers_on_gpu(12, 4500, None).value, None);
    }

    #[test]
    fn secrets_of_the_environment_are_not_recorded() {
        let env: BTreeMap<String, String> =
            [("OLLAMA_API_KEY", "s3cret"), ("OLLAMA_NUM_PARALLEL", "1"), ("HOME", "/h")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into();
        let shown = relevant_environment(Some(&env), "OLLAMA_").value.unwrap();
        assert_eq!(shown, "OLLAMA_NUM_PARALLEL=1");
    }
}
