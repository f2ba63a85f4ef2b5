//! Memory for weights: aligned to a cache line, in huge pages where it is large, and counted.

use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

/// The alignment of every buffer: a cache line, and the widest vector.
pub const ALIGN: usize = 64;

const HUGE_PAGE: usize = 2 << 20;
const SLAB: usize = 64 << 20;

/// Zeroed memory straight from the system. Pages that nobody writes take no room.
struct Slab {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a slab is plain memory that nobody else knows of; who may touch which part is settled by `AlignedBuf`.
unsafe impl Send for Slab {}
// SAFETY: as above; a shared slab hands out nothing by itself.
unsafe impl Sync for Slab {}

impl Slab {
    fn new(at_least: usize, huge: bool) -> Slab {
        let len = if huge { at_least.next_multiple_of(HUGE_PAGE) } else { at_least };
        // SAFETY: an anonymous private mapping at an address of the system's choice touches no memory of ours.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            let layout =
                std::alloc::Layout::from_size_align(len, ALIGN).expect("a slab is below half the address space");
            std::alloc::handle_alloc_error(layout);
        }
        #[cfg(target_os = "linux")]
        if huge {
            // SAFETY: the range was mapped above. Advice that the kernel does not take changes nothing.
            unsafe {
                libc::madvise(start, len, libc::MADV_HUGEPAGE);
            }
        }
        Slab { start: NonNull::new(start.cast()).expect("a mapping is not at address zero"), len }
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: the range was mapped in `new` and every buffer in it holds the slab alive, so none is left.
        unsafe {
            libc::munmap(self.start.as_ptr().cast(), self.len);
        }
    }
}

/// Hands out buffers from large slabs, so that many small matrices share huge pages.
#[derive(Default)]
pub struct Arena {
    current: Mutex<Option<(Arc<Slab>, usize)>>,
}

impl Arena {
    /// An arena that owns nothing yet.
    pub fn new() -> Arena {
        Arena::default()
    }

    /// A zeroed buffer of `len` bytes.
    pub fn buffer(&self, len: usize) -> AlignedBuf {
        let size = len.next_multiple_of(ALIGN);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let (slab, used) = match current.take() {
            Some((slab, used)) if slab.len - used >= size => (slab, used),
            _ => (Arc::new(Slab::new(size.max(SLAB), true)), 0),
        };
        // SAFETY: used + size <= slab.len, so the start lies within the slab or, for an empty buffer, at its end.
        let start = unsafe { slab.start.add(used) };
        *current = Some((Arc::clone(&slab), used + size));
        AlignedBuf { start, len, _slab: slab }
    }
}

/// A zeroed byte buffer whose start is aligned to [`ALIGN`].
pub struct AlignedBuf {
    start: NonNull<u8>,
    len: usize,
    _slab: Arc<Slab>,
}

// SAFETY: the buffer is the only owner of its bytes; the arena never hands out a range twice.
unsafe impl Send for AlignedBuf {}
// SAFETY: a shared reference only reads.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// A zeroed buffer of `len` bytes with a slab of its own, in pages of the usual size: what is reserved for a long
    /// context and never written takes no room.
    pub fn zeroed(len: usize) -> AlignedBuf {
        let slab = Arc::new(Slab::new(len.max(1), false));
        AlignedBuf { start: slab.start, len, _slab: slab }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `start` is valid for `len` initialised bytes for as long as the slab is held.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` is the only reference to a range that is handed out once.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// The bytes as halves; the length is rounded down.
    pub(crate) fn as_u16(&self) -> &[u16] {
        // SAFETY: the start is aligned to 64, the length in bytes covers the halves, and any bits are a u16.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len / 2) }
    }

    /// The bytes as floats; the length is rounded down.
    pub(crate) fn as_f32(&self) -> &[f32] {
        // SAFETY: the start is aligned to 64, the length in bytes covers the floats, and any bits are an f32.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len / 4) }
    }

    /// The bytes as floats, to be written.
    pub(crate) fn as_f32_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `as_f32`, with the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.len / 4) }
    }

    /// The bytes as 32-bit integers, to be written.
    pub(crate) fn as_i32_mut(&mut self) -> &mut [i32] {
        // SAFETY: as in `as_f32_mut`; any bits are an i32.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.len / 4) }
    }
}

impl std::fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBuf({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_an_arena_are_aligned_zeroed_and_apart() {
        let arena = Arena::new();
        let mut a = arena.buffer(100);
        let mut b = arena.buffer(SLAB);
        let c = arena.buffer(0);
        a.as_mut_slice().fill(1);
        assert!(b.as_slice().iter().all(|&x| x == 0));
        b.as_mut_slice().fill(2);
        assert!(a.as_slice().iter().all(|&x| x == 1));
        assert!(c.as_slice().is_empty());
        assert_eq!(a.as_slice().as_ptr().align_offset(ALIGN), 0);
        assert_eq!(b.as_slice().as_ptr().align_offset(ALIGN), 0);
    }

    #[test]
    fn a_buffer_outlives_its_arena() {
        let arena = Arena::new();
        let mut a = arena.buffer(64);
        drop(arena);
        a.as_mut_slice().fill(3);
        assert_eq!(a.as_slice()[63], 3);
    }
}
