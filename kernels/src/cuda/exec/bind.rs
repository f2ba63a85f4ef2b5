//! From checked operands to the arguments of a launch.

use crate::cuda::driver::Value;

use super::Span;

/// The arguments of one launch as they are put together.
#[derive(Default)]
pub(super) struct Args {
    pub values: Vec<Value>,
    pub memory: Vec<Span>,
}

impl Args {
    pub fn new() -> Args {
        Args::default()
    }

    /// A buffer of at least `bytes`.
    ///
    /// # Panics
    /// Where it is smaller: a kernel would read or write behind it.
    pub fn span(mut self, name: &str, span: &Span, bytes: usize) -> Args {
        assert!(span.len() >= bytes, "{name} has {} bytes, and the op takes {bytes}", span.len());
        self.values.push(Value::U64(span.address()));
        self.memory.push(span.clone());
        self
    }

    /// A buffer of at least `bytes`, or none.
    pub fn maybe(self, name: &str, span: Option<&Span>, bytes: usize) -> Args {
        match span {
            Some(span) => self.span(name, span, bytes),
            None => self.address(0),
        }
    }

    /// An address that is no buffer of the device: host memory, or null.
    pub fn address(mut self, address: u64) -> Args {
        self.values.push(Value::U64(address));
        self
    }

    pub fn ints<const N: usize>(mut self, values: [usize; N]) -> Args {
        let int = |v: usize| Value::I32(i32::try_from(v).expect("dimensions of a model fit in 31 bits"));
        self.values.extend(values.map(int));
        self
    }

    pub fn float(mut self, value: f32) -> Args {
        self.values.push(Value::F32(value));
        self
    }
}
