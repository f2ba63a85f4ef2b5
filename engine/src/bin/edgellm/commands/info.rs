//! `edgellm info`: what a model's file says, and what it takes on a GPU.

use std::io::Write;
use std::num::NonZeroUsize;

use anyhow::Context;
use engine::cuda::vram::{self, VramNeed};
use engine::generate::{DEFAULT_CONTEXT, DeviceChoice, KvType};
use engine::gguf::Gguf;
use engine::info::ModelInfo;
use engine::model::LoadError;
use harness_spec::Bytes;
use kernels::cuda::driver::Device;

use super::{binary, cannot_use, find};
use crate::args::InfoArgs;
use crate::exit::Failure;

pub fn run(args: &InfoArgs) -> Result<(), Failure> {
    let entry = find(&args.model)?;
    let gguf = Gguf::open(&entry.path).with_context(|| cannot_use(&entry))?;
    let info = ModelInfo::from_gguf(&gguf).with_context(|| cannot_use(&entry))?;
    let (context, kv) = (args.context.unwrap_or(info.config.context_train.min(DEFAULT_CONTEXT)), args.kv.into());
    if kv == KvType::F32 {
        return Err(Failure::Usage("a GPU keeps keys and values as f16 or int8".to_owned()));
    }
    if context > info.config.context_train {
        return Err(LoadError::Context { asked: context, most: info.config.context_train }.into());
    }
    let need = VramNeed::of(&info.config, gguf.tensors(), context, kv);
    let (gpu, why_none) = match args.device {
        None | Some(DeviceChoice::Cpu) => (None, None),
        // Where a run by itself would take the processor, this says why.
        Some(DeviceChoice::Auto) => match Device::open(0) {
            Ok(gpu) => (Some(gpu), None),
            Err(e) => (None, Some(e.to_string().lines().next().unwrap_or_default().to_owned())),
        },
        Some(DeviceChoice::Cuda(ordinal)) => (Some(Device::open(ordinal)?), None),
    };
    let free = gpu.as_ref().map(|gpu| gpu.free_memory().map(Bytes)).transpose()?;
    let sha256 = entry.sha256.as_ref().map(|digest| digest.as_str());
    let text = if args.json {
        let mut json = info.to_json();
        json["sha256"] = sha256.into();
        json["vram"] = serde_json::json!({
            "context": context,
            "kv_type": kv.name(),
            "need_bytes": need.total().0,
            "weights": need.weights.0,
            "embedding": need.embedding.0,
            "kv": need.kv.0,
            "rope": need.rope.0,
            "decode": need.decode.0,
            "prefill": need.prefill.0,
            "reserve": need.reserve.0,
            "gpu": gpu.as_ref().map(|gpu| &gpu.facts().name),
            "free_bytes": free.map(|free| free.0),
        });
        serde_json::to_string_pretty(&json).expect("strings and numbers have a JSON form")
    } else {
        let mut rows = rows(&info, sha256);
        rows.push((
            "on a GPU",
            format!(
                "{} with {context} positions in {kv}, {} of them keys and values",
                binary(need.total().0),
                binary(need.kv.0)
            ),
        ));
        if let (Some(gpu), Some(free)) = (&gpu, free) {
            let one = NonZeroUsize::MIN;
            let fits = vram::check(&info.config, || gguf.tensors(), context, kv, one, free, &gpu.facts().name);
            let verdict = fits.map_or_else(|e| e.to_string().replace('\n', "; "), |_| "the model fits".to_owned());
            rows.push(("gpu", format!("{}, {} free: {verdict}", gpu.facts().name, binary(free.0))));
        }
        rows.extend(why_none.map(|why| ("gpu", format!("none: {why}"))));
        describe(&info, rows)
    };
    writeln!(std::io::stdout(), "{text}").map_err(Failure::output)
}

fn rows(info: &ModelInfo, sha256: Option<&str>) -> Vec<(&'static str, String)> {
    let c = &info.config;
    let per_token = info.weight_bytes_per_token().0;
    let kv = info.kv_bytes_per_position(KvType::F16).0;
    let mut rows = vec![
        ("file", info.path.display().to_string()),
        ("name", info.name.clone().unwrap_or_else(|| "-".to_owned())),
        ("architecture", c.architecture.name().to_owned()),
        ("parameters", info.parameter_size()),
        ("quantisation", info.quantization.clone()),
        ("size", binary(info.file_bytes.0)),
        ("layers", c.layers.to_string()),
        ("hidden, inter", format!("{}, {}", c.hidden, c.inter)),
        ("heads, kv heads", format!("{}, {} of {}", c.n_heads, c.n_kv_heads, c.head_dim)),
        ("vocabulary", format!("{} tokens, pre-tokenizer {}", c.vocab, info.pre_tokenizer)),
        ("context", c.context_train.to_string()),
        ("chat template", if info.chat_template.is_some() { "yes" } else { "no" }.to_owned()),
        ("read per token", format!("{per_token} bytes of weights ({:.1} MB)", per_token as f64 / 1e6)),
        ("kv per position", format!("{kv} bytes in f16")),
    ];
    rows.extend(sha256.map(|digest| ("sha256", digest.to_owned())));
    rows
}

fn describe(info: &ModelInfo, rows: Vec<(&'static str, String)>) -> String {
    let mut lines: Vec<String> = rows.into_iter().map(|(key, value)| format!("{key:16} {value}")).collect();
    lines.push(format!("\n{:16} {:>8} {:>14}", "tensors", "count", "bytes"));
    for (dtype, facts) in &info.weights.tensors {
        lines.push(format!("{:16} {:>8} {:>14}", dtype.name(), facts.count, facts.bytes.to_string()));
    }
    lines.join("\n")
}
