//! Strategies on spaces as GPUs have them (R16): several kernels with different tunables, cliffs, waves, compile failures
//! and chance.

use harness_measure::tune::{Candidate, Known, STRATEGIES, Space, StrategyKind, candidates, play, read_lines};
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

/// A space of few kernels with many tunables, as `planes_dp4a` and `staged_bulk` have: lanes and warps that share a row,
/// rows that share an activation, loads in flight, stages, blocks a processor.
fn deep_space(seed: u64, rows: f64, cols: f64) -> Space {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let p = |from: i64, n: u32| (0..n).map(|i| from << i).collect::<Vec<_>>();
    let kernels: Vec<Axes> = vec![
        vec![("WARPS", p(2, 4))],
        vec![
            ("LPR", p(8, 3)),
            ("KW", p(1, 4)),
            ("RPL", p(1, 4)),
            ("U", p(1, 3)),
            ("WARPS", p(8, 2)),
            ("X", vec![0, 1]),
        ],
        vec![
            ("LPR", p(16, 2)),
            ("RPL", p(1, 3)),
            ("CHUNK", p(1, 3)),
            ("STAGES", vec![2, 3, 4]),
            ("WARPS", p(4, 3)),
            ("BPS", vec![1, 2, 3]),
            ("X", vec![0, 1]),
        ],
        vec![("R", p(1, 4)), ("WARPS", p(2, 4)), ("U", p(1, 3))],
    ];
    let ids: Vec<VariantId> = variants(&kernels)
        .into_iter()
        .filter(|v| {
            let t = |n: &str| *v.tunables.get(n).unwrap_or(&1);
            // Constraints, as in the space file.
            t("RPL") * t("U") <= 8 && t("STAGES") * t("WARPS") <= 48
        })
        .collect();
    let candidates = candidates(&ids);
    let level: Vec<f64> = (0..4).map(|g| if g == 0 { 2.5 } else { rng.random_range(1.0..1.25) }).collect();
    let sync = rng.random_range(0.02..0.08);
    let known = candidates
        .iter()
        .map(|c| {
            let t = |n: &str| *c.variant.tunables.get(n).unwrap_or(&1) as f64;
            let (lanes, warps) = (if c.variant.tunables.contains_key("LPR") { t("LPR") } else { 32.0 }, t("WARPS"));
            let rpl = t("RPL") * t("R");
            let deep = t("U") * t("CHUNK") * t("STAGES");
            let registers = 28.0 + 5.0 * rpl * t("U") + 2.0 * rpl * t("CHUNK");
            let shared = if deep > 1.0 && c.group == 2 {
                warps * t("STAGES") * 32.0 / lanes * rpl * t("CHUNK") * lanes * 18.0
            } else {
                0.0
            };
            if registers > 90.0 && warps >= 16.0 && rpl >= 8.0 || shared > 220_000.0 {
                return Known::Invalid;
            }
            let by_registers = (65536.0 / (registers * 32.0 * warps)).floor().max(1.0);
            let by_shared = if shared > 0.0 { (227_000.0 / shared).floor().max(1.0) } else { 32.0 };
            let resident =
                by_registers.min(by_shared).min(64.0 / warps).min(if c.group == 2 { t("BPS") } else { 32.0 });
            let per_block = 32.0 / lanes * rpl * warps / t("KW");
            let blocks = (rows / per_block).ceil();
            let waves = (blocks / (132.0 * resident)).max(1e-3);
            let tail = waves.ceil() / waves;
            let flight = (resident * warps).min(blocks * warps / 132.0) * rpl * deep * 16.0 * 32.0;
            let starved = (24_000.0 / flight).max(0.6) + 0.4;
            let activations = 1.0 + 0.25 / rpl + 0.04 * t("X") - 0.03 * t("X") * (warps / 16.0);
            let iterations = cols / 32.0 / (lanes * t("KW") * t("U"));
            let short = if iterations < 1.0 { 1.0 / iterations.max(0.1) } else { iterations.ceil() / iterations };
            let chain = 1.0 + sync * t("KW").log2() + 0.01 * (lanes / 8.0).log2();
            let luck = 1.0 + rng.random_range(0.0..0.025);
            Known::Time(
                3000.0
                    * level[c.group]
                    * tail.powf(0.4)
                    * starved.powf(0.7)
                    * activations
                    * short.powf(0.5)
                    * chain
                    * luck,
            )
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

fn assert_found(space: &Space, strategy: StrategyKind) {
    let found = hits(space, strategy, 100);
    let random = hits(space, StrategyKind::Random, 100);
    assert!(found >= 90, "{strategy} came within 2 % on {found} of 100 seeds, random on {random}");
    assert!(found > random, "{strategy} found it {found} times of 100, random {random}");
}

#[test]
fn the_default_finds_the_optimum_among_ten_kernels_with_cliffs_and_failures() {
    let space = gpu_space(1, 14336.0);
    assert!(space.known.len() >= 1000 && (0.05..0.25).contains(&space.share_within(1.1)));
    assert!(space.known.iter().filter(|k| **k == Known::Invalid).count() > 50);
    assert_found(&space, StrategyKind::default());
}

#[test]
fn the_default_finds_the_optimum_of_two_kernels_with_seven_tunables() {
    let space = deep_space(1, 14336.0, 4096.0);
    assert!(space.known.len() >= 1000 && (0.05..0.25).contains(&space.share_within(1.1)));
    assert_found(&space, StrategyKind::default());
}

#[test]
fn the_default_finds_an_optimum_that_one_point_in_three_hundred_comes_near_to() {
    let space = deep_space(3, 8960.0, 1536.0);
    assert!(space.share_within(1.02) < 1.0 / 300.0);
    assert_found(&space, StrategyKind::default());
}

#[test]
fn no_strategy_asks_twice_or_beyond_its_limit_and_a_seed_repeats_its_order() {
    let space = gpu_space(2, 1536.0);
    for strategy in STRATEGIES {
        let limit = 60;
        let p = play(&space, strategy, 3, limit);
        let mut asked = p.asked.clone();
        asked.sort_unstable();
        asked.dedup();
        assert_eq!(asked.len(), p.asked.len(), "{strategy} asked twice");
        assert_eq!(p.asked.len(), limit, "{strategy} used its limit");
        assert_eq!(play(&space, strategy, 3, limit), p, "{strategy} with the same seed");
        assert!(p.best_ns.is_some_and(|b| b >= space.optimum_ns()));
    }
}

#[test]
fn a_limit_as_large_as_the_space_finds_the_optimum_with_every_strategy() {
    let space = deep_space(5, 256.0, 1536.0);
    for strategy in STRATEGIES {
        let p = play(&space, strategy, 1, space.known.len());
        assert_eq!(p.best_ns, Some(space.optimum_ns()), "{strategy} after {}", p.asked.len());
    }
}

/// The spaces that were recorded on a device; tests/data/README.md says which.
#[test]
fn the_default_finds_the_optimum_of_every_recorded_space() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
    let files = std::fs::read_dir(folder).expect("the recorded spaces are part of the repository");
    let files: Vec<_> =
        files.map(|f| f.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "jsonl")).collect();
    assert!(!files.is_empty(), "no recorded space in {folder}");
    for file in files {
        let (trials, warnings) = read_lines(&std::fs::read_to_string(&file).unwrap());
        assert!(warnings.is_empty(), "{}: {warnings:?}", file.display());
        for space in Space::from_trials(&trials).unwrap() {
            assert!(space.known.len() >= 1000, "{} has {} points", space.workload, space.known.len());
            let [found, random] = [StrategyKind::default(), StrategyKind::Random].map(|s| hits(&space, s, 100));
            let default = StrategyKind::default();
            println!("{}: {default} on {found} of 100 seeds, random on {random}", space.workload);
            assert!(found >= 90 && found > random, "{}: {found} of 100 seeds, random on {random}", space.workload);
        }
    }
}
