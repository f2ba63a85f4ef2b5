//! From an error of CUDA to what became of a cell.

use harness_spec::{CellFailure, Stage};

use super::CudaError;

impl From<&CudaError> for CellFailure {
    fn from(error: &CudaError) -> CellFailure {
        let stage = match error {
            CudaError::Rejected { .. } => Stage::Compile,
            // A library that is not there, or has no way to this product (CUBLAS_STATUS_NOT_SUPPORTED), is no error of a variant.
            CudaError::NoCublasLt { .. } | CudaError::CublasLt { code: 15, .. } => Stage::Constraint,
            CudaError::CublasLt { .. } => Stage::Launch,
            CudaError::Resources { .. } | CudaError::Cluster { .. } | CudaError::NoSplit { .. } => Stage::Resources,
            // CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES: more registers or shared memory than a block has.
            CudaError::Driver { code: 701, .. } => Stage::Resources,
            e if e.is_fatal() => Stage::Fault,
            CudaError::Driver { call: "cuLaunchKernel" | "cuLaunchKernelEx" | "cuGraphLaunch", .. } => Stage::Launch,
            CudaError::Driver { call: "cuModuleLoadDataEx", .. } => Stage::Compile,
            _ => Stage::Harness,
        };
        CellFailure::new(stage, error.to_string())
    }
}

impl From<CudaError> for CellFailure {
    fn from(error: CudaError) -> CellFailure {
        CellFailure::from(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(call: &'static str, code: u32) -> CudaError {
        CudaError::Driver { call, code, name: "N".to_owned(), text: "t".to_owned(), doing: "d".to_owned() }
    }

    #[test]
    fn what_failed_decides_the_stage() {
        let stage = |e: CudaError| CellFailure::from(e).stage;
        assert_eq!(stage(driver("cuStreamSynchronize", 700)), Stage::Fault);
        assert_eq!(stage(driver("cuLaunchKernel", 701)), Stage::Resources);
        assert_eq!(stage(driver("cuLaunchKernel", 1)), Stage::Launch);
        assert_eq!(stage(driver("cuLaunchKernelEx", 719)), Stage::Fault);
        assert_eq!(stage(driver("cuMemAlloc", 2)), Stage::Harness);
        let library = |code| CudaError::CublasLt { call: "cublasLtMatmul", code, text: "t", doing: "d".to_owned() };
        assert_eq!([stage(library(15)), stage(library(13))], [Stage::Constraint, Stage::Launch]);
        let rejected = CudaError::Rejected { file: "k.cu".into(), arch: "sm_90".into(), log: "k.cu(3): error".into() };
        assert_eq!(stage(rejected.clone()), Stage::Compile);
        assert!(CellFailure::from(rejected).message.contains("k.cu(3)"));
    }
}
