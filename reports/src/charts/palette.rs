//! Colours of every chart. The page replaces them by name in its dark scheme where they need it, so no chart uses another
//! colour.

use plotters::style::RGBColor;

/// The engine: blue of the Okabe–Ito palette, which stays apart from [`PEER`] for colour-blind readers.
pub(crate) const ENGINE: RGBColor = RGBColor(0x00, 0x72, 0xB2);
/// The peer: vermilion of the same palette.
pub(crate) const PEER: RGBColor = RGBColor(0xD5, 0x5E, 0x00);
/// Parts of a whole that are no side, in this order, after [`ENGINE`] and [`PEER`]; of the same palette, and readable on both
/// schemes as they are.
pub(crate) const PARTS: [RGBColor; 4] =
    [RGBColor(0x00, 0x9E, 0x73), RGBColor(0xCC, 0x79, 0xA7), RGBColor(0xE6, 0x9F, 0x00), RGBColor(0x56, 0xB4, 0xE9)];
/// Text and the marks that carry no side.
pub(crate) const INK: RGBColor = RGBColor(0x1F, 0x23, 0x28);
/// Secondary text and axes.
pub(crate) const MUTED: RGBColor = RGBColor(0x59, 0x63, 0x6E);
/// Grid lines.
pub(crate) const GRID: RGBColor = RGBColor(0xD8, 0xDE, 0xE4);
/// Bands behind the data.
pub(crate) const BAND: RGBColor = RGBColor(0xE9, 0xED, 0xF1);
/// The background.
pub(crate) const PAPER: RGBColor = RGBColor(0xFF, 0xFF, 0xFF);
