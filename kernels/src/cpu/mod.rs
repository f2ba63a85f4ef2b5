//! The processor as the engine sees it: a pool, a table, and the ops. Every op is a safe function that parallelises over
//! the pool by itself, allocates nothing and overwrites its whole output.

pub(crate) mod act;
mod call;
mod device;
mod elementwise;
mod matmul;
mod matrix;
mod pool;
mod runner;
mod shares;
mod sources;
mod stream;
mod target;

pub use act::Act;
pub use device::{available_memory, device_key, last_level_cache};
pub use matmul::Proj;
pub use matrix::{BuildError, Matrix, Weights};
pub use pool::Pool;
pub use runner::CpuRunner;
pub use target::CpuTarget;

pub use crate::argmax::argmax;
pub use crate::attention::{AttnScratch, HeadShape, KvLayer, KvType};
pub use crate::gemv::NoCode;
pub use crate::rope::{Pairing, RopeAngles, RopeTable};

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use variants::{Isa, Table};

use crate::alloc::Arena;
use crate::attention::AttentionKernels;
use crate::norm::NormKernels;

/// How activations enter a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// As 32-bit floats: nothing is rounded but the sums.
    Exact,
    /// As int8 with a scale for every 32, where the kernel takes that.
    Fast,
}

/// What a [`Cpu`] is made of.
#[derive(Clone, Debug)]
pub struct CpuOptions {
    /// Threads, the caller included.
    pub threads: usize,
    /// The instruction set level, at most what the machine has; a higher one is lowered to it.
    pub isa: Isa,
    /// Which kernel runs each op.
    pub table: Table,
    /// Whether workers are bound to a processor each.
    pub pin: bool,
}

impl Default for CpuOptions {
    /// All processors of this machine, its best instruction set, the default table.
    fn default() -> CpuOptions {
        let isa = Isa::detect();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        CpuOptions { threads, isa, table: Table::default_for(isa), pin: false }
    }
}

/// A processor with a pool of threads and a choice of kernels.
pub struct Cpu {
    pool: Pool,
    claims: shares::Claims,
    isa: Isa,
    table: Table,
    arena: Arena,
    norm: NormKernels,
    attention: AttentionKernels,
    notes: Mutex<Vec<String>>,
}

impl Cpu {
    /// Starts the pool and resolves the table.
    pub fn new(options: CpuOptions) -> Cpu {
        let isa = options.isa.min(Isa::detect());
        let level = |op: &str| options.table.kernel(op, isa).map_or(Isa::Scalar, |k| k.isa);
        let pool = Pool::new(options.threads, options.pin);
        Cpu {
            claims: shares::Claims::new(pool.threads()),
            pool,
            isa,
            norm: NormKernels::of(level("rmsnorm")),
            attention: AttentionKernels::of(level("attn_decode")),
            table: options.table,
            arena: Arena::new(),
            notes: Mutex::default(),
        }
    }

    /// Threads of the pool, the caller included.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The instruction set level in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The table in use.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Keeps something that the owner of this processor should hear.
    pub(crate) fn note(&self, note: String) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }

    /// What there is to say since this was last asked, such as kernels that were put in quarantine.
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The pool, for work of the caller's own, such as loading.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn arena(&self) -> &Arena {
        &self.arena
    }

    pub(crate) fn norm(&self) -> &NormKernels {
        &self.norm
    }

    pub(crate) fn attention_kernels(&self) -> &AttentionKernels {
        &self.attention
    }

    /// Runs `each` for every index below `count`, spread over the pool where `parallel` says that it pays.
    pub(crate) fn for_each(&self, count: usize, parallel: bool, each: &(dyn Fn(usize) + Sync)) {
        if !parallel || count < 2 || self.threads() == 1 {
            (0..count).for_each(each);
            return;
        }
        self.pool.run(&|thread| share(count, self.threads(), thread).for_each(each));
    }
}

impl std::fmt::Debug for Cpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cpu({} threads, {})", self.threads(), self.isa)
    }
}

/// The part of `0..count` that belongs to `thread` of `threads`: contiguous, and each index in exactly one part.
pub(crate) fn share(count: usize, threads: usize, thread: usize) -> Range<usize> {
    count * thread / threads..count * (thread + 1) / threads
}

/// A mutable slice whose disjoint parts are written by several threads.
pub(crate) struct Spread<'a, T> {
    start: *mut T,
    len: usize,
    of: PhantomData<&'a mut [T]>,
}

// SAFETY: parts are handed out under the contract of `part`, which forbids overlap.
unsafe impl<T: Send> Sync for Spread<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Spread<'_, T> {}

impl<'a, T> Spread<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Spread<'a, T> {
        Spread { start: slice.as_mut_ptr(), len: slice.len(), of: PhantomData }
    }

    /// The elements from `from` on, `len` of them.
    ///
    /// # Safety
    /// No other part that overlaps these elements is alive.
    ///
    /// # Panics
    /// Where the range lies outside the slice.
    #[allow(clippy::mut_from_ref)] // The contract above is what makes the references exclusive.
    #[inline]
    pub(crate) unsafe fn part(&self, from: usize, len: usize) -> &mut [T] {
        assert!(from <= self.len && len <= self.len - from);
        // SAFETY: the range was checked, the slice is borrowed for 'a, and the caller promises exclusiveness.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_every_index_once() {
        for count in [0, 1, 2, 7, 60, 61] {
            for threads in 1..9 {
                let all: Vec<_> = (0..threads).flat_map(|t| share(count, threads, t)).collect();
                assert_eq!(all, (0..count).collect::<Vec<_>>());
            }
        }
    }
}
