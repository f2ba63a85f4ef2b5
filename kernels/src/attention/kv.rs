//! The keys and values of one layer.
//!
//! ```text
//! K  [kv head][pos / 16][dim][16]   sixteen keys a tile, so that a vector holds one element of sixteen keys and a
//!                                   score needs no sum across lanes
//! V  [kv head][pos][dim]            a vector holds elements of one value
//! ```
//!
//! Memory that no position has been written to takes no room.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::MAX_HEAD_DIM;
use crate::alloc::AlignedBuf;

/// Keys of a tile.
pub(crate) const TILE: usize = 16;

/// The type that keys and values are kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvType {
    /// 16-bit floats.
    F16,
    /// 32-bit floats.
    F32,
}

/// Keys and values of one layer for up to a fixed number of positions.
#[derive(Debug)]
pub struct KvLayer {
    kind: KvType,
    n_kv_heads: usize,
    head_dim: usize,
    capacity: usize,
    k: AlignedBuf,
    v: AlignedBuf,
}

impl KvLayer {
    /// Room for at least `capacity` positions.
    ///
    /// # Panics
    /// Where a head is longer than 256 or no multiple of 16.
    pub fn new(kind: KvType, n_kv_heads: usize, head_dim: usize, capacity: usize) -> KvLayer {
        assert!(
            head_dim <= MAX_HEAD_DIM && head_dim.is_multiple_of(16),
            "heads of up to {MAX_HEAD_DIM} in steps of 16, got {head_dim}"
        );
        let capacity = capacity.next_multiple_of(TILE);
        let element = match kind {
            KvType::F16 => 2,
            KvType::F32 => 4,
        };
        let bytes = n_kv_heads * head_dim * capacity * element;
        let (k, v) = (AlignedBuf::zeroed(bytes), AlignedBuf::zeroed(bytes));
        KvLayer { kind, n_kv_heads, head_dim, capacity, k, v }
    }

    /// A copy at other addresses, for measurements that must not find their keys in a cache.
    pub fn distinct_copy(&self) -> KvLayer {
        let copy = |from: &AlignedBuf| {
            let mut to = AlignedBuf::zeroed(from.as_slice().len());
            to.as_mut_slice().copy_from_slice(from.as_slice());
            to
        };
        KvLayer { k: copy(&self.k), v: copy(&self.v), ..*self }
    }

    /// The type of its elements.
    pub fn kind(&self) -> KvType {
        self.kind
    }

    /// Key heads.
    pub fn n_kv_heads(&self) -> usize {
        self.n_kv_heads
    }

    /// Elements of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Positions there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The first element of the tile of key head `head` that holds position `pos`, which is a multiple of 16.
    #[inline(always)]
    pub(crate) fn key_tile(&self, head: usize, pos: usize) -> usize {
        (head * self.capacity + pos) * self.head_dim
    }

    /// The first element of the value of key head `head` at `pos`.
    #[inline(always)]
    pub(crate) fn value_at(&self, head: usize, pos: usize) -> usize {
        (head * self.capacity + pos) * self.head_dim
    }

    pub(crate) fn k16(&self) -> &[u16] {
        self.k.as_u16()
    }

    pub(crate) fn v16(&self) -> &[u16] {
        self.v.as_u16()
    }

    pub(crate) fn k32(&self) -> &[f32] {
        self.k.as_f32()
    }

    pub(crate) fn v32(&self) -> &[f32] {
        self.v.as_f32()
    }

    /// The positions `pos0..pos0 + m`, to be written.
    ///
    /// # Panics
    /// Where there is no room for them.
    pub(crate) fn rows(&mut self, pos0: usize, m: usize) -> KvRows {
        assert!(pos0 + m <= self.capacity, "positions {pos0}..{} in a cache of {}", pos0 + m, self.capacity);
        KvRows {
            kind: self.kind,
            heads: self.n_kv_heads,
            dim: self.head_dim,
            capacity: self.capacity,
            pos0,
            m,
            k: self.k.as_mut_slice().as_mut_ptr(),
            v: self.v.as_mut_slice().as_mut_ptr(),
        }
    }
}

/// Some positions of a layer, for threads that each write positions of their own.
pub(crate) struct KvRows {
    kind: KvType,
    heads: usize,
    dim: usize,
    capacity: usize,
    pos0: usize,
    m: usize,
    k: *mut u8,
    v: *mut u8,
}

// SAFETY: the pointers are into one layer that stays borrowed mutably by the caller of `KvLayer::rows`, and each
// position is written by one thread only (the contract of `KvRows::write`).
unsafe impl Sync for KvRows {}

impl KvRows {
    /// Elements of a position.
    pub(crate) fn width(&self) -> usize {
        self.heads * self.dim
    }

    /// Writes the keys and values of position `pos0 + j`.
    ///
    /// # Safety
    /// The layer is still alive and borrowed mutably, and no other call writes or reads this position meanwhile.
    ///
    /// # Panics
    /// Where `j` is not below `m`, or a slice is not one position long.
    pub(crate) unsafe fn write(&self, j: usize, keys: &[f32], values: &[f32]) {
        assert!(j < self.m && keys.len() == self.width() && values.len() == self.width());
        let pos = self.pos0 + j;
        let mut halves = [[f16::ZERO; MAX_HEAD_DIM]; 2];
        for head in 0..self.heads {
            let tile = (head * self.capacity + pos / TILE * TILE) * self.dim + pos % TILE;
            let value = (head * self.capacity + pos) * self.dim;
            let keys = &keys[head * self.dim..][..self.dim];
            let values = &values[head * self.dim..][..self.dim];
            // SAFETY: head < heads and pos < capacity, so the tile's elements `tile + d * TILE` for d < dim and the value's
            // `value..value + dim` lie in buffers of heads * capacity * dim elements, which are aligned for either type.
            unsafe {
                match self.kind {
                    KvType::F16 => {
                        let [k16, v16] = &mut halves;
                        k16[..self.dim].convert_from_f32_slice(keys);
                        v16[..self.dim].convert_from_f32_slice(values);
                        scatter(self.k.cast::<f16>().add(tile), &k16[..self.dim]);
                        self.v.cast::<f16>().add(value).copy_from_nonoverlapping(v16.as_ptr(), self.dim);
                    }
                    KvType::F32 => {
                        scatter(self.k.cast::<f32>().add(tile), keys);
                        self.v.cast::<f32>().add(value).copy_from_nonoverlapping(values.as_ptr(), self.dim);
                    }
                }
            }
        }
    }
}

/// Writes one key to its column of a tile.
///
/// # Safety
/// `at + d * TILE` is writable for every index of `key`.
unsafe fn scatter<T: Copy>(at: *mut T, key: &[T]) {
    for (d, &element) in key.iter().enumerate() {
        // SAFETY: promised by the caller.
        unsafe { *at.add(d * TILE) = element };
    }
}
