//! From what the engine said to a decision, in words and as JSON.

use std::collections::{BTreeMap, BTreeSet};

use engine::launched::Launch;
use harness_measure::tune::{
    EngineEvidence, EngineLoading, EnginePair, EngineStage, EngineWork, Finding, Promotion, RowChange as Change,
    promote as judge,
};
use harness_spec::units::Nanos;
use serde_json::json;

use crate::commands::race_tables::FIRST;
use crate::commands::race_tables::line::{Difference, Length, Line, Request, Side};
use crate::tables::RowChange;

/// What the engine said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heard {
    /// Lengths of prompts with what differs there.
    pub lengths: Vec<Length>,
    /// What the model launches with the new table.
    pub launched: BTreeSet<Launch>,
    /// Every request.
    pub requests: Vec<Request>,
    /// Answers that part.
    pub differences: Vec<Difference>,
}

impl Heard {
    /// Takes a line.
    ///
    /// # Errors
    /// It is none, or says that the engine failed.
    pub fn take(&mut self, line: &str) -> anyhow::Result<()> {
        let wrong = || format!("the engine said what is no line: {line}");
        match serde_json::from_str(line).map_err(|e| anyhow::Error::new(e).context(wrong()))? {
            Line::Loaded { lengths, launched, .. } => (self.lengths, self.launched) = (lengths, launched),
            Line::Request(request) => self.requests.push(request),
            Line::Difference(difference) => self.differences.push(difference),
            Line::Failed { why } => return Err(anyhow::anyhow!("{why}")),
        }
        Ok(())
    }

    /// Whether both tables run the same kernels at every length. Where no engine was asked they are one table.
    pub fn is_same(&self) -> bool {
        self.lengths.iter().all(Length::is_same)
    }

    /// What an engine that was asked has left unsaid, where it ended without a word of failure: then nothing is known of the
    /// tables, not even that they run the same kernels.
    pub fn missing(&self, same_too: bool) -> Option<String> {
        let [done, all] = self.progress(same_too);
        match (self.lengths.is_empty(), done < all) {
            (true, _) => Some("before both tables were loaded".to_owned()),
            (false, true) => Some(format!("after {done} of {all} timed requests")),
            (false, false) => None,
        }
    }

    /// Timed requests, and how many there will be of them with `same_too`, or without.
    pub fn progress(&self, same_too: bool) -> [u64; 2] {
        let run = self.lengths.iter().filter(|l| same_too || !l.is_same());
        let all = run.map(|l| 2 * FIRST.len() as u64 * l.pairs_of_loading()).sum();
        [self.requests.iter().filter(|r| r.pair.is_some()).count() as u64, all]
    }
}

/// Judges. With `same_too` stages of the same kernels are judged like all others.
pub fn decide(heard: &Heard, rows: &[&RowChange], same_too: bool, seed: u64) -> Promotion {
    let mut evidence = Vec::new();
    for length in &heard.lengths {
        let kinds = [
            (EngineWork::Prefill, length.same_prefill, prefill as fn(&Request) -> f64),
            (EngineWork::Decode, length.same_decode, decode),
        ];
        evidence.extend(kinds.map(|(work, same, rate)| EngineEvidence {
            stage: EngineStage { work, prompt: length.prompt },
            same_kernels: same && !same_too,
            loadings: loadings(heard, length.prompt, rate),
        }));
    }
    // Greedy and of one length: the same weights must say the same words, whatever computes them. Where two tokens are as
    // likely as can be told, another order of the same sums may choose between them.
    let parity = match heard.differences.iter().find(|d| !d.is_level()) {
        Some(d) => Err(format!(
            "token {} of the answer to prompt {} of {} tokens is {} and was {}, whose logit is higher by {:.0} % of the \
             range",
            d.token,
            d.pair,
            d.prompt_tokens,
            d.new,
            d.old,
            d.under * 100.0
        )),
        None => Ok(()),
    };
    let mut found = judge(&evidence, parity, &changes(rows), seed);
    let why = match (heard.is_same(), rows.is_empty()) {
        (true, _) => Some("both tables run the same kernels, so that what was measured is noise"),
        (false, true) => Some("no changed row is run by a launch that was timed"),
        (false, false) => None,
    };
    if let Some(why) = why.filter(|_| found.promoted) {
        found.promoted = false;
        found.reasons.push(why.to_owned());
    }
    found
}

/// The pairs of a length in each loading.
fn loadings(heard: &Heard, prompt: u64, rate: fn(&Request) -> f64) -> Vec<EngineLoading> {
    let loading = |(number, first): (u8, Side)| {
        let pairs = pairs(heard, prompt, number, rate);
        EngineLoading { new_first: first == Side::New, pairs }
    };
    (0..).zip(FIRST).map(loading).collect()
}

/// The pairs of a length in a loading, by number.
fn pairs(heard: &Heard, prompt: u64, loading: u8, rate: fn(&Request) -> f64) -> Vec<EnginePair> {
    let mut sides: BTreeMap<u64, [Option<&Request>; 2]> = BTreeMap::new();
    for r in heard.requests.iter().filter(|r| r.prompt_tokens == prompt && r.loading == loading) {
        if let Some(pair) = r.pair {
            sides.entry(pair).or_default()[r.side as usize] = Some(r);
        }
    }
    let both = sides.values().filter_map(|[old, new]| Some(((*old)?, (*new)?)));
    both.map(|(old, new)| EnginePair { old: rate(old), new: rate(new), block: new.block }).collect()
}

fn changes(rows: &[&RowChange]) -> Vec<Change> {
    let of = |c: &&RowChange| Change { workload: c.workload.clone(), from: c.from.clone(), to: c.to.clone() };
    rows.iter().map(of).collect()
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
fn faster_alone(rows: &[&RowChange]) -> usize {
    let faster = |c: &&&RowChange| !c.policy.is_in_engine() && c.before_ns.is_some_and(|ns| ns > c.median_ns);
    rows.iter().filter(faster).count()
}

/// The decision in words. `others` rows changed and are not run by the model.
pub fn text(p: &Promotion, heard: &Heard, rows: &[&RowChange], others: usize) -> String {
    let mut out = String::new();
    let mut line = |text: String| out.push_str(&format!("promotion: {text}\n"));
    for s in &p.stages {
        let found = match s.finding {
            Finding::Faster => "faster",
            Finding::Holds => "not slower",
            Finding::MayBeSlower => "may be slower",
            Finding::SameKernels => "not judged: both tables run the same kernels there",
        };
        line(format!(
            "{} {}, {} pairs, noise floor {:.2} %: {found}",
            s.stage,
            s.measured(),
            s.ratio.n_pairs,
            s.floor * 100.0
        ));
    }
    let level = heard.differences.iter().filter(|d| d.is_level()).count();
    if level > 0 {
        line(format!("{level} answer(s) part where two tokens are level, which neither table decides"));
    }
    let gains = p.stages.iter().any(|s| s.finding == Finding::Faster);
    let alone = faster_alone(rows);
    if alone > 0 && !gains {
        line(format!("{alone} kernel(s) won when timed alone, and the engine shows no gain of it"));
    }
    if others > 0 {
        line(format!("{others} changed row(s) are run by no launch that was timed, and stay as they are"));
    }
    line(match (heard.is_same(), differs(p)) {
        (true, false) => "no difference: both tables run the same kernels with this model".to_owned(),
        (true, true) => "the same kernels differ by more than their noise: nothing can be decided here".to_owned(),
        (false, _) if p.promoted => format!("{} row(s) of the new table replace those of the old one", rows.len()),
        (false, _) => "refused".to_owned(),
    });
    out
}

/// Whether a stage was judged to be anything but level.
pub fn differs(p: &Promotion) -> bool {
    p.stages.iter().any(|s| matches!(s.finding, Finding::Faster | Finding::MayBeSlower))
}

/// The decision as JSON.
pub fn as_json(p: &Promotion, heard: &Heard, rows: &[&RowChange], others: usize, seed: u64) -> serde_json::Value {
    let finding = |f: Finding| match f {
        Finding::Faster => "faster",
        Finding::Holds => "holds",
        Finding::MayBeSlower => "may_be_slower",
        Finding::SameKernels => "same_kernels",
    };
    let stages = p.stages.iter().map(|s| {
        json!({
            "stage": s.stage.to_string(), "new_over_old": s.ratio, "by_loading": s.by_loading, "noise_floor": s.floor,
            "finding": finding(s.finding),
        })
    });
    json!({
        "promoted": p.promoted, "same_kernels": heard.is_same(), "stages": stages.collect::<Vec<_>>(),
        "lengths": heard.lengths, "reasons": p.reasons, "rows": p.rows, "seed": seed, "faster_alone": faster_alone(rows),
        "changed": changes(rows).iter().map(ToString::to_string).collect::<Vec<_>>(), "changed_and_not_run": others,
    })
}

#[cfg(test)]
mod tests {
    use harness_spec::Policy;

    use super::*;

    const LENGTH: Length = Length { prompt: 512, pairs: 60, same_prefill: false, same_decode: false };

    /// Fifteen pairs a loading at a length: the new table's prefill and decode times are these factors of the old one's.
    fn heard_at(length: Length, prefill: f64, decode: f64) -> Heard {
        let mut out = Heard { lengths: vec![length], ..Heard::default() };
        for pair in 0..60u64 {
            // Neighbours differ, so that nothing of it seems to last.
            let wobbles = [5 * pair, 3 * pair + 2].map(|turn| 1.0 + 0.0005 * (turn % 7) as f64);
            let sides = [(Side::Old, 1.0, 1.0), (Side::New, prefill, decode)];
            for ((side, first, each), wobble) in sides.into_iter().zip(wobbles) {
                let first = 5e6 * first * wobble;
                let token_ns = (0..48).map(|i| Nanos((first + 1e6 * each * wobble * f64::from(i)) as u64)).collect();
                let (loading, block) = ((pair / 15) as u8, pair % 15 / 4);
                let prompt_tokens = length.prompt;
                out.requests.push(Request { side, loading, pair: Some(pair), block, prompt_tokens, token_ns });
            }
        }
        out
    }

    fn heard(prefill: f64, decode: f64) -> Heard {
        heard_at(LENGTH, prefill, decode)
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

    fn decided(heard: &Heard) -> Promotion {
        decide(heard, &[&change()], false, 1)
    }

    fn said(p: &Promotion, heard: &Heard) -> String {
        text(p, heard, &[&change()], 2)
    }

    #[test]
    fn a_table_that_the_engine_decodes_faster_with_is_promoted() {
        let heard = heard(1.0, 0.95);
        let p = decided(&heard);
        assert!(p.promoted, "{p:?}");
        let said = said(&p, &heard);
        for part in
            ["decode behind 512 tokens +5.", ": faster", "1 row(s) of the new table replace", "2 changed row(s)"]
        {
            assert!(said.contains(part), "{part} in {said}");
        }
    }

    #[test]
    fn faster_kernels_in_a_slower_engine_are_refused_by_name_and_that_they_won_alone_is_said() {
        let heard = heard(1.0, 1.02);
        let p = decided(&heard);
        assert!(!p.promoted && p.rows == ["gemv_q4_0 K=64 N=64: the default -> fast[R=2]@cuda"], "{p:?}");
        let said = said(&p, &heard);
        assert!(said.contains("1 kernel(s) won when timed alone") && said.contains("refused"), "{said}");
    }

    #[test]
    fn a_gain_in_decode_that_costs_prefill_is_refused_unless_prefill_runs_the_same_kernels() {
        let p = decided(&heard(1.02, 0.9));
        assert!(
            p.reasons.len() == 1 && p.reasons[0].contains("prefill of 512 tokens may be slower"),
            "{:?}",
            p.reasons
        );
        let same = heard_at(Length { same_prefill: true, ..LENGTH }, 1.02, 0.9);
        let p = decided(&same);
        assert!(p.promoted, "{p:?}");
        assert!(said(&p, &same).contains("not judged: both tables run the same kernels there"));
        // Somebody wants to know all the same.
        assert!(!decide(&same, &[&change()], true, 1).promoted);
    }

    #[test]
    fn each_length_is_a_stage_of_its_own_and_all_have_to_hold() {
        let mut both = heard(1.0, 0.9);
        let deep = heard_at(Length { prompt: 2048, ..LENGTH }, 1.0, 1.1);
        both.lengths.extend(deep.lengths);
        both.requests.extend(deep.requests);
        let p = decided(&both);
        assert_eq!(p.stages.len(), 4);
        assert!(p.reasons.len() == 1 && p.reasons[0].contains("decode behind 2048 tokens may be slower"), "{p:?}");
    }

    #[test]
    fn tables_that_run_the_same_kernels_are_no_different_and_nothing_is_judged() {
        let same =
            Heard { lengths: vec![Length { same_prefill: true, same_decode: true, ..LENGTH }], ..Heard::default() };
        let p = decided(&same);
        assert!(!p.promoted && same.is_same(), "{p:?}");
        assert!(said(&p, &same).contains("no difference"), "{}", said(&p, &same));
        assert_eq!(as_json(&p, &same, &[], 2, 1)["same_kernels"], true);
        assert!(Heard::default().is_same() && !decided(&Heard::default()).promoted);
        assert_eq!(same.progress(false), [0, 0]);
        assert_eq!(heard(1.0, 1.0).progress(false), [120, 120]);
    }

    #[test]
    fn an_engine_that_ended_early_has_said_nothing_of_the_tables() {
        assert_eq!(Heard::default().missing(false).unwrap(), "before both tables were loaded");
        let mut heard = heard(1.0, 1.0);
        assert_eq!(heard.missing(false), None);
        heard.requests.pop();
        assert_eq!(heard.missing(false).unwrap(), "after 119 of 120 timed requests");
        let same = vec![Length { same_prefill: true, same_decode: true, ..LENGTH }];
        let same = Heard { lengths: same, ..Heard::default() };
        assert_eq!(same.missing(false), None, "there is nothing to be timed");
        assert_eq!(same.missing(true).unwrap(), "after 0 of 120 timed requests");
    }

    #[test]
    fn another_word_is_refused_unless_two_tokens_were_level() {
        let mut heard = heard(1.0, 0.95);
        let difference = |under| Difference { prompt_tokens: 512, pair: 3, token: 7, old: 1, new: 2, under };
        heard.differences.push(difference(0.001));
        assert!(decided(&heard).promoted);
        assert!(said(&decided(&heard), &heard).contains("1 answer(s) part"));
        heard.differences.push(difference(0.4));
        let p = decided(&heard);
        assert!(!p.promoted && p.reasons[0].contains("token 7 of the answer to prompt 3"), "{:?}", p.reasons);
    }

    #[test]
    fn a_request_that_only_warms_is_no_pair_and_a_failure_is_an_error_with_its_words() {
        let mut heard = Heard { lengths: vec![LENGTH], ..Heard::default() };
        let warm =
            Request { side: Side::New, loading: 0, pair: None, block: 0, prompt_tokens: 512, token_ns: Vec::new() };
        heard.take(&serde_json::to_string(&Line::Request(warm)).unwrap()).unwrap();
        let p = decided(&heard);
        assert!(p.reasons.iter().any(|r| r.contains("0 valid pairs")), "{:?}", p.reasons);
        let failed = serde_json::to_string(&Line::Failed { why: "no CUDA driver".into() }).unwrap();
        assert_eq!(heard.take(&failed).unwrap_err().to_string(), "no CUDA driver");
        assert!(heard.take("nonsense").is_err());
    }
}
