//! `edgellm eval`: the engine against a reference, token by token.

use std::io::{IsTerminal, Write};

use engine::eval::{EvalReport, ReferenceFile, evaluate};

use super::{find_or_pull, load};
use crate::args::EvalArgs;
use crate::exit::Failure;

pub fn run(args: &EvalArgs) -> Result<(), Failure> {
    let reference = ReferenceFile::read(&args.reference)?;
    let entry = find_or_pull(&args.model)?;
    let mut engine = load(&entry, &args.load.options())?;
    let steps = reference.steps();
    let is_terminal = std::io::stderr().is_terminal();
    let report = evaluate(&mut engine, &reference, &mut |done| {
        if is_terminal && done % 16 == 0 {
            eprint!("\r{done}/{steps} tokens");
        }
    });
    if is_terminal {
        eprint!("\r\x1b[K");
    }
    let report = report?;
    let text = match args.json {
        true => serde_json::to_string_pretty(&report).expect("numbers have a JSON form"),
        false => describe(&report),
    };
    writeln!(std::io::stdout(), "{text}").map_err(Failure::output)
}

fn describe(report: &EvalReport) -> String {
    let mut lines = vec![
        format!("steps compared           {}", report.steps),
        format!("top-1 agreement          {:.2} %", 100.0 * report.top1_agreement),
        format!(
            "logprob difference       median {:.5}, p95 {:.5} nat",
            report.median_logprob_diff, report.p95_logprob_diff
        ),
        format!("mean KL divergence       {:.6} nat", report.mean_kl),
        format!("misses                   {}, largest gap {:.4} nat", report.misses.len(), report.largest_miss_gap),
    ];
    for miss in &report.misses {
        let gap = miss.reference_gap;
        lines
            .push(format!("  case {} step {}: {} for {}, gap {gap:.4} nat", miss.case, miss.step, miss.got, miss.want));
    }
    lines.join("\n")
}
