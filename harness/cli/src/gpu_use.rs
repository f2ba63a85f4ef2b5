//! What each side used of the GPU of the run, and whether our engine kept its promise: a decoded token is the launch of
//! one graph and four bytes back.

use std::collections::BTreeMap;
use std::path::Path;

use engine::cuda::single_tokens;
use engine::cuda::vram::VramNeed;
use engine::generate::DeviceChoice;
use engine::gguf::Gguf;
use engine::model::Config;
use harness_spec::record::{Check, DeviceCounters, Measure, Sample, SideGpu, SideRole};

use crate::machine::gpu::Gpu;
use crate::model::Model;
use crate::peers::Side;
use crate::peers::ollama::Loaded;
use crate::plan::RunPlan;
use crate::session::EnergyUse;

/// What each side used. A server that keeps nothing on a GPU has no entry.
pub async fn of_sides(
    gpu: &Gpu,
    plan: &RunPlan,
    model: &dyn Model,
    sides: &[Side],
    samples: &[Sample],
    energy: &[EnergyUse],
    idle_w: &[f64],
) -> BTreeMap<SideRole, SideGpu> {
    let mut all = BTreeMap::new();
    for side in sides {
        let loaded = side.client.loaded(&side.model).await;
        if let Some(mut facts) = of_side(gpu, side, loaded.as_ref(), samples, energy, idle_w) {
            // What a server that is not ours needs beforehand is not known.
            if side.device.is_some() {
                facts.vram_need_bytes = model.path().map(|file| need(file, plan));
            }
            all.insert(side.role, facts);
        }
    }
    all
}

/// What the engine says beforehand that the model takes, as `edgellm info` does.
fn need(file: &Path, plan: &RunPlan) -> Measure {
    let need = Gguf::open(file).map_err(|e| e.to_string()).and_then(|gguf| {
        let config = Config::from_gguf(&gguf).map_err(|e| e.to_string())?;
        Ok(VramNeed::of(&config, gguf.tensors(), plan.context as usize, plan.kv).total())
    });
    need.map_or_else(Measure::missing, |bytes| Measure::derived(bytes.0 as f64))
}

fn of_side(
    gpu: &Gpu,
    side: &Side,
    loaded: Option<&Loaded>,
    samples: &[Sample],
    energy: &[EnergyUse],
    idle_w: &[f64],
) -> Option<SideGpu> {
    let vram = loaded.and_then(|l| l.size_vram);
    // A server that says that it holds nothing on a GPU computes on the processor; one that says nothing may use it.
    if side.device == Some(DeviceChoice::Cpu) || vram == Some(0) {
        return None;
    }
    let counters = loaded.and_then(|l| l.engine.as_ref()?.counters);
    Some(SideGpu {
        device: gpu.device(),
        name: gpu.name().to_owned(),
        driver: gpu.driver(),
        vram_bytes: vram.map_or_else(
            || Measure::missing("the server does not say what it holds on the GPU"),
            |bytes| Measure::measured(bytes as f64),
        ),
        vram_need_bytes: None,
        energy_j_per_token: energy_per_token(side.role, energy),
        energy_net_j_per_token: Some(net_energy_per_token(side.role, energy, idle_w)),
        counters: counters.map(|c| DeviceCounters {
            generated: samples.iter().filter(|s| s.side == side.role).map(|s| s.generated_tokens).sum(),
            tokens: c.tokens,
            graph_launches: c.graph_launches,
            kernel_launches: c.kernel_launches,
            syncs: c.syncs,
            h2d_bytes: c.h2d_bytes,
            d2h_bytes: c.d2h_bytes,
        }),
    })
}

/// Joules over the blocks of a side ÷ tokens generated in them.
fn energy_per_token(side: SideRole, energy: &[EnergyUse]) -> Measure {
    let own = || energy.iter().filter(|u| u.side == side);
    let (joules, tokens): (f64, u64) = (own().map(|u| u.joules).sum(), own().map(|u| u.tokens).sum());
    match tokens {
        0 => Measure::missing("the board counts no energy, or no block was completed"),
        tokens => Measure::derived(joules / tokens as f64),
    }
}

/// Least time and tokens over which the net energy is taken (M18): the counter of a board moves in steps.
const LEAST_SECONDS: f64 = 10.0;
const LEAST_TOKENS: u64 = 1000;

/// The same less what the idle board draws in that time.
fn net_energy_per_token(side: SideRole, energy: &[EnergyUse], idle_w: &[f64]) -> Measure {
    let own = || energy.iter().filter(|u| u.side == side);
    let (joules, seconds): (f64, f64) = (own().map(|u| u.joules).sum(), own().map(|u| u.seconds).sum());
    let tokens: u64 = own().map(|u| u.tokens).sum();
    if tokens < LEAST_TOKENS || seconds < LEAST_SECONDS {
        return Measure::missing(format!(
            "{tokens} tokens in {seconds:.1} s: net energy takes {LEAST_TOKENS} tokens and {LEAST_SECONDS:.0} s"
        ));
    }
    // One reading before the runs and one after them.
    if idle_w.len() < 2 {
        return Measure::missing("the power of the idle board is not known");
    }
    let idle = idle_w.iter().sum::<f64>() / idle_w.len() as f64;
    Measure::derived((joules - idle * seconds) / tokens as f64)
}

/// What must hold of our engine's counters over the whole run, warm-up and prompts included: a generated token is at most
/// one graph and four bytes back.
pub fn checks(sides: &[Side], gpus: &BTreeMap<SideRole, SideGpu>, samples: &[Sample]) -> Vec<Check> {
    let of_side = |side: &Side| {
        let counters = gpus.get(&side.role)?.counters?;
        let prompts: Vec<u64> = samples.iter().filter(|s| s.side == side.role).map(|s| s.prompt_tokens).collect();
        Some(promise(&side.label, &counters, &prompts))
    };
    sides.iter().filter_map(of_side).collect()
}

/// Tokens of prompts that are too few for a chunk go through the graph of one token as well, so that they are allowed for;
/// an engine that launched no kernel beside its graphs took all prompts that way.
fn promise(label: &str, c: &DeviceCounters, prompts: &[u64]) -> Check {
    let single: u64 = match c.kernel_launches {
        0 => prompts.iter().sum(),
        _ => prompts.iter().map(|&p| single_tokens(p)).sum(),
    };
    Check {
        name: format!("{label}: a generated token is at most one graph and four bytes back"),
        passed: Some(c.generated > 0 && c.graph_launches <= c.generated + single && c.d2h_bytes <= 4 * c.generated),
        found: format!(
            "{} graphs and {} bytes back for {} generated tokens and {single} of prompts; {} bytes sent, {} waits, {} kernels \
             for prompts",
            c.graph_launches, c.d2h_bytes, c.generated, c.h2d_bytes, c.syncs, c.kernel_launches
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn energy_is_that_of_the_sides_own_blocks_over_its_own_tokens() {
        let used = |side, joules, tokens| EnergyUse { side, joules, seconds: 6.0, tokens };
        let all =
            [used(SideRole::Engine, 900.0, 1000), used(SideRole::Peer, 90.0, 100), used(SideRole::Engine, 600.0, 500)];
        assert_eq!(energy_per_token(SideRole::Engine, &all), Measure::derived(1.0));
        assert_eq!(energy_per_token(SideRole::Peer, &all), Measure::derived(0.9));
        assert_eq!(energy_per_token(SideRole::Engine, &all[1..2]).value, None);
        // 1500 J less 50 W over 12 s.
        assert_eq!(net_energy_per_token(SideRole::Engine, &all, &[40.0, 60.0]), Measure::derived(0.6));
    }

    #[test]
    fn a_short_window_or_an_unknown_idle_power_has_no_net_energy_and_says_why() {
        let used = |seconds, tokens| [EnergyUse { side: SideRole::Engine, joules: 900.0, seconds, tokens }];
        for (energy, idle, why) in [
            (used(9.0, 2000), vec![1.0, 1.0], "2000 tokens in 9.0 s"),
            (used(20.0, 999), vec![1.0, 1.0], "999 tokens"),
            (used(20.0, 2000), vec![1.0], "idle board"),
        ] {
            let net = net_energy_per_token(SideRole::Engine, &energy, &idle);
            assert!(net.value.is_none() && net.reason.as_ref().unwrap().contains(why), "{net:?}");
        }
    }

    #[test]
    fn one_graph_and_four_bytes_a_token_keep_the_promise_and_more_break_it() {
        // Two prompts leave 8 and 0 tokens of their chunks for the graph of one token.
        let prompts = [520, 40];
        let kept = DeviceCounters {
            generated: 100,
            tokens: 108,
            graph_launches: 108,
            kernel_launches: 9,
            d2h_bytes: 400,
            ..Default::default()
        };
        assert!(!promise("e", &kept, &prompts).failed());
        for broken in [
            DeviceCounters { graph_launches: 109, ..kept },
            DeviceCounters { d2h_bytes: 401, ..kept },
            DeviceCounters { generated: 0, ..kept },
        ] {
            let check = promise("e", &broken, &prompts);
            assert!(check.failed() && check.found.contains("8 of prompts"), "{check:?}");
        }
        // Without chunks all of a prompt goes through it.
        assert!(!promise("e", &DeviceCounters { kernel_launches: 0, graph_launches: 660, ..kept }, &prompts).failed());
    }
}
