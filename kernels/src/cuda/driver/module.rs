//! Loaded code and its functions.

use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::driver::sys::{self, CUfunction_attribute as Attribute};

use super::{Device, LaunchShape, check};
use crate::cuda::CudaError;
use crate::cuda::compile::Cubin;

/// The CUDA version from which on a driver takes the split of L1 with a launch.
const SPLITS_L1_SINCE: (u32, u32) = (12, 5);

/// Code loaded into a context.
#[derive(Debug)]
pub struct Module {
    raw: sys::CUmodule,
    device: Arc<Device>,
}

// SAFETY: a module is a handle that any thread may use while its context is current.
unsafe impl Send for Module {}
// SAFETY: as above; nothing is changed through it.
unsafe impl Sync for Module {}

impl Module {
    /// Loads machine code, or PTX, which the driver compiles.
    ///
    /// # Errors
    /// The driver's error; for PTX with the log of its compiler.
    pub fn load(device: &Arc<Device>, cubin: &Cubin) -> Result<Arc<Module>, CudaError> {
        device.bind()?;
        let mut raw = std::ptr::null_mut();
        let mut log = vec![0u8; 8192];
        let mut options =
            [sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER, sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        // The second value is a number in the place of a pointer, as the driver's interface wants it.
        let mut values = [log.as_mut_ptr().cast::<c_void>(), std::ptr::without_provenance_mut(log.len())];
        // The copy is aligned for the ELF header, which a slice of bytes need not be.
        let words = cubin.bytes.len().div_ceil(8);
        let mut image = vec![0u64; words];
        // SAFETY: `image` has room for all bytes, and the two do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(cubin.bytes.as_ptr(), image.as_mut_ptr().cast(), cubin.bytes.len()) };
        // SAFETY: the image is a whole cubin, or PTX with its zero byte, and lives through the call; options and values
        // are two each and the log buffer has the length that is given.
        let result = unsafe {
            sys::cuModuleLoadDataEx(
                &mut raw,
                image.as_ptr().cast(),
                options.len() as u32,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        check("cuModuleLoadDataEx", result, || {
            let end = log.iter().position(|&b| b == 0).unwrap_or(log.len());
            let log = String::from_utf8_lossy(&log[..end]);
            let log = log.trim();
            let sep = if log.is_empty() { "" } else { ": " };
            format!("loading {} for {}{sep}{log}", cubin.entry, cubin.arch)
        })?;
        Ok(Arc::new(Module { raw, device: device.clone() }))
    }

    /// A function by its name.
    ///
    /// # Errors
    /// The driver's error.
    pub fn function(self: &Arc<Module>, name: &str) -> Result<Function, CudaError> {
        let text = CString::new(name).map_err(|_| CudaError::Driver {
            call: "cuModuleGetFunction",
            code: 1,
            name: "CUDA_ERROR_INVALID_VALUE".to_owned(),
            text: "the name contains a zero byte".to_owned(),
            doing: format!("looking for function {name:?}"),
        })?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the module is alive and the name is a C string.
        let result = unsafe { sys::cuModuleGetFunction(&mut raw, self.raw, text.as_ptr()) };
        check("cuModuleGetFunction", result, || format!("looking for function {name}"))?;
        Ok(Function { raw, name: name.to_owned(), module: self.clone() })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: the module was loaded by `load`; its functions hold an `Arc` of it.
        unsafe {
            let _ = sys::cuModuleUnload(self.raw);
        }
    }
}

/// A function of a module.
#[derive(Clone, Debug)]
pub struct Function {
    pub(super) raw: sys::CUfunction,
    pub(super) name: String,
    module: Arc<Module>,
}

// SAFETY: a function is a handle that any thread may use while its context is current.
unsafe impl Send for Function {}
// SAFETY: as above; a launch changes nothing in it, and the driver locks for itself.
unsafe impl Sync for Function {}

impl Function {
    /// The function's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The device that it was loaded on.
    pub fn device(&self) -> &Arc<Device> {
        &self.module.device
    }

    fn attribute(&self, which: Attribute) -> Result<u32, CudaError> {
        let mut value = 0;
        // SAFETY: the pointer is valid for one int and the function is alive.
        let result = unsafe { sys::cuFuncGetAttribute(&mut value, which, self.raw) };
        check("cuFuncGetAttribute", result, || format!("asking {} for {which:?}", self.name))?;
        Ok(u32::try_from(value).unwrap_or(0))
    }

    /// Registers of a thread, as loaded: for PTX the only source.
    ///
    /// # Errors
    /// The driver's error.
    pub fn registers(&self) -> Result<u32, CudaError> {
        self.attribute(Attribute::CU_FUNC_ATTRIBUTE_NUM_REGS)
    }

    /// Bytes of local memory of a thread.
    ///
    /// # Errors
    /// The driver's error.
    pub fn local_bytes(&self) -> Result<u32, CudaError> {
        self.attribute(Attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)
    }

    /// Blocks of a cluster; 1 for a kernel without clusters.
    fn cluster(&self) -> Result<u32, CudaError> {
        // A driver from before there were such devices does not know the attributes.
        if self.device().facts().cc < 90 {
            return Ok(1);
        }
        let sides = [
            Attribute::CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH,
            Attribute::CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_HEIGHT,
            Attribute::CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_DEPTH,
        ];
        sides.into_iter().try_fold(1, |blocks, side| Ok(blocks * self.attribute(side)?.max(1)))
    }

    /// Checks that a block of a launch fits, and asks for shared memory where it is above the 48 KiB that need no asking,
    /// and for clusters where they are of more than the 8 blocks that every device has room for.
    ///
    /// # Errors
    /// [`CudaError::Resources`] with both numbers, [`CudaError::NoSplit`] where the driver is too old for the split of L1, or
    /// the driver's error.
    pub fn allow(&self, shape: &LaunchShape) -> Result<(), CudaError> {
        let (threads, dynamic_smem) = (shape.threads(), shape.smem);
        let driver @ (major, minor) = self.device().facts().driver_cuda;
        if shape.shared_percent > 0 && driver < SPLITS_L1_SINCE {
            return Err(CudaError::NoSplit { what: self.name.clone(), driver: format!("{major}.{minor}") });
        }
        let most = self.attribute(Attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?;
        let too_much = |resource, needed: u32, allowed: u32| CudaError::Resources {
            what: self.name.clone(),
            resource,
            needed: u64::from(needed),
            allowed: u64::from(allowed),
        };
        if threads > most {
            return Err(too_much("threads a block (registers or the launch bounds limit them)", threads, most));
        }
        let fixed = self.attribute(Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?;
        let allowed = self.module.device.facts().smem;
        let needed = fixed.saturating_add(dynamic_smem);
        if needed > allowed {
            return Err(too_much("bytes of shared memory a block", needed, allowed));
        }
        if needed > 48 << 10 {
            let which = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // All that there is: a function is shared by shapes, and a smaller one must not lower what a larger one needs.
            let most = allowed - fixed;
            // SAFETY: the function is alive.
            let result = unsafe { sys::cuFuncSetAttribute(self.raw, which, most as i32) };
            check("cuFuncSetAttribute", result, || {
                format!("asking for {most} bytes of shared memory for {}", self.name)
            })?;
        }
        let cluster = self.cluster()?;
        if cluster > 8 {
            let which = Attribute::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED;
            // SAFETY: the function is alive.
            let result = unsafe { sys::cuFuncSetAttribute(self.raw, which, 1) };
            check("cuFuncSetAttribute", result, || {
                format!("asking for clusters of {cluster} blocks for {}", self.name)
            })?;
        }
        Ok(())
    }

    /// Checks that the device has room for a cluster of the blocks of a launch, where the function has clusters: a slice of a
    /// device, or one with parts switched off, need not. [`Function::allow`] goes before it.
    ///
    /// # Errors
    /// [`CudaError::Cluster`], or the driver's error.
    pub fn fits_in_clusters(&self, shape: &LaunchShape) -> Result<(), CudaError> {
        let blocks = self.cluster()?;
        if blocks == 1 {
            return Ok(());
        }
        // As it is launched, but for the split of L1, which is a wish: the size of a cluster is part of the function, and no
        // attribute of a launch repeats it.
        let config = shape.config();
        let mut clusters = 0;
        // SAFETY: the pointer is valid for one int, the function is alive, and `config` lives through the call.
        let result = unsafe { sys::cuOccupancyMaxActiveClusters(&mut clusters, self.raw, &config) };
        if result != sys::CUresult::CUDA_ERROR_INVALID_CLUSTER_SIZE {
            let doing = || format!("asking how many clusters of {blocks} blocks of {} fit", self.name);
            check("cuOccupancyMaxActiveClusters", result, doing)?;
        }
        if result == sys::CUresult::CUDA_SUCCESS && clusters > 0 {
            return Ok(());
        }
        Err(CudaError::Cluster { what: self.name.clone(), blocks, threads: shape.threads(), smem: shape.smem })
    }
}
