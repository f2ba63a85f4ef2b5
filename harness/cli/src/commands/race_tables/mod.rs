//! `bench race-tables`: the engine with an old and a new table, both loaded in this process, one request after the other in
//! turns. A line of JSON for each request, on standard output, the moment that it is over.
//!
//! A process of its own: a kernel that faults ends it, and not the run that asked.

pub mod line;
mod turns;

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, anyhow};
use engine::Engine;
use engine::generate::{Event, GenerateRequest, LoadOptions, SamplingParams, TableChoice};
use engine::gguf::Gguf;
use engine::launched::Launched;
use engine::model::Config;
use harness_spec::Nanos;

use crate::args::RaceTablesArgs;
use crate::exit::{Exit, Outcome};
use line::{Line, Side, under};
pub use turns::FIRST;
use turns::{Answer, Contestant, Turns};

/// The old table's word for none.
pub const NO_TABLE: &str = "default";

/// Requests of a side that warm it before it is timed again take this long together: what the other side left behind, in
/// caches and clocks, is gone by then.
const WARM: Nanos = Nanos(50_000_000);

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
    let lengths = lengths(args)?;
    let longest = lengths.iter().map(|&(prompt, _)| prompt).max().unwrap_or_default();
    let context = longest as usize + args.tokens + 1;
    let turns = Turns { lengths, block: args.block, warm: WARM, same_too: args.same_too, seed: args.seed };
    let mut load = |side: Side| match side {
        Side::Old => load(args, table_of(&args.old), context).context("with the old table"),
        Side::New => load(args, TableChoice::File(leaked(&args.new)), context).context("with the new table"),
    };
    turns::run(&turns, &mut load, &mut say)
}

/// The lengths that the model has room for; the first of them it must have.
fn lengths(args: &RaceTablesArgs) -> anyhow::Result<Vec<(u64, u64)>> {
    if args.prompt.len() != args.pairs.len() || args.prompt.is_empty() {
        return Err(anyhow!("--prompt and --pairs name as many lengths and numbers of pairs, one at least"));
    }
    let in_file = || format!("loading {}", args.model.display());
    let config = Config::from_gguf(&Gguf::open(&args.model).with_context(in_file)?).with_context(in_file)?;
    let all = args.prompt.iter().copied().zip(args.pairs.iter().copied()).enumerate();
    let fits = |prompt: u64| prompt as usize + args.tokens < config.context_train;
    Ok(all.filter(|(i, (prompt, _))| *i == 0 || fits(*prompt)).map(|(_, length)| length).collect())
}

fn table_of(word: &str) -> TableChoice {
    if word == NO_TABLE { TableChoice::Default } else { TableChoice::File(leaked(Path::new(word))) }
}

/// A path that lives as long as this process, which loads a few tables and ends.
fn leaked(path: &Path) -> &'static Path {
    Box::leak(PathBuf::from(path).into_boxed_path())
}

/// The engine with a table.
struct Loaded<'a> {
    engine: Engine,
    args: &'a RaceTablesArgs,
    /// The tokens of the prose.
    prose: Vec<u32>,
}

fn load(args: &RaceTablesArgs, table: TableChoice, context: usize) -> anyhow::Result<Loaded<'_>> {
    let options = LoadOptions {
        device: args.device,
        threads: args.threads.map(|t| t as usize),
        context: Some(context),
        table,
        ..LoadOptions::default()
    };
    let engine = Engine::load(&args.model, &options).with_context(|| format!("loading {}", args.model.display()))?;
    let prose = engine.tokenizer().encode_prompt(PROSE);
    if prose.is_empty() {
        return Err(anyhow!("the model's tokenizer makes no token of English prose"));
    }
    Ok(Loaded { engine, args, prose })
}

impl Loaded<'_> {
    /// A prompt of its own for each number, and the same for both sides.
    fn prompt(&self, tokens: u64, number: u64) -> Vec<u32> {
        let head = self.engine.tokenizer().encode_prompt(&format!("[{} {number}] ", self.args.seed % 10_000));
        head.into_iter().chain(self.prose.iter().copied().cycle()).take(tokens as usize).collect()
    }
}

impl Contestant for Loaded<'_> {
    fn table_hash(&self) -> String {
        self.engine.table_hash().to_owned()
    }

    fn answer(&mut self, prompt: u64, number: u64) -> anyhow::Result<Answer> {
        let tokens = self.args.tokens;
        let request = GenerateRequest {
            prompt: self.prompt(prompt, number),
            max_tokens: tokens,
            sampling: SamplingParams::greedy(),
            stop: Vec::new(),
            ignore_eos: true,
        };
        let mut answer = Answer { ids: Vec::with_capacity(tokens), token_ns: Vec::with_capacity(tokens) };
        let submit = Instant::now();
        self.engine.generate(&request, &mut |event| {
            if let Event::Token { id, .. } = event {
                answer.token_ns.push(Nanos::from(submit.elapsed()));
                answer.ids.push(id);
            }
            ControlFlow::Continue(())
        })?;
        Ok(answer)
    }

    fn launched(&mut self, prompt: u64) -> anyhow::Result<Launched> {
        Ok(self.engine.launched(prompt as usize)?)
    }

    fn under(&mut self, prompt: u64, number: u64, before: &[u32], id: u32) -> anyhow::Result<f64> {
        let mut ids = self.prompt(prompt, number);
        ids.extend(before);
        Ok(under(self.engine.feed(&ids, 0)?, id as usize))
    }
}

fn say(line: &Line) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec(line).context("writing a line")?;
    text.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&text).and_then(|()| out.flush()).context("answering whoever started this")
}
