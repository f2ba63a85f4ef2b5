//! Launches.

use std::ffi::c_void;

use cudarc::driver::sys;

use super::{Function, Stream, check};
use crate::cuda::CudaError;

/// Blocks, threads and shared memory of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchShape {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub smem: u32,
    /// Percent of the most shared memory that a multiprocessor can have (228 KiB on sm_90) that it is to have, a wish; the
    /// rest is L1. 0 where the driver chooses. A multiprocessor changes it only while it is idle: a kernel starts beside
    /// another where both fit in the split that the first one found.
    pub shared_percent: u32,
}

impl LaunchShape {
    /// `blocks` blocks of `threads` threads.
    pub fn line(blocks: u32, threads: u32) -> LaunchShape {
        LaunchShape { grid: [blocks, 1, 1], block: [threads, 1, 1], smem: 0, shared_percent: 0 }
    }

    /// As the driver takes it, on the default stream and without attributes.
    pub(super) fn config(&self) -> sys::CUlaunchConfig {
        let ([x, y, z], [bx, by, bz]) = (self.grid, self.block);
        sys::CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: bx,
            blockDimY: by,
            blockDimZ: bz,
            sharedMemBytes: self.smem,
            hStream: std::ptr::null_mut(),
            attrs: std::ptr::null_mut(),
            numAttrs: 0,
        }
    }

    /// Threads of a block; saturates, so that an absurd shape is refused and not wrapped.
    pub fn threads(&self) -> u32 {
        self.block.iter().fold(1u32, |n, &d| n.saturating_mul(d))
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// An address on the device, or a 64-bit number.
    U64(u64),
    /// An int.
    I32(i32),
    /// An unsigned int.
    U32(u32),
    /// A float.
    F32(f32),
}

impl Value {
    /// The bytes at the start of a word, as the driver reads them; every device and host of CUDA is little-endian.
    fn word(self) -> u64 {
        match self {
            Value::U64(v) => v,
            Value::I32(v) => u64::from(v as u32),
            Value::U32(v) => u64::from(v),
            Value::F32(v) => u64::from(v.to_bits()),
        }
    }
}

impl Function {
    /// Launches on a stream; `early` lets this kernel start before the one ahead of it on the stream has ended
    /// (programmatic dependent launch, compute capability 9.0 and up).
    ///
    /// # Safety
    /// Number and types of the arguments are those of the kernel, and what it reads and writes through their addresses
    /// is allocated until the launch has ended.
    ///
    /// # Errors
    /// The driver's error for the launch itself; a fault of the kernel shows at the next call that waits.
    pub unsafe fn launch(
        &self,
        stream: &Stream,
        shape: &LaunchShape,
        early: bool,
        args: &[Value],
    ) -> Result<(), CudaError> {
        let mut words: Vec<u64> = args.iter().map(|v| v.word()).collect();
        let mut pointers: Vec<*mut c_void> = words.iter_mut().map(|w| std::ptr::from_mut(w).cast()).collect();
        let mut attributes = Vec::new();
        if early {
            attributes.push(sys::CUlaunchAttribute {
                id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
                pad: [0; 4],
                value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
            });
        }
        if shape.shared_percent > 0 {
            attributes.push(sys::CUlaunchAttribute {
                id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT,
                pad: [0; 4],
                value: sys::CUlaunchAttributeValue { sharedMemCarveout: shape.shared_percent },
            });
        }
        let [x, y, z] = shape.grid;
        let [bx, by, bz] = shape.block;
        let doing = || {
            let pdl = if early { ", programmatic" } else { "" };
            format!(
                "launching {} with grid {x}x{y}x{z}, block {bx}x{by}x{bz}, {} bytes of shared memory{pdl}",
                self.name, shape.smem
            )
        };
        if attributes.is_empty() {
            // SAFETY: function and stream are alive; the caller answers for the arguments; `pointers` has one pointer each,
            // to a word that lives through the call, and the driver copies what it needs.
            let result = unsafe {
                sys::cuLaunchKernel(
                    self.raw,
                    x,
                    y,
                    z,
                    bx,
                    by,
                    bz,
                    shape.smem,
                    stream.raw,
                    pointers.as_mut_ptr(),
                    std::ptr::null_mut(),
                )
            };
            return check("cuLaunchKernel", result, doing);
        }
        let config = sys::CUlaunchConfig {
            hStream: stream.raw,
            attrs: attributes.as_mut_ptr(),
            numAttrs: attributes.len() as u32,
            ..shape.config()
        };
        // SAFETY: as above; `config` and its attributes live through the call.
        let result = unsafe { sys::cuLaunchKernelEx(&config, self.raw, pointers.as_mut_ptr(), std::ptr::null_mut()) };
        check("cuLaunchKernelEx", result, doing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_lies_at_the_start_of_its_word() {
        assert_eq!(Value::I32(-2).word().to_le_bytes()[..4], (-2i32).to_le_bytes());
        assert_eq!(Value::F32(1.5).word().to_le_bytes()[..4], 1.5f32.to_le_bytes());
        assert_eq!(Value::U64(u64::MAX - 1).word(), u64::MAX - 1);
        assert_eq!(LaunchShape { block: [u32::MAX, 2, 1], ..LaunchShape::line(1, 1) }.threads(), u32::MAX);
    }
}
