//! What each side used of the GPU of the run, and whether our engine kept its promise: a decoded token is the launch of
//! one graph and four bytes back.

use std::collections::BTreeMap;

use engine::generate::DeviceChoice;
use harness_spec::record::{DeviceCounters, Measure, Sample, SideGpu, SideRole};

use crate::machine::gpu::Gpu;
use crate::peers::Side;
use crate::peers::ollama::Loaded;
use crate::session::EnergyUse;

/// What each side used. A server that keeps nothing on a GPU has no entry.
pub async fn of_sides(
    gpu: &Gpu,
    sides: &[Side],
    samples: &[Sample],
    energy: &[EnergyUse],
) -> BTreeMap<SideRole, SideGpu> {
    let mut all = BTreeMap::new();
    for side in sides {
        let loaded = side.client.loaded(&side.model).await;
        if let Some(facts) = of_side(gpu, side, loaded.as_ref(), samples, energy) {
            all.insert(side.role, facts);
        }
    }
    all
}

fn of_side(
    gpu: &Gpu,
    side: &Side,
    loaded: Option<&Loaded>,
    samples: &[Sample],
    energy: &[EnergyUse],
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
        energy_j_per_token: energy_per_token(side.role, energy),
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

/// What a reader must know where a decoded token cost more than the launch of one graph and four bytes back.
///
/// Prompts too short for a batch go through the graph of one token as well, so that their tokens are allowed for.
pub fn broken_promise(label: &str, c: &DeviceCounters, prompt_tokens: u64) -> Option<String> {
    let launches = c.graph_launches > c.generated + prompt_tokens;
    let bytes = c.d2h_bytes > 4 * c.generated;
    (launches || bytes).then(|| {
        format!(
            "finding: {label} launched {} graphs and fetched {} bytes for {} generated tokens; a token should cost one \
             graph and four bytes",
            c.graph_launches, c.d2h_bytes, c.generated
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn energy_is_that_of_the_sides_own_blocks_over_its_own_tokens() {
        let used = |side, joules, tokens| EnergyUse { side, joules, tokens };
        let all =
            [used(SideRole::Engine, 10.0, 100), used(SideRole::Peer, 90.0, 100), used(SideRole::Engine, 20.0, 50)];
        assert_eq!(energy_per_token(SideRole::Engine, &all), Measure::derived(0.2));
        assert_eq!(energy_per_token(SideRole::Peer, &all), Measure::derived(0.9));
        assert_eq!(energy_per_token(SideRole::Engine, &all[1..2]).value, None);
    }

    #[test]
    fn one_graph_and_four_bytes_a_token_keep_the_promise_and_more_break_it() {
        let kept =
            DeviceCounters { generated: 100, tokens: 110, graph_launches: 110, d2h_bytes: 400, ..Default::default() };
        assert_eq!(broken_promise("e", &kept, 10), None);
        let launches = DeviceCounters { graph_launches: 111, ..kept };
        let bytes = DeviceCounters { d2h_bytes: 401, ..kept };
        for broken in [launches, bytes] {
            let said = broken_promise("e", &broken, 10).unwrap();
            assert!(said.contains("100 generated tokens"), "{said}");
        }
    }
}
