//! CEL expressions of space files: constraints and launch geometry, compiled once for each kernel.
//!
//! Variables are integers: the kernel's tunables, the dimensions of its op, and the facts of the device ([`DEVICE`]).
//! Functions are `min`, `max` and `ceil_div`; division truncates. There is no other name, so that a misspelt one is found
//! when the file is read and not when a device is at hand.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use cel::common::types::{self, CelInt};
use cel::common::value::CowVal;
use cel::context::VariableResolver;
use cel::{Context, Env, ExecutionError, Program, Value};
use harness_spec::Shape;

use crate::Limits;

/// Names of the facts of a device in expressions.
pub const DEVICE: [&str; 5] = ["cc", "sms", "smem", "l2", "threads_per_sm"];

/// The name of the blocks of the grid, in the expression of repeated work alone.
pub(crate) const BLOCKS: &str = "blocks";

/// Names of the functions.
pub const FUNCTIONS: [&str; 3] = ["ceil_div", "max", "min"];

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExprError {
    /// It is not CEL.
    #[error("is not CEL: {0}")]
    Syntax(String),
    /// It uses a name that does not exist here.
    #[error("uses the unknown name {name}: use one of {known}")]
    UnknownName {
        /// The name.
        name: String,
        /// Those that exist.
        known: String,
    },
    /// It uses a function that does not exist.
    #[error("calls the unknown function {0}: use ceil_div, max or min")]
    UnknownFunction(String),
    /// It is of another type.
    #[error("must be {want}, but gives {got}")]
    Type {
        /// What it must be.
        want: &'static str,
        /// What it is.
        got: String,
    },
    /// A dimension that it uses is not part of the shape.
    #[error("needs the dimension {0}, which the shape lacks")]
    NoDimension(String),
    /// It cannot be evaluated, such as a division by zero.
    #[error("cannot be evaluated: {0}")]
    Evaluation(String),
}

/// A compiled expression with its text.
#[derive(Debug)]
pub(crate) struct Expr {
    pub text: String,
    program: Program,
}

/// What the names in an expression stand for.
pub(crate) struct Names<'a> {
    pub tunables: &'a BTreeMap<String, i64>,
    pub shape: &'a Shape,
    pub limits: &'a Limits,
    /// Blocks of the grid, once they are known.
    pub blocks: Option<i64>,
}

impl Names<'_> {
    fn get(&self, name: &str) -> Option<i64> {
        let clamp = |v: u64| i64::try_from(v).unwrap_or(i64::MAX);
        match name {
            "cc" => Some(self.limits.cc.into()),
            "sms" => Some(self.limits.sms.into()),
            "smem" => Some(self.limits.smem.into()),
            "l2" => Some(clamp(self.limits.l2)),
            "threads_per_sm" => Some(self.limits.threads_per_sm.into()),
            BLOCKS => self.blocks,
            _ => self.tunables.get(name).copied().or_else(|| match self.shape.get(name) {
                Some(value) => Some(clamp(value)),
                // One token is what a shape without M is about.
                None if name == "M" => Some(1),
                None => None,
            }),
        }
    }
}

impl VariableResolver for Names<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        self.get(name).map(|value| CowVal::owned(CelInt::from(value)))
    }
}

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    let pair = || vec![types::INT_TYPE, types::INT_TYPE];
    let declared = [
        env.add_overload("ceil_div", "ceil_div_int", pair(), |args| {
            let (a, b) = two(&args)?;
            if b <= 0 || a < 0 {
                return Err(ExecutionError::function_error("ceil_div", format!("{a} cannot be divided by {b}")));
            }
            Ok(CowVal::owned(CelInt::from(a / b + i64::from(a % b != 0))))
        }),
        env.add_overload("min", "min_int", pair(), |args| {
            two(&args).map(|(a, b)| CowVal::owned(CelInt::from(a.min(b))))
        }),
        env.add_overload("max", "max_int", pair(), |args| {
            two(&args).map(|(a, b)| CowVal::owned(CelInt::from(a.max(b))))
        }),
    ];
    assert!(declared.iter().all(Result::is_ok), "no two functions of the environment share a name");
    Arc::new(env)
});

fn two(args: &[CowVal<'_, '_>]) -> Result<(i64, i64), ExecutionError> {
    let int = |i: usize| args.get(i).and_then(|a| a.downcast_ref::<CelInt>()).map(|v| *v.inner());
    int(0).zip(int(1)).ok_or_else(|| ExecutionError::invalid_argument_count(2, args.len()))
}

impl Expr {
    /// Compiles an expression that may use the names of `known` and of the device.
    pub fn new(text: &str, known: &[&str]) -> Result<Expr, ExprError> {
        let program = ENV.compile(text).map_err(|e| ExprError::Syntax(e.to_string().trim_end().to_owned()))?;
        let references = program.references();
        let mut names = references.variables();
        names.sort_unstable();
        if let Some(name) = names.into_iter().find(|n| !known.contains(n) && !DEVICE.contains(n)) {
            let known: Vec<&str> = known.iter().chain(&DEVICE).copied().collect();
            return Err(ExprError::UnknownName { name: name.to_owned(), known: known.join(", ") });
        }
        let mut functions = references.functions();
        functions.sort_unstable();
        // Operators are functions too, under names such as `_+_`.
        let is_word = |f: &str| f.starts_with(|c: char| c.is_ascii_alphabetic());
        if let Some(name) = functions.into_iter().find(|f| is_word(f) && !FUNCTIONS.contains(f)) {
            return Err(ExprError::UnknownFunction(name.to_owned()));
        }
        Ok(Expr { text: text.to_owned(), program })
    }

    fn value(&self, names: &Names<'_>) -> Result<Value, ExprError> {
        let mut context = Context::with_env(Arc::clone(&ENV));
        context.set_variable_resolver(names);
        self.program.execute(&context).map_err(|e| match e {
            ExecutionError::UndeclaredReference(name) => ExprError::NoDimension(name.to_string()),
            e @ (ExecutionError::NoSuchOverload(_)
            | ExecutionError::UnsupportedBinaryOperator(..)
            | ExecutionError::ValuesNotComparable(..)
            | ExecutionError::UnexpectedType { .. }) => ExprError::Type { want: "of integers", got: e.to_string() },
            e => ExprError::Evaluation(e.to_string()),
        })
    }

    /// The value of a constraint.
    pub fn holds(&self, names: &Names<'_>) -> Result<bool, ExprError> {
        match self.value(names)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(ExprError::Type { want: "true or false", got: format!("{other:?}") }),
        }
    }

    /// The value of a size.
    pub fn size(&self, names: &Names<'_>) -> Result<i64, ExprError> {
        match self.value(names)? {
            Value::Int(size) => Ok(size),
            other => Err(ExprError::Type { want: "an integer", got: format!("{other:?}") }),
        }
    }
}

/// The compiled expressions of a kernel, shared by its copies.
///
/// They follow from the kernel's text, so that two kernels are equal whatever is in here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Programs(pub Arc<Compiled>);

#[derive(Debug, Default)]
pub(crate) struct Compiled {
    pub constraints: Vec<Expr>,
    pub grid: Vec<Expr>,
    pub block: Vec<Expr>,
    pub smem: Option<Expr>,
    pub shared_percent: Option<Expr>,
    pub redundant: Option<Expr>,
}

impl PartialEq for Programs {
    fn eq(&self, _: &Programs) -> bool {
        true
    }
}

impl Eq for Programs {}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { cc: 75, sms: 40, smem: 65536, l2: 4 << 20, threads_per_sm: 1024, isa: None };

    fn size(text: &str) -> Result<i64, ExprError> {
        let tunables = BTreeMap::from([("ROWS".to_owned(), 4)]);
        let shape = Shape::of([("N", 4097), ("K", 64)]);
        let names = Names { tunables: &tunables, shape: &shape, limits: &LIMITS, blocks: None };
        Expr::new(text, &["ROWS", "N", "K", "M", "LEN"])?.size(&names)
    }

    #[test]
    fn expressions_see_tunables_dimensions_and_the_device() {
        assert_eq!(size("ceil_div(N, ROWS)"), Ok(1025));
        assert_eq!(size("min(N, 8) + max(ROWS, 5) * 10"), Ok(58));
        assert_eq!(size("cc >= 80 ? 1 : sms * threads_per_sm"), Ok(40960));
        assert_eq!(size("smem / 1024 + l2 % 7"), Ok(64 + (4 << 20) % 7));
        assert_eq!(size("M"), Ok(1), "a shape without M is of one token");
    }

    #[test]
    fn what_is_wrong_with_an_expression_is_said() {
        assert!(matches!(size("ROWS *"), Err(ExprError::Syntax(_))));
        assert!(matches!(size("ROWS * 32 <= 1024"), Err(ExprError::Type { want: "an integer", .. })));
        assert!(matches!(size("ROW * 32"), Err(ExprError::UnknownName { name, .. }) if name == "ROW"));
        assert_eq!(size("matches(N, 3)"), Err(ExprError::UnknownFunction("matches".to_owned())));
        assert_eq!(size("LEN"), Err(ExprError::NoDimension("LEN".to_owned())));
        assert!(matches!(size("N / (ROWS - 4)"), Err(ExprError::Evaluation(_))));
        assert!(matches!(size("ceil_div(N, 0)"), Err(ExprError::Evaluation(_))));
        assert!(matches!(size("N + 'x'"), Err(ExprError::Type { .. })));
        assert!(matches!(size("ceil_div(N)"), Err(ExprError::Type { .. } | ExprError::Evaluation(_))));
    }
}
