//! What a worker and its parent say to each other: a request a line down, an answer a line up.

use engine::generate::KvType;
use harness_spec::units::{Bytes, Nanos};
use harness_spec::{
    Canary, Cell, CellFailure, CellSample, CheckReport, DeviceKey, Phase, Prepared, VariantId, Workload,
};
use serde::{Deserialize, Serialize};
use variants::Limits;

/// Version of these messages. Both ends are one program, so that a difference means a file was replaced under a run.
pub const VERSION: u32 = 3;

/// What a parent asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "call")]
pub enum Request {
    /// [`harness_spec::Target::prepare`].
    Prepare {
        /// The cells.
        cells: Vec<Cell>,
    },
    /// [`harness_spec::Target::prefetch`].
    Prefetch {
        /// The cells.
        cells: Vec<Cell>,
    },
    /// [`harness_spec::Target::announce`].
    Announce {
        /// What follows.
        phase: Phase,
    },
    /// [`harness_spec::Target::check`].
    Check {
        /// The cell.
        cell: Cell,
        /// Of its inputs.
        seed: u64,
    },
    /// [`harness_spec::Target::sample`].
    Sample {
        /// The cell.
        cell: Cell,
        /// How many.
        count: u32,
    },
    /// [`harness_spec::Target::canary`].
    Canary {
        /// Bytes to read.
        working_set: Bytes,
    },
    /// [`harness_spec::Target::rest`], on a scripted clock.
    Rest {
        /// How long.
        pause: Nanos,
    },
    /// [`harness_spec::Target::settle`].
    Settle {
        /// The cell.
        cell: Cell,
    },
    /// Loads a model in the engine, in which cells are timed from then on whose policy says so.
    LoadEngine(EngineRequest),
}

/// A model and the table that it runs by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineRequest {
    /// The GGUF file.
    pub model: std::path::PathBuf,
    /// The table's file; without one every op runs its default.
    pub table: Option<std::path::PathBuf>,
    /// Positions of the context, where not the usual number of them.
    pub context: Option<usize>,
    /// The type that keys and values are kept in.
    pub kv: KvType,
}

/// A workload of a token, as the engine runs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineStep {
    /// The op and its shape.
    pub workload: Workload,
    /// What runs it now.
    pub present: VariantId,
    /// What may run it on weights that lie as they do.
    pub variants: Vec<VariantId>,
    /// Launches in one token.
    pub per_token: u64,
    /// Time of all of them where no two overlap, ns: tells which matter, and no more.
    pub nanos: f64,
}

/// A model in the engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineFacts {
    /// The workloads of a token, those that take most time first.
    pub steps: Vec<EngineStep>,
    /// How prompts are multiplied.
    pub prompts: String,
    /// Positions of the context.
    pub context: u64,
}

/// The first line of a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`].
    pub protocol: u32,
    /// What it measures on; why it cannot otherwise, with the fix.
    pub device: Result<DeviceKey, String>,
    /// Whether its clock and times are scripted.
    pub simulated: bool,
    /// Recorded and not keyed.
    pub facts: std::collections::BTreeMap<String, String>,
    /// What the constraints of spaces see of the device.
    pub limits: Option<Limits>,
}

/// What a call came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer", content = "of")]
pub enum Answer {
    /// Of a `prepare`.
    Prepared(Vec<Result<Prepared, CellFailure>>),
    /// Of a `check`.
    Checked(Result<CheckReport, CellFailure>),
    /// Of a `sample`.
    Sampled(Result<Vec<CellSample>, CellFailure>),
    /// Of a `canary`.
    Canary(Result<Canary, CellFailure>),
    /// Of a model that was to be loaded; why it cannot be, with the fix.
    Engine(Result<EngineFacts, String>),
    /// Of everything else.
    Done,
}

/// An answer with the worker's clocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The answer.
    pub answer: Answer,
    /// [`harness_spec::Target::now`] after the call.
    pub now: Nanos,
    /// [`harness_spec::Target::transfer_time`] after the call.
    pub transfer: Option<Nanos>,
    /// Whether the worker ends now because its device may be damaged.
    pub leaving: bool,
}

impl Answer {
    /// Whether a fault or a hang may have left the device in a state that the next cell would suffer from.
    pub fn damages(&self) -> bool {
        let bad = |f: &CellFailure| matches!(f.stage, harness_spec::Stage::Fault | harness_spec::Stage::Hang);
        match self {
            Answer::Checked(Err(f)) | Answer::Sampled(Err(f)) | Answer::Canary(Err(f)) => bad(f),
            Answer::Prepared(all) => all.iter().any(|r| r.as_ref().is_err_and(bad)),
            Answer::Checked(Ok(_))
            | Answer::Sampled(Ok(_))
            | Answer::Canary(Ok(_))
            | Answer::Engine(_)
            | Answer::Done => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_line_and_read_back_as_they_were() {
        let cell = Cell {
            variant: "op/a[R=1]@cuda".parse().unwrap(),
            workload: "op N=64".parse().unwrap(),
            policy: harness_spec::Policy::COLD_GRAPH,
        };
        for request in [
            Request::Prepare { cells: vec![cell.clone()] },
            Request::Check { cell: cell.clone(), seed: u64::MAX },
            Request::Announce { phase: Phase::RunOff },
            Request::Rest { pause: Nanos(5) },
            Request::Settle { cell: cell.clone() },
            Request::LoadEngine(EngineRequest {
                model: "m.gguf".into(),
                table: None,
                context: Some(20_000),
                kv: KvType::Int8,
            }),
        ] {
            let line = serde_json::to_string(&request).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
        }
        let failure = CellFailure::new(harness_spec::Stage::Compile, "line 1:\nline 2");
        let reply =
            Reply { answer: Answer::Prepared(vec![Err(failure)]), now: Nanos(1), transfer: None, leaving: false };
        let line = serde_json::to_string(&reply).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Reply>(&line).unwrap(), reply);
    }

    #[test]
    fn only_faults_and_hangs_damage_a_device() {
        let of = |stage| Answer::Checked(Err(CellFailure::new(stage, "")));
        assert!(of(harness_spec::Stage::Fault).damages() && of(harness_spec::Stage::Hang).damages());
        assert!(!of(harness_spec::Stage::Check).damages() && !of(harness_spec::Stage::Compile).damages());
    }
}
