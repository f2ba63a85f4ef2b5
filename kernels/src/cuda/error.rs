//! What can go wrong between this program and CUDA, in words that name the next step.

/// A failure of the CUDA libraries, the compiler or a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CudaError {
    /// The driver's library cannot be loaded.
    #[error(
        "no CUDA driver: libcuda.so.1 could not be loaded ({reason})\nhint: install the NVIDIA driver; in a container, \
         start it with --gpus all"
    )]
    NoDriver {
        /// What the loader said, and where it looked.
        reason: String,
    },
    /// The driver's library is older than what is called here.
    #[error(
        "the CUDA driver is too old: it runs CUDA {}.{}, and {}.{} is needed\nhint: install a newer NVIDIA driver, 525 or \
         later",
        found.0, found.1, least.0, least.1
    )]
    OldDriver {
        /// The newest CUDA version that it runs.
        found: (u32, u32),
        /// The least that it must.
        least: (u32, u32),
    },
    /// The driver is there and no device is.
    #[error("no CUDA device: {reason}\nhint: nvidia-smi shows what the driver sees; CUDA_VISIBLE_DEVICES may hide it")]
    NoDevice {
        /// What the driver said.
        reason: String,
    },
    /// The run-time compiler cannot be loaded.
    #[error(
        "no NVRTC, the run-time compiler of CUDA: {reason}\nhint: pip install nvidia-cuda-nvrtc (any Python \
         environment), install the CUDA toolkit, or set EDGELLM_NVRTC to libnvrtc.so or its folder"
    )]
    NoNvrtc {
        /// What was found wrong, or where it was looked for.
        reason: String,
    },
    /// The matrix library cannot be loaded.
    #[error(
        "no cuBLASLt, the matrix library of CUDA: {reason}\nhint: pip install nvidia-cublas-cu12, or nvidia-cublas for a \
         driver of CUDA 13 (any Python environment), install the CUDA toolkit, or set EDGELLM_CUBLASLT to libcublasLt.so or \
         its folder"
    )]
    NoCublasLt {
        /// What was found wrong, or where it was looked for.
        reason: String,
    },
    /// A call of cuBLASLt failed.
    #[error("{call} returned {code} ({text}) while {doing}")]
    CublasLt {
        /// The function.
        call: &'static str,
        /// Its result.
        code: i32,
        /// The library's name of the code.
        text: &'static str,
        /// What was being done.
        doing: String,
    },
    /// A call of NVRTC failed for another reason than the source.
    #[error("{call} returned {code} ({text})")]
    Nvrtc {
        /// The function.
        call: &'static str,
        /// Its result.
        code: i32,
        /// NVRTC's word for it.
        text: String,
    },
    /// The compiler refused the source.
    #[error("the compiler rejected {file} for {arch}:\n{log}")]
    Rejected {
        /// The source file.
        file: String,
        /// What it was compiled for.
        arch: String,
        /// The compiler's log, with file and line.
        log: String,
    },
    /// A call of the driver failed.
    #[error("{call} returned {name} ({code}: {text}) while {doing}")]
    Driver {
        /// The function.
        call: &'static str,
        /// The code.
        code: u32,
        /// The driver's name of the code, such as `CUDA_ERROR_ILLEGAL_ADDRESS`.
        name: String,
        /// The driver's sentence.
        text: String,
        /// What was being done.
        doing: String,
    },
    /// No kernel runs an op here.
    #[error("{op} at {shape}: {reason}")]
    NoKernel {
        /// The op, or the variant that failed.
        op: String,
        /// The shape.
        shape: String,
        /// Why.
        reason: String,
    },
    /// A token was asked for, and the device is computing none.
    #[error("no token comes behind position {position}: {reason}")]
    NoToken {
        /// The last position that was fed or queued.
        position: usize,
        /// Why.
        reason: String,
    },
    /// The device has no room for a cluster of blocks.
    #[error(
        "{what} runs in clusters of {blocks} blocks of {threads} threads and {smem} bytes of dynamic shared memory, and this \
         device has room for none"
    )]
    Cluster {
        /// The kernel.
        what: String,
        /// Blocks of a cluster.
        blocks: u32,
        /// Threads of a block.
        threads: u32,
        /// Bytes of dynamic shared memory of a block.
        smem: u32,
    },
    /// The driver takes no split of L1 with a launch.
    #[error(
        "{what} asks for a split of L1, and this driver, of CUDA {driver}, takes none; drivers do from CUDA 12.5 on"
    )]
    NoSplit {
        /// The kernel.
        what: String,
        /// The newest CUDA version that the driver runs.
        driver: String,
    },
    /// A launch asked for more than a block may have.
    #[error("{what} needs {needed} {resource} and this device allows {allowed}")]
    Resources {
        /// The kernel.
        what: String,
        /// The resource, with its unit.
        resource: &'static str,
        /// Asked for.
        needed: u64,
        /// Allowed.
        allowed: u64,
    },
}

impl CudaError {
    /// Whether the context is lost after this error: everything later in this process fails too, so that the process
    /// must be replaced.
    ///
    /// The codes are the sticky ones of the driver API reference (`CUresult`), each documented with "the process must
    /// be terminated and relaunched".
    pub fn is_fatal(&self) -> bool {
        // 214 ECC, 220 NVLink, 700 illegal address, 702 launch timeout, 709 context destroyed, 710 assert, 714 to 719
        // faults of an instruction, 999 unknown.
        matches!(self, CudaError::Driver { code: 214 | 220 | 226 | 700 | 702 | 709 | 710 | 714..=719 | 721 | 999, .. })
    }
}
