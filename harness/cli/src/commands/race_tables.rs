//! `bench race-tables`: the engine with an old and a new table, both loaded in this process, one request after the other in
//! ABBA blocks. A line of JSON for each request, on standard output, the moment that it is over.
//!
//! A process of its own: a kernel that faults ends it, and not the run that asked.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, anyhow};
use engine::Engine;
use engine::generate::{Event, GenerateRequest, LoadOptions, SamplingParams, TableChoice};
use harness_spec::Nanos;
use serde::{Deserialize, Serialize};

use crate::args::RaceTablesArgs;
use crate::exit::{Exit, Outcome};

/// The old table's word for none.
pub const NO_TABLE: &str = "default";

/// Logits nearer to each other than this share of the distance between the greatest and the mean are level: another order
/// of the same sums decides between them, and neither answer is wrong.
const LEVEL: f64 = 0.02;

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// That of before.
    Old,
    /// The one to be tried.
    New,
}

/// What is said in a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "line")]
pub enum Line {
    /// Both engines are loaded.
    Loaded {
        /// Hash of what the old table decides.
        old: String,
        /// Of what the new one decides.
        new: String,
    },
    /// A request is over.
    Request(Request),
    /// Where the answers of a pair first differ.
    Difference(Difference),
    /// It cannot go on.
    Failed {
        /// Why, with the fix.
        why: String,
    },
}

/// One request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// By which table.
    pub side: Side,
    /// Number of the pair; `null` of a request that only warms.
    pub pair: Option<u64>,
    /// Number of its pair of blocks.
    pub block: u64,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// When each token was there, since the request was made.
    pub token_ns: Vec<Nanos>,
}

/// Where two greedy answers to one prompt part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Number of the pair.
    pub pair: u64,
    /// The first token that differs.
    pub token: u64,
    /// The old table's.
    pub old: u32,
    /// The new table's.
    pub new: u32,
    /// How far the logit of the new table's token lies under the greatest, as a share of the greatest's distance from the
    /// mean, by the old table's kernels on the very same tokens.
    pub under: f64,
}

impl Difference {
    /// Whether both tokens are as likely as can be told.
    pub fn is_level(&self) -> bool {
        self.under <= LEVEL
    }
}

/// English prose that a tokenizer of any model takes: prompts are cut from it, each behind a number of its own.
const PROSE: &str = "The river had risen in the night, and the ferry lay tied to the far bank. Two merchants who had come down \
from the hills with wool and salt sat on their bundles and argued about the price of bread. A boy of the village told \
them that the water would fall by noon, since it always did after rain in the mountains, and that his father would row \
them over for half of what the ferry asked. They laughed, looked at the brown water again, and began to count their coins. \
Beyond the trees the bell of the mill rang, as it did whenever the wheel was stopped, and the noise of the river seemed \
louder for it. By the time the sun stood over the church the boards of the landing could be seen again. ";

/// `bench race-tables`.
pub fn run(args: &RaceTablesArgs) -> Outcome {
    end_with_parent();
    if let Err(e) = race(args) {
        say(&Line::Failed { why: format!("{e:#}") })?;
    }
    Ok(Exit::Done)
}

/// When whoever started this is gone, its end of standard input closes, and nobody wants an answer any more.
fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        std::process::exit(0);
    });
}

fn race(args: &RaceTablesArgs) -> anyhow::Result<()> {
    let mut old = load(args, table_of(&args.old)).context("with the old table")?;
    let mut new = load(args, TableChoice::File(leaked(&args.new))).context("with the new table")?;
    let hashes = [&old, &new].map(|engine| engine.table_hash().to_owned());
    let [hash_old, hash_new] = hashes;
    say(&Line::Loaded { old: hash_old, new: hash_new })?;
    let block = args.block.max(1);
    let most = args.pairs.div_ceil(block);
    for b in 0..most {
        let pairs: Vec<u64> = (b * block..((b + 1) * block).min(args.pairs)).collect();
        let first_new = (b + args.seed).is_multiple_of(2);
        let order = if first_new { [Side::New, Side::Old] } else { [Side::Old, Side::New] };
        let mut answers: [Vec<Vec<u32>>; 2] = Default::default();
        for side in order {
            let engine = if side == Side::Old { &mut old } else { &mut new };
            // The first of a block still sees what the other side left behind, in caches and clocks.
            request(engine, args, side, None, b, args.pairs + b)?;
            for &pair in &pairs {
                let ids = request(engine, args, side, Some(pair), b, pair)?;
                answers[side as usize].push(ids);
            }
        }
        let [of_old, of_new] = answers;
        for ((pair, of_old), of_new) in pairs.iter().zip(of_old).zip(of_new) {
            if let Some(difference) = difference(&mut old, args, *pair, &of_old, &of_new)? {
                say(&Line::Difference(difference))?;
            }
        }
    }
    Ok(())
}

fn table_of(word: &str) -> TableChoice {
    if word == NO_TABLE { TableChoice::Default } else { TableChoice::File(leaked(Path::new(word))) }
}

/// A path that lives as long as this process, which loads two tables and ends.
fn leaked(path: &Path) -> &'static Path {
    Box::leak(PathBuf::from(path).into_boxed_path())
}

fn load(args: &RaceTablesArgs, table: TableChoice) -> anyhow::Result<Engine> {
    let options = LoadOptions {
        device: args.device,
        threads: args.threads.map(|t| t as usize),
        context: Some(args.prompt + args.tokens + 1),
        table,
        ..LoadOptions::default()
    };
    Engine::load(&args.model, &options).with_context(|| format!("loading {}", args.model.display()))
}

/// A prompt of its own for each number, and the same for both sides.
fn prompt(engine: &Engine, args: &RaceTablesArgs, number: u64) -> anyhow::Result<Vec<u32>> {
    let start = engine.tokenizer().encode_prompt(&format!("[{} {number}] {PROSE}", args.seed % 10_000));
    if start.is_empty() {
        return Err(anyhow!("the model's tokenizer makes no token of English prose"));
    }
    Ok(start.iter().copied().cycle().take(args.prompt).collect())
}

/// Makes a request and says what it took; the tokens of its answer.
fn request(
    engine: &mut Engine,
    args: &RaceTablesArgs,
    side: Side,
    pair: Option<u64>,
    block: u64,
    number: u64,
) -> anyhow::Result<Vec<u32>> {
    let request = GenerateRequest {
        prompt: prompt(engine, args, number)?,
        max_tokens: args.tokens,
        sampling: SamplingParams::greedy(),
        stop: Vec::new(),
        ignore_eos: true,
    };
    let (mut ids, mut token_ns) = (Vec::with_capacity(args.tokens), Vec::with_capacity(args.tokens));
    let submit = Instant::now();
    engine.generate(&request, &mut |event| {
        if let Event::Token { id, .. } = event {
            token_ns.push(Nanos::from(submit.elapsed()));
            ids.push(id);
        }
        ControlFlow::Continue(())
    })?;
    say(&Line::Request(Request { side, pair, block, prompt_tokens: args.prompt as u64, token_ns }))?;
    Ok(ids)
}

/// Where two answers first differ, with what the old table's kernels make of the tokens before.
fn difference(
    old: &mut Engine,
    args: &RaceTablesArgs,
    pair: u64,
    of_old: &[u32],
    of_new: &[u32],
) -> anyhow::Result<Option<Difference>> {
    let Some(at) = (0..of_old.len().max(of_new.len())).find(|&i| of_old.get(i) != of_new.get(i)) else {
        return Ok(None);
    };
    let (Some(&a), Some(&b)) = (of_old.get(at), of_new.get(at)) else {
        return Err(anyhow!("the answers of pair {pair} have {} and {} tokens", of_old.len(), of_new.len()));
    };
    let mut ids = prompt(old, args, pair)?;
    ids.extend(&of_old[..at]);
    let under = under(old.feed(&ids, 0)?, b as usize);
    Ok(Some(Difference { pair, token: at as u64, old: a, new: b, under }))
}

/// How far a logit lies under the greatest, as a share of the greatest's distance from the mean. Infinite where that is no
/// number.
fn under(logits: &[f32], id: usize) -> f64 {
    let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mean = logits.iter().map(|&l| f64::from(l)).sum::<f64>() / logits.len() as f64;
    let own = logits.get(id).copied().unwrap_or(f32::NAN);
    let share = f64::from(greatest - own) / (f64::from(greatest) - mean);
    if share.is_finite() { share } else { f64::INFINITY }
}

fn say(line: &Line) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec(line).context("writing a line")?;
    text.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&text).and_then(|()| out.flush()).context("answering whoever started this")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_between_tokens_that_are_level_is_told_from_one_that_is_wrong() {
        let logits = [1.0, 9.0, 8.95, 2.0];
        let of = |id| Difference { pair: 0, token: 0, old: 1, new: id, under: under(&logits, id as usize) };
        assert!(of(2).is_level(), "{:?}", of(2));
        assert!(!of(3).is_level() && of(3).under > 0.5, "{:?}", of(3));
        assert!(!of(7).is_level(), "an id beyond the vocabulary");
        assert_eq!(under(&[f32::NAN, 1.0], 0), f64::INFINITY);
    }

    #[test]
    fn lines_are_read_back_as_they_were() {
        let request =
            Request { side: Side::New, pair: None, block: 3, prompt_tokens: 9, token_ns: vec![Nanos(5), Nanos(7)] };
        for line in [Line::Request(request), Line::Failed { why: "a\nb".into() }] {
            let text = serde_json::to_string(&line).unwrap();
            assert!(!text.contains('\n'));
            assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
        }
    }
}
