//! The configurations of a kernel at a shape on a device: which of them may run, and why the others may not.

use std::collections::BTreeMap;

use harness_spec::{Shape, VariantId};

use crate::expr::{Expr, ExprError, Names};
use crate::space::Backend;
use crate::{KernelSpec, Limits};

/// Every configuration of a kernel, each in one of two lists (R2). Both may be empty of everything but the other: that no
/// configuration is admitted is an answer, not an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enumeration {
    /// Those that may run, the default first where it may.
    pub admitted: Vec<VariantId>,
    /// Those that may not, each with the reason.
    pub pruned: Vec<(VariantId, String)>,
}

impl Enumeration {
    /// Configurations in all.
    pub fn enumerated(&self) -> usize {
        self.admitted.len() + self.pruned.len()
    }
}

/// How a variant is launched at a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Blocks, x first.
    pub grid: [u32; 3],
    /// Threads of a block, x first.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory of a block.
    pub smem: u32,
    /// Percent of the most shared memory that a multiprocessor can have that it is to have; 0 where the driver chooses.
    pub shared_percent: u32,
}

/// Why a variant has no launch geometry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// The kernel is not one that is launched.
    #[error("{0} has no launch geometry: it runs on the processor or in a library")]
    NotLaunched(String),
    /// An expression has no value here.
    #[error("{kernel}: {what} `{expression}` {source}")]
    Expression {
        /// The kernel.
        kernel: String,
        /// Which of the expressions.
        what: &'static str,
        /// Its text.
        expression: String,
        /// What is wrong.
        source: ExprError,
    },
    /// A dimension that no device takes.
    #[error("{kernel}: {what} `{expression}` is {value} at {shape}, and must be from {least} to {most}")]
    OutOfRange {
        /// The kernel.
        kernel: String,
        /// Which of the expressions.
        what: &'static str,
        /// Its text.
        expression: String,
        /// Its value.
        value: i64,
        /// The shape.
        shape: String,
        /// The least that it may be.
        least: i64,
        /// The most.
        most: i64,
    },
}

/// The most blocks in y and z, and the most threads of a block in z and in all, by the CUDA programming guide.
const MOST_BLOCKS: [i64; 3] = [i32::MAX as i64, 65535, 65535];
const MOST_THREADS: [i64; 3] = [1024, 1024, 64];

impl KernelSpec {
    /// Every configuration at `shape` on a device, admitted or pruned.
    pub fn variants(&self, shape: &Shape, limits: &Limits) -> Enumeration {
        let mut out = Enumeration::default();
        for tunables in self.configurations() {
            let id = self.variant(tunables);
            match self.admits(&id, shape, limits) {
                Ok(()) => out.admitted.push(id),
                Err(reason) => out.pruned.push((id, reason)),
            }
        }
        if let Some(at) = out.admitted.iter().position(|id| id.tunables == self.default) {
            out.admitted[..=at].rotate_right(1);
        }
        out
    }

    /// Every assignment of values to tunables, the last tunable varying fastest.
    fn configurations(&self) -> Vec<BTreeMap<String, i64>> {
        let mut all = vec![BTreeMap::new()];
        for (name, values) in &self.tunables {
            all = all
                .iter()
                .flat_map(|base| {
                    values.iter().map(move |&value| {
                        let mut next = base.clone();
                        next.insert(name.clone(), value);
                        next
                    })
                })
                .collect();
        }
        all
    }

    /// Whether a device of these limits runs the kernel at all, whatever the configuration.
    ///
    /// # Errors
    /// The reason, in words.
    pub fn runs_on(&self, limits: &Limits) -> Result<(), String> {
        match self.backend {
            Backend::Cuda if limits.cc == 0 => Err("needs a CUDA device".to_owned()),
            Backend::Cuda if limits.cc < self.min_cc => {
                Err(format!("needs compute capability {}, the device has {}", version(self.min_cc), version(limits.cc)))
            }
            Backend::Cuda => Ok(()),
            Backend::Cpu => match limits.isa {
                Some(isa) if isa.runs(self.isa) => Ok(()),
                Some(isa) => Err(format!("needs {} instructions, the processor has {isa}", self.isa)),
                None => Err("runs on a processor, not on a CUDA device".to_owned()),
            },
        }
    }

    /// Whether a variant of this kernel may run at `shape` on a device.
    ///
    /// # Errors
    /// The reason, in words: the device, the constraint that does not hold, or what is wrong with it.
    pub fn admits(&self, id: &VariantId, shape: &Shape, limits: &Limits) -> Result<(), String> {
        self.runs_on(limits)?;
        if !self.is_kernel_of(id) {
            return Err(format!("{id} is not in the space of {}", self.id()));
        }
        let names = Names { tunables: &id.tunables, shape, limits, blocks: None };
        for constraint in &self.programs.0.constraints {
            match constraint.holds(&names) {
                Ok(true) => {}
                Ok(false) => return Err(format!("{} does not hold", constraint.text)),
                Err(e) => return Err(format!("the constraint `{}` {e}", constraint.text)),
            }
        }
        if self.backend == Backend::Cuda && !self.is_library() {
            self.geometry(id, shape, limits).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Grid, block and shared memory of a variant at `shape`.
    ///
    /// # Errors
    /// [`GeometryError`] names the kernel and the expression.
    pub fn geometry(&self, id: &VariantId, shape: &Shape, limits: &Limits) -> Result<Geometry, GeometryError> {
        let (Some(smem), Some(percent)) = (&self.programs.0.smem, &self.programs.0.shared_percent) else {
            return Err(GeometryError::NotLaunched(self.id()));
        };
        let names = Names { tunables: &id.tunables, shape, limits, blocks: None };
        let size = |what: &'static str, expr: &Expr, least: i64, most: i64| {
            let expression = || expr.text.clone();
            let value = expr.size(&names).map_err(|source| GeometryError::Expression {
                kernel: self.id(),
                what,
                expression: expression(),
                source,
            })?;
            u32::try_from(value).ok().filter(|_| (least..=most).contains(&value)).ok_or_else(|| {
                let (kernel, shape) = (self.id(), shape.to_string());
                GeometryError::OutOfRange { kernel, what, expression: expression(), value, shape, least, most }
            })
        };
        let sizes = |what: &'static str, exprs: &[Expr], most: [i64; 3]| {
            let mut out = [1u32; 3];
            for ((out, expr), most) in out.iter_mut().zip(exprs).zip(most) {
                *out = size(what, expr, 1, most)?;
            }
            Ok(out)
        };
        let grid = sizes("the grid", &self.programs.0.grid, MOST_BLOCKS)?;
        let block = sizes("the block", &self.programs.0.block, MOST_THREADS)?;
        let threads: i64 = block.iter().map(|&b| i64::from(b)).product();
        if threads > MOST_THREADS[0] {
            return Err(GeometryError::OutOfRange {
                kernel: self.id(),
                what: "the block",
                expression: self.programs.0.block.iter().map(|e| e.text.as_str()).collect::<Vec<_>>().join(" * "),
                value: threads,
                shape: shape.to_string(),
                least: 1,
                most: MOST_THREADS[0],
            });
        }
        let smem = size("the shared memory", smem, 0, limits.smem.into())?;
        let shared_percent = size("the share of shared memory", percent, 0, 100)?;
        Ok(Geometry { grid, block, smem, shared_percent })
    }

    /// How often a launch does the work that it repeats, such as the norm that every block of a product does for itself:
    /// 1 is not repeated at all. `None` where the space names no such work.
    ///
    /// # Errors
    /// [`GeometryError`] names the kernel and the expression.
    pub fn redundancy(&self, id: &VariantId, shape: &Shape, limits: &Limits) -> Result<Option<u64>, GeometryError> {
        let Some(expr) = &self.programs.0.redundant else { return Ok(None) };
        let blocks = self.geometry(id, shape, limits)?.grid.iter().map(|&b| i64::from(b)).product();
        let names = Names { tunables: &id.tunables, shape, limits, blocks: Some(blocks) };
        let (kernel, what, expression) = (self.id(), "the repeated work", expr.text.clone());
        let value = expr.size(&names).map_err(|source| GeometryError::Expression {
            kernel: kernel.clone(),
            what,
            expression: expression.clone(),
            source,
        })?;
        u64::try_from(value).ok().filter(|&times| times > 0).map(Some).ok_or_else(|| {
            let shape = shape.to_string();
            GeometryError::OutOfRange { kernel, what, expression, value, shape, least: 1, most: i64::MAX }
        })
    }
}

fn version(cc: u32) -> String {
    format!("{}.{}", cc / 10, cc % 10)
}
