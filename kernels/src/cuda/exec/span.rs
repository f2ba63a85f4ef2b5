//! Ranges of device memory, and weights in a kernel's layout.

use std::sync::Arc;

use harness_spec::DType;
use variants::Layout;

use crate::cuda::CudaError;
use crate::cuda::driver::{Buffer, Stream};

/// A range of device memory. Clones share the allocation, which lives as long as any of them.
#[derive(Clone, Debug)]
pub struct Span {
    buffer: Arc<Buffer>,
    at: usize,
    len: usize,
}

impl Span {
    /// All of a buffer.
    pub fn whole(buffer: Buffer) -> Span {
        let len = buffer.len();
        Span { buffer: Arc::new(buffer), at: 0, len }
    }

    /// New memory, all zero. `what` names it in an error.
    ///
    /// # Errors
    /// The driver's error, such as no memory left.
    pub fn zeroed(stream: &Stream, len: usize, what: &str) -> Result<Span, CudaError> {
        let buffer = Buffer::new(stream.device(), len, what)?;
        buffer.fill(stream, 0, len, 0)?;
        Ok(Span::whole(buffer))
    }

    /// New memory with these floats.
    ///
    /// # Errors
    /// The driver's error.
    pub fn floats(stream: &Stream, values: &[f32], what: &str) -> Result<Span, CudaError> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Ok(Span::whole(Buffer::of(stream, &bytes, what)?))
    }

    /// A part of it.
    ///
    /// # Panics
    /// Where the part is not inside.
    pub fn part(&self, at: usize, len: usize) -> Span {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.len), "{len} bytes at {at} of {}", self.len);
        Span { buffer: self.buffer.clone(), at: self.at + at, len }
    }

    /// Its address on the device.
    pub fn address(&self) -> u64 {
        self.buffer.address() + self.at as u64
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes bytes to its start, in the order of the stream.
    ///
    /// # Errors
    /// The driver's error.
    pub fn upload(&self, stream: &Stream, bytes: &[u8]) -> Result<(), CudaError> {
        assert!(bytes.len() <= self.len, "{} bytes into {}", bytes.len(), self.len);
        self.buffer.upload(stream, self.at, bytes)
    }

    /// Reads the first bytes when everything before on the stream is done.
    ///
    /// # Errors
    /// The driver's error; a fault of an earlier launch shows here, and `doing` names it.
    pub fn download(&self, stream: &Stream, len: usize, doing: impl Fn() -> String) -> Result<Vec<u8>, CudaError> {
        assert!(len <= self.len, "{len} bytes of {}", self.len);
        self.buffer.download(stream, self.at, len, doing)
    }

    /// Fills all of it, in the order of the stream.
    ///
    /// # Errors
    /// The driver's error.
    pub fn fill(&self, stream: &Stream, byte: u8) -> Result<(), CudaError> {
        self.buffer.fill(stream, self.at, self.len, byte)
    }
}

/// A matrix `[n, k]` on the device, in one layout.
#[derive(Clone, Debug)]
pub struct Weights {
    /// The type of the weights.
    pub dtype: DType,
    /// Rows.
    pub n: usize,
    /// Columns.
    pub k: usize,
    /// How they lie.
    pub layout: Layout,
    /// The slab.
    pub slab: Span,
}
