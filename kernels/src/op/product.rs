//! What `gemv_*` and `logits_*` share: the data of their cases, their reference, their byte model.

use std::ops::Range;
use std::sync::Arc;

use harness_spec::{Bytes, CellFailure, DType, Shape, Stage, Workload};
use variants::{Activations, KernelSpec, Layout};

use super::problem::{Arg, Case, Depth, Elem, OutputSpec, Problem, Tensor, dim};
use super::random::Rng;
use super::recipe::{Recipe, Values, Weights};
use super::{activations, blocks, values};
use crate::check::{Floats, Norms};
use crate::parallel::parallel;
use crate::{layout, quant};

/// Weights from which a matrix repeats its first rows, so that its reference stays cheap.
const DISTINCT: usize = 1 << 21;
/// Weights from which one random seed must do.
const LARGE: usize = 1 << 27;
/// Products of a reference that a thread is worth.
const WORTH_A_THREAD: usize = 1 << 20;
/// Numbers of rows that may repeat: primes, so that a row taken for one a tile or a power of two away differs.
const PERIODS: [usize; 9] = [31, 61, 101, 139, 251, 509, 1021, 2039, 4093];
/// Where products of subnormal scales lose all relative accuracy: the error that a term may have then.
const TINY: f64 = 1.0 / (1u128 << 69) as f64 / (1u128 << 69) as f64;

/// A product of weights of some types.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    /// The weight types.
    pub dtypes: &'static [DType],
    /// Weights that share a scale, where that is more than a block: 128 for `g128`, whose host form is Q4_0 with equal scales.
    pub group: usize,
}

impl Product {
    /// What K must be a multiple of.
    pub(crate) fn unit(&self) -> usize {
        let block = self.dtypes.iter().map(|d| d.block_len()).max().unwrap_or(1);
        // Activations come in groups of 32 whatever the weights.
        block.max(self.group).max(32)
    }

    fn case(&self, name: impl Into<String>, dtype: DType, seed: u64, w: Weights, x: Values) -> Case {
        let mut name = name.into();
        if self.dtypes.len() > 1 {
            name = format!("{name} {dtype}");
        }
        Case { name, seed, dtype: Some(dtype), recipe: Recipe::Product(w, x) }
    }

    /// Random, realistic and exact inputs: what runs at every shape.
    pub(crate) fn cases(&self, shape: &Shape, seed: u64, depth: Depth) -> Vec<Case> {
        let mut cases = Vec::new();
        // The weights of a large head take a second to make and to move; its seeds also run at every smaller shape.
        let seeds = match depth {
            _ if dim(shape, "N") * dim(shape, "K") > LARGE => 1,
            Depth::Quick => 3,
            Depth::Full => 5,
        };
        for &dtype in self.dtypes {
            for i in 0..seeds {
                let seed = seed.wrapping_mul(0x1_0001).wrapping_add(i);
                cases.push(self.case(format!("random seed {i}"), dtype, seed, Weights::Random, Values::Random));
            }
            cases.push(self.case("realistic weights and outliers", dtype, seed, Weights::Gaussian, Values::Outliers));
            cases.push(self.case("exact integers", dtype, seed, Weights::Integer, Values::Integer));
            cases.push(self.case("exact ramp of all codes", dtype, seed, Weights::Ramp, Values::Integer));
        }
        cases
    }

    /// The adversarial inputs.
    pub(crate) fn adversarial(&self, seed: u64, depth: Depth) -> Vec<Case> {
        let full = depth == Depth::Full;
        let mut cases = Vec::new();
        for &dtype in self.dtypes {
            let mut add = |name: String, w, x| cases.push(self.case(name, dtype, seed, w, x));
            let count = blocks::levels(dtype);
            let codes: Vec<u8> = match dtype {
                DType::Q8_0 => [-127i8, -64, -1, 0, 1, 127].map(|c| c as u8).to_vec(),
                _ => (0..count.max(16)).step_by(if count > 32 { 5 } else { 1 }).map(|c| c as u8).collect(),
            };
            for code in codes {
                if count == 0 || usize::from(code) < count {
                    add(format!("AD-01 code {code}"), Weights::Code(code), Values::Constant(1.0));
                }
            }
            add("AD-02 diagonal".into(), Weights::Random, Values::Diagonal);
            for at in (0..dtype.block_len().max(32)).step_by(if full { 1 } else { 11 }) {
                add(format!("AD-02 one-hot {at}"), Weights::Ramp, Values::OneHot(at));
            }
            add("AD-03 all 3000".into(), Weights::Random, Values::Constant(3000.0));
            add("AD-03 signs of 6e4".into(), Weights::Random, Values::Alternate(6e4));
            add("AD-03 signs of 7e4".into(), Weights::Random, Values::Alternate(7e4));
            for size in [1e-6, 1e-9, 1e-30] {
                add(format!("AD-04 amax {size:e}"), Weights::Random, Values::Times(size));
            }
            add("AD-05 zero vector".into(), Weights::Random, Values::Constant(0.0));
            add("AD-05 zero group".into(), Weights::Random, Values::ZeroGroup);
            add("AD-05 zero blocks".into(), Weights::Zero, Values::Random);
            add("AD-05 zero scale".into(), Weights::Scale(0), Values::Random);
            add("AD-06 one 1e4 among 1e-2".into(), Weights::Random, Values::OneLarge);
            for (name, bits) in
                [("-1.5", 0xbe00), ("smallest subnormal", 1), ("-largest subnormal", 0x83ff), ("65504", 0x7bff)]
            {
                add(format!("AD-09 d = {name}"), Weights::Scale(bits), Values::Random);
            }
            if count > 0 {
                add("AD-09 signs of d in turn".into(), Weights::ScaleSigns, Values::Random);
            }
            if matches!(dtype, DType::Q4K | DType::Q5K) {
                add("AD-10 sub-block 5 alone, all scales 63".into(), Weights::SubBlockFive, Values::Random);
            }
            if matches!(dtype, DType::Q4K | DType::Q5K | DType::Q6K) {
                for low in [true, false] {
                    let end = if low { "low" } else { "high" };
                    add(
                        format!("AD-11 scales at both ends, codes {end}"),
                        Weights::SignedScales { low },
                        Values::Random,
                    );
                }
            }
            if count > 0 {
                for (sign, x) in [("", 127.0), ("-", -127.0)] {
                    for byte in [0x00u8, 0xff, 0x80, 0x7f, 0xaa] {
                        let ternary = matches!(dtype, DType::TQ1_0 | DType::TQ2_0);
                        // Two bits set side by side are the undefined ternary code 3.
                        if !ternary || byte & (byte >> 1) & 0x55 == 0 {
                            let id = if byte == 0x80 { "AD-13" } else { "AD-12" };
                            let name = format!("{id} bytes {byte:#04x}, x = {sign}127");
                            add(name, Weights::Byte(byte), Values::Constant(x));
                        }
                    }
                }
                add(
                    "AD-13 bytes 0x80, x = -128".into(),
                    Weights::Byte(if count == 3 { 0 } else { 0x80 }),
                    Values::Constant(-128.0),
                );
            }
            if count == 3 {
                add("alternating ternary".into(), Weights::Alternating, Values::Random);
            }
            add("AD-27 patterns of four".into(), Weights::Random, Values::Fours);
            add("AD-28 exact halves".into(), Weights::Ramp, Values::Halves);
        }
        cases
    }

    /// The problem of a case, with the outputs of a `gemv`.
    pub(crate) fn problem(&self, op: &str, shape: &Shape, case: &Case) -> Problem {
        let (n, k, m) = (dim(shape, "N"), dim(shape, "K"), dim(shape, "M"));
        let dtype = case.dtype.expect("the cases of a product name their type");
        let Recipe::Product(w, x) = case.recipe else { panic!("{op} runs cases of products, not {:?}", case.recipe) };
        // A row that stands out must not repeat.
        let unique = matches!(w, Weights::LastRowWins | Weights::NanRows { .. });
        let period = if unique { n } else { period(n, k) };
        let distinct = blocks::weights(dtype, period, k, self.group, w, &mut Rng::new(case.seed, 1));
        let bytes: Arc<[u8]> = if period == n { distinct.into() } else { repeat(&distinct, n, period) };
        let x = values::rows(m, k, x, &mut Rng::new(case.seed, 2));
        Problem {
            workload: Workload { op: op.to_owned(), shape: shape.clone() },
            case: case.name.clone(),
            inputs: vec![Tensor::Weights { dtype, n, k, bytes, period }, Tensor::F32(x)],
            outputs: vec![OutputSpec { name: "y", elem: Elem::F32, len: m * n }],
            scalars: Vec::new(),
            exact: matches!(case.recipe, Recipe::Product(Weights::Integer | Weights::Ramp, Values::Integer)),
        }
    }

    /// Draws other activations.
    pub(crate) fn redraw(&self, problem: &mut Problem, seed: u64) {
        let (m, k) = (problem.dim("M"), problem.dim("K"));
        problem.inputs[1] = Tensor::F32(values::rows(m, k, Values::Outliers, &mut Rng::new(seed, 3)));
        problem.exact = false;
        problem.case = format!("activations {seed:#x}");
    }

    /// The reference of `y`, with the bound of each output and the norms of each row.
    pub(crate) fn expected(&self, problem: &Problem, form: Activations) -> Option<Floats> {
        let x = float_rows(problem);
        let seen = activations::seen(x, form)?;
        let exact = x.iter().map(|&v| f64::from(v)).collect();
        let x = Operand { seen, exact, unsure: Vec::new(), relative: 0.0 };
        Some(floats(&problem.inputs[0], &x, form, problem.exact))
    }

    /// Bytes of the weights in the layout of a kernel.
    pub(crate) fn weight_bytes(&self, n: usize, k: usize, spec: &KernelSpec) -> usize {
        let dtype = *spec.dtypes.first().unwrap_or(&self.dtypes[0]);
        stored_bytes(spec.layout.unwrap_or(Layout::Gguf), dtype, n, k)
    }

    /// Weights as stored, activations in the form that the kernel reads, and outputs.
    pub(crate) fn bytes(&self, shape: &Shape, spec: &KernelSpec) -> Bytes {
        let (n, k, m) = (dim(shape, "N"), dim(shape, "K"), dim(shape, "M"));
        let form = spec.activations.unwrap_or(Activations::F32);
        Bytes((self.weight_bytes(n, k, spec) + activations::bytes(m, k, form) + m * n * 4) as u64)
    }

    /// Weights and activations as a device kernel takes them.
    pub(crate) fn operands(&self, problem: &Problem, spec: &KernelSpec) -> Result<[Arg; 2], CellFailure> {
        let x = activations(problem, spec);
        Ok([self.weights(problem, spec)?, Arg::In { bytes: x, weights: false }])
    }

    /// Weights as a device kernel takes them.
    pub(crate) fn weights(&self, problem: &Problem, spec: &KernelSpec) -> Result<Arg, CellFailure> {
        let (dtype, n, k, bytes) = problem.weights().expect("a product has weights");
        let layout = spec.layout.unwrap_or(Layout::Gguf);
        let bytes = if layout == Layout::Gguf { bytes.clone() } else { pack(layout, dtype, n, k, bytes)?.into() };
        Ok(Arg::In { bytes, weights: true })
    }

    /// Small shapes that the adversarial inputs run at, the smallest first: the first that a kernel takes is used.
    pub(crate) fn home_shapes(&self) -> Vec<Shape> {
        // 4096 columns are what it takes to overflow a 16-bit sum (AD-12).
        [33, 32, 64, 128, 256].map(|n| Shape::of([("N", n), ("K", 4096)])).to_vec()
    }

    /// Tails of N, K and M, single blocks (AD-07).
    pub(crate) fn awkward_shapes(&self, tokens: bool, depth: Depth) -> Vec<Shape> {
        let unit = self.unit() as u64;
        let mut shapes = Vec::new();
        let mut add = |n: u64, k: u64, m: Option<u64>| {
            let k = k.next_multiple_of(unit);
            let shape = Shape::of([("N", n), ("K", k)].into_iter().chain(m.map(|m| ("M", m))));
            if !shapes.contains(&shape) {
                shapes.push(shape);
            }
        };
        for (n, k) in [(1, 32), (3, 576), (33, 896), (1, 4864), (1152, 576), (33, 4864), (17, 1536), (64, 4096)] {
            add(n, k, None);
        }
        if depth == Depth::Full {
            for (n, k) in [(1, 18_944), (5, 32), (1153, 96), (49_152, 64), (16, 14_336), (129, 8960)] {
                add(n, k, None);
            }
        }
        if tokens {
            for m in 1..=8 {
                if depth == Depth::Full || [2, 5, 8].contains(&m) {
                    add(33, 896, Some(m));
                }
            }
            add(1152, 576, Some(3));
        }
        shapes
    }
}

/// The activations of a product, `[M, K]`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Operand {
    /// As the kernel sees them.
    pub seen: Vec<f64>,
    /// As they are.
    pub exact: Vec<f64>,
    /// How far an element may be from what is seen, where a kernel may round it to the code beside; empty: none is.
    pub unsure: Vec<f64>,
    /// How far all of them may be off by one factor.
    pub relative: f64,
}

/// The product of weights, bounds and norms with it. `exact`: every sum is exact in 32-bit floats in any order.
pub(crate) fn floats(weights: &Tensor, x: &Operand, form: Activations, exact: bool) -> Floats {
    let Tensor::Weights { dtype, n, k, bytes, period } = weights else {
        panic!("the first input of a product is its weights")
    };
    let (n, k, period) = (*n, *k, *period);
    let m = x.seen.len() / k;
    let relative = 4.0 * (k as f64).sqrt() / f64::from(1u32 << 24) + x.relative;
    let row_bytes = bytes.len() / n;
    let of_rows = |rows: &Range<usize>| -> Vec<Vec<Output>> {
        let (mut row, mut offset) = (vec![0.0f32; k], vec![0.0f32; k]);
        let of_row = |r: usize| {
            let blocks = &bytes[r * row_bytes..][..row_bytes];
            quant::dequantize_row(*dtype, blocks, &mut row);
            blocks::offsets(*dtype, blocks, &mut offset);
            let wide: Vec<f64> = row.iter().map(|&w| f64::from(w)).collect();
            let sizes: Vec<f64> = wide.iter().zip(&offset).map(|(w, &o)| w.abs() + f64::from(o).abs()).collect();
            let of_token = |t: usize| {
                let range = t * k..(t + 1) * k;
                let mut out = output(&wide, &sizes, &x.seen[range.clone()], &x.exact[range.clone()]);
                if let Some(unsure) = x.unsure.get(range) {
                    out.unsure = wide.iter().zip(unsure).map(|(w, u)| if *u == 0.0 { 0.0 } else { w.abs() * u }).sum();
                }
                out
            };
            (0..m).map(of_token).collect()
        };
        rows.clone().map(of_row).collect()
    };
    let at_once = (WORTH_A_THREAD / (m * k)).max(1);
    let parts: Vec<Range<usize>> = (0..period).step_by(at_once).map(|r| r..period.min(r + at_once)).collect();
    let mut of_period = vec![Output::default(); m * period];
    for (r, row) in parallel(&parts, of_rows).into_iter().flatten().enumerate() {
        for (t, out) in row.into_iter().enumerate() {
            of_period[t * period + r] = out;
        }
    }
    let all = |of: &dyn Fn(&Output) -> f64| -> Vec<f64> {
        (0..m * n).map(|i| of(&of_period[i / n * period + i % n % period])).collect()
    };
    // A quarter is the unit of the exact inputs: a sum of fewer than 2^24 units is exact in any order.
    let exact = exact && of_period.iter().all(|o| o.magnitude * 4.0 < f64::from(1u32 << 24));
    let bound = |o: &Output| if exact { 0.0 } else { relative * o.magnitude + o.unsure + k as f64 * TINY };
    Floats {
        want: all(&|o| o.seen),
        bound: all(&bound),
        norms: Some(Norms {
            want: all(&|o| o.exact),
            square: all(&|o| o.square(k)),
            row: n,
            classes: of_period.chunks(period).map(|row| class(row, n, k, form)).collect(),
        }),
    }
}

/// The sums of one output.
#[derive(Clone, Copy, Debug, Default)]
struct Output {
    /// On the activations that the kernel sees.
    seen: f64,
    /// On the true activations.
    exact: f64,
    /// Of the magnitudes of weights and of their offsets, on what the kernel sees.
    magnitude: f64,
    /// What roundings to the code beside may change.
    unsure: f64,
}

impl Output {
    /// The square of the true result, plus that of a sum of the same terms with random signs.
    fn square(&self, k: usize) -> f64 {
        self.exact * self.exact + self.magnitude * self.magnitude / k as f64
    }
}

/// The relative error that one token's outputs may have against the true activations. Outliers cost more than the class of
/// a form allows for; what the form itself loses on these very activations is not the kernel's doing.
fn class(row: &[Output], n: usize, k: usize, form: Activations) -> f64 {
    let sum = |of: &dyn Fn(&Output) -> f64| {
        // The first rows of a matrix that repeats may occur once more than the last.
        let times = |r: usize| (n / row.len() + usize::from(r < n % row.len())) as f64;
        row.iter().enumerate().map(|(r, o)| times(r) * of(o)).filter(|v| v.is_finite()).sum::<f64>()
    };
    let lost = sum(&|o| (o.seen - o.exact).powi(2)) / sum(&|o| o.square(k));
    let least = activations::rounding_class(form);
    if lost.is_finite() { least.max(1.1 * lost.sqrt() + 1e-5) } else { least }
}

/// The sums of a row and a token; `sizes` are the magnitudes of weights and of their offsets.
fn output(w: &[f64], sizes: &[f64], seen: &[f64], x: &[f64]) -> Output {
    const LANES: usize = 4;
    let (mut sums, mut exact, mut magnitudes) = ([0.0f64; LANES], [0.0f64; LANES], [0.0f64; LANES]);
    let mut add = |i: usize, w: f64, size: f64, s: f64, x: f64| {
        sums[i] += w * s;
        exact[i] += w * x;
        magnitudes[i] += size * s.abs();
    };
    let [(w, w_rest), (sizes, sizes_rest), (seen, seen_rest), (x, x_rest)] =
        [w, sizes, seen, x].map(|v| v.as_chunks::<LANES>());
    for (((w, size), s), x) in w.iter().zip(sizes).zip(seen).zip(x) {
        for i in 0..LANES {
            add(i, w[i], size[i], s[i], x[i]);
        }
    }
    for i in 0..w_rest.len() {
        add(i, w_rest[i], sizes_rest[i], seen_rest[i], x_rest[i]);
    }
    Output { seen: sums.iter().sum(), exact: exact.iter().sum(), magnitude: magnitudes.iter().sum(), unsure: 0.0 }
}

/// The activations of a product in the form that a kernel reads.
pub(crate) fn activations(problem: &Problem, spec: &KernelSpec) -> Arc<[u8]> {
    let form = spec.activations.unwrap_or(Activations::F32);
    activations::encode(float_rows(problem), problem.dim("K"), form).into()
}

/// The float activations of a product.
pub(crate) fn float_rows(problem: &Problem) -> &[f32] {
    match &problem.inputs[1] {
        Tensor::F32(x) => x,
        other => panic!("the second input of a product is its activations, not {other:?}"),
    }
}

/// How many rows differ.
fn period(n: usize, k: usize) -> usize {
    if n * k <= DISTINCT {
        return n;
    }
    let most = (DISTINCT / k).max(PERIODS[0]);
    let period = PERIODS.into_iter().rfind(|&p| p <= most).unwrap_or(PERIODS[0]);
    period.min(n)
}

fn repeat(distinct: &[u8], n: usize, period: usize) -> Arc<[u8]> {
    let row = distinct.len() / period;
    let mut all = Vec::with_capacity(n * row);
    while all.len() < n * row {
        let rest = n * row - all.len();
        all.extend_from_slice(&distinct[..rest.min(distinct.len())]);
    }
    all.into()
}

/// Bytes of `[n, k]` weights in a layout.
fn stored_bytes(layout: Layout, dtype: DType, n: usize, k: usize) -> usize {
    match crate::gemv::tile::Tile::new(dtype, layout) {
        Some(tile) => n.div_ceil(tile.rows()) * tile.bytes(k),
        // A layout that does not take these weights is found out when they are packed; until then they are as in the file.
        None => layout::bytes(layout, dtype, n, k).unwrap_or_else(|_| dtype.row_bytes(k).map_or(0, |row| row * n)),
    }
}

fn pack(layout: Layout, dtype: DType, n: usize, k: usize, bytes: &[u8]) -> Result<Vec<u8>, CellFailure> {
    layout::pack(layout, dtype, n, k, bytes).map_err(|e| CellFailure::new(Stage::Constraint, e.to_string()))
}
