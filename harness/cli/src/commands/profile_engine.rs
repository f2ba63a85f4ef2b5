use std::time::Duration;

use anyhow::Context;
use engine::cuda::CudaModel;
use engine::cuda::breakdown::{self, Measured, Plan, TimedStep};
use engine::generate::LoadOptions;
use engine::gguf::Gguf;
use engine::model::Config;
use harness_spec::record::{DeviceCounters, RawBreakdown, RawStep};

use super::print_text;
use crate::args::ProfileEngineArgs;
use crate::exit::{Exit, Outcome};

/// Most times that each prefix of a token is run.
const ROUNDS: usize = 21;
/// Time of one depth after which no further round begins.
const BUDGET: Duration = Duration::from_secs(10);

/// `bench profile-engine`: a line of JSON for each depth.
pub fn run(args: &ProfileEngineArgs) -> Outcome {
    let doing = || format!("reading {}", args.model.display());
    let gguf = Gguf::open(&args.model).with_context(doing)?;
    let config = Config::from_gguf(&gguf).with_context(doing)?;
    let options = LoadOptions { kv: Some(args.kv.into()), ..LoadOptions::default() };
    let mut model = CudaModel::load(&gguf, &config, args.ordinal, &options, args.ctx as usize)
        .context("loading the model on the GPU")?;
    for &depth in &args.depth {
        let plan = Plan {
            depth: depth.max(1) as usize,
            window: args.window as usize,
            windows: args.windows as usize,
            rounds: ROUNDS,
            budget: BUDGET,
        };
        if plan.depth + plan.window > args.ctx as usize {
            return Err(anyhow::anyhow!(
                "a depth of {depth} and {} tokens do not fit a context of {}\nhint: raise --ctx",
                args.window,
                args.ctx
            )
            .into());
        }
        let measured = breakdown::measure(&mut model, &plan).context("timing the steps of a token")?;
        let (_, edges) = model.graph_facts();
        let raw = raw(depth, &plan, measured, edges);
        print_text(&serde_json::to_string(&raw).map_err(anyhow::Error::new)?)?;
    }
    Ok(Exit::Done)
}

fn raw(depth: u64, plan: &Plan, measured: Measured, edges: Option<usize>) -> RawBreakdown {
    let Measured { position, steps, gaps, counters: c } = measured;
    let generated = gaps.iter().map(|gaps| gaps.len() as u64).sum();
    let step = |s: TimedStep| RawStep {
        op: s.op,
        shape: s.key,
        variant: s.variant,
        bytes: s.bytes,
        prefix_ns: s.prefix_nanos,
    };
    RawBreakdown {
        depth,
        position: position as u64,
        window: plan.window as u64,
        programmatic_edges: edges.map(|n| n as u64),
        steps: steps.into_iter().map(step).collect(),
        gaps_ns: gaps,
        counters: DeviceCounters {
            generated,
            tokens: c.tokens,
            graph_launches: c.graph_launches,
            kernel_launches: c.kernel_launches,
            syncs: c.syncs,
            h2d_bytes: c.h2d_bytes,
            d2h_bytes: c.d2h_bytes,
        },
    }
}
