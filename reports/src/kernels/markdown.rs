//! A run of kernels as Markdown, for a README or an issue.

use harness_spec::record::KernelRun;

use super::{fusion, view};

/// One table a workload, with the device, the policy, the command and the date.
pub fn kernel_markdown(run: &KernelRun) -> String {
    let mut out = format!("{}.\n", view::headline(run));
    for w in view::workloads(run) {
        let library = if w.library.is_empty() { String::new() } else { format!("; library {}", w.library) };
        out += &format!("\n**{}**, {}; floor {}{library}. {}\n\n", w.title, w.policy, w.floor, w.reason);
        out += "| variant | µs | 95 % | GB/s | of floor | |\n|---|--:|---|--:|--:|---|\n";
        for r in &w.rows {
            out += &format!(
                "| `{}` | {} | {} | {} | {} | {} |\n",
                r.variant, r.time, r.interval, r.rate, r.of_floor, r.marks
            );
        }
    }
    for f in fusion::fusions(run) {
        out +=
            &format!("\n**{}**, {}, in one launch and apart ({}): {}.\n\n", f.title, f.policy, fusion::APART, f.apart);
        out += "| variant | µs | vs apart | |\n|---|--:|--:|---|\n";
        for r in &f.rows {
            out += &format!("| `{}` | {} | {} | {} |\n", r.variant, r.time, r.against_apart, r.repeated);
        }
    }
    let command = crate::view::format::command_line(&run.command);
    out + &format!("\n{}, {}, `{command}`, record {}.\n", run.device.name, run.started, run.id)
}
