//! A new table is tried in the whole engine, paired with the old one, before it replaces it (R27): at the end of
//! `bench tune --promote MODEL`, and alone by `bench promote NEW.toml`.
//!
//! Both tables are loaded in one process of its own, on the device that was tuned, and answer the same prompts in ABBA
//! blocks, so that clocks, heat and the host fall on both alike.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use harness_measure::tune::{EngineEvidence, EngineStage, Promotion, RowChange as Change, promote as judge};
use harness_spec::Target;
use harness_spec::record::Provenance;
use harness_spec::units::Nanos;
use serde_json::json;
use variants::TableFile;

use super::race_tables::{Difference, Line, NO_TABLE, Request, Side};
use super::{in_engine, print_json};
use crate::args::PromoteArgs;
use crate::exit::{Exit, Failure, Outcome, usage};
use crate::interrupt;
use crate::record::Identity;
use crate::tables::{DeviceTable, RowChange};
use crate::target::open::{self, Place};

/// Pairs of requests on a GPU, where a request takes milliseconds, and on a CPU; fixed beforehand.
const PAIRS: [u64; 2] = [60, 40];
/// Tokens of each prompt, in the same order.
const PROMPT: [usize; 2] = [512, 128];
/// Tokens of each answer.
const LENGTH: usize = 48;
/// Pairs of a block.
const BLOCK: u64 = 5;

/// Longest time in which nothing is heard: two models are loaded first, from a slow disk perhaps.
const SILENCE: Duration = Duration::from_secs(600);
/// Lines of the engine's standard error that are kept for a message.
const LAST_LINES: usize = 12;

/// Two tables, and what they are tried with.
pub struct Contest<'a> {
    /// The model: a GGUF file, or one of the store.
    pub model: &'a str,
    /// The device that was tuned.
    pub place: Place,
    /// Threads of the CPU.
    pub threads: Option<u32>,
    /// The old table.
    pub old: &'a DeviceTable,
    /// The new one.
    pub new: &'a DeviceTable,
    /// What differs.
    pub changes: &'a [RowChange],
    /// Of the order and of the bootstrap.
    pub seed: u64,
    /// The run's folder.
    pub folder: &'a Path,
}

/// `bench promote`.
pub fn run(args: &PromoteArgs, json: bool) -> Outcome {
    let place = open::places(args.device.as_deref())?[0];
    let file = TableFile::load(&args.new).map_err(usage)?;
    let target = open::start_plain(place)?;
    let device = target.device();
    if file.device != device {
        return Err(usage(anyhow!(
            "the table {} is that of {} ({}), under its conditions, and not of {} ({}) as it is now\nhint: tune on this \
             device; a table of another is never promoted here",
            args.new.display(),
            file.device.name,
            file.device.arch,
            device.name,
            device.arch
        )));
    }
    let old = DeviceTable::load(&device, target.limits(), args.table.as_deref(), Provenance::Measured)?;
    // The device is the engine's from here on.
    drop(target);
    old.writable(&[])?;
    let changes = old.changes_to(&file);
    let new = old.replaced_by(file);
    let identity = Identity::of("promote", args.out.as_deref())?;
    let seed = args.seed.unwrap_or_else(rand::random);
    let contest = Contest {
        model: &args.model,
        place,
        threads: args.threads,
        old: &old,
        new: &new,
        changes: &changes,
        seed,
        folder: &identity.folder,
    };
    let decision = promote(&contest)?;
    let written = new.save()?;
    if json {
        print_json(&as_json(&decision, &changes, seed))?;
    }
    if let Some(path) = written {
        eprintln!("table: {}", path.display());
    }
    Ok(Exit::Done)
}

/// Runs the engine with both tables and judges. What was heard and what it came to is left in the run's folder.
///
/// # Errors
/// An engine that cannot be measured, or a table that it is slower with: then the rows are named, and the new table is
/// not to be written.
pub fn promote(c: &Contest<'_>) -> Result<Promotion, Failure> {
    let folder = c.folder.join("promotion");
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let (before, after) = (folder.join("old.toml"), folder.join("new.toml"));
    c.new.save_to(&after)?;
    let before = match c.old.file() {
        Some(_) => {
            c.old.save_to(&before)?;
            before.display().to_string()
        }
        None => NO_TABLE.to_owned(),
    };
    let heard = race(c, &before, &after, &folder)?;
    let decision = decide(&heard, c.changes, c.seed);
    let text = text(&decision, &heard, c.changes);
    let json = serde_json::to_vec_pretty(&as_json(&decision, c.changes, c.seed)).context("writing the decision")?;
    std::fs::write(folder.join("decision.txt"), &text)
        .and_then(|()| std::fs::write(folder.join("decision.json"), json))
        .with_context(|| format!("writing to {}", folder.display()))?;
    eprint!("{text}");
    if decision.promoted {
        return Ok(decision);
    }
    Err(anyhow!(
        "the new table is not promoted: {}\n  rows: {}\nhint: the old table stays; the new one is {}",
        decision.reasons.join("; "),
        decision.rows.join("; "),
        after.display()
    )
    .into())
}

/// What the engine said.
#[derive(Clone, Debug, Default, PartialEq)]
struct Heard {
    requests: Vec<Request>,
    differences: Vec<Difference>,
    /// Whether both tables decide the same: then nothing can be faster.
    same: bool,
}

/// Starts the engine with both tables and listens to its end.
fn race(c: &Contest<'_>, old: &str, new: &Path, folder: &Path) -> Result<Heard, Failure> {
    let model = in_engine::file(c.model)?;
    let stop = interrupt::flag().context("watching for Ctrl-C")?;
    let at = usize::from(!c.place.is_gpu());
    let pairs = PAIRS[at];
    let program = std::env::current_exe().context("finding this program's own file")?;
    let mut command = Command::new(program);
    command.arg("race-tables").arg("--model").arg(&model).args(["--device", &c.place.to_string(), "--old", old]);
    command.arg("--new").arg(new).args(["--prompt", &PROMPT[at].to_string(), "--tokens", &LENGTH.to_string()]);
    command.args(["--pairs", &pairs.to_string(), "--block", &BLOCK.to_string(), "--seed", &c.seed.to_string()]);
    if let Some(threads) = c.threads {
        command.args(["--threads", &threads.to_string()]);
    }
    // A group of its own keeps Ctrl-C at the terminal from ending it before its lines are written down.
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("starting the engine")?;
    let errors = child.stderr.take().map(|e| std::thread::spawn(move || last_lines(BufReader::new(e))));
    let (send, lines) = mpsc::channel();
    if let Some(out) = child.stdout.take() {
        std::thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).take_while(|l| send.send(l.clone()).is_ok()).count()
        });
    }
    eprintln!("promotion: {} with the old and the new table, {pairs} pairs of requests on {}", c.model, c.place);
    let mut raw =
        File::create(folder.join("requests.jsonl")).with_context(|| format!("writing to {}", folder.display()))?;
    let bar = crate::progress::steps("promotion", pairs);
    let mut heard = Heard::default();
    let mut last = Instant::now();
    let ended = loop {
        if stop.load(Ordering::Relaxed) {
            break Err(anyhow!("interrupted; the old table stays"));
        }
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => {
                last = Instant::now();
                if let Err(e) = writeln!(raw, "{line}").context("writing what the engine said") {
                    break Err(e);
                }
                match take(&mut heard, &line) {
                    Ok(()) => bar.set_position(heard.requests.iter().filter_map(|r| r.pair).max().unwrap_or(0)),
                    Err(e) => break Err(e),
                }
            }
            Err(RecvTimeoutError::Timeout) if last.elapsed() < SILENCE => {}
            Err(RecvTimeoutError::Timeout) => {
                break Err(anyhow!("the engine said nothing for {} s", SILENCE.as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => break Ok(()),
        }
    };
    bar.finish_and_clear();
    if ended.is_err() {
        // It may be in a kernel that never ends.
        let _ = child.kill();
    }
    let status = child.wait().context("waiting for the engine")?;
    let words = errors.and_then(|e| e.join().ok()).unwrap_or_default();
    ended.context("trying the tables in the engine; the old table stays")?;
    if !status.success() {
        return Err(anyhow!(
            "the engine ended with {status} while the tables were tried\n{words}\nhint: the old table stays"
        )
        .into());
    }
    Ok(heard)
}

fn last_lines(errors: impl BufRead) -> String {
    let mut kept = VecDeque::new();
    for line in errors.lines().map_while(Result::ok) {
        if kept.len() == LAST_LINES {
            kept.pop_front();
        }
        kept.push_back(line);
    }
    Vec::from(kept).join("\n")
}

fn take(heard: &mut Heard, line: &str) -> anyhow::Result<()> {
    match serde_json::from_str(line).with_context(|| format!("the engine said what is no line: {line}"))? {
        Line::Loaded { old, new } => heard.same = old == new,
        Line::Request(request) => heard.requests.push(request),
        Line::Difference(difference) => heard.differences.push(difference),
        Line::Failed { why } => return Err(anyhow!("{why}")),
    }
    Ok(())
}

fn decide(heard: &Heard, changes: &[RowChange], seed: u64) -> Promotion {
    let of = |side: Side, pair: u64| heard.requests.iter().find(|r| r.side == side && r.pair == Some(pair));
    let news = heard.requests.iter().filter(|r| r.side == Side::New);
    let pairs: Vec<(&Request, &Request)> = news.filter_map(|new| Some((new, of(Side::Old, new.pair?)?))).collect();
    let stage = |stage: EngineStage, rate: fn(&Request) -> f64| EngineEvidence {
        stage,
        old: pairs.iter().map(|(_, old)| rate(old)).collect(),
        new: pairs.iter().map(|(new, _)| rate(new)).collect(),
        blocks: pairs.iter().map(|(new, _)| new.block).collect(),
    };
    let evidence = [stage(EngineStage::Prefill, prefill), stage(EngineStage::Decode, decode)];
    // Greedy and of one length: the same weights must say the same words, whatever computes them. Where two tokens are as
    // likely as can be told, another order of the same sums may choose between them.
    let parity = match heard.differences.iter().find(|d| !d.is_level()) {
        Some(d) => Err(format!(
            "token {} of the answer to prompt {} is {} and was {}, whose logit is higher by {:.0} % of the range",
            d.token,
            d.pair,
            d.new,
            d.old,
            d.under * 100.0
        )),
        None => Ok(()),
    };
    judge(&evidence, parity, &rows(changes), seed)
}

fn rows(changes: &[RowChange]) -> Vec<Change> {
    let changed = changes.iter().filter(|c| c.from.as_ref() != Some(&c.to));
    changed.map(|c| Change { workload: c.workload.clone(), from: c.from.clone(), to: c.to.clone() }).collect()
}

/// Prompt tokens ÷ time to the first token, tok/s; NaN, which is no valid pair, where there is no token.
fn prefill(r: &Request) -> f64 {
    r.token_ns.first().map_or(f64::NAN, |t| r.prompt_tokens as f64 / t.0 as f64 * 1e9)
}

/// (n − 1)/(tₙ − t₁), tok/s.
fn decode(r: &Request) -> f64 {
    match r.token_ns.as_slice() {
        [first, .., last] => {
            let Nanos(took) = *last - *first;
            (r.token_ns.len() - 1) as f64 / took as f64 * 1e9
        }
        _ => f64::NAN,
    }
}

/// Rows whose kernel was faster when it was timed alone.
fn faster_alone(changes: &[RowChange]) -> usize {
    let faster = |c: &&RowChange| {
        c.from.as_ref() != Some(&c.to) && !c.policy.is_in_engine() && c.before_ns.is_some_and(|ns| ns > c.median_ns)
    };
    changes.iter().filter(faster).count()
}

fn text(p: &Promotion, heard: &Heard, changes: &[RowChange]) -> String {
    let mut out = String::new();
    for (stage, r) in &p.ratios {
        let percent = |x: f64| (x - 1.0) * 100.0;
        out.push_str(&format!(
            "promotion: {stage} {:+.2} % ({:+.2} to {:+.2} %, {} pairs)\n",
            percent(r.ratio),
            percent(r.ci[0]),
            percent(r.ci[1]),
            r.n_pairs
        ));
    }
    let level = heard.differences.iter().filter(|d| d.is_level()).count();
    if level > 0 {
        out.push_str(&format!(
            "promotion: {level} answer(s) part where two tokens are level, which neither table decides\n"
        ));
    }
    if heard.same {
        out.push_str("promotion: both tables run the same kernels\n");
    }
    let alone = faster_alone(changes);
    let gains = p.ratios.iter().any(|(_, r)| r.ci[0] > 1.0);
    if alone > 0 && !gains {
        out.push_str(&format!(
            "promotion: {alone} kernel(s) won when timed alone, and the engine shows no gain of it\n"
        ));
    }
    out.push_str(if p.promoted { "promotion: the new table replaces the old one\n" } else { "promotion: refused\n" });
    out
}

fn as_json(p: &Promotion, changes: &[RowChange], seed: u64) -> serde_json::Value {
    let ratios: Vec<_> =
        p.ratios.iter().map(|(stage, r)| json!({ "stage": stage.to_string(), "new_over_old": r })).collect();
    json!({
        "promoted": p.promoted, "ratios": ratios, "reasons": p.reasons, "rows": p.rows, "seed": seed,
        "faster_alone": faster_alone(changes), "changed": rows(changes).iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness_spec::Policy;

    /// Sixty pairs: the new table's prefill and decode times are these factors of the old one's.
    fn heard(prefill: f64, decode: f64) -> Heard {
        let mut out = Heard::default();
        for pair in 0..60u64 {
            let wobble = 1.0 + 0.001 * (pair % 7) as f64;
            for (side, first, each) in [(Side::Old, 1.0, 1.0), (Side::New, prefill, decode)] {
                let first = 5e6 * first * wobble;
                let token_ns = (0..48).map(|i| Nanos((first + 1e6 * each * wobble * f64::from(i)) as u64)).collect();
                let block = pair / BLOCK;
                out.requests.push(Request { side, pair: Some(pair), block, prompt_tokens: 512, token_ns });
            }
        }
        out
    }

    fn change() -> RowChange {
        RowChange {
            workload: "gemv_q4_0 N=64 K=64".parse().unwrap(),
            policy: Policy::COLD_GRAPH,
            from: None,
            to: "gemv_q4_0/fast[R=2]@cuda".parse().unwrap(),
            before_ns: Some(9000.0),
            median_ns: 7000.0,
            reason: "proven faster".into(),
        }
    }

    #[test]
    fn a_table_that_the_engine_decodes_faster_with_is_promoted() {
        let heard = heard(1.0, 0.95);
        let p = decide(&heard, &[change()], 1);
        assert!(p.promoted, "{p:?}");
        let said = text(&p, &heard, &[change()]);
        assert!(said.contains("decode +5.") && said.contains("replaces"), "{said}");
    }

    #[test]
    fn faster_kernels_in_a_slower_engine_are_refused_by_name_and_that_they_won_alone_is_said() {
        let heard = heard(1.0, 1.02);
        let p = decide(&heard, &[change()], 1);
        assert!(!p.promoted && p.rows == ["gemv_q4_0 K=64 N=64: the default -> fast[R=2]@cuda"], "{p:?}");
        let said = text(&p, &heard, &[change()]);
        assert!(said.contains("1 kernel(s) won when timed alone") && said.contains("refused"), "{said}");
    }

    #[test]
    fn a_gain_in_decode_that_costs_prefill_is_refused() {
        let p = decide(&heard(1.02, 0.9), &[change()], 1);
        assert!(p.reasons.len() == 1 && p.reasons[0].starts_with("prefill may be slower"), "{:?}", p.reasons);
    }

    #[test]
    fn another_word_is_refused_unless_two_tokens_were_level() {
        let mut heard = heard(1.0, 0.95);
        let difference = |under| Difference { pair: 3, token: 7, old: 1, new: 2, under };
        heard.differences.push(difference(0.001));
        assert!(decide(&heard, &[change()], 1).promoted);
        assert!(text(&decide(&heard, &[change()], 1), &heard, &[]).contains("1 answer(s) part"));
        heard.differences.push(difference(0.4));
        let p = decide(&heard, &[change()], 1);
        assert!(!p.promoted && p.reasons[0].contains("token 7 of the answer to prompt 3"), "{:?}", p.reasons);
    }

    #[test]
    fn a_request_that_only_warms_is_no_pair_and_a_failure_is_an_error_with_its_words() {
        let mut heard = Heard::default();
        let warm = Request { side: Side::New, pair: None, block: 0, prompt_tokens: 1, token_ns: Vec::new() };
        take(&mut heard, &serde_json::to_string(&Line::Request(warm)).unwrap()).unwrap();
        let p = decide(&heard, &[], 1);
        assert!(p.reasons.iter().any(|r| r.contains("0 valid pairs")), "{:?}", p.reasons);
        let failed = serde_json::to_string(&Line::Failed { why: "no CUDA driver".into() }).unwrap();
        assert_eq!(take(&mut heard, &failed).unwrap_err().to_string(), "no CUDA driver");
        assert!(take(&mut heard, "nonsense").is_err());
    }
}
