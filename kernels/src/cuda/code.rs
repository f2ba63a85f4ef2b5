//! What computes a variant on the device: a function that was compiled here, or NVIDIA's matrix library.

use std::sync::Arc;

use harness_spec::{CellFailure, Shape, VariantId};
use variants::{Activations, KernelSpec, Limits};

use super::driver::{Function, LaunchShape, Stream, Value};
use super::kernel::{admitted, launch_shape};
use super::{Blas, CudaError, Product};

/// What computes a variant.
#[derive(Clone, Debug)]
pub enum Code {
    /// A function, loaded.
    Function(Function),
    /// The library, with a handle on the device.
    Library(Arc<Blas>),
}

/// A variant that is ready to be launched at a shape.
#[derive(Clone, Debug)]
pub enum Launch {
    /// A function and its geometry.
    Function(Function, LaunchShape),
    /// A product by the library; `half`: of 16-bit floats, and not of 32-bit ones.
    Library {
        /// The library.
        blas: Arc<Blas>,
        /// Of what.
        half: bool,
    },
}

impl Code {
    /// Makes a variant ready for a shape.
    ///
    /// # Errors
    /// As [`launch_shape`], or where a block does not fit on the device.
    pub fn at(&self, spec: &KernelSpec, id: &VariantId, shape: &Shape, limits: &Limits) -> Result<Launch, CellFailure> {
        match self {
            Code::Function(function) => {
                let shape = launch_shape(spec, id, shape, limits)?;
                function.allow(&shape)?;
                Ok(Launch::Function(function.clone(), shape))
            }
            Code::Library(blas) => {
                admitted(spec, id, shape, limits)?;
                Ok(Launch::Library { blas: blas.clone(), half: spec.activations == Some(Activations::F16) })
            }
        }
    }
}

impl Launch {
    /// Whether it can start before the kernel ahead of it has ended: the library offers no such launch.
    pub fn can_be_early(&self) -> bool {
        matches!(self, Launch::Function(..))
    }

    /// Whether a graph of so many nodes is what so many launches make: one each, or of the library the same number each, as a
    /// product may be split and its parts added up by a second kernel.
    pub fn makes(&self, nodes: usize, launches: usize) -> bool {
        match self {
            Launch::Function(..) => nodes == launches,
            Launch::Library { .. } => nodes >= launches && nodes.is_multiple_of(launches.max(1)),
        }
    }

    /// Launches on a stream; `early` is left out where [`Launch::can_be_early`] says no.
    ///
    /// # Safety
    /// The arguments are those that the variant's op gives, and what they point to is allocated until the launch has ended. All
    /// products of one library are launched on one stream.
    ///
    /// # Errors
    /// That of the driver or of the library.
    pub unsafe fn launch(&self, stream: &Stream, early: bool, args: &[Value]) -> Result<(), CudaError> {
        match self {
            // SAFETY: as the caller says.
            Launch::Function(function, shape) => unsafe { function.launch(stream, shape, early, args) },
            // SAFETY: as the caller says; `product` reads the arguments as the op gives them.
            Launch::Library { blas, half } => unsafe { blas.matmul(stream, &product(args, *half)) },
        }
    }
}

/// The product that the arguments of a `gemv_*` ask for.
fn product(args: &[Value], half: bool) -> Product {
    let &[Value::U64(w), Value::U64(x), Value::U64(y), Value::I32(n), Value::I32(k), Value::I32(m)] = args else {
        panic!("the library computes the product W x of a gemv_*, not an op with the arguments {args:?}")
    };
    let [n, k, m] = [n, k, m].map(|size| usize::try_from(size).expect("sizes are not negative"));
    Product { w, x, y, n, k, m, row: n, half, accumulate: false }
}

#[cfg(test)]
mod tests {
    use harness_spec::DType;
    use variants::{gemv_op, registry};

    use super::*;

    #[test]
    fn a_product_is_read_from_the_arguments_of_a_gemv() {
        let args = [Value::U64(1), Value::U64(2), Value::U64(3), Value::I32(5), Value::I32(7), Value::I32(2)];
        let p = product(&args, true);
        assert_eq!((p.w, p.x, p.y, p.n, p.k, p.m, p.row), (1, 2, 3, 5, 7, 2, 5));
        assert!(p.half && !p.accumulate);
    }

    #[test]
    fn the_library_is_registered_where_it_can_multiply_what_it_is_given() {
        let libraries: Vec<_> = registry().kernels().filter(|(_, k)| k.is_library()).collect();
        assert!(libraries.len() >= 2, "16-bit and 32-bit floats");
        for (op, kernel) in libraries {
            // Both sides of a product have one type, and the weights lie as in the file, row by row.
            let form = match kernel.dtypes[..] {
                [DType::F16] => Activations::F16,
                [DType::F32] => Activations::F32,
                _ => panic!("{op}/{} multiplies {:?}", kernel.name, kernel.dtypes),
            };
            assert_eq!((op, kernel.activations), (gemv_op(kernel.dtypes[0]), Some(form)));
            assert_eq!(kernel.layout, Some(variants::Layout::Gguf));
        }
    }
}
