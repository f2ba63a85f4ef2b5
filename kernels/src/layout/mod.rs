//! How weights lie in memory for device kernels, and the way from a GGUF file and back.
//!
//! A layout takes the blocks of a file apart into *pieces* (codes, fifth bits, scales) and gathers the pieces of one kind
//! in a *plane*. The planes of a matrix lie in one slab, each at a multiple of [`PLANE_ALIGN`] bytes. Two orders exist:
//!
//! - `planes` (and `g128`, which is the same for its format): piece after piece as the blocks follow each other in the
//!   file, so a row of a plane is contiguous;
//! - `row_interleaved_R`: tiles of R rows by 32/R blocks, R neighbouring rows side by side, so that one load of a warp is
//!   contiguous and a lane stays with its row. Rows pad to R and blocks to 32/R with zeros.
//!
//! `forms` says what the pieces of each weight type are. Packing costs one pass and is spread over threads.

mod forms;
#[cfg(test)]
mod tests;

use harness_spec::DType;
use variants::Layout;

use crate::quant::{self, QuantError};
use forms::Form;

/// Where planes start: a multiple of this many bytes, wider than any load.
pub const PLANE_ALIGN: usize = 256;

/// Below this many bytes a matrix is packed by the calling thread alone.
const WORTH_THREADS: usize = 1 << 20;

/// Why weights cannot be packed or unpacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The layout has no form for this type.
    #[error("{dtype} weights have no device layout {layout}: choose a kernel whose space names another layout")]
    NoForm {
        /// The weight type.
        dtype: DType,
        /// The layout.
        layout: Layout,
    },
    /// The columns are no whole number of the layout's units.
    #[error("the layout {layout} takes rows of whole groups of {unit} weights, so K={k} does not fit")]
    Columns {
        /// The layout.
        layout: Layout,
        /// Weights of a group.
        unit: usize,
        /// The columns asked for.
        k: usize,
    },
    /// Weights that share a scale in the layout have different ones in the file.
    #[error(
        "group {group} of 128 weights holds several scales, and g128 has one: quantise the weights in groups of 128"
    )]
    Scales {
        /// Which group, counted through the matrix.
        group: usize,
    },
    /// The slab has another size than the layout.
    #[error("{n} rows of {k} {dtype} weights take {want} bytes as {layout}, got {got}: the slab is of another matrix")]
    Slab {
        /// The weight type.
        dtype: DType,
        /// The layout.
        layout: Layout,
        /// Rows.
        n: usize,
        /// Columns.
        k: usize,
        /// The bytes the layout takes.
        want: usize,
        /// The bytes given.
        got: usize,
    },
    /// The file's bytes are not those of the matrix.
    #[error(transparent)]
    File(#[from] QuantError),
}

/// A matrix in a layout: which piece goes where.
#[derive(Clone, Copy, Debug)]
struct Plan {
    form: &'static Form,
    n: usize,
    /// Units of a row.
    row_units: usize,
    /// Rows side by side; 0 for rows that lie one after the other.
    interleave: usize,
}

impl Plan {
    fn of(layout: Layout, dtype: DType, n: usize, k: usize) -> Result<Plan, LayoutError> {
        let interleave = match layout {
            Layout::Planes | Layout::G128 => 0,
            Layout::RowInterleaved4 => 4,
            Layout::RowInterleaved8 => 8,
            Layout::RowInterleaved16 => 16,
            Layout::RowInterleaved32 => 32,
            _ => return Err(LayoutError::NoForm { dtype, layout }),
        };
        let form = forms::of(dtype, layout).ok_or(LayoutError::NoForm { dtype, layout })?;
        if k == 0 || !k.is_multiple_of(form.weights) {
            return Err(LayoutError::Columns { layout, unit: form.weights, k });
        }
        Ok(Plan { form, n, row_units: k / form.weights, interleave })
    }

    /// Places in a plane, those of padding among them.
    fn places(&self) -> usize {
        match self.interleave {
            0 => self.n * self.row_units,
            rows => self.n.next_multiple_of(rows) * self.row_units.next_multiple_of(32 / rows),
        }
    }

    /// The first byte of each plane, and behind the last the size of the slab.
    fn starts(&self) -> Vec<usize> {
        let mut at = 0;
        let mut starts = Vec::with_capacity(self.form.pieces.len() + 1);
        for (i, piece) in self.form.pieces.iter().enumerate() {
            starts.push(at);
            at += self.places() * piece;
            if i + 1 < self.form.pieces.len() {
                at = at.next_multiple_of(PLANE_ALIGN);
            }
        }
        starts.push(at);
        starts
    }

    /// Rows that are packed as a whole: they fill a run of places of their own.
    fn rows_of_a_band(&self) -> usize {
        self.interleave.max(1)
    }

    /// Places of a band.
    fn places_of_a_band(&self) -> usize {
        match self.interleave {
            0 => self.row_units,
            rows => rows * self.row_units.next_multiple_of(32 / rows),
        }
    }

    /// The place of a unit within its band.
    fn place(&self, row: usize, unit: usize) -> usize {
        match self.interleave {
            0 => unit,
            rows => {
                let side = 32 / rows;
                (unit / side * 32) + unit % side * rows + row
            }
        }
    }
}

/// Bytes of a matrix in a layout, padding between planes included.
///
/// # Errors
/// [`LayoutError::NoForm`], [`LayoutError::Columns`], or [`LayoutError::File`] where K is no whole number of blocks.
pub fn bytes(layout: Layout, dtype: DType, n: usize, k: usize) -> Result<usize, LayoutError> {
    if layout == Layout::Gguf {
        let row = dtype.row_bytes(k).ok_or(QuantError::Block { dtype, block: dtype.block_len(), k })?;
        return Ok(row * n);
    }
    let starts = Plan::of(layout, dtype, n, k)?.starts();
    Ok(starts[starts.len() - 1])
}

/// The slab of a matrix: `file` holds `[n, k]` weights as blocks of a GGUF file, row-major.
///
/// `g128` takes Q4_0 blocks of which each four of a row share a scale.
///
/// # Errors
/// [`LayoutError`], where the layout does not take these weights or the bytes are not theirs.
pub fn pack(layout: Layout, dtype: DType, n: usize, k: usize, file: &[u8]) -> Result<Vec<u8>, LayoutError> {
    quant::validate(dtype, n, k, file)?;
    if layout == Layout::Gguf {
        return Ok(file.to_vec());
    }
    let plan = Plan::of(layout, dtype, n, k)?;
    if let Some(group) = forms::scales_differ(layout, file) {
        return Err(LayoutError::Scales { group });
    }
    let starts = plan.starts();
    let mut slab = vec![0u8; starts[starts.len() - 1]];
    let planes = planes_mut(&plan, &mut slab);
    let row_bytes = plan.row_units * plan.form.unit;
    in_bands(&plan, planes, |first_row, planes| {
        let rows = plan.rows_of_a_band().min(n - first_row);
        for row in 0..rows {
            let file = &file[(first_row + row) * row_bytes..][..row_bytes];
            for (unit, bytes) in file.chunks_exact(plan.form.unit).enumerate() {
                let place = plan.place(row, unit);
                (plan.form.split)(bytes, &mut |piece, bytes| {
                    let size = plan.form.pieces[piece];
                    planes[piece][place * size..][..size].copy_from_slice(bytes);
                });
            }
        }
    });
    Ok(slab)
}

/// The blocks of a GGUF file from a slab: the inverse of [`pack`].
///
/// # Errors
/// [`LayoutError`], where the layout does not take these weights or the slab is not theirs.
pub fn unpack(layout: Layout, dtype: DType, n: usize, k: usize, slab: &[u8]) -> Result<Vec<u8>, LayoutError> {
    let want = bytes(layout, dtype, n, k)?;
    if slab.len() != want {
        return Err(LayoutError::Slab { dtype, layout, n, k, want, got: slab.len() });
    }
    if layout == Layout::Gguf {
        return Ok(slab.to_vec());
    }
    let plan = Plan::of(layout, dtype, n, k)?;
    let starts = plan.starts();
    let mut file = vec![0u8; n * plan.row_units * plan.form.unit];
    for (i, out) in file.chunks_exact_mut(plan.form.unit).enumerate() {
        let (row, unit) = (i / plan.row_units, i % plan.row_units);
        let band = row / plan.rows_of_a_band();
        let place = band * plan.places_of_a_band() + plan.place(row % plan.rows_of_a_band(), unit);
        let piece = |p: usize| {
            let size = plan.form.pieces[p];
            &slab[starts[p] + place * size..][..size]
        };
        (plan.form.join)(&piece, out);
    }
    Ok(file)
}

/// The planes of a slab, without the padding between them.
fn planes_mut<'a>(plan: &Plan, slab: &'a mut [u8]) -> Vec<&'a mut [u8]> {
    let starts = plan.starts();
    let mut planes = Vec::with_capacity(plan.form.pieces.len());
    let mut rest = slab;
    for (i, &piece) in plan.form.pieces.iter().enumerate() {
        let (this, behind) = rest.split_at_mut(starts[i + 1] - starts[i]);
        planes.push(&mut this[..plan.places() * piece]);
        rest = behind;
    }
    planes
}

/// Calls `fill` with the first row of every band and its part of each plane, on several threads where that pays.
fn in_bands(plan: &Plan, planes: Vec<&mut [u8]>, fill: impl Fn(usize, &mut [&mut [u8]]) + Sync) {
    let rows = plan.rows_of_a_band();
    let bands = plan.n.div_ceil(rows);
    let run = |first: usize, mut planes: Vec<&mut [u8]>, count: usize| {
        for band in 0..count {
            let mut parts: Vec<&mut [u8]> = planes
                .iter_mut()
                .zip(plan.form.pieces)
                .map(|(plane, piece)| {
                    let size = plan.places_of_a_band() * piece;
                    &mut plane[band * size..][..size]
                })
                .collect();
            fill((first + band) * rows, &mut parts);
        }
    };
    let total: usize = planes.iter().map(|p| p.len()).sum();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let per_thread = if total < WORTH_THREADS { bands } else { bands.div_ceil(threads) };
    if per_thread >= bands {
        run(0, planes, bands);
        return;
    }
    std::thread::scope(|scope| {
        let mut rest = planes;
        for first in (0..bands).step_by(per_thread) {
            let count = per_thread.min(bands - first);
            let mut mine = Vec::with_capacity(rest.len());
            let mut behind = Vec::with_capacity(rest.len());
            for (plane, piece) in rest.into_iter().zip(plan.form.pieces) {
                let (this, other) = plane.split_at_mut(count * plan.places_of_a_band() * piece);
                mine.push(this);
                behind.push(other);
            }
            rest = behind;
            let run = &run;
            scope.spawn(move || run(first, mine, count));
        }
    });
}
