//! Activations prepared for a product: floats, and int8 with a scale and sums for every 32 (a8/32).
//!
//! ```text
//! s = max|x| / 127      q = round(x / s), half away from zero, never -128      t = s * sum(q)
//! ```
//!
//! Scale and sum are 32-bit floats: an f16 sum overflows once the mean passes 2047. The sums are also kept as the
//! integers that kernels start their accumulators from, so that an offset in the weight codes costs nothing:
//! -8 per weight for Q4_0, -128 for Q8_0, and -32 for each 16 of Q6_K.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::alloc::AlignedBuf;

/// Elements that share a scale.
pub(crate) const GROUP: usize = 32;

/// Below this the reciprocal of a scale overflows: such a group becomes zero, an error under 1e-36.
pub(crate) const SMALLEST_AMAX: f32 = 1e-36;

/// M rows of K activations, prepared for a product.
#[derive(Debug)]
pub struct Act {
    max_m: usize,
    max_k: usize,
    m: usize,
    k: usize,
    wants_i8: bool,
    version: u64,
    x: AlignedBuf,
    q: AlignedBuf,
    s: AlignedBuf,
    t: AlignedBuf,
    neg8: AlignedBuf,
    neg128: AlignedBuf,
    neg32: AlignedBuf,
}

/// The parts of one row that quantisation writes.
pub(crate) struct QuantRow<'a> {
    /// `[K padded]` int8 codes.
    pub q: &'a mut [i8],
    /// `[K / 32]` scales.
    pub s: &'a mut [f32],
    /// `[K / 32]` scale times sum of codes.
    pub t: &'a mut [f32],
    /// `[K / 32]` -8 times the sum of codes.
    pub neg8: &'a mut [i32],
    /// `[K / 32]` -128 times the sum of codes.
    pub neg128: &'a mut [i32],
    /// `[K / 16]` -32 times the sum of codes.
    pub neg32: &'a mut [i32],
}

impl QuantRow<'_> {
    /// Writes the sums of a group from its two halves.
    #[inline(always)]
    pub(crate) fn set_group(&mut self, group: usize, s: f32, halves: [i32; 2]) {
        // Wrapping, as a group that is not finite has no meaningful codes: its scale is NaN, and so is all it enters.
        let sum = halves[0].wrapping_add(halves[1]);
        self.s[group] = s;
        // At most 127 * 32 in magnitude, so the conversion is exact.
        self.t[group] = s * sum as f32;
        self.neg8[group] = sum.wrapping_mul(-8);
        self.neg128[group] = sum.wrapping_mul(-128);
        self.neg32[2 * group] = halves[0].wrapping_mul(-32);
        self.neg32[2 * group + 1] = halves[1].wrapping_mul(-32);
    }
}

/// Where every row of an [`Act`] lies, for threads that each write rows of their own.
#[derive(Clone, Copy)]
pub(crate) struct ActRows {
    k: usize,
    wants_i8: bool,
    x: *mut f32,
    q: *mut i8,
    s: *mut f32,
    t: *mut f32,
    neg8: *mut i32,
    neg128: *mut i32,
    neg32: *mut i32,
}

// SAFETY: the pointers are into one `Act` that is borrowed mutably while this exists (`Act::rows`), and each row is
// taken by one thread only (the contract of `ActRows::row`).
unsafe impl Sync for ActRows {}
// SAFETY: as above.
unsafe impl Send for ActRows {}

impl ActRows {
    /// The float row `j` and, where int8 is wanted, its quantised form.
    ///
    /// # Safety
    /// `j` is below the M that `Act::rows` was called with, no other reference to row `j` exists, and the `Act` outlives
    /// the result.
    pub(crate) unsafe fn row<'a>(&self, j: usize) -> (&'a mut [f32], Option<QuantRow<'a>>) {
        // SAFETY: promised by the caller.
        unsafe { self.columns(j, 0..self.k) }
    }

    /// Some columns of the float row `j` and, where int8 is wanted, their quantised form: with the padding, where they are
    /// the last.
    ///
    /// # Safety
    /// As [`ActRows::row`], for these columns alone. They begin at a group and end at one, or with the row.
    pub(crate) unsafe fn columns<'a>(&self, j: usize, columns: Range<usize>) -> (&'a mut [f32], Option<QuantRow<'a>>) {
        let stride = padded(self.k) / GROUP;
        let first = columns.start / GROUP;
        let groups = if columns.end == self.k { stride } else { columns.end / GROUP } - first;
        // SAFETY: the buffers hold max_m rows of at least these strides, and the caller promises exclusive columns.
        unsafe {
            use std::slice::from_raw_parts_mut as part;
            let x = part(self.x.add(j * self.k + columns.start), columns.len());
            let at = j * stride + first;
            let quant = self.wants_i8.then(|| QuantRow {
                q: part(self.q.add(j * q_stride(self.k) + first * GROUP), groups * GROUP),
                s: part(self.s.add(at), groups),
                t: part(self.t.add(at), groups),
                neg8: part(self.neg8.add(at), groups),
                neg128: part(self.neg128.add(at), groups),
                neg32: part(self.neg32.add(2 * at), 2 * groups),
            });
            (x, quant)
        }
    }

    /// The floats of the first `m` rows, `[m, K]`.
    ///
    /// # Safety
    /// As [`ActRows::row`], for all of these rows.
    pub(crate) unsafe fn floats<'a>(&self, m: usize) -> &'a mut [f32] {
        // SAFETY: rows lie one behind the other, and the caller promises that they are there and exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.x, m * self.k) }
    }
}

/// K as packed weights pad it: pairs of groups, so that every tile starts on a cache line.
pub(crate) const fn padded(k: usize) -> usize {
    k.next_multiple_of(2 * GROUP)
}

/// Bytes from one int8 row to the next. The extra line keeps the rows of a power-of-two K out of one cache set.
const fn q_stride(k: usize) -> usize {
    padded(k) + 64
}

impl Act {
    /// Room for `max_m` rows of up to `max_k` activations, as floats and as int8.
    pub fn new(max_m: usize, max_k: usize) -> Act {
        Act::build(max_m, max_k, true)
    }

    /// Room for floats alone: for models whose every product takes 32-bit activations.
    pub fn floats(max_m: usize, max_k: usize) -> Act {
        Act::build(max_m, max_k, false)
    }

    fn build(max_m: usize, max_k: usize, wants_i8: bool) -> Act {
        let groups = if wants_i8 { padded(max_k) / GROUP } else { 0 };
        let q = if wants_i8 { max_m * q_stride(max_k) } else { 0 };
        Act {
            max_m,
            max_k,
            m: 0,
            k: 0,
            wants_i8,
            version: 0,
            x: AlignedBuf::zeroed(max_m * max_k * 4),
            q: AlignedBuf::zeroed(q),
            s: AlignedBuf::zeroed(max_m * groups * 4),
            t: AlignedBuf::zeroed(max_m * groups * 4),
            neg8: AlignedBuf::zeroed(max_m * groups * 4),
            neg128: AlignedBuf::zeroed(max_m * groups * 4),
            neg32: AlignedBuf::zeroed(max_m * groups * 8),
        }
    }

    /// Rows held now.
    pub fn m(&self) -> usize {
        self.m
    }

    /// Activations in a row now.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Whether the rows are kept as int8 too. Rows that are no whole groups of 32 never are, and no kernel asks for it.
    pub fn has_i8(&self) -> bool {
        self.wants_i8 && self.k.is_multiple_of(GROUP)
    }

    /// A number that no other contents of any buffer have, for what kernels derive from activations and keep.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // Only table look-up keeps anything.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Sets the shape and hands out the rows, which the caller writes.
    ///
    /// # Panics
    /// Where the shape exceeds what the buffer was made for.
    pub(crate) fn rows(&mut self, m: usize, k: usize) -> ActRows {
        assert!(
            m <= self.max_m && k <= self.max_k,
            "{m} x {k} activations in room for {} x {}",
            self.max_m,
            self.max_k
        );
        static VERSIONS: AtomicU64 = AtomicU64::new(1);
        self.version = VERSIONS.fetch_add(1, Ordering::Relaxed);
        self.m = m;
        self.k = k;
        ActRows {
            k,
            wants_i8: self.has_i8(),
            x: self.x.as_f32_mut().as_mut_ptr(),
            q: self.q.as_mut_slice().as_mut_ptr().cast(),
            s: self.s.as_f32_mut().as_mut_ptr(),
            t: self.t.as_f32_mut().as_mut_ptr(),
            neg8: self.neg8.as_i32_mut().as_mut_ptr(),
            neg128: self.neg128.as_i32_mut().as_mut_ptr(),
            neg32: self.neg32.as_i32_mut().as_mut_ptr(),
        }
    }

    /// The float row `j`.
    #[inline]
    pub fn row(&self, j: usize) -> &[f32] {
        assert!(j < self.m);
        &self.x.as_f32()[j * self.k..][..self.k]
    }

    /// The codes of row `j`, and of every group the scale, and scale times sum.
    pub(crate) fn quantized(&self, j: usize) -> (&[i8], &[f32], &[f32]) {
        assert!(j < self.m && self.has_i8(), "row {j} of {} rows, int8: {}", self.m, self.has_i8());
        let groups = padded(self.k) / GROUP;
        let codes = &self.q.as_slice()[j * q_stride(self.k)..][..self.k];
        // SAFETY: an int8 has the size and alignment of a byte.
        let codes = unsafe { std::slice::from_raw_parts(codes.as_ptr().cast::<i8>(), codes.len()) };
        let of = j * groups..j * groups + self.k / GROUP;
        (codes, &self.s.as_f32()[of.clone()], &self.t.as_f32()[of])
    }

    /// The quantised row `j`, for kernels.
    #[inline]
    pub(crate) fn quant_row(&self, j: usize) -> QuantPtr {
        assert!(j < self.m && self.has_i8(), "row {j} of {} rows, int8: {}", self.m, self.has_i8());
        let groups = padded(self.k) / GROUP;
        // SAFETY: j < m <= max_m, and every buffer holds max_m rows of at least these strides (`rows` checked the shape).
        unsafe {
            QuantPtr {
                q: self.q.as_slice().as_ptr().cast::<i8>().add(j * q_stride(self.k)),
                s: self.s.as_f32().as_ptr().add(j * groups),
                t: self.t.as_f32().as_ptr().add(j * groups),
                neg8: self.neg8.as_f32().as_ptr().cast::<i32>().add(j * groups),
                neg128: self.neg128.as_f32().as_ptr().cast::<i32>().add(j * groups),
                neg32: self.neg32.as_f32().as_ptr().cast::<i32>().add(j * groups * 2),
            }
        }
    }
}

/// One quantised row as kernels read it: `padded(k)` codes, `padded(k) / 32` of each scale and sum.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // Not every instruction set has kernels for every offset.
pub(crate) struct QuantPtr {
    /// Codes.
    pub q: *const i8,
    /// Scales.
    pub s: *const f32,
    /// Scale times sum of codes.
    pub t: *const f32,
    /// -8 times the sum of codes.
    pub neg8: *const i32,
    /// -128 times the sum of codes.
    pub neg128: *const i32,
    /// -32 times the sum of codes, per 16.
    pub neg32: *const i32,
}
