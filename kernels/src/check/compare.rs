//! What is right, and whether outputs are that. Every comparison is written so that NaN fails.

use std::ops::Range;

use half::f16;

use super::slabs::{self, Slabs};
use crate::parallel::parallel;

/// Elements that one thread compares at a time.
const AT_ONCE: usize = 1 << 18;

/// What the outputs of a problem must be, one entry each.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    /// In the order of the op's outputs.
    pub outputs: Vec<Want>,
}

/// What one output must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Want {
    /// 32-bit floats.
    Floats(Floats),
    /// 16-bit floats; the bounds leave room for their rounding.
    Halves(Floats),
    /// Signed bytes; the bounds leave room for their rounding.
    SignedBytes(Floats),
    /// A part of an output: these bytes, one range after the other, are what is wanted. All others hold the poison still, as
    /// with rows that are appended to a cache.
    Part {
        /// Where the part lies, in ascending order.
        ranges: Vec<Range<usize>>,
        /// What it must be.
        want: Box<Want>,
    },
    /// So many bytes again and again, the last time perhaps cut short, as with rows of weights that repeat.
    Cycle {
        /// Bytes of what repeats.
        bytes: usize,
        /// What they must be.
        want: Box<Want>,
    },
    /// One u32: the lowest index of the largest value of the output `of`, NaN left out, and among the reference's values one
    /// that lies within the bounds of the largest.
    Argmax {
        /// The output that holds the values.
        of: usize,
    },
    /// u32 words: an index as [`Want::Argmax`] has it, then these.
    Next {
        /// Which output has the values.
        of: usize,
        /// The words behind the index.
        behind: Vec<u32>,
    },
    /// u32 words: one of these, of which there is at least one, then those behind.
    OneOf {
        /// In ascending order.
        ids: Vec<u32>,
        /// The words behind it.
        behind: Vec<u32>,
    },
    /// u32 words whose sum, modulo 2³², is this. Words that still hold the poison were not written and are left out.
    WordSum(u32),
    /// An int8 slab with these codes and scales (see [`crate::op::activations`]).
    Slab {
        /// Every code.
        codes: Vec<i8>,
        /// Every scale; a kernel may differ by one unit in the last place.
        scales: Vec<f32>,
    },
    /// int8 slabs of values that the kernel computes itself, and may round to the code beside.
    Slabs(Slabs),
}

/// What an output of 32-bit floats must be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Floats {
    /// The reference on the very activations that the kernel reads. Where it is NaN, the output must be NaN.
    pub want: Vec<f64>,
    /// The largest error of each element (class T1). Zero means that the element must match bit for bit (class T0), but for
    /// the sign of a zero.
    pub bound: Vec<f64>,
    /// Relative errors of whole rows (class T2); none where only elements are judged.
    pub norms: Option<Norms>,
}

/// Relative L2 errors, a row at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Norms {
    /// The reference on the true activations.
    pub want: Vec<f64>,
    /// What each element's square is measured against: the square of the reference plus that of a sum of the same terms
    /// with random signs, as results near zero by cancellation have no relative accuracy.
    pub square: Vec<f64>,
    /// Elements of a row.
    pub row: usize,
    /// The largest relative error of each row.
    pub classes: Vec<f64>,
}

impl Expected {
    /// What is right once the activations are multiplied by `factor`, for ops whose outputs scale with them.
    pub fn scaled(&self, factor: f64) -> Expected {
        let times = |values: &[f64], factor: f64| values.iter().map(|v| v * factor).collect();
        let scaled = |f: &Floats| Floats {
            want: times(&f.want, factor),
            bound: times(&f.bound, factor.abs()),
            norms: f.norms.as_ref().map(|n| Norms {
                want: times(&n.want, factor),
                square: times(&n.square, factor * factor),
                ..n.clone()
            }),
        };
        Expected {
            outputs: self
                .outputs
                .iter()
                .map(|w| match w {
                    Want::Floats(f) => Want::Floats(scaled(f)),
                    Want::Halves(f) => Want::Halves(scaled(f)),
                    Want::SignedBytes(f) => Want::SignedBytes(scaled(f)),
                    other => other.clone(),
                })
                .collect(),
        }
    }

    /// Bytes it holds, for caches that keep it.
    pub fn bytes(&self) -> usize {
        let floats = |f: &Floats| 8 * (f.want.len() + f.bound.len() + f.norms.as_ref().map_or(0, |n| 2 * n.want.len()));
        fn of(want: &Want, floats: &impl Fn(&Floats) -> usize) -> usize {
            match want {
                Want::Floats(f) | Want::Halves(f) | Want::SignedBytes(f) => floats(f),
                Want::Part { ranges, want } => 16 * ranges.len() + of(want, floats),
                Want::Cycle { want, .. } => of(want, floats),
                Want::Slabs(s) => 16 * s.want.len(),
                Want::Slab { codes, scales } => codes.len() + 4 * scales.len(),
                Want::OneOf { ids, .. } => 64 + 4 * ids.len(),
                Want::Argmax { .. } | Want::Next { .. } | Want::WordSum(_) => 64,
            }
        }
        self.outputs.iter().map(|want| of(want, &floats)).sum()
    }
}

/// How far outputs that are right lie from the reference.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Errors {
    /// The largest error of an element over its bound.
    pub worst_of_bound: f64,
    /// The largest relative L2 error of a row.
    pub worst_relative_l2: f64,
}

impl Errors {
    /// The worse of both, figure by figure.
    pub fn or(self, other: Errors) -> Errors {
        Errors {
            worst_of_bound: self.worst_of_bound.max(other.worst_of_bound),
            worst_relative_l2: self.worst_relative_l2.max(other.worst_relative_l2),
        }
    }
}

/// The first thing that is wrong with outputs.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Mismatch {
    /// There are more or fewer outputs than the op has.
    #[error("{got} outputs where the op has {want}")]
    Outputs {
        /// Outputs given.
        got: usize,
        /// Outputs of the op.
        want: usize,
    },
    /// An output is of another size.
    #[error("output {output} has {got} bytes instead of {want}")]
    Length {
        /// Which output.
        output: usize,
        /// Its bytes.
        got: usize,
        /// The bytes it should have.
        want: usize,
    },
    /// An element is too far from the reference, or NaN where that is none.
    #[error("output {output} element {index}: got {got:e} instead of {want:e}, off by {:e} where {bound:e} is allowed{}", (.got - .want).abs(), unwritten(.poison))]
    Element {
        /// Which output.
        output: usize,
        /// Which element.
        index: usize,
        /// What it holds.
        got: f64,
        /// What it should hold.
        want: f64,
        /// How far off it may be.
        bound: f64,
        /// Whether it still holds the poison.
        poison: bool,
    },
    /// A row as a whole is too far from the reference on the true activations.
    #[error("output {output} row {row}: relative error {error:e} where {class:e} is allowed")]
    Norm {
        /// Which output.
        output: usize,
        /// Which row.
        row: usize,
        /// Its relative error.
        error: f64,
        /// How large that may be.
        class: f64,
    },
    /// The index of the largest value is another.
    #[error("output {output}: index {got} instead of {want}{}", unwritten(&(*.got == u32::MAX)))]
    Index {
        /// Which output.
        output: usize,
        /// What it holds.
        got: u32,
        /// What it should hold.
        want: u32,
    },
    /// A word behind the index of the largest value is another.
    #[error("output {output} word {index}: got {got} instead of {want}{}", unwritten(&(*.got == u32::MAX)))]
    Word {
        /// Which output.
        output: usize,
        /// Which word.
        index: usize,
        /// What it holds.
        got: u32,
        /// What it should hold.
        want: u32,
    },
    /// A checksum differs.
    #[error("output {output}: words sum to {got:#010x} instead of {want:#010x}")]
    Sum {
        /// Which output.
        output: usize,
        /// The sum.
        got: u32,
        /// What it should be.
        want: u32,
    },
    /// A byte outside of the part that is to be written was written.
    #[error("output {output}: byte {at} was written, which lies outside of the part that is to be")]
    Touched {
        /// Which output.
        output: usize,
        /// Which byte.
        at: usize,
    },
    /// A code of a slab differs.
    #[error("output {output} code {index}: got {got} instead of {want}")]
    Code {
        /// Which output.
        output: usize,
        /// Which code.
        index: usize,
        /// What it holds.
        got: i8,
        /// What it should hold.
        want: i8,
    },
    /// A scale of a slab, or its scale times sum, differs by more than a unit in the last place.
    #[error("output {output} group {group}: {what} {got:e} instead of {want:e}")]
    Scale {
        /// Which output.
        output: usize,
        /// Which group.
        group: usize,
        /// `scale` or `scale times sum`.
        what: &'static str,
        /// What it holds.
        got: f32,
        /// What it should hold.
        want: f32,
    },
}

fn unwritten(poison: &bool) -> &'static str {
    if *poison { ": it was never written" } else { "" }
}

/// Whether outputs are what is expected, and how far off.
///
/// # Errors
/// The first [`Mismatch`].
pub fn compare<B: AsRef<[u8]>>(expected: &Expected, outputs: &[B]) -> Result<Errors, Mismatch> {
    if outputs.len() != expected.outputs.len() {
        return Err(Mismatch::Outputs { got: outputs.len(), want: expected.outputs.len() });
    }
    let mut errors = Errors::default();
    for (output, (want, bytes)) in expected.outputs.iter().zip(outputs).enumerate() {
        errors = errors.or(one(output, want, bytes.as_ref(), (expected, outputs))?);
    }
    Ok(errors)
}

/// Compares one output, or a part of it; `all` is what the whole problem expects and has got.
fn one<B: AsRef<[u8]>>(output: usize, want: &Want, bytes: &[u8], all: (&Expected, &[B])) -> Result<Errors, Mismatch> {
    let sized = |want: usize| {
        if bytes.len() == want { Ok(()) } else { Err(Mismatch::Length { output, got: bytes.len(), want }) }
    };
    let mut errors = Errors::default();
    match want {
        Want::Floats(want) => {
            sized(want.want.len() * 4)?;
            errors = floats(output, want, &as_f32(bytes), u32::MAX)?;
        }
        Want::Halves(want) => {
            sized(want.want.len() * 2)?;
            errors = floats(output, want, &as_f16(bytes), f16::from_bits(u16::MAX).to_f32().to_bits())?;
        }
        Want::SignedBytes(want) => {
            sized(want.want.len())?;
            let got: Vec<f32> = bytes.iter().map(|&b| f32::from(b as i8)).collect();
            // A byte of poison is a code like any other, -1.
            errors = floats(output, want, &got, u32::MAX)?;
        }
        Want::Part { ranges, want } => {
            let mut part = Vec::new();
            let mut last = 0;
            for range in ranges.iter().cloned().chain(std::iter::once(bytes.len()..bytes.len())) {
                let between = bytes.get(last..range.start).unwrap_or_default();
                if let Some(at) = between.iter().position(|&b| b != u8::MAX) {
                    return Err(Mismatch::Touched { output, at: last + at });
                }
                part.extend_from_slice(bytes.get(range.clone()).unwrap_or_default());
                last = range.end;
            }
            errors = one(output, want, &part, all)?;
        }
        Want::Cycle { bytes: period, want } => {
            let mut whole = bytes.chunks_exact(*period);
            for part in &mut whole {
                errors = errors.or(one(output, want, part, all)?);
            }
            // What is cut short is judged with the rest of the turn before it.
            let cut = whole.remainder();
            if !cut.is_empty() {
                let last = bytes.len().checked_sub(cut.len() + period);
                let before = last.and_then(|at| bytes.get(at..)).unwrap_or_default();
                let turn: Vec<u8> =
                    cut.iter().chain(before.get(cut.len()..*period).unwrap_or_default()).copied().collect();
                errors = errors.or(one(output, want, &turn, all)?);
            }
        }
        Want::Argmax { of } => {
            sized(4)?;
            let values = as_f32(all.1[*of].as_ref());
            index(output, as_u32(bytes)[0], &values, &all.0.outputs[*of])?;
        }
        Want::Next { of, behind } => {
            sized(4 * (1 + behind.len()))?;
            let words = as_u32(bytes);
            index(output, words[0], &as_f32(all.1[*of].as_ref()), &all.0.outputs[*of])?;
            behind_index(output, &words, behind)?;
        }
        Want::OneOf { ids, behind } => {
            sized(4 * (1 + behind.len()))?;
            let words = as_u32(bytes);
            if ids.binary_search(&words[0]).is_err() {
                return Err(Mismatch::Index { output, got: words[0], want: ids[0] });
            }
            behind_index(output, &words, behind)?;
        }
        Want::WordSum(want) => {
            if !bytes.len().is_multiple_of(4) {
                return Err(Mismatch::Length { output, got: bytes.len(), want: bytes.len() / 4 * 4 });
            }
            let got = as_u32(bytes).into_iter().filter(|&w| w != u32::MAX).fold(0, u32::wrapping_add);
            if got != *want {
                return Err(Mismatch::Sum { output, got, want: *want });
            }
        }
        Want::Slab { codes, scales } => {
            sized(crate::op::activations::slab_stride(codes.len(), codes.len() / scales.len()))?;
            slabs::exact(output, codes, scales, bytes)?;
        }
        Want::Slabs(want) => {
            sized(want.bytes())?;
            errors.worst_of_bound = want.compare(output, bytes)?;
        }
    }
    Ok(errors)
}

fn behind_index(output: usize, words: &[u32], behind: &[u32]) -> Result<(), Mismatch> {
    match words[1..].iter().zip(behind).position(|(got, want)| got != want) {
        Some(i) => Err(Mismatch::Word { output, index: 1 + i, got: words[1 + i], want: behind[i] }),
        None => Ok(()),
    }
}

/// `poison` is what an element that was never written holds, as the bits of a 32-bit float.
fn floats(output: usize, want: &Floats, got: &[f32], poison: u32) -> Result<Errors, Mismatch> {
    let mut errors = Errors::default();
    let starts: Vec<usize> = (0..got.len()).step_by(AT_ONCE).collect();
    for part in parallel(&starts, |&start| elements(output, want, got, start, poison)) {
        errors.worst_of_bound = errors.worst_of_bound.max(part?);
    }
    if let Some(norms) = &want.norms {
        let rows: Vec<_> =
            got.chunks(norms.row).zip(norms.want.chunks(norms.row)).zip(norms.square.chunks(norms.row)).collect();
        let parts: Vec<_> = rows.chunks((AT_ONCE / norms.row).max(1)).collect();
        let sums = parallel(&parts, |rows| {
            let of = |((got, want), square): &((&[f32], &[f64]), &[f64])| {
                let finite = got.iter().zip(*want).filter(|(_, w)| w.is_finite());
                let wrong: f64 = finite.map(|(&g, w)| (f64::from(g) - w).powi(2)).sum();
                (wrong, square.iter().filter(|s| s.is_finite()).sum::<f64>())
            };
            rows.iter().map(of).collect::<Vec<(f64, f64)>>()
        });
        for (row, ((wrong, size), &class)) in sums.into_iter().flatten().zip(&norms.classes).enumerate() {
            let error = if wrong == 0.0 { 0.0 } else { (wrong / size).sqrt() };
            // Below this sums are subnormal, where floats have no relative accuracy.
            let tiny = wrong.sqrt() <= 1e-36;
            if !(error <= class || tiny) {
                return Err(Mismatch::Norm { output, row, error, class });
            }
            if !tiny {
                errors.worst_relative_l2 = errors.worst_relative_l2.max(error);
            }
        }
    }
    Ok(errors)
}

/// The largest error over its bound of the elements from `start` on, [`AT_ONCE`] of them.
fn elements(output: usize, want: &Floats, got: &[f32], start: usize, poison: u32) -> Result<f64, Mismatch> {
    let mut worst = 0.0f64;
    let range = start..got.len().min(start + AT_ONCE);
    let wanted = want.want[range.clone()].iter().zip(&want.bound[range.clone()]);
    for (i, (&got, (&want, &bound))) in got[range].iter().zip(wanted).enumerate() {
        let index = start + i;
        let value = f64::from(got);
        // Equal also holds for infinities, whose difference is NaN.
        if value == want || (want.is_nan() && value.is_nan() && got.to_bits() != poison) {
            continue;
        }
        let error = (value - want).abs();
        // A NaN error compares false and fails; so does any error of an element that must be exact.
        if !(error <= bound && error.is_finite()) {
            let poison = got.to_bits() == poison;
            return Err(Mismatch::Element { output, index, got: value, want, bound, poison });
        }
        worst = worst.max(error / bound);
    }
    Ok(worst)
}

/// Checks the index of the largest value: against the values that the kernel wrote, exactly, and against the reference,
/// up to the bounds of both values.
fn index(output: usize, got: u32, values: &[f32], want: &Want) -> Result<(), Mismatch> {
    let own = crate::argmax::argmax(values);
    if got != own {
        return Err(Mismatch::Index { output, got, want: own });
    }
    let Want::Floats(reference) = want else { return Ok(()) };
    let mut best = 0;
    for (i, &v) in reference.want.iter().enumerate() {
        // Written so that a NaN at the start is left behind and never taken later.
        if v > reference.want[best] || (reference.want[best].is_nan() && !v.is_nan()) {
            best = i;
        }
    }
    let at = |i: usize| (reference.want[i], reference.bound[i]);
    let ((top, top_bound), (chosen, chosen_bound)) = (at(best), at(got as usize));
    if top.is_nan() || chosen == top || top - chosen <= top_bound + chosen_bound {
        return Ok(());
    }
    Err(Mismatch::Index { output, got, want: best as u32 })
}

pub(crate) fn as_f32(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn as_f16(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
}

fn as_u32(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(want: &[f64], bound: f64) -> Expected {
        let bound = vec![bound; want.len()];
        Expected { outputs: vec![Want::Floats(Floats { want: want.to_vec(), bound, norms: None })] }
    }

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn a_nan_output_fails_the_check_and_poison_is_called_unwritten() {
        let expected = floats(&[1.0, 2.0], 1.0);
        assert!(compare(&expected, &[bytes(&[1.5, 2.0])]).is_ok());
        for bits in [u32::MAX, 0x7fc0_0000] {
            let wrong = compare(&expected, &[bytes(&[1.0, f32::from_bits(bits)])]).unwrap_err();
            assert!(matches!(wrong, Mismatch::Element { index: 1, .. }));
            assert_eq!(wrong.to_string().contains("never written"), bits == u32::MAX);
        }
    }

    #[test]
    fn an_output_of_another_length_fails_the_check() {
        let expected = floats(&[1.0, 2.0], 1.0);
        for values in [&[1.0][..], &[1.0, 2.0, 3.0]] {
            assert!(matches!(compare(&expected, &[bytes(values)]), Err(Mismatch::Length { want: 8, .. })));
        }
        assert!(matches!(compare::<Vec<u8>>(&expected, &[]), Err(Mismatch::Outputs { got: 0, want: 1 })));
    }

    #[test]
    fn a_bound_of_zero_asks_for_the_very_bits() {
        let expected = floats(&[1.0, 0.0], 0.0);
        assert!(compare(&expected, &[bytes(&[1.0, -0.0])]).is_ok());
        assert!(compare(&expected, &[bytes(&[1.0 + f32::EPSILON, 0.0])]).is_err());
    }

    #[test]
    fn nan_and_infinity_are_right_where_the_reference_has_them_and_nowhere_else() {
        let expected = floats(&[f64::NAN, f64::NEG_INFINITY], 1.0);
        assert!(compare(&expected, &[bytes(&[f32::NAN, f32::NEG_INFINITY])]).is_ok());
        assert!(compare(&expected, &[bytes(&[f32::from_bits(u32::MAX), f32::NEG_INFINITY])]).is_err());
        for wrong in [[0.0, f32::NEG_INFINITY], [f32::NAN, f32::INFINITY], [f32::NAN, f32::NAN], [f32::NAN, -1e38]] {
            assert!(compare(&expected, &[bytes(&wrong)]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_index_must_be_that_of_the_kernels_own_values_and_of_the_reference() {
        let mut expected = floats(&[1.0, 3.0, 3.0], 0.1);
        expected.outputs.push(Want::Argmax { of: 0 });
        let check = |values: [f32; 3], id: u32| compare(&expected, &[bytes(&values), id.to_le_bytes().to_vec()]);
        assert!(check([1.0, 3.0, 3.0], 1).is_ok());
        assert!(check([1.0, 3.0, 3.05], 2).is_ok());
        assert!(matches!(check([1.0, 3.0, 3.0], 2), Err(Mismatch::Index { got: 2, want: 1, .. })));
        assert!(matches!(check([1.0, 3.0, 3.0], u32::MAX), Err(Mismatch::Index { want: 1, .. })));
    }

    #[test]
    fn a_relative_error_of_a_row_is_judged_by_the_size_of_its_terms() {
        let norms = Norms { want: vec![3.0, 4.0], square: vec![9.0, 16.0], row: 2, classes: vec![0.1] };
        let want = Floats { want: vec![3.0, 4.0], bound: vec![10.0; 2], norms: Some(norms) };
        let expected = Expected { outputs: vec![Want::Floats(want)] };
        let errors = compare(&expected, &[bytes(&[3.25, 4.0])]).unwrap();
        assert_eq!(errors, Errors { worst_of_bound: 0.025, worst_relative_l2: 0.05 });
        assert!(matches!(compare(&expected, &[bytes(&[3.0, 5.0])]), Err(Mismatch::Norm { row: 0, .. })));
    }

    #[test]
    fn halves_are_compared_as_floats_and_their_poison_is_called_unwritten() {
        let want = Floats { want: vec![1.0, 2.0], bound: vec![1e-3; 2], norms: None };
        let expected = Expected { outputs: vec![Want::Halves(want)] };
        let bytes = |v: [f16; 2]| vec![v.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()];
        assert!(compare(&expected, &bytes([1.0, 2.0].map(f16::from_f32))).is_ok());
        let wrong = compare(&expected, &bytes([f16::ONE, f16::from_bits(u16::MAX)])).unwrap_err();
        assert!(wrong.to_string().contains("never written"), "{wrong}");
    }

    #[test]
    fn a_part_of_an_output_is_compared_and_the_rest_must_be_untouched() {
        let codes = Floats { want: vec![-3.2, 7.0], bound: vec![0.5; 2], norms: None };
        let want = Want::Part { ranges: vec![1..2, 4..5], want: Box::new(Want::SignedBytes(codes)) };
        let expected = Expected { outputs: vec![want] };
        let good = vec![0xff, -3i8 as u8, 0xff, 0xff, 7, 0xff];
        assert!(compare(&expected, std::slice::from_ref(&good)).is_ok());
        for (at, value) in [(0, 0), (2, 1), (5, 0), (1, 0xff), (4, 6)] {
            let mut bytes = good.clone();
            bytes[at] = value;
            assert!(compare(&expected, &[bytes]).is_err(), "byte {at}");
        }
        assert!(compare(&expected, &[good[..4].to_vec()]).is_err());
    }

    #[test]
    fn what_repeats_is_compared_turn_by_turn_and_a_last_one_that_is_cut_short_too() {
        let words = |v: &[f32]| vec![bytes(v)];
        let Expected { outputs } = floats(&[1.0, 2.0, 3.0], 0.1);
        let want = Want::Cycle { bytes: 12, want: Box::new(outputs[0].clone()) };
        let expected = Expected { outputs: vec![want] };
        let good = [1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0, 2.0];
        assert!(compare(&expected, &words(&good)).is_ok());
        assert!(compare(&expected, &words(&good[..6])).is_ok());
        for at in 0..good.len() {
            let mut wrong = good;
            wrong[at] = 9.0;
            assert!(compare(&expected, &words(&wrong)).is_err(), "{at}");
        }
        assert!(compare(&expected, &words(&good[..2])).is_err(), "less than one turn");
    }

    #[test]
    fn the_words_behind_an_index_must_be_the_very_ones() {
        let mut expected = floats(&[1.0, 3.0], 0.1);
        expected.outputs.push(Want::Next { of: 0, behind: vec![8, 9, 0] });
        let check = |words: &[u32]| {
            let words = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            compare(&expected, &[bytes(&[1.0, 3.0]), words])
        };
        assert!(check(&[1, 8, 9, 0]).is_ok());
        assert!(matches!(check(&[0, 8, 9, 0]), Err(Mismatch::Index { got: 0, want: 1, .. })));
        assert!(matches!(check(&[1, 8, 8, 0]), Err(Mismatch::Word { index: 2, got: 8, want: 9, .. })));
        assert!(matches!(check(&[1, 8, 9]), Err(Mismatch::Length { .. })));
    }

    #[test]
    fn one_of_some_ids_is_right_and_no_other() {
        let expected = Expected { outputs: vec![Want::OneOf { ids: vec![3, 7], behind: vec![1] }] };
        let check =
            |words: &[u32]| compare(&expected, &[words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>()]);
        assert!(check(&[3, 1]).is_ok() && check(&[7, 1]).is_ok());
        assert!(matches!(check(&[4, 1]), Err(Mismatch::Index { got: 4, want: 3, .. })));
        assert!(matches!(check(&[7, 2]), Err(Mismatch::Word { index: 1, .. })));
        assert!(matches!(check(&[7]), Err(Mismatch::Length { .. })));
    }

    #[test]
    fn words_sum_to_the_checksum_whatever_their_number() {
        let expected = Expected { outputs: vec![Want::WordSum(2)] };
        let words = |w: &[u32]| vec![w.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>()];
        assert!(compare(&expected, &words(&[1, 1])).is_ok());
        assert!(compare(&expected, &words(&[3, 0xffff_fffe, 1, u32::MAX])).is_ok());
        assert!(compare(&expected, &words(&[1])).is_err());
    }
}
