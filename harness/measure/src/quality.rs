//! The quality gate (SPEC.md H18, W15): which answers of a run are judged, and whether what was found of them will do.

use std::collections::BTreeMap;

use harness_spec::record::{Check, DropReason, Quality, Sample, SideRole};

/// The answers to one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered<'a> {
    /// The sample of each side that took part, the engine first.
    pub samples: Vec<&'a Sample>,
}

/// Of the runs that count, so many requests whose answers are to be judged: longer answers before shorter, later
/// before earlier, and one of each prompt before a second of any.
pub fn chosen<'a>(samples: &'a [Sample], reasons: &[Option<DropReason>], most: usize) -> Vec<Answered<'a>> {
    let mut by_pair: BTreeMap<u64, Vec<&Sample>> = BTreeMap::new();
    for (sample, _) in samples.iter().zip(reasons).filter(|(_, reason)| reason.is_none()) {
        by_pair.entry(sample.pair).or_default().push(sample);
    }
    let mut requests: Vec<Vec<&Sample>> = by_pair.into_values().collect();
    requests.sort_by_key(|of| std::cmp::Reverse((of[0].asked_tokens, of[0].pair)));
    let mut of_prompt: BTreeMap<&str, usize> = BTreeMap::new();
    // The how-manieth of its prompt each is. The sort is stable, so what was preferred stays so.
    let mut ranked: Vec<(usize, Vec<&Sample>)> = requests
        .into_iter()
        .map(|of| {
            let rank = of_prompt.entry(of[0].prompt.as_str()).or_default();
            *rank += 1;
            (*rank, of)
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    let mut out: Vec<Answered<'a>> = ranked.into_iter().take(most).map(|(_, samples)| Answered { samples }).collect();
    out.iter_mut().for_each(|a| a.samples.sort_by_key(|s| s.side));
    out
}

/// What must hold of a quality, with the figures. `label` names a side. Too few tokens of a side are neither right
/// nor wrong: a sound model may end its answers soon.
pub fn checks(q: &Quality, label: impl Fn(SideRole) -> String) -> Vec<Check> {
    let (t, b) = (&q.text, &q.bounds);
    let change = t.perplexity / t.reference_perplexity - 1.0;
    let mut out = vec![Check {
        name: format!("quality on a fixed text: {} against the {}", label(SideRole::Engine), q.reference),
        // Written so that a NaN fails.
        passed: Some(t.tokens > 0 && t.mean_kl <= b.mean_kl && change.abs() <= b.perplexity),
        found: format!(
            "mean KL {:.5} nat, at most {}; perplexity {:.3} for {:.3}, {:+.2} %, at most {} %; the same token first at {:.1} % \
             of {}",
            t.mean_kl,
            b.mean_kl,
            t.perplexity,
            t.reference_perplexity,
            change * 100.0,
            b.perplexity * 100.0,
            t.top1_agreement * 100.0,
            t.tokens
        ),
    }];
    for side in [SideRole::Engine, SideRole::Peer] {
        let own = || q.answers.iter().filter(|a| a.side == side);
        if own().next().is_none() {
            continue;
        }
        let sum = |of: fn(&harness_spec::record::AnswerQuality) -> u64| own().map(of).sum::<u64>();
        let (count, tokens, beyond) = (own().count(), sum(|a| a.tokens), sum(|a| a.beyond));
        let passed = match (beyond, tokens < b.least_tokens) {
            (0, true) => None,
            (beyond, _) => Some(beyond == 0),
        };
        let needed = match passed {
            None => format!("too little to judge, {} are needed", b.least_tokens),
            Some(_) => format!("{} at least", b.least_tokens),
        };
        out.push(Check {
            name: format!("greedy answers of {}: each token is the {}'s choice or level with it", label(side), q.reference),
            passed,
            found: format!(
                "{tokens} tokens of {count} answer{}, {needed}; {} are another than its choice, {beyond} beyond {} % under it, the \
                 farthest {:.2} %",
                if count == 1 { "" } else { "s" },
                sum(|a| a.others),
                b.level * 100.0,
                own().map(|a| a.farthest).fold(0.0, f64::max) * 100.0
            ),
        });
    }
    let parted: Vec<String> = q
        .agreements
        .iter()
        .map(|a| match a.apart {
            Some(apart) => format!("{} of {} ({:.2} % apart)", a.same, a.tokens, apart * 100.0),
            None => format!("{} of {}", a.same, a.tokens),
        })
        .collect();
    if !parted.is_empty() {
        out.push(Check {
            name: "greedy answers of both sides part only where two tokens are level".to_owned(),
            passed: Some(q.agreements.iter().all(|a| a.apart.is_none_or(|apart| apart <= b.level))),
            found: format!("tokens that both begin with: {}", parted.join(", ")),
        });
    }
    out
}

/// What the checks of a quality come to: whether all hold, `None` where too little is known and nothing failed.
pub fn passed(checks: &[Check]) -> Option<bool> {
    match checks.iter().any(Check::failed) {
        true => Some(false),
        false => checks.iter().all(|c| c.passed.is_some()).then_some(true),
    }
}

/// Why these checks forbid a verdict; `None` where all hold.
pub fn withhold(checks: &[Check]) -> Option<String> {
    let why = match passed(checks) {
        Some(true) => return None,
        Some(false) => "the quality gate failed",
        None => "the quality is not known",
    };
    let of_those: Vec<String> =
        checks.iter().filter(|c| c.passed == passed(checks)).map(|c| format!("{}: {}", c.name, c.found)).collect();
    Some(format!("{why}: {}", of_those.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::run;
    use harness_spec::record::SideRole::{Engine, Peer};
    use harness_spec::record::{AnswerAgreement, AnswerQuality, QualityBounds, TextQuality};

    #[test]
    fn each_prompt_is_judged_once_before_any_twice_and_what_was_dropped_never() {
        let mut samples = Vec::new();
        for (pair, (prompt, asked)) in [("a", 50), ("b", 50), ("a", 200), ("a", 50), ("c", 50)].into_iter().enumerate()
        {
            for side in [Peer, Engine] {
                let mut s = run(side, pair as u64, 5000, &[1000; 49]);
                (s.prompt, s.asked_tokens) = (prompt.to_owned(), asked);
                samples.push(s);
            }
        }
        let mut reasons = vec![None; samples.len()];
        reasons[8..].fill(Some(DropReason::UnequalTokens));
        let pairs = |most| -> Vec<u64> { chosen(&samples, &reasons, most).iter().map(|a| a.samples[0].pair).collect() };
        assert_eq!(pairs(2), [2, 1]);
        assert_eq!(pairs(9), [2, 1, 3, 0]);
        let first = chosen(&samples, &reasons, 1);
        assert_eq!(first[0].samples.iter().map(|s| s.side).collect::<Vec<_>>(), [Engine, Peer]);
    }

    fn good() -> Quality {
        let answer = |side| AnswerQuality {
            pair: 1,
            prompt: "a".into(),
            side,
            tokens: 40,
            others: 2,
            beyond: 0,
            farthest: 0.01,
        };
        Quality {
            reference: "exact path on cpu".into(),
            bounds: QualityBounds { mean_kl: 0.01, perplexity: 0.005, level: 0.02, least_tokens: 32 },
            text: TextQuality {
                tokens: 255,
                perplexity: 10.01,
                reference_perplexity: 10.0,
                mean_kl: 0.002,
                top1_agreement: 0.98,
            },
            answers: vec![answer(Engine), answer(Peer)],
            agreements: vec![AnswerAgreement { pair: 1, prompt: "a".into(), same: 30, tokens: 40, apart: Some(0.01) }],
            passed: Some(true),
        }
    }

    fn failed(q: &Quality) -> Vec<usize> {
        let all = checks(q, |side| format!("{side:?}"));
        assert_eq!(passed(&all), Some(!all.iter().any(Check::failed)));
        assert_eq!(withhold(&all).is_some(), all.iter().any(Check::failed));
        all.iter().enumerate().filter(|(_, c)| c.failed()).map(|(i, _)| i).collect()
    }

    #[test]
    fn each_bound_that_is_passed_fails_its_own_check_and_is_named() {
        assert!(failed(&good()).is_empty());
        let broken = |change: fn(&mut Quality)| {
            let mut q = good();
            change(&mut q);
            failed(&q)
        };
        assert_eq!(broken(|q| q.text.mean_kl = 0.011), [0]);
        assert_eq!(broken(|q| q.text.mean_kl = f64::NAN), [0]);
        assert_eq!(broken(|q| q.text.perplexity = 9.94), [0]);
        assert_eq!(broken(|q| q.text.tokens = 0), [0]);
        assert_eq!(broken(|q| q.answers[0].beyond = 1), [1]);
        assert_eq!(broken(|q| q.agreements[0].apart = Some(0.03)), [3]);
        assert!(broken(|q| q.agreements[0].apart = None).is_empty());
        let mut q = good();
        q.answers[1].beyond = 7;
        let why = withhold(&checks(&q, |side| format!("{side:?}"))).unwrap();
        assert!(
            why.starts_with("the quality gate failed: greedy answers of Peer") && why.contains("7 beyond 2 %"),
            "{why}"
        );
    }
    #[test]
    fn short_answers_are_too_little_to_judge_which_withholds_a_verdict_and_is_no_failure() {
        let of = |q: &Quality| checks(q, |side| format!("{side:?}"));
        let mut q = good();
        q.answers[1].tokens = 31;
        let short = of(&q);
        assert_eq!(short.iter().map(|c| c.passed).collect::<Vec<_>>(), [Some(true), Some(true), None, Some(true)]);
        assert_eq!(passed(&short), None);
        let why = withhold(&short).unwrap();
        assert!(why.starts_with("the quality is not known: greedy answers of Peer"), "{why}");
        assert!(why.contains("31 tokens of 1 answer, too little to judge, 32 are needed") && !why.contains("failed"));
        // A token that does not belong is one too many, however short the answer is, and is what is told.
        q.answers[0].beyond = 1;
        assert_eq!(passed(&of(&q)), Some(false));
        let why = withhold(&of(&q)).unwrap();
        assert!(why.starts_with("the quality gate failed") && !why.contains("Peer"), "{why}");
        (q.answers[0].beyond, q.answers[1].beyond) = (0, 1);
        assert_eq!(of(&q)[2].passed, Some(false));
    }
}
