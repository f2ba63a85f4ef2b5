//! `edgellm info`: what a model's file says.

use std::io::Write;

use anyhow::Context;
use engine::generate::KvType;
use engine::info::ModelInfo;

use super::{binary, cannot_use, find};
use crate::args::InfoArgs;
use crate::exit::Failure;

pub fn run(args: &InfoArgs) -> Result<(), Failure> {
    let entry = find(&args.model)?;
    let info = ModelInfo::read(&entry.path).with_context(|| cannot_use(&entry))?;
    let text = if args.json {
        let mut json = info.to_json();
        json["sha256"] = entry.sha256.as_ref().map(|digest| digest.as_str()).into();
        serde_json::to_string_pretty(&json).expect("strings and numbers have a JSON form")
    } else {
        describe(&info, entry.sha256.as_ref().map(|digest| digest.as_str()))
    };
    writeln!(std::io::stdout(), "{text}").map_err(Failure::output)
}

fn describe(info: &ModelInfo, sha256: Option<&str>) -> String {
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
    let mut lines: Vec<String> = rows.into_iter().map(|(key, value)| format!("{key:16} {value}")).collect();
    lines.push(format!("\n{:16} {:>8} {:>14}", "tensors", "count", "bytes"));
    for (dtype, facts) in &info.weights.tensors {
        lines.push(format!("{:16} {:>8} {:>14}", dtype.name(), facts.count, facts.bytes.to_string()));
    }
    lines.join("\n")
}
