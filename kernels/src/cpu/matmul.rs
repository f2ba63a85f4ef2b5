//! Products: one set of activations against several matrices, and gate, up and SwiGLU in one phase.

use super::shares::{MOST_PARTS, Shares};
use super::{Act, Cpu, Matrix, Spread};
use crate::gemv::{GROUP_ROWS, MAX_TOKENS, Unit};

/// One product: `y = W x`, with bias or on top of what `y` holds.
#[derive(Debug)]
pub struct Proj<'a> {
    /// The weights, `[N, K]`.
    pub w: &'a Matrix,
    /// `[N]`, added to every row of the result.
    pub bias: Option<&'a [f32]>,
    /// The result, `[M, N]`.
    pub y: &'a mut [f32],
    /// Whether the product is added to `y` instead of replacing it.
    pub add: bool,
}

/// A product whose result several threads write.
struct Joined<'a> {
    w: &'a Matrix,
    bias: Option<&'a [f32]>,
    y: Spread<'a, f32>,
    add: bool,
}

impl Cpu {
    /// Multiplies the activations with every matrix, in one phase.
    ///
    /// The rows of all matrices together are divided among the threads by bytes.
    ///
    /// # Panics
    /// Where shapes disagree, or a kernel wants int8 activations and `act` holds floats alone.
    pub fn matmul(&self, act: &Act, projs: &mut [Proj<'_>]) {
        assert!(projs.len() <= MOST_PARTS, "a phase joins up to {MOST_PARTS} products");
        let mut joined: [Option<Joined<'_>>; MOST_PARTS] = [const { None }; MOST_PARTS];
        let mut shares = Shares::default();
        for (joined, proj) in joined.iter_mut().zip(projs) {
            let n = proj.w.n();
            assert_eq!(proj.w.k(), act.k(), "columns of the weights and of the activations");
            assert_eq!(proj.y.len(), act.m() * n, "room for the result");
            assert!(proj.bias.is_none_or(|b| b.len() == n), "one bias for each row");
            shares.push(proj.w.groups(), proj.w.bytes());
            *joined = Some(Joined { w: proj.w, bias: proj.bias, y: Spread::new(proj.y), add: proj.add });
        }
        let threads = self.threads();
        self.pool().run(&|thread| {
            with_panel(act.m(), |panel| {
                shares.take(thread, threads, |part, group| {
                    let joined = joined[part].as_ref().expect("a part was pushed for each product");
                    for tokens in batches(act.m()) {
                        product(act, joined.w, group, tokens, panel);
                        store(joined, group, tokens, panel);
                    }
                });
            });
        });
    }

    /// `out = silu(gate x) * (up x)`, `[M, N]`, in one phase.
    ///
    /// # Panics
    /// Where shapes disagree.
    pub fn gate_up_swiglu(&self, act: &Act, gate: &Matrix, up: &Matrix, out: &mut [f32]) {
        assert!(gate.n() == up.n() && gate.k() == up.k() && gate.k() == act.k(), "gate and up have one shape");
        let n = gate.n();
        assert_eq!(out.len(), act.m() * n, "room for the result");
        let joined = Joined { w: gate, bias: None, y: Spread::new(out), add: false };
        let mut shares = Shares::default();
        shares.push(gate.groups(), gate.bytes() + up.bytes());
        let threads = self.threads();
        self.pool().run(&|thread| {
            with_panel(act.m(), |gates| {
                with_panel(act.m(), |ups| {
                    shares.take(thread, threads, |_, group| {
                        for tokens in batches(act.m()) {
                            product(act, gate, group, tokens, gates);
                            product(act, up, group, tokens, ups);
                            let used = tokens.1 * GROUP_ROWS;
                            self.norm().silu_mul(&mut gates[..used], &ups[..used]);
                            store(&joined, group, tokens, gates);
                        }
                    });
                });
            });
        });
    }
}

/// Calls `work` with a panel for batches of `m` tokens. One token gets a small one, which costs nothing to clear.
#[inline]
fn with_panel(m: usize, work: impl FnOnce(&mut [f32])) {
    if m == 1 { work(&mut [0.0; GROUP_ROWS]) } else { work(&mut [0.0; GROUP_ROWS * MAX_TOKENS]) }
}

/// The batches that a kernel takes one at a time: first token, tokens.
#[inline]
fn batches(m: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..m).step_by(MAX_TOKENS).map(move |first| (first, MAX_TOKENS.min(m - first)))
}

/// Multiplies one group of rows with some tokens.
#[inline]
fn product(act: &Act, w: &Matrix, group: usize, tokens: (usize, usize), panel: &mut [f32]) {
    let kernel = w.gemv_kernel();
    let per_group = GROUP_ROWS / kernel.rows;
    for i in 0..per_group {
        let unit = group * per_group + i;
        if unit * kernel.rows >= w.n() {
            break;
        }
        let (bytes, rows) = w.unit(unit);
        let unit = Unit { dtype: w.dtype(), bytes, rows, k: w.k(), act, tokens, share: kernel.share };
        // SAFETY: a matrix is built with kernels of at most the level that `Cpu::new` found on this machine; the unit's
        // bytes are of the kernel's layout, and the rest of the panel has room for its rows of every token.
        unsafe { (kernel.run)(&unit, &mut panel[i * kernel.rows..]) };
    }
}

/// Writes a panel to the rows of a group in the result.
#[inline]
fn store(joined: &Joined<'_>, group: usize, (first, count): (usize, usize), panel: &[f32]) {
    let n = joined.w.n();
    let row = group * GROUP_ROWS;
    let rows = GROUP_ROWS.min(n - row);
    for token in 0..count {
        // SAFETY: every group belongs to one thread, and the parts of a group's tokens do not overlap.
        let y = unsafe { joined.y.part((first + token) * n + row, rows) };
        let values = &panel[token * GROUP_ROWS..][..rows];
        match (joined.bias, joined.add) {
            (None, false) => y.copy_from_slice(values),
            (None, true) => y.iter_mut().zip(values).for_each(|(y, v)| *y += v),
            (Some(bias), add) => {
                for ((y, v), b) in y.iter_mut().zip(values).zip(&bias[row..]) {
                    *y = if add { *y + (v + b) } else { v + b };
                }
            }
        }
    }
}
