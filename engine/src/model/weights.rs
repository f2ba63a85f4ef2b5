//! Takes tensors out of a file by name, checks their shape, and counts what was taken.

use std::collections::{BTreeMap, BTreeSet};

use harness_spec::DType;
use kernels::cpu::{Cpu, Matrix, Precision, Weights};
use kernels::quant;

use super::load::LoadError;
use crate::gguf::{Gguf, TensorInfo};

/// Tensors of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TensorFacts {
    /// How many there are.
    pub count: usize,
    /// Their bytes in the file.
    pub bytes: u64,
}

/// What a file's weights amount to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WeightFacts {
    /// The tensors by type.
    pub tensors: BTreeMap<DType, TensorFacts>,
    /// Number of weights. A tied head counts once.
    pub parameters: u64,
    /// Bytes that are read for one decoded token: everything but the embedding, of which one row is read, and the head
    /// in full whether tied or not. KV cache and activations are not weights.
    pub bytes_per_token: u64,
}

impl WeightFacts {
    /// Counts the tensors of a file, from its table alone.
    pub fn of(gguf: &Gguf) -> WeightFacts {
        let tied = gguf.tensor(super::load::HEAD).is_none();
        let mut facts = WeightFacts::default();
        for (name, info) in gguf.tensors() {
            let of_type = facts.tensors.entry(info.dtype).or_default();
            of_type.count += 1;
            of_type.bytes += info.span.len() as u64;
            facts.parameters += info.len() as u64;
            let looked_up = name == super::load::EMBED && !tied;
            facts.bytes_per_token += (info.span.len() / if looked_up { info.n() } else { 1 }) as u64;
        }
        facts
    }
}

/// The tensors of a file, and which of them the model has asked for.
pub(crate) struct Tensors<'a> {
    pub gguf: &'a Gguf,
    taken: BTreeSet<String>,
}

impl<'a> Tensors<'a> {
    pub fn new(gguf: &'a Gguf) -> Tensors<'a> {
        Tensors { gguf, taken: BTreeSet::new() }
    }

    pub fn has(&self, name: &str) -> bool {
        self.gguf.tensor(name).is_some()
    }

    fn take(&mut self, name: &str, want: &[usize]) -> Result<&'a TensorInfo, LoadError> {
        let info = self.gguf.tensor(name).ok_or_else(|| LoadError::MissingTensor { tensor: name.to_owned() })?;
        // A vector may be stored with trailing dimensions of one.
        let trimmed = |dims: &[usize]| dims.iter().rposition(|&d| d != 1).map_or(0, |last| last + 1);
        let found = info.dims();
        if found[..trimmed(found)] != want[..trimmed(want)] {
            return Err(LoadError::TensorShape { tensor: name.to_owned(), found: found.to_vec(), want: want.to_vec() });
        }
        self.taken.insert(name.to_owned());
        Ok(info)
    }

    /// The matrix of this name with `n` rows of `k`.
    pub fn matrix(&mut self, name: &str, n: usize, k: usize) -> Result<&'a TensorInfo, LoadError> {
        self.take(name, &[k, n])
    }

    /// The vector of this name and length, as floats.
    pub fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, LoadError> {
        let info = self.take(name, &[len])?;
        let mut values = vec![0.0; len];
        quant::dequantize_row(info.dtype, self.gguf.data(info), &mut values);
        Ok(values)
    }

    /// The vector of this name, where the file has one.
    pub fn optional_vector(&mut self, name: &str, len: usize) -> Result<Option<Vec<f32>>, LoadError> {
        if self.has(name) { self.vector(name, len).map(Some) } else { Ok(None) }
    }

    /// Refuses tensors that nothing has asked for: a tensor without a place in the forward pass is a part of the model
    /// that would silently be left out.
    pub fn finish(self) -> Result<(), LoadError> {
        match self.gguf.tensors().find(|(name, _)| !self.taken.contains(*name)) {
            Some((name, _)) => Err(LoadError::UnusedTensor { tensor: name.to_owned() }),
            None => Ok(()),
        }
    }
}

/// The tensors of a file, matrices in the layout of the processor's kernels.
pub(super) struct Source<'a> {
    pub tensors: Tensors<'a>,
    cpu: &'a Cpu,
    precision: Precision,
}

impl<'a> Source<'a> {
    pub fn new(gguf: &'a Gguf, cpu: &'a Cpu, precision: Precision) -> Source<'a> {
        Source { tensors: Tensors::new(gguf), cpu, precision }
    }

    /// The matrix of this name with `n` rows of `k`, in the layout of its kernel.
    pub fn matrix(&mut self, name: &str, n: usize, k: usize) -> Result<Matrix, LoadError> {
        let info = self.tensors.matrix(name, n, k)?;
        let mapping = self.tensors.gguf.mapping();
        let weights = Weights::Shared { owner: mapping.clone(), range: info.span.clone() };
        let matrix = Matrix::from_gguf(self.cpu, info.dtype, n, k, weights, self.precision)
            .map_err(|source| LoadError::Matrix { tensor: name.to_owned(), source })?;
        if !matrix.borrows_source() {
            // The kernel's layout is a copy: the file's pages would only double the memory.
            mapping.drop_pages(info.span.clone());
        }
        Ok(matrix)
    }
}
