//! Data of a picture.

use super::axis::Axis;

/// One picture: panels side by side with the same axes.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Name of its file, without extension.
    pub name: &'static str,
    /// Its title, one line.
    pub title: String,
    /// The horizontal axis and its name.
    pub x: (&'static str, Axis),
    /// The vertical axis and its name.
    pub y: (&'static str, Axis),
    /// Title and lines of each panel; lines have the same order in all of them.
    pub panels: Vec<(String, Vec<Line>)>,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Whether it is Culvert's, which is drawn thicker.
    pub culvert: bool,
    /// Its points, by rising x.
    pub points: Vec<(f64, f64)>,
}
