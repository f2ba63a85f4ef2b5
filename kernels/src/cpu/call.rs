//! One variant of an op with its inputs in place: what the correctness gate and the clock call.
//!
//! What is large and stays the same for a model (weights, keys and values) exists in several *copies*, which cold timing
//! rotates. What changes with every token (activations and outputs) exists in several *slots*, so that a kernel cannot
//! know which of its results is looked at.

use half::f16;
use harness_spec::{CellFailure, Stage, VariantId};
use variants::{Isa, KernelSpec};

use super::{Act, AttnScratch, Cpu, HeadShape, KvLayer, KvType, Matrix, Proj, Weights};
use crate::attention::AttentionKernels;
use crate::gemv::g128::{G128, GROUP};
use crate::norm::NormKernels;
use crate::op::{Problem, Tensor, activations};

/// Words of a guard band: 256 bytes on either side of every output.
const GUARD: usize = 64;
const GUARD_WORD: u32 = 0x5ca1_ab1e;
const POISON: u32 = u32::MAX;

/// An output between guard bands, in words.
pub(super) struct Output {
    words: Vec<u32>,
    bytes: usize,
}

impl Output {
    fn new(bytes: usize) -> Output {
        let mut words = vec![GUARD_WORD; bytes.div_ceil(4) + 2 * GUARD];
        words[GUARD..GUARD + bytes.div_ceil(4)].fill(POISON);
        Output { words, bytes }
    }

    fn poison(&mut self) {
        self.u32s().fill(POISON);
    }

    fn u32s(&mut self) -> &mut [u32] {
        let end = self.words.len() - GUARD;
        &mut self.words[GUARD..end]
    }

    fn f32s(&mut self) -> &mut [f32] {
        let words = self.u32s();
        // SAFETY: a float has the size and alignment of a word, and any bits are a float.
        unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len()) }
    }

    /// The contents, or that a guard band was written to.
    fn read(&self) -> Result<Vec<u8>, CellFailure> {
        let (front, rest) = self.words.split_at(GUARD);
        let (words, back) = rest.split_at(rest.len() - GUARD);
        if front.iter().chain(back).any(|&word| word != GUARD_WORD) {
            return Err(CellFailure::new(Stage::Check, "wrote outside of its output: a guard band changed"));
        }
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(self.bytes);
        Ok(bytes)
    }
}

/// What an op keeps for each copy.
pub(super) enum Copies {
    Matrices(Vec<Matrix>),
    Vectors(Vec<Vec<f32>>),
    Caches(Vec<KvLayer>),
    Data(Vec<Vec<u8>>),
    G128(Vec<G128>),
    None,
}

impl Copies {
    fn len(&self) -> usize {
        match self {
            Copies::Matrices(v) => v.len(),
            Copies::Vectors(v) => v.len(),
            Copies::Caches(v) => v.len(),
            Copies::Data(v) => v.len(),
            Copies::G128(v) => v.len(),
            Copies::None => 1,
        }
    }
}

/// Which op, with the code that runs it.
enum Code {
    Gemv,
    G128(Isa),
    Logits,
    RmsNorm(NormKernels, f32),
    QuantizeA8(NormKernels),
    AttnDecode(AttentionKernels, HeadShape, usize),
    StreamRead(Isa),
}

/// The inputs of a token and the outputs.
struct Slot {
    x: Vec<f32>,
    act: Option<Act>,
    scratch: Option<AttnScratch>,
    outputs: Vec<Output>,
}

/// A variant with its inputs in place.
pub(super) struct Call {
    code: Code,
    copies: Copies,
    slots: Vec<Slot>,
    m: usize,
}

impl Call {
    /// Places the inputs of a problem for a variant, with so many slots and one copy.
    pub(super) fn new(
        cpu: &Cpu,
        spec: &KernelSpec,
        variant: &VariantId,
        problem: &Problem,
        slots: usize,
    ) -> Result<Call, CellFailure> {
        let lacking =
            || CellFailure::new(Stage::Constraint, format!("the processor has no op {}", problem.workload.op));
        let float = |i: usize| match &problem.inputs[i] {
            Tensor::F32(v) => Ok(v.clone()),
            _ => Err(CellFailure::new(Stage::Harness, format!("input {i} of {} is not floats", problem.workload))),
        };
        let (code, copies) = match problem.workload.op.as_str() {
            "gemv_g128" => {
                let (_, n, k, bytes) = problem.weights().ok_or_else(lacking)?;
                let weights = G128::from_q4_0(n, k, bytes).ok_or_else(|| {
                    CellFailure::new(Stage::Constraint, format!("K must be a multiple of {GROUP}, got {k}"))
                })?;
                (Code::G128(spec.isa), Copies::G128(vec![weights]))
            }
            op if op.starts_with("gemv_") || op.starts_with("logits_") => {
                let (dtype, n, k, bytes) = problem.weights().ok_or_else(lacking)?;
                let weights = Weights::Owned(bytes.to_vec());
                let matrix = Matrix::with_kernel(cpu, spec, variant, dtype, n, k, weights)
                    .map_err(|e| CellFailure::new(Stage::Constraint, e.to_string()))?;
                let code = if op.starts_with("gemv_") { Code::Gemv } else { Code::Logits };
                (code, Copies::Matrices(vec![matrix]))
            }
            "rmsnorm" => {
                let code = Code::RmsNorm(NormKernels::of(spec.isa), problem.scalars[0]);
                (code, Copies::Vectors(vec![float(1)?]))
            }
            "quantize_a8" => (Code::QuantizeA8(NormKernels::of(spec.isa)), Copies::None),
            "attn_decode" => {
                let heads = HeadShape {
                    n_heads: problem.dim("HEADS"),
                    n_kv_heads: problem.dim("KV_HEADS"),
                    head_dim: problem.dim("DIM"),
                };
                let Tensor::I32(len) = &problem.inputs[3] else { return Err(lacking()) };
                let code = Code::AttnDecode(AttentionKernels::of(spec.isa), heads, len[0] as usize);
                (code, Copies::Caches(vec![cache(cpu, problem, heads)?]))
            }
            "stream_read" => {
                let Tensor::Bytes(data) = &problem.inputs[0] else { return Err(lacking()) };
                (Code::StreamRead(spec.isa), Copies::Data(vec![data.to_vec()]))
            }
            _ => return Err(lacking()),
        };
        let m = problem.dim("M");
        let mut call = Call { code, copies, slots: Vec::new(), m };
        for _ in 0..slots {
            call.slots.push(call.slot(problem));
            call.load(cpu, call.slots.len() - 1, problem);
        }
        Ok(call)
    }

    fn slot(&self, problem: &Problem) -> Slot {
        let k = problem.dim("K");
        let act = matches!(self.code, Code::Gemv | Code::Logits | Code::QuantizeA8(_)).then(|| Act::new(self.m, k));
        let scratch = match &self.code {
            Code::AttnDecode(_, heads, _) => Some(AttnScratch::new(*heads)),
            _ => None,
        };
        let outputs = problem.outputs.iter().map(|o| Output::new(o.bytes())).collect();
        Slot { x: Vec::new(), act, scratch, outputs }
    }

    /// Puts the activations of a problem into a slot.
    pub(super) fn load(&mut self, cpu: &Cpu, slot: usize, problem: &Problem) {
        // The activations of every op with weights are its second input, elsewhere they are the first.
        let at = usize::from(matches!(self.code, Code::Gemv | Code::G128(_) | Code::Logits));
        let slot = &mut self.slots[slot];
        if let Tensor::F32(x) = &problem.inputs[at] {
            slot.x.clone_from(x);
        }
        if let (Some(act), Code::Gemv | Code::Logits) = (&mut slot.act, &self.code) {
            cpu.act(&slot.x, self.m, slot.x.len() / self.m, act);
        }
    }

    /// Fills the outputs of a slot with the poison.
    pub(super) fn poison(&mut self, slot: usize) {
        self.slots[slot].outputs.iter_mut().for_each(Output::poison);
    }

    /// How many copies there are.
    pub(super) fn copies(&self) -> usize {
        self.copies.len()
    }

    /// Adds copies at other addresses until there are `count`. What has no copies stays as it is.
    pub(super) fn replicate(&mut self, cpu: &Cpu, count: usize) {
        match &mut self.copies {
            Copies::Matrices(all) => {
                while all.len() < count {
                    all.push(all[0].distinct_copy(cpu));
                }
            }
            Copies::Vectors(all) => all.resize(count.max(1), all[0].clone()),
            Copies::Caches(all) => {
                while all.len() < count {
                    all.push(all[0].distinct_copy());
                }
            }
            Copies::Data(all) => all.resize(count.max(1), all[0].clone()),
            Copies::G128(all) => all.resize(count.max(1), all[0].clone()),
            Copies::None => {}
        }
    }

    /// The matrices, for another variant that reads the same layout.
    pub(super) fn matrices(&self) -> Option<&[Matrix]> {
        match &self.copies {
            Copies::Matrices(all) => Some(all),
            _ => None,
        }
    }

    /// Takes these matrices in the place of its own.
    pub(super) fn set_matrices(&mut self, matrices: Vec<Matrix>) {
        self.copies = Copies::Matrices(matrices);
    }

    /// Runs the op: this is what is timed.
    #[inline(never)]
    pub(super) fn run(&mut self, cpu: &Cpu, copy: usize, slot: usize) {
        let slot = &mut self.slots[slot];
        match (&self.code, &self.copies) {
            (Code::Gemv, Copies::Matrices(w)) => {
                let act = slot.act.as_ref().expect("a product has activations");
                let y = slot.outputs[0].f32s();
                cpu.matmul(act, &mut [Proj { w: &w[copy], bias: None, y, add: false }]);
            }
            (Code::G128(isa), Copies::G128(w)) => w[copy].multiply(cpu, *isa, &slot.x, slot.outputs[0].f32s()),
            (Code::Logits, Copies::Matrices(w)) => {
                let act = slot.act.as_ref().expect("a product has activations");
                let (y, id) = slot.outputs.split_at_mut(1);
                let y = y[0].f32s();
                cpu.matmul(act, &mut [Proj { w: &w[copy], bias: None, y: &mut *y, add: false }]);
                id[0].u32s()[0] = cpu.argmax(y);
            }
            (Code::RmsNorm(kernels, eps), Copies::Vectors(w)) => {
                cpu.rmsnorm_by(kernels, &slot.x, &w[copy], *eps, slot.outputs[0].f32s());
            }
            (Code::QuantizeA8(kernels), _) => {
                let act = slot.act.as_mut().expect("activations are what is rounded");
                cpu.act_by(kernels, &slot.x, self.m, slot.x.len() / self.m, act);
            }
            (Code::AttnDecode(kernels, heads, len), Copies::Caches(kv)) => {
                let scratch = slot.scratch.as_mut().expect("attention has scratch memory");
                let out = slot.outputs[0].f32s();
                cpu.attention_by(kernels, &slot.x, &kv[copy], len - 1, 1, *heads, scratch, out);
            }
            (Code::StreamRead(isa), Copies::Data(data)) => {
                let sums = &mut slot.outputs[0].u32s()[..cpu.threads()];
                cpu.sum_words(&data[copy], *isa, sums);
            }
            _ => unreachable!("`new` pairs every op with its copies"),
        }
    }

    /// The outputs of a slot.
    pub(super) fn outputs(&mut self, slot: usize) -> Result<Vec<Vec<u8>>, CellFailure> {
        let slot = &mut self.slots[slot];
        if let (Code::QuantizeA8(_), Some(act)) = (&self.code, &slot.act)
            && act.m() > 0
        {
            // The kernel writes codes, scales and sums apart; the contract has them in one slab.
            let slabs = act.slabs();
            for (word, bytes) in slot.outputs[0].u32s().iter_mut().zip(slabs.as_chunks::<4>().0) {
                *word = u32::from_le_bytes(*bytes);
            }
        }
        slot.outputs.iter().map(Output::read).collect()
    }
}

/// A cache that holds the keys and values of a problem, those beyond its length too.
fn cache(cpu: &Cpu, problem: &Problem, heads: HeadShape) -> Result<KvLayer, CellFailure> {
    let positions = problem.dim("MAX_LEN");
    let (Tensor::F16(k), Tensor::F16(v)) = (&problem.inputs[1], &problem.inputs[2]) else {
        return Err(CellFailure::new(Stage::Harness, format!("keys or values of {} are not halves", problem.workload)));
    };
    let dim = heads.head_dim;
    if !dim.is_multiple_of(16) || dim > crate::attention::MAX_HEAD_DIM {
        let most = crate::attention::MAX_HEAD_DIM;
        return Err(CellFailure::new(Stage::Constraint, format!("heads are multiples of 16 up to {most}, got {dim}")));
    }
    let mut kv = KvLayer::new(KvType::F16, heads.n_kv_heads, dim, positions);
    // The contract has heads first, the cache is filled by positions.
    let row = |from: &[u16], pos: usize| -> Vec<f32> {
        (0..heads.n_kv_heads)
            .flat_map(|head| {
                from[(head * positions + pos) * dim..][..dim].iter().map(|&bits| f16::from_bits(bits).to_f32())
            })
            .collect()
    };
    for pos in 0..positions {
        cpu.kv_append(&mut kv, &row(k, pos), &row(v, pos), pos, 1);
    }
    Ok(kv)
}

impl Act {
    /// The rows as slabs of the contract of `quantize_a8`.
    fn slabs(&self) -> Vec<u8> {
        let (k, groups) = (self.k(), self.k() / 32);
        let stride = activations::slab_stride(k, 32);
        let mut out = vec![0u8; self.m() * stride];
        for (j, slab) in out.chunks_exact_mut(stride).enumerate() {
            let (q, s, t) = self.quantized(j);
            for (code, &q) in slab.iter_mut().zip(q) {
                *code = q as u8;
            }
            for (pair, (s, t)) in slab[k..][..8 * groups].as_chunks_mut::<8>().0.iter_mut().zip(s.iter().zip(t)) {
                pair[..4].copy_from_slice(&s.to_le_bytes());
                pair[4..].copy_from_slice(&t.to_le_bytes());
            }
        }
        out
    }
}
