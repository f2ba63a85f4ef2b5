//! The timed part: blocks of requests in their order, every answer kept.

pub mod bar;
pub mod log;
pub mod trials;

use harness_measure::schedule::other;
use harness_measure::{Block, PlannedRun};
use harness_spec::record::{BlockTelemetry, DropReason, Sample, SampleStatus, SideRole};
use tokio_util::sync::CancellationToken;

use crate::ceiling::CeilingMeter;
use crate::machine::gpu::Gpu;
use crate::machine::{process, telemetry};
use crate::model::Model;
use crate::peers::stream::{Clock, End, Reply};
use crate::peers::{Request, Side};
use crate::plan::RunPlan;
use log::SampleLog;

/// How the timed part ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every planned request was made.
    Complete,
    /// Ctrl-C.
    Interrupted,
    /// A side was lost; the message says which and why.
    Lost(String),
}

/// CPU time that a side used while it was not its turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IdleUse {
    /// The side that should have been idle.
    pub side: SideRole,
    /// Share of one core over the other's block.
    pub share_of_core: f64,
}

/// Energy that a GPU used while one side worked on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EnergyUse {
    /// The side whose turn it was.
    pub side: SideRole,
    /// Joules over its block, of the whole board.
    pub joules: f64,
    /// How long the block took, s.
    pub seconds: f64,
    /// Tokens that it generated in the block.
    pub tokens: u64,
}

/// How long the board is watched while nothing runs, before the runs and after them.
const IDLE: std::time::Duration = std::time::Duration::from_secs(1);

/// The timed part and what it has gathered.
pub struct Session<'a> {
    /// How to run.
    pub plan: &'a RunPlan,
    /// Renders prompts.
    pub model: &'a dyn Model,
    /// One side or two.
    pub sides: &'a [Side],
    /// The clock of the record.
    pub clock: Clock,
    /// Ctrl-C.
    pub cancel: CancellationToken,
    /// Where samples go as they are made.
    pub log: SampleLog,
    /// Every sample so far.
    pub samples: Vec<Sample>,
    /// The machine before each block.
    pub telemetry: Vec<BlockTelemetry>,
    /// What idle sides used.
    pub idle: Vec<IdleUse>,
    /// The GPU of the run, where it has one.
    pub gpu: Option<&'a Gpu>,
    /// Reads the memory around the timed blocks, where that is asked for.
    pub reads: Option<&'a mut CeilingMeter>,
    /// What the GPU used in each timed block that was completed.
    pub energy: Vec<EnergyUse>,
    /// What the GPU drew while every model was loaded and nothing ran, W: before the runs and after them.
    pub idle_w: Vec<f64>,
    failed: u64,
}

impl<'a> Session<'a> {
    /// Ready to run.
    pub fn new(
        plan: &'a RunPlan,
        model: &'a dyn Model,
        sides: &'a [Side],
        clock: Clock,
        cancel: CancellationToken,
        log: SampleLog,
    ) -> Self {
        Session {
            plan,
            model,
            sides,
            clock,
            cancel,
            log,
            samples: Vec::new(),
            telemetry: Vec::new(),
            idle: Vec::new(),
            gpu: None,
            reads: None,
            energy: Vec::new(),
            idle_w: Vec::new(),
            failed: 0,
        }
    }

    /// Watches a GPU between the blocks, and reads the memory of the processor.
    #[must_use]
    pub fn watching(self, gpu: Option<&'a Gpu>, reads: Option<&'a mut CeilingMeter>) -> Self {
        Session { gpu, reads, ..self }
    }

    /// Makes every request of `warmup` and then of `blocks`, one at a time.
    ///
    /// # Errors
    /// A prompt that the template refuses, or a sample that cannot be written. What a server does wrong is no error here:
    /// it is in the samples and in [`Ended`].
    pub async fn run(&mut self, warmup: &[Block], blocks: &[Block]) -> anyhow::Result<Ended> {
        self.watch_idle().await;
        for block in warmup {
            match self.block(block, Some(DropReason::Warmup), &indicatif::ProgressBar::hidden()).await? {
                Ended::Complete => {}
                other => return Ok(other),
            }
        }
        let total = blocks.iter().map(|b| b.runs.len() as u64).sum();
        let bar = crate::progress::steps("measuring", total);
        let mut ended = Ended::Complete;
        for block in blocks {
            self.read(Some(block.index));
            let before = bar.position();
            ended = self.block(block, None, &bar).await?;
            if ended != Ended::Complete {
                break;
            }
            crate::progress::line_at_tenth(&bar, "requests", before);
        }
        bar.finish_and_clear();
        if ended == Ended::Complete {
            self.read(None);
            self.watch_idle().await;
        }
        Ok(ended)
    }

    /// Power of the idle board, where it counts energy.
    async fn watch_idle(&mut self) {
        let Some((gpu, before)) = self.gpu.and_then(|gpu| Some((gpu, gpu.energy_j()?))) else { return };
        let begun = self.clock.now();
        tokio::select! {
            () = self.cancel.cancelled() => return,
            () = tokio::time::sleep(IDLE) => {}
        }
        let seconds = (self.clock.now() - begun).secs();
        self.idle_w.extend(Gpu::used(Some(before), gpu.energy_j()).value.map(|joules| joules / seconds));
    }

    fn read(&mut self, next: Option<u64>) {
        if let Some(meter) = &mut self.reads {
            meter.between(next);
        }
    }

    async fn block(
        &mut self,
        block: &Block,
        dropped: Option<DropReason>,
        bar: &indicatif::ProgressBar,
    ) -> anyhow::Result<Ended> {
        self.telemetry.push(telemetry::read(block.index, block.side, self.clock.now(), self.gpu));
        let sides = self.sides;
        let side = sides.iter().find(|s| s.role == block.side).expect("the schedule names only sides of this session");
        let idle = sides.iter().find(|s| s.role == other(block.side));
        let idle_cpu = |s: Option<&Side>| s.and_then(|s| s.pid).and_then(process::cpu_ns);
        let (cpu_before, energy_before) = (idle_cpu(idle), self.gpu.and_then(Gpu::energy_j));
        let (begun, first) = (self.clock.now(), self.samples.len());
        for run in &block.runs {
            let ended = self.request(side, block.index, run, dropped).await?;
            bar.inc(1);
            if ended != Ended::Complete {
                return Ok(ended);
            }
        }
        if let (Some(idle), Some(before), Some(after)) = (idle, cpu_before, idle_cpu(idle)) {
            let wall = (self.clock.now() - begun).0.max(1) as f64;
            self.idle.push(IdleUse { side: idle.role, share_of_core: after.saturating_sub(before) as f64 / wall });
        }
        if let Some(gpu) = self.gpu {
            let used = Gpu::used(energy_before, gpu.energy_j());
            // Warm-up heats the board and is no part of the result.
            if let (Some(joules), None) = (used.value, dropped) {
                let tokens = self.samples[first..].iter().map(|s| s.generated_tokens).sum();
                let seconds = (self.clock.now() - begun).secs();
                self.energy.push(EnergyUse { side: block.side, joules, seconds, tokens });
            }
            let telemetry = self.telemetry.last_mut().expect("this block's was pushed above");
            telemetry.gpu.as_mut().expect("it was read from the same GPU").energy_j = used;
        }
        Ok(Ended::Complete)
    }

    async fn request(
        &mut self,
        side: &Side,
        block: u64,
        run: &PlannedRun,
        dropped: Option<DropReason>,
    ) -> anyhow::Result<Ended> {
        if self.cancel.is_cancelled() {
            return Ok(Ended::Interrupted);
        }
        let prompt = &self.plan.suite.prompts[run.prompt];
        let rendered = self.model.render(&prompt.text, &run.nonce)?;
        let request = Request {
            prompt: &rendered.text,
            length: run.length,
            seed: self.plan.seed,
            context: self.plan.context,
            threads: self.plan.threads,
            ignore_eos: crate::peers::ignores_eos(self.sides),
        };
        let reply = side.client.generate(&side.model, &request, &self.clock, &self.cancel).await;
        let mut sample = Sample {
            seq: self.samples.len() as u64,
            pair: run.pair,
            block,
            side: side.role,
            prompt: prompt.id.clone(),
            asked_tokens: run.length,
            nonce: run.nonce.clone(),
            submit_ns: reply.submit,
            token_ns: reply.token_ns.clone(),
            one_token_per_chunk: reply.one_token_per_chunk,
            end_ns: reply.end_ns,
            prompt_tokens: rendered.ids.len() as u64,
            generated_tokens: reply.generated,
            text: reply.text.clone(),
            status: status(&reply),
            server: reply.server.clone(),
            dropped,
            // Read after the answer, outside every timed interval.
            rss_bytes: side.pid.and_then(process::rss_bytes),
        };
        // What is wrong with a run by itself is known now; what is wrong with its pair only later.
        sample.dropped = harness_measure::pairs::fault(&sample);
        self.log.append(&sample)?;
        self.samples.push(sample);
        match reply.end {
            End::Length | End::Stop => Ok(Ended::Complete),
            End::Interrupted => Ok(Ended::Interrupted),
            End::Failed(e) => Ok(self.failure(side, &e.to_string(), dropped.is_some()).await),
        }
    }

    /// Whether a run goes on after a failed request: only if the server still answers, it was no warm-up, and so few have
    /// failed that there can be a headline yet.
    async fn failure(&mut self, side: &Side, error: &str, warmup: bool) -> Ended {
        self.failed += 1;
        let lost = |why: &str| Ended::Lost(format!("{}: {error}{why}", side.label));
        if warmup {
            return lost("");
        }
        let planned = self.plan.runs * self.sides.len() as u64;
        if self.failed as f64 > harness_measure::pairs::MOST_FAILED * planned as f64 {
            return lost(&format!("\nhint: {} request(s) failed, more than 2 % of {planned}", self.failed));
        }
        if !side.client.alive().await {
            return lost("\nhint: the server no longer answers");
        }
        eprintln!("warning: {}: {error}", side.label);
        Ended::Complete
    }
}

fn status(reply: &Reply) -> SampleStatus {
    match &reply.end {
        End::Length => SampleStatus::Length,
        End::Stop => SampleStatus::Stop,
        End::Failed(e) => SampleStatus::Failed { error: e.to_string() },
        End::Interrupted => SampleStatus::Interrupted,
    }
}
