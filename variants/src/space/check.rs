//! What must hold of a space beyond its syntax, and the compilation of its expressions.

use std::collections::BTreeSet;
use std::sync::Arc;

use harness_spec::Shape;

use super::{Backend, KernelSpec, Space, SpaceError};
use crate::Limits;
use crate::expr::{BLOCKS, Compiled, DEVICE, Expr, ExprError, Names, Programs};

/// Configurations of one kernel that a file may ask for.
const MOST_CONFIGURATIONS: u128 = 100_000;

/// Checks a space that was just read, and compiles its expressions.
pub(super) fn space(file: &str, space: &mut Space) -> Result<(), SpaceError> {
    let mut ids = BTreeSet::new();
    for kernel in &space.kernels {
        self::kernel(file, kernel, &space.dims)?;
        if !ids.insert(kernel.id()) {
            return Err(SpaceError::Duplicate { file: file.to_owned(), kernel: kernel.id() });
        }
    }
    baselines(file, &space.kernels)?;
    let dims = space.dims.clone();
    for kernel in &mut space.kernels {
        kernel.programs = Programs(Arc::new(compile(file, kernel, &dims)?));
    }
    Ok(())
}

/// At most one plain kernel for each backend and weight type.
pub(crate) fn baselines(file: &str, kernels: &[KernelSpec]) -> Result<(), SpaceError> {
    let plain: Vec<&KernelSpec> = kernels.iter().filter(|k| k.baseline).collect();
    for (i, kernel) in plain.iter().enumerate() {
        let same = |other: &&&KernelSpec| {
            other.backend == kernel.backend
                && (other.dtypes.is_empty()
                    || kernel.dtypes.is_empty()
                    || other.dtypes.iter().any(|d| kernel.dtypes.contains(d)))
        };
        if let Some(other) = plain[..i].iter().find(same) {
            return Err(SpaceError::SecondBaseline { file: file.to_owned(), kernel: kernel.id(), other: other.id() });
        }
    }
    Ok(())
}

fn is_name(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn is_macro(word: &str) -> bool {
    let mut bytes = word.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_uppercase())
        && bytes.all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

fn kernel(file: &str, spec: &KernelSpec, dims: &[String]) -> Result<(), SpaceError> {
    let (file, kernel) = (file.to_owned(), spec.name.clone());
    let (algorithm, suffix) = spec.name.split_once('@').unwrap_or((&spec.name, spec.backend.name()));
    if !is_name(algorithm) || !is_name(suffix) {
        return Err(SpaceError::BadName { file, kernel });
    }
    for name in spec.tunables.keys().chain(spec.defines.keys()) {
        let reason = if !is_macro(name) {
            "write it in upper case"
        } else if dims.contains(name) {
            "it is a dimension of the op"
        } else if DEVICE.contains(&name.as_str()) {
            "it is a fact of the device"
        } else {
            continue;
        };
        return Err(SpaceError::BadMacro { file, kernel, name: name.clone(), reason });
    }
    if let Some(name) = spec.defines.keys().find(|name| spec.tunables.contains_key(*name)) {
        return Err(SpaceError::DefineIsTunable { file, kernel, name: name.clone() });
    }
    tunables(&file, spec)?;
    backend(&file, spec)
}

fn tunables(file: &str, spec: &KernelSpec) -> Result<(), SpaceError> {
    let (file, kernel) = (file.to_owned(), spec.name.clone());
    for (name, values) in &spec.tunables {
        let tunable = name.clone();
        if values.is_empty() || values.iter().collect::<BTreeSet<_>>().len() != values.len() {
            return Err(SpaceError::BadValues { file, kernel, tunable });
        }
        match spec.default.get(name) {
            None => return Err(SpaceError::NoDefault { file, kernel, tunable }),
            Some(&value) if !values.contains(&value) => {
                return Err(SpaceError::DefaultNotAValue { file, kernel, tunable, value, values: values.clone() });
            }
            Some(_) => {}
        }
    }
    if let Some(name) = spec.default.keys().find(|name| !spec.tunables.contains_key(*name)) {
        return Err(SpaceError::DefaultOfNothing { file, kernel, name: name.clone() });
    }
    let count = spec.tunables.values().fold(1u128, |n, values| n.saturating_mul(values.len() as u128));
    if count > MOST_CONFIGURATIONS {
        return Err(SpaceError::TooMany { file, kernel, count, most: MOST_CONFIGURATIONS });
    }
    Ok(())
}

/// The keys that belong to one backend alone.
fn backend(file: &str, spec: &KernelSpec) -> Result<(), SpaceError> {
    let (file, kernel) = (file.to_owned(), spec.name.clone());
    let library = spec.is_library();
    let backend = if library { "library" } else { spec.backend.name() };
    let of_a_source = [
        ("entry", spec.entry.is_some()),
        ("launch", spec.launch.is_some()),
        ("defines", !spec.defines.is_empty()),
        ("redundant", spec.redundant.is_some()),
    ];
    let of_a_choice = [
        ("backend", spec.backend != Backend::Cuda),
        ("baseline", spec.baseline),
        ("tunables", !spec.tunables.is_empty()),
        ("load_bytes", spec.load_bytes.is_some()),
    ];
    let no_isa = [("isa", spec.isa != crate::Isa::Scalar)];
    let useless: Vec<_> = match spec.backend {
        _ if library => of_a_source.into_iter().chain(of_a_choice).chain(no_isa).collect(),
        Backend::Cuda => no_isa.to_vec(),
        Backend::Cpu => of_a_source.to_vec(),
    };
    let needs = spec.backend == Backend::Cuda && !library;
    let missing = [("entry", spec.entry.is_none()), ("launch", spec.launch.is_none())];
    if let Some((key, _)) = missing.into_iter().find(|(_, missing)| needs && *missing) {
        return Err(SpaceError::MissingKey { file, kernel, backend, key });
    }
    match useless.into_iter().find(|(_, useless)| *useless) {
        Some((key, _)) => Err(SpaceError::UselessKey { file, kernel, backend, key }),
        None => Ok(()),
    }
}

/// Compiles the expressions and evaluates each once, so that one of the wrong type is found without a device.
fn compile(file: &str, spec: &KernelSpec, dims: &[String]) -> Result<Compiled, SpaceError> {
    let known: Vec<&str> = spec.tunables.keys().chain(dims).map(String::as_str).collect();
    let shape = Shape::of(dims.iter().map(|d| (d.as_str(), 4096)));
    let limits = Limits::of_architecture(90).expect("90 is in the table");
    let probe = Names { tunables: &spec.default, shape: &shape, limits: &limits, blocks: Some(4096) };
    let bad = |what, expression: &str, source: ExprError| SpaceError::Expression {
        file: file.to_owned(),
        kernel: spec.name.clone(),
        what,
        expression: expression.to_owned(),
        source: Box::new(source),
    };
    // Only the type is judged here: at another shape the same expression may well be defined.
    let judge = |found: Result<(), ExprError>| match found {
        Err(e @ ExprError::Type { .. }) => Err(e),
        _ => Ok(()),
    };
    let constraint = |text: &String| {
        let expr = Expr::new(text, &known).and_then(|e| judge(e.holds(&probe).map(drop)).map(|()| e));
        expr.map_err(|e| bad("the constraint", text, e))
    };
    let size_of = |what: &'static str, text: &String, known: &[&str]| {
        let expr = Expr::new(text, known).and_then(|e| judge(e.size(&probe).map(drop)).map(|()| e));
        expr.map_err(|e| bad(what, text, e))
    };
    let size = |what: &'static str, text: &String| size_of(what, text, &known);
    let sizes = |what: &'static str, texts: &[String]| {
        if texts.is_empty() || texts.len() > 3 {
            return Err(SpaceError::BadDims { file: file.to_owned(), kernel: spec.name.clone(), what });
        }
        texts.iter().map(|text| size(what, text)).collect::<Result<Vec<_>, _>>()
    };
    let mut out = Compiled {
        constraints: spec.constraints.iter().map(constraint).collect::<Result<_, _>>()?,
        ..Default::default()
    };
    if let Some(launch) = &spec.launch {
        out.grid = sizes("the grid", launch.grid.expressions())?;
        out.block = sizes("the block", launch.block.expressions())?;
        out.smem = Some(size("the shared memory", &launch.smem)?);
        out.shared_percent = Some(size("the share of shared memory", &launch.shared_percent)?);
    }
    if let Some(text) = &spec.redundant {
        let known: Vec<&str> = known.iter().copied().chain([BLOCKS]).collect();
        out.redundant = Some(size_of("the repeated work", text, &known)?);
    }
    Ok(out)
}
