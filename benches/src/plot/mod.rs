//! Pictures of what `soft` and `peers` measured, from the data that they print with `--json`.

mod axis;
mod figures;
mod svg;

pub use self::axis::Axis;
pub use self::figures::{of_peers, of_soft};

/// One picture: panels side by side with the same axes.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Name of its file, without extension.
    pub name: &'static str,
    /// What it shows, in one line.
    pub title: String,
    /// What goes along the bottom, with its unit.
    pub x: (&'static str, Axis),
    /// What goes up, with its unit.
    pub y: (&'static str, Axis),
    /// Title and lines of each panel; a line has the same place in all of them.
    pub panels: Vec<(String, Vec<Line>)>,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    /// What the legend says.
    pub name: String,
    /// Whether it is our own, which is drawn stronger.
    pub ours: bool,
    /// Its points, by rising x.
    pub points: Vec<(f64, f64)>,
}

impl Figure {
    /// The picture as SVG, readable on light and dark pages.
    pub fn svg(&self) -> String {
        svg::draw(self)
    }
}

#[cfg(test)]
mod tests;
