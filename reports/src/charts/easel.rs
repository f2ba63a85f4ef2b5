//! What all charts share: the sheet with its title, legend and axes, and marks in pixels.

use std::io;

use harness_spec::record::SideRole;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::Axis;
use super::palette::{ENGINE, GRID, INK, MUTED, PAPER, PEER};
use crate::error::ReportError;

/// Width of every chart, pixels.
pub(crate) const WIDTH: u32 = 960;
/// Height of the title and the legend above the plot.
const HEAD: u32 = 64;

/// The outcome of drawing.
pub(crate) type Draw<T> = Result<T, DrawingAreaErrorKind<io::Error>>;
/// A sheet addressed in pixels.
pub(crate) type Sheet<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The frame of a chart.
pub(crate) struct Frame {
    /// Name of the chart, for errors.
    pub name: &'static str,
    /// Its title.
    pub title: String,
    /// Colour and text of each legend entry; without a colour the text stands alone.
    pub legend: Vec<(Option<RGBColor>, String)>,
    /// Height of the whole chart.
    pub height: u32,
    /// Room left of the plot, for labels.
    pub left: u32,
    /// Room right of the plot.
    pub right: u32,
    /// Horizontal axis with its title.
    pub x: (Axis, &'static str),
    /// Vertical axis with its title; a title of no text draws no axis.
    pub y: (Axis, &'static str),
}

/// Maps values to pixels of the sheet.
pub(crate) struct Plot {
    x: (Axis, (i32, i32)),
    y: (Axis, (i32, i32)),
}

impl Plot {
    /// Pixel of a value on the horizontal axis.
    pub fn x(&self, v: f64) -> i32 {
        self.x.0.map(&v, self.x.1)
    }

    /// Pixel of a value on the vertical axis.
    pub fn y(&self, v: f64) -> i32 {
        self.y.0.map(&v, self.y.1)
    }

    /// First and last pixel across.
    pub fn across(&self) -> (i32, i32) {
        self.x.1
    }

    /// Topmost and lowest pixel.
    pub fn down(&self) -> (i32, i32) {
        let (bottom, top) = self.y.1;
        (top, bottom)
    }
}

/// The colour of a side.
pub(crate) fn colour(role: SideRole) -> RGBColor {
    match role {
        SideRole::Engine => ENGINE,
        SideRole::Peer => PEER,
    }
}

/// Draws the frame, then what `paint` adds, and gives the SVG as text.
pub(crate) fn drawn(frame: &Frame, paint: impl FnOnce(&Sheet, &Plot) -> Draw<()>) -> Result<String, ReportError> {
    let mut svg = String::new();
    {
        let sheet = SVGBackend::with_string(&mut svg, (WIDTH, frame.height)).into_drawing_area();
        framed(&sheet, frame)
            .and_then(|plot| paint(&sheet, &plot))
            .and_then(|()| sheet.present())
            .map_err(|e| ReportError::Draw { chart: frame.name, message: e.to_string() })?;
    }
    Ok(accessible(&svg, &frame.title))
}

/// As [`drawn`], without axes: for tables in pixels.
pub(crate) fn blank(frame: &Frame, paint: impl FnOnce(&Sheet) -> Draw<()>) -> Result<String, ReportError> {
    let mut svg = String::new();
    {
        let sheet = SVGBackend::with_string(&mut svg, (WIDTH, frame.height)).into_drawing_area();
        headed(&sheet, frame)
            .and_then(|()| paint(&sheet))
            .and_then(|()| sheet.present())
            .map_err(|e| ReportError::Draw { chart: frame.name, message: e.to_string() })?;
    }
    Ok(accessible(&svg, &frame.title))
}

/// Background, title and legend.
fn headed(sheet: &Sheet, frame: &Frame) -> Draw<()> {
    sheet.fill(&PAPER)?;
    bold(sheet, &frame.title, (16, 20), 15)?;
    let mut at = 16;
    for (colour, label) in &frame.legend {
        if let Some(colour) = colour {
            rect(sheet, (at, 38), (at + 11, 49), &colour.to_rgba())?;
            at += 17;
        }
        text(sheet, label, (at, 44), 12, &MUTED, HPos::Left)?;
        // About the mean advance of a wide sans-serif face at this size; the legend only has to keep entries apart.
        at += label.chars().count() as i32 * 7 + 20;
    }
    Ok(())
}

/// Background, title, legend and axes.
fn framed(sheet: &Sheet, frame: &Frame) -> Draw<Plot> {
    headed(sheet, frame)?;
    let numbered = !frame.y.1.is_empty();
    let mut chart = ChartBuilder::on(sheet)
        .margin_top(HEAD)
        .margin_right(frame.right)
        .margin_bottom(8)
        .margin_left(if numbered { 8 } else { frame.left })
        .x_label_area_size(46)
        .y_label_area_size(if numbered { frame.left - 8 } else { 0 })
        .build_cartesian_2d(frame.x.0.clone(), frame.y.0.clone())?;
    let mut mesh = chart.configure_mesh();
    mesh.axis_style(MUTED)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .max_light_lines(0)
        .label_style(("sans-serif", scaled(11), &MUTED))
        .axis_desc_style(("sans-serif", scaled(12), &MUTED))
        .x_desc(frame.x.1);
    if numbered {
        mesh.y_desc(frame.y.1);
    } else {
        mesh.disable_y_axis().disable_y_mesh();
    }
    mesh.draw()?;
    let (across, down) = chart.plotting_area().get_pixel_range();
    Ok(Plot {
        x: (frame.x.0.clone(), (across.start, across.end - 1)),
        y: (frame.y.0.clone(), (down.end - 1, down.start)),
    })
}

/// A role and a title, which screen readers say in place of the drawing.
fn accessible(svg: &str, title: &str) -> String {
    let escaped = title.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    svg.replacen("<svg ", "<svg role=\"img\" ", 1).replacen(">\n", &format!(">\n<title>{escaped}</title>\n"), 1)
}

/// The size that makes plotters write `px` into the SVG.
fn scaled(px: u32) -> f64 {
    f64::from(px) * 1.24
}

/// Text whose middle line is at `y`, aligned to `x` by `align`.
pub(crate) fn text(sheet: &Sheet, s: &str, at: (i32, i32), px: u32, colour: &RGBColor, align: HPos) -> Draw<()> {
    let style = ("sans-serif", scaled(px)).into_font().color(colour).pos(Pos::new(align, VPos::Center));
    sheet.draw(&Text::new(s.to_owned(), at, style))
}

/// Bold text in ink, from `x` on.
pub(crate) fn bold(sheet: &Sheet, s: &str, at: (i32, i32), px: u32) -> Draw<()> {
    let font = FontDesc::new(FontFamily::SansSerif, scaled(px), FontStyle::Bold);
    let style = TextStyle::from(font).color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
    sheet.draw(&Text::new(s.to_owned(), at, style))
}

/// A filled rectangle.
pub(crate) fn rect(sheet: &Sheet, from: (i32, i32), to: (i32, i32), fill: &RGBAColor) -> Draw<()> {
    sheet.draw(&Rectangle::new([from, to], fill.filled()))
}

/// A line.
pub(crate) fn line(sheet: &Sheet, from: (i32, i32), to: (i32, i32), colour: &RGBColor, width: u32) -> Draw<()> {
    sheet.draw(&PathElement::new(vec![from, to], colour.stroke_width(width)))
}

/// A line through all points.
pub(crate) fn path(sheet: &Sheet, points: Vec<(i32, i32)>, colour: &RGBColor, width: u32) -> Draw<()> {
    sheet.draw(&PathElement::new(points, colour.stroke_width(width)))
}

/// A filled dot.
pub(crate) fn dot(sheet: &Sheet, at: (i32, i32), radius: i32, fill: &RGBAColor) -> Draw<()> {
    sheet.draw(&Circle::new(at, radius, fill.filled()))
}

/// A cross, for runs that are not in the statistics.
pub(crate) fn cross(sheet: &Sheet, (x, y): (i32, i32), colour: &RGBColor) -> Draw<()> {
    line(sheet, (x - 3, y - 3), (x + 3, y + 3), colour, 1)?;
    line(sheet, (x - 3, y + 3), (x + 3, y - 3), colour, 1)
}
