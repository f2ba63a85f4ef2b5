//! Device memory, with guard bands and poison, and a flag that host and device share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use cudarc::driver::sys;

use super::{Device, Stream, check};
use crate::cuda::CudaError;

/// Bytes of guard on each side of an output. A multiple of 256, so that the output keeps the alignment of the allocation.
pub const GUARD: usize = 256;

/// What guard bands are filled with.
const GUARD_BYTE: u8 = 0xA5;

/// Device memory.
#[derive(Debug)]
pub struct Buffer {
    ptr: sys::CUdeviceptr,
    len: usize,
    device: Arc<Device>,
}

impl Buffer {
    /// Memory of `len` bytes with unknown contents, aligned to 256 bytes. `what` names it in an error.
    ///
    /// # Errors
    /// The driver's error, such as no memory left.
    pub fn new(device: &Arc<Device>, len: usize, what: &str) -> Result<Buffer, CudaError> {
        device.bind()?;
        let mut ptr = 0;
        // An allocation of nothing is refused, and an output of nothing is legal.
        // SAFETY: the pointer is valid for one address; the context is current.
        let result = unsafe { sys::cuMemAlloc_v2(&mut ptr, len.max(1)) };
        check("cuMemAlloc", result, || format!("allocating {len} bytes for {what}"))?;
        Ok(Buffer { ptr, len, device: device.clone() })
    }

    /// Memory with these contents, written on a stream.
    ///
    /// # Errors
    /// The driver's error.
    pub fn of(stream: &Stream, bytes: &[u8], what: &str) -> Result<Buffer, CudaError> {
        let buffer = Buffer::new(&stream.device, bytes.len(), what)?;
        buffer.upload(stream, 0, bytes)?;
        Ok(buffer)
    }

    /// The address on the device.
    pub fn address(&self) -> u64 {
        self.ptr
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn range(&self, at: usize, len: usize) -> sys::CUdeviceptr {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.len), "{len} bytes at {at} of {}", self.len);
        self.ptr + at as u64
    }

    /// Writes bytes at an offset, in the order of the stream. The host's bytes are free when this returns.
    ///
    /// # Errors
    /// The driver's error.
    pub fn upload(&self, stream: &Stream, at: usize, bytes: &[u8]) -> Result<(), CudaError> {
        let to = self.range(at, bytes.len());
        if bytes.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        // From pageable memory the call returns when the bytes are staged, not when they have arrived: only the order of
        // the stream says that a launch behind it sees them.
        // SAFETY: the range lies in the buffer, and `bytes`, pageable, is as long as is copied.
        let result = unsafe { sys::cuMemcpyHtoDAsync_v2(to, bytes.as_ptr().cast(), bytes.len(), stream.raw) };
        self.device.add_transfer(started.elapsed());
        check("cuMemcpyHtoDAsync", result, || format!("sending {} bytes", bytes.len()))
    }

    /// Reads bytes at an offset when everything before it on the stream is done. A fault of an earlier launch shows here:
    /// `doing` names it.
    ///
    /// # Errors
    /// The driver's error.
    pub fn download(
        &self,
        stream: &Stream,
        at: usize,
        len: usize,
        doing: impl Fn() -> String,
    ) -> Result<Vec<u8>, CudaError> {
        let mut out = vec![0u8; len];
        self.download_into(stream, at, &mut out, doing)?;
        Ok(out)
    }

    /// [`Buffer::download`] into memory of the caller, as many bytes as that has.
    ///
    /// # Errors
    /// The driver's error.
    pub fn download_into(
        &self,
        stream: &Stream,
        at: usize,
        out: &mut [u8],
        doing: impl Fn() -> String,
    ) -> Result<(), CudaError> {
        let from = self.range(at, out.len());
        // The wait comes first, so that the time of the launches does not count as a transfer.
        stream.wait(&doing)?;
        if out.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        // SAFETY: the range lies in the buffer, `out` is as long as is copied and lives until the wait below.
        let result = unsafe { sys::cuMemcpyDtoHAsync_v2(out.as_mut_ptr().cast(), from, out.len(), stream.raw) };
        check("cuMemcpyDtoHAsync", result, &doing)?;
        stream.wait(&doing)?;
        self.device.add_transfer(started.elapsed());
        Ok(())
    }

    /// Fills bytes on a stream.
    ///
    /// # Errors
    /// The driver's error.
    pub fn fill(&self, stream: &Stream, at: usize, len: usize, byte: u8) -> Result<(), CudaError> {
        let to = self.range(at, len);
        if len == 0 {
            return Ok(());
        }
        // SAFETY: the range lies in the buffer.
        let result = unsafe { sys::cuMemsetD8Async(to, byte, len, stream.raw) };
        check("cuMemsetD8Async", result, || format!("filling {len} bytes"))
    }

    /// Copies bytes from one place of the buffer to another that does not overlap it, on a stream.
    ///
    /// # Errors
    /// The driver's error.
    pub fn copy_within(&self, stream: &Stream, to: usize, from: usize, len: usize) -> Result<(), CudaError> {
        assert!(to.abs_diff(from) >= len, "the two places overlap");
        let (target, source) = (self.range(to, len), self.range(from, len));
        if len == 0 {
            return Ok(());
        }
        // SAFETY: both ranges lie in the buffer and do not overlap.
        let result = unsafe { sys::cuMemcpyDtoDAsync_v2(target, source, len, stream.raw) };
        check("cuMemcpyDtoDAsync", result, || format!("copying {len} bytes on the device"))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the address came from `cuMemAlloc` and is used no more: whoever launches waits before it lets go.
        unsafe {
            let _ = sys::cuMemFree_v2(self.ptr);
        }
    }
}

/// An output between two guard bands.
#[derive(Debug)]
pub struct Guarded {
    buffer: Buffer,
    len: usize,
}

impl Guarded {
    /// An output of `len` bytes, every byte 0xFF: as f32 a NaN, so that an element that nobody writes is seen.
    ///
    /// # Errors
    /// The driver's error.
    pub fn poisoned(stream: &Stream, len: usize, what: &str) -> Result<Guarded, CudaError> {
        // The band behind starts right after the last byte, so that a store one element too far is seen.
        let buffer = Buffer::new(&stream.device, GUARD + len + GUARD, what)?;
        buffer.fill(stream, 0, GUARD, GUARD_BYTE)?;
        buffer.fill(stream, GUARD, len, 0xFF)?;
        buffer.fill(stream, GUARD + len, GUARD, GUARD_BYTE)?;
        Ok(Guarded { buffer, len })
    }

    /// The address of the output.
    pub fn address(&self) -> u64 {
        self.buffer.address() + GUARD as u64
    }

    /// Reads the output, and the offset of the first guard byte that was overwritten, from the start of the output:
    /// negative before it, its length and more behind it.
    ///
    /// # Errors
    /// The driver's error.
    pub fn read(&self, stream: &Stream, doing: impl Fn() -> String) -> Result<(Vec<u8>, Option<i64>), CudaError> {
        let mut all = self.buffer.download(stream, 0, self.buffer.len(), doing)?;
        let touched = touched(&all, self.len);
        all.truncate(GUARD + self.len);
        all.drain(..GUARD);
        Ok((all, touched))
    }
}

/// The first guard byte that is not as it was filled, as an offset from the start of the output.
fn touched(all: &[u8], len: usize) -> Option<i64> {
    let guards = (0..GUARD).chain(GUARD + len..all.len());
    guards.into_iter().find(|&i| all[i] != GUARD_BYTE).map(|i| i as i64 - GUARD as i64)
}

/// Words of host memory that the device sees too. A kernel waits for one of them while the host queues what comes behind,
/// or writes one that the host waits for.
#[derive(Debug)]
pub struct HostWords {
    host: *mut u32,
    len: usize,
    device_address: u64,
    _device: Arc<Device>,
}

// SAFETY: the words are only touched through atomics.
unsafe impl Send for HostWords {}

impl HostWords {
    /// Words of zero.
    ///
    /// # Errors
    /// The driver's error.
    pub fn new(device: &Arc<Device>, len: usize) -> Result<HostWords, CudaError> {
        device.bind()?;
        let mut host = std::ptr::null_mut();
        // Not write-combined: the host reads them too.
        // SAFETY: the pointer is valid for one address.
        let result = unsafe { sys::cuMemHostAlloc(&mut host, 4 * len.max(16), sys::CU_MEMHOSTALLOC_DEVICEMAP) };
        check("cuMemHostAlloc", result, || "allocating words that host and device share".to_owned())?;
        let mut words = HostWords { host: host.cast(), len, device_address: 0, _device: device.clone() };
        // SAFETY: `host` came from the call above; 0 is the only legal flag.
        let result = unsafe { sys::cuMemHostGetDevicePointer_v2(&mut words.device_address, host, 0) };
        check("cuMemHostGetDevicePointer", result, || "mapping words that host and device share".to_owned())?;
        (0..len).for_each(|i| words.set(i, 0));
        Ok(words)
    }

    /// Where the device sees them.
    pub fn address(&self) -> u64 {
        self.device_address
    }

    fn word(&self, i: usize) -> &AtomicU32 {
        assert!(i < self.len, "word {i} of {}", self.len);
        // SAFETY: the word is 4-byte aligned host memory that lives as long as `self`, and is only touched atomically.
        unsafe { AtomicU32::from_ptr(self.host.add(i)) }
    }

    /// Sets a word. The device sees it within microseconds.
    pub fn set(&self, i: usize, value: u32) {
        self.word(i).store(value, Ordering::SeqCst);
    }

    /// Takes a word, which becomes zero.
    pub fn take(&self, i: usize) -> u32 {
        match self.word(i).load(Ordering::Acquire) {
            0 => 0,
            _ => self.word(i).swap(0, Ordering::AcqRel),
        }
    }
}

impl Drop for HostWords {
    fn drop(&mut self) {
        // SAFETY: the memory came from `cuMemHostAlloc`, and whoever launched a kernel that uses it has waited for it.
        unsafe {
            let _ = sys::cuMemFreeHost(self.host.cast());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_written_just_before_or_just_behind_an_output_is_found() {
        let len = 12;
        let mut all = vec![GUARD_BYTE; GUARD + len + GUARD];
        all[GUARD..GUARD + len].fill(7);
        assert_eq!(touched(&all, len), None);
        all[GUARD + len] = 0;
        assert_eq!(touched(&all, len), Some(12));
        all[GUARD - 1] = 0;
        assert_eq!(touched(&all, len), Some(-1));
    }
}
