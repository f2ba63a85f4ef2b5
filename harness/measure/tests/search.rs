//! Strategies on spaces as GPUs have them (R16): several kernels with different tunables, cliffs, waves, compile failures
//! and chance.

use harness_measure::tune::{Candidate, Known, STRATEGIES, Space, StrategyKind, candidates, play};
use harness_spec::{Policy, VariantId};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One kernel of a synthetic space: its tunables with their values.
type Axes = Vec<(&'static str, Vec<i64>)>;

fn variants(kernels: &[Axes]) -> Vec<VariantId> {
    let mut out = Vec::new();
    for (k, axes) in kernels.iter().enumerate() {
        let mut points: Vec<Vec<i64>> = vec![vec![]];
        for (_, values) in axes {
            points = points.iter().flat_map(|p| values.iter().map(|v| [p.as_slice(), &[*v]].concat())).collect();
        }
        for p in points {
            let tunables = axes.iter().zip(p).map(|((name, _), v)| ((*name).to_owned(), v)).collect();
            out.push(VariantId { op: "gemv_q4_0".into(), kernel: format!("k{k}"), tunables, backend: "cuda".into() });
        }
    }
    out
}

/// Ten kernels of a GEMV family, 1100 to 1300 configurations.
fn kernels() -> Vec<Axes> {
    let p = |n: u32| (0..n).map(|i| 1i64 << i).collect::<Vec<_>>();
    let warps = || ("WARPS", vec![1, 2, 4, 8, 16]);
    vec![
        vec![("BLOCK", vec![64, 128, 256, 512, 1024])],
        vec![("RPW", p(5)), warps(), ("VEC", p(3))],
        vec![("RPW", p(5)), warps(), ("UNROLL", p(4)), ("BPS", vec![1, 2, 4])],
        vec![("RPW", p(4)), warps(), ("UNROLL", p(4)), ("STAGES", vec![1, 2, 3, 4])],
        vec![("RPB", p(6)), ("SPLIT", p(4)), ("VEC", p(3))],
        vec![("RPW", p(4)), warps(), ("UNROLL", p(3))],
        vec![("TILE", vec![16, 32, 64, 128]), ("STAGES", vec![2, 3, 4]), ("WARPS", vec![4, 8])],
        vec![("RPW", p(5)), warps(), ("BPS", vec![1, 2, 3, 4, 6]), ("VEC", vec![1, 2])],
        vec![("SPLIT", p(6)), warps()],
        vec![("RPW", p(3)), ("PREFETCH", vec![0, 1, 2])],
    ]
}

/// A space: per kernel a level, occupancy by threads and registers, whole waves over 132 processors, spills, failures to
/// compile, and chance.
fn gpu_space(seed: u64, rows: f64) -> Space {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let ids = variants(&kernels());
    let groups = kernels().len();
    let level: Vec<f64> = (0..groups).map(|_| rng.random_range(1.0f64..2.2)).collect();
    let regs: Vec<f64> = (0..groups).map(|_| rng.random_range(24.0..40.0)).collect();
    let want: Vec<f64> = (0..groups).map(|_| rng.random_range(3.0..6.5)).collect();
    let candidates: Vec<Candidate> = candidates(&ids);
    let known = candidates
        .iter()
        .map(|c| {
            let t = &c.variant.tunables;
            let get = |n: &str, or: i64| *t.get(n).unwrap_or(&or) as f64;
            let (rpw, warps) = (get("RPW", 1), t.get("BLOCK").map_or(get("WARPS", 4), |b| *b as f64 / 32.0));
            let deep = get("UNROLL", 1) * get("VEC", 1) * (1.0 + 0.5 * get("PREFETCH", 0)) * get("STAGES", 1).sqrt();
            let registers = regs[c.group] + 3.0 * rpw * deep.sqrt() * 2.0 + 4.0 * deep;
            if registers > 200.0 || rpw * deep > 100.0 {
                return Known::Invalid;
            }
            let resident = (65536.0 / (registers.max(24.0) * 32.0 * warps)).floor().min(64.0 / warps).min(32.0);
            if resident < 1.0 {
                return Known::Invalid;
            }
            let per_block = (rpw * warps).max(get("RPB", 1)).max(get("TILE", 1)) / get("SPLIT", 1);
            let blocks = (rows / per_block).max(1.0);
            let waves = blocks / (132.0 * resident.min(get("BPS", 32)));
            let quantised = if waves < 1.0 { 1.0 / waves.max(0.2) } else { waves.ceil() / waves };
            // Bytes in flight: enough of them saturate the memory.
            let flight = (resident * warps * rpw.sqrt() * deep).log2();
            let starved = 1.0 + 0.09 * (want[c.group] - flight).max(0.0).powi(2);
            let spills = if registers > 128.0 { 1.35 } else { 1.0 };
            let split = 1.0 + 0.03 * get("SPLIT", 1).log2();
            let luck = 1.0 + rng.random_range(0.0..0.03);
            Known::Time(5000.0 * level[c.group] * quantised.powf(0.6) * starved * spills * split * luck)
        })
        .collect();
    let workload = "gemv_q4_0 K=4096 N=4096".parse().unwrap();
    Space { workload, policy: Policy::COLD_GRAPH, candidates, known }
}

/// Seeds of 0..n on which the strategy comes within 2 % of the optimum with a tenth of the evaluations.
fn hits(space: &Space, strategy: StrategyKind, n: u64) -> usize {
    let limit = space.candidates.len() / 10;
    let near = space.optimum_ns() * 1.02;
    (0..n)
        .filter(|&seed| {
            let p = play(space, strategy, seed, limit);
            assert!(p.asked.len() <= limit, "{strategy} asked for {} of {limit}", p.asked.len());
            p.best_ns.is_some_and(|b| b <= near)
        })
        .count()
}

#[test]
#[ignore]
fn probe() {
    for s in 0..6 {
        let space = gpu_space(s, [4096.0, 14336.0, 1536.0, 128256.0, 8960.0, 256.0][s as usize]);
        let invalid = space.known.iter().filter(|k| **k == Known::Invalid).count();
        print!(
            "{} n={} invalid={} w10={:.3} w2={:.4}:",
            s,
            space.known.len(),
            invalid,
            space.share_within(1.1),
            space.share_within(1.02)
        );
        for k in STRATEGIES.into_iter().filter(|k| *k != StrategyKind::Exhaustive) {
            let t = std::time::Instant::now();
            print!(" {k}={} ({:.1}s)", hits(&space, k, 50), t.elapsed().as_secs_f64());
        }
        println!();
    }
}
