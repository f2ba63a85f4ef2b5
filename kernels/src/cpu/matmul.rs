//! Products: one set of activations against several matrices, and gate, up and SwiGLU together.

use super::act::{self, ActRows};
use super::elementwise::WORTH_A_PHASE;
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
    /// The rows of all matrices together are divided among the threads by bytes; one that is done takes what others have
    /// not begun.
    ///
    /// # Panics
    /// Where shapes disagree, or a kernel wants int8 activations and `act` holds floats alone.
    pub fn matmul(&self, act: &Act, projs: &mut [Proj<'_>]) {
        assert!(projs.len() <= MOST_PARTS, "a phase joins up to {MOST_PARTS} products");
        let mut joined: [Option<Joined<'_>>; MOST_PARTS] = [const { None }; MOST_PARTS];
        let mut shares = Shares::new(&self.claims, act.m());
        for (joined, proj) in joined.iter_mut().zip(projs) {
            let n = proj.w.n();
            assert_eq!(proj.w.k(), act.k(), "columns of the weights and of the activations");
            assert_eq!(proj.y.len(), act.m() * n, "room for the result");
            assert!(proj.bias.is_none_or(|b| b.len() == n), "one bias for each row");
            shares.push(proj.w.groups(), proj.w.bytes(), in_pairs(act, proj.w));
            *joined = Some(Joined { w: proj.w, bias: proj.bias, y: Spread::new(proj.y), add: proj.add });
        }
        self.pool().run(&|thread| {
            with_panel(act.m(), |panel| {
                shares.each(thread, |part, groups| {
                    let joined = joined[part].as_ref().expect("a part was pushed for each product");
                    for tokens in batches(act.m()) {
                        product(act, joined.w, groups, tokens, panel);
                        store(joined, groups, tokens, panel);
                    }
                });
            });
        });
    }

    /// `out = silu(gate x) * (up x)`, `[M, N]`, prepared for a product.
    ///
    /// # Panics
    /// Where shapes disagree, or `out` has no room for the result.
    pub fn gate_up_swiglu(&self, act: &Act, gate: &Matrix, up: &Matrix, out: &mut Act) {
        assert!(gate.n() == up.n() && gate.k() == up.k() && gate.k() == act.k(), "gate and up have one shape");
        let rows = out.rows(act.m(), gate.n());
        if act.m() == 1 {
            self.gate_up_of_one(act, gate, up, rows);
        } else {
            self.gate_up_of_many(act, gate, up, rows);
        }
    }

    /// SwiGLU of one token, in one phase. Between two products nothing is done but to store their rows, as whatever else is
    /// would interrupt the loads that are ahead; every few hundred rows, the thread that has multiplied them applies SwiGLU
    /// and rounds them, as long as they are in its cache.
    fn gate_up_of_one(&self, act: &Act, gate: &Matrix, up: &Matrix, out: ActRows) {
        const BLOCK: usize = 512;
        let n = gate.n();
        let pair = gate.gemv_kernel().pair.filter(|_| gate.variant() == up.variant());
        let mut shares = Shares::new(&self.claims, 1);
        shares.push(n.div_ceil(act::GROUP), gate.bytes() + up.bytes(), false);
        self.pool().run(&|thread| {
            let mut panel = [0.0; 2 * GROUP_ROWS];
            let mut ups = [0.0; BLOCK];
            shares.each_of_several(thread, BLOCK / act::GROUP, |block| {
                let (first, end) = (block.start * act::GROUP, (block.end * act::GROUP).min(n));
                // SAFETY: every group is in one block, and `out` is borrowed for the whole function that called this one.
                let (gates, quant) = unsafe { out.columns(0, first..end) };
                for row in (first..end).step_by(GROUP_ROWS) {
                    let group = row / GROUP_ROWS;
                    if let Some(pair) = pair {
                        // SAFETY: as in `product`; a kernel of pairs has units of a whole group, and these are of one kernel.
                        unsafe { pair(&unit(act, gate, group, (0, 1)), up.unit(group).0, &mut panel) };
                    } else {
                        let (gates, ups) = panel.split_at_mut(GROUP_ROWS);
                        product(act, gate, (group, None), (0, 1), gates);
                        product(act, up, (group, None), (0, 1), ups);
                    }
                    let rows = GROUP_ROWS.min(end - row);
                    gates[row - first..][..rows].copy_from_slice(&panel[..rows]);
                    ups[row - first..][..rows].copy_from_slice(&panel[GROUP_ROWS..][..rows]);
                }
                self.norm().silu_mul(gates, &ups[..end - first]);
                if let Some(mut quant) = quant {
                    self.norm().quantize(gates, &mut quant);
                }
            });
        });
    }

    fn gate_up_of_many(&self, act: &Act, gate: &Matrix, up: &Matrix, out: ActRows) {
        let (m, n) = (act.m(), gate.n());
        // SAFETY: the rows are taken a second time below, when nobody holds these any more.
        let floats = unsafe { out.floats(m) };
        let joined = Joined { w: gate, bias: None, y: Spread::new(floats), add: false };
        let mut shares = Shares::new(&self.claims, m);
        shares.push(gate.groups(), gate.bytes() + up.bytes(), false);
        self.pool().run(&|thread| {
            with_panel(m, |gates| {
                with_panel(m, |ups| {
                    shares.each(thread, |_, (group, _)| {
                        for tokens in batches(m) {
                            product(act, gate, (group, None), tokens, gates);
                            product(act, up, (group, None), tokens, ups);
                            let used = tokens.1 * GROUP_ROWS;
                            self.norm().silu_mul(&mut gates[..used], &ups[..used]);
                            store(&joined, (group, None), tokens, gates);
                        }
                    });
                });
            });
        });
        self.for_each(m, m * n >= WORTH_A_PHASE, &|j| {
            // SAFETY: row `j` is below `m` and taken by one call alone.
            if let (row, Some(mut quant)) = unsafe { out.row(j) } {
                self.norm().quantize(row, &mut quant);
            }
        });
    }
}

/// Whether the groups of a matrix are multiplied two at a time.
fn in_pairs(act: &Act, w: &Matrix) -> bool {
    act.m() == 1 && w.gemv_kernel().pair.is_some()
}

/// Calls `work` with a panel for batches of `m` tokens. One token gets a small one, which costs nothing to clear: it has
/// room for two groups.
#[inline]
fn with_panel(m: usize, work: impl FnOnce(&mut [f32])) {
    if m == 1 { work(&mut [0.0; 2 * GROUP_ROWS]) } else { work(&mut [0.0; GROUP_ROWS * MAX_TOKENS]) }
}

/// The batches that a kernel takes one at a time: first token, tokens.
#[inline]
fn batches(m: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..m).step_by(MAX_TOKENS).map(move |first| (first, MAX_TOKENS.min(m - first)))
}

fn unit<'a>(act: &'a Act, w: &'a Matrix, index: usize, tokens: (usize, usize)) -> Unit<'a> {
    let (bytes, rows) = w.unit(index);
    Unit { dtype: w.dtype(), bytes, rows, k: w.k(), act, tokens, share: w.gemv_kernel().share }
}

/// Multiplies a group of rows with some tokens, or two groups with one.
#[inline]
fn product(act: &Act, w: &Matrix, (group, second): (usize, Option<usize>), tokens: (usize, usize), panel: &mut [f32]) {
    let kernel = w.gemv_kernel();
    if let (Some(pair), Some(second)) = (kernel.pair, second) {
        // SAFETY: as below; a kernel of pairs has units of a whole group.
        unsafe { pair(&unit(act, w, group, tokens), w.unit(second).0, panel) };
        return;
    }
    let per_group = GROUP_ROWS / kernel.rows;
    for i in 0..per_group {
        let index = group * per_group + i;
        if index * kernel.rows >= w.n() {
            break;
        }
        // SAFETY: a matrix is built with kernels of at most the level that `Cpu::new` found on this machine; the unit's
        // bytes are of the kernel's layout, and the rest of the panel has room for its rows of every token.
        unsafe { (kernel.run)(&unit(act, w, index, tokens), &mut panel[i * kernel.rows..]) };
    }
}

/// Writes a panel to the rows of one or two groups in the result.
#[inline]
fn store(joined: &Joined<'_>, (group, second): (usize, Option<usize>), tokens: (usize, usize), panel: &[f32]) {
    store_group(joined, group, tokens, panel);
    if let Some(second) = second {
        store_group(joined, second, tokens, &panel[GROUP_ROWS..]);
    }
}

#[inline]
fn store_group(joined: &Joined<'_>, group: usize, (first, count): (usize, usize), panel: &[f32]) {
    let n = joined.w.n();
    let row = group * GROUP_ROWS;
    let rows = GROUP_ROWS.min(n - row);
    for token in 0..count {
        // SAFETY: every group is visited by one thread, and the parts of a group's tokens do not overlap.
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
