//! Figures as SVG text, with colours for light and dark pages in the style sheet.

use std::fmt::Write as _;

use super::axis::Axis;
use super::figure::{Figure, Line};

/// Position of the first panel in pixels: left edge, upper edge, width, height.
const PANEL: (f64, f64, f64, f64) = (62.0, 76.0, 380.0, 270.0);
/// From one panel's left edge to the next one's.
const NEXT: f64 = 462.0;
/// Height below the panels, for ticks, the axis's name and the legend.
const BELOW: f64 = 96.0;

const STYLE: &str = "\
svg{font-family:system-ui,'Segoe UI','DejaVu Sans',sans-serif;font-size:12px}\
.page{fill:#ffffff}text{fill:#1f2328}.title{font-size:15px;font-weight:600}.panel{font-weight:600}\
.grid{stroke:#d1d9e0;stroke-width:1}.edge{stroke:#59636e;stroke-width:1}\
.line{fill:none;stroke-width:1.8}.culvert{stroke-width:3}\
.s0{stroke:#0969da}.s1{stroke:#bc4c00}.s2{stroke:#8250df}.s3{stroke:#1a7f37}\
.m0{fill:#0969da}.m1{fill:#bc4c00}.m2{fill:#8250df}.m3{fill:#1a7f37}\
@media(prefers-color-scheme:dark){.page{fill:#0d1117}text{fill:#e6edf3}\
.grid{stroke:#30363d}.edge{stroke:#8b949e}\
.s0{stroke:#58a6ff}.s1{stroke:#f0883e}.s2{stroke:#bc8cff}.s3{stroke:#3fb950}\
.m0{fill:#58a6ff}.m1{fill:#f0883e}.m2{fill:#bc8cff}.m3{fill:#3fb950}}";

/// Draws a figure as SVG, readable on light and dark pages.
pub fn draw(figure: &Figure) -> String {
    let (left, top, width, height) = PANEL;
    let all = left + NEXT * figure.panels.len() as f64 - (NEXT - width) + 24.0;
    let high = top + height + BELOW;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {all} {high}\" width=\"{all}\" \
         height=\"{high}\" role=\"img\">\n<title>{}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"page\" width=\"{all}\" height=\"{high}\"/>\n",
        escaped(&figure.title)
    );
    text(&mut out, (left, 28.0), "start", "title", &figure.title);
    for (n, (title, lines)) in figure.panels.iter().enumerate() {
        let at = (left + NEXT * n as f64, top);
        text(&mut out, (at.0, top - 12.0), "start", "panel", title);
        frame(&mut out, figure, at);
        // Culvert's line is the first, and drawn last, over the others.
        for (n, line) in lines.iter().enumerate().rev() {
            curve(&mut out, figure, line, n, at);
        }
    }
    legend(&mut out, figure, (left, high - 16.0));
    out.push_str("</svg>\n");
    out
}

/// Draws grid, ticks and names of the axes.
fn frame(out: &mut String, figure: &Figure, (left, top): (f64, f64)) {
    let (_, _, width, height) = PANEL;
    let bottom = top + height;
    for tick in &figure.y.1.ticks {
        let y = bottom - height * figure.y.1.place(*tick);
        segment(out, "grid", (left, y), (left + width, y));
        text(out, (left - 8.0, y + 4.0), "end", "tick", &short(*tick));
    }
    for tick in &figure.x.1.ticks {
        let x = left + width * figure.x.1.place(*tick);
        segment(out, "grid", (x, top), (x, bottom));
        text(out, (x, bottom + 18.0), "middle", "tick", &short(*tick));
    }
    segment(out, "edge", (left, bottom), (left + width, bottom));
    segment(out, "edge", (left, top), (left, bottom));
    text(out, (left + width / 2.0, bottom + 38.0), "middle", "name", &scaled(figure.x.0, &figure.x.1));
    let (x, y) = (left - 46.0, top + height / 2.0);
    let name = escaped(&scaled(figure.y.0, &figure.y.1));
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 {x:.1} {y:.1})\">{name}</text>"
    );
}

fn curve(out: &mut String, figure: &Figure, line: &Line, n: usize, (left, top): (f64, f64)) {
    let (_, _, width, height) = PANEL;
    let at = |(x, y): &(f64, f64)| {
        (left + width * figure.x.1.place(*x), top + height * (1.0 - figure.y.1.place(*y)))
    };
    let points: Vec<_> = line.points.iter().map(at).collect();
    let path: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(out, "<polyline class=\"line {}\" points=\"{}\"/>", class(line, n), path.join(" "));
    for point in points {
        mark(out, n, point);
    }
}

/// Draws a line's mark, whose shape distinguishes lines without colour.
fn mark(out: &mut String, n: usize, (x, y): (f64, f64)) {
    let around = |offsets: &[(f64, f64)]| -> String {
        let all = offsets.iter().map(|(dx, dy)| format!("{:.1},{:.1}", x + dx, y + dy));
        all.collect::<Vec<_>>().join(" ")
    };
    let points = match n % 4 {
        0 => {
            let _ = writeln!(out, "<circle class=\"m0\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\"/>");
            return;
        }
        1 => around(&[(-4.0, -4.0), (4.0, -4.0), (4.0, 4.0), (-4.0, 4.0)]),
        2 => around(&[(0.0, -5.0), (5.0, 4.0), (-5.0, 4.0)]),
        _ => around(&[(0.0, -5.5), (5.5, 0.0), (0.0, 5.5), (-5.5, 0.0)]),
    };
    let _ = writeln!(out, "<polygon class=\"m{}\" points=\"{points}\"/>", n % 4);
}

fn legend(out: &mut String, figure: &Figure, (mut x, y): (f64, f64)) {
    let Some((_, lines)) = figure.panels.first() else { return };
    for (n, line) in lines.iter().enumerate() {
        let _ = writeln!(out, "<path class=\"line {}\" d=\"M{x:.1} {:.1}h28\"/>", class(line, n), y - 4.0);
        mark(out, n, (x + 14.0, y - 4.0));
        text(out, (x + 36.0, y), "start", "name", &line.name);
        // Letters are about seven pixels wide.
        x += 64.0 + 7.0 * line.name.chars().count() as f64;
    }
}

fn class(line: &Line, n: usize) -> String {
    format!("s{}{}", n % 4, if line.culvert { " culvert" } else { "" })
}

fn segment(out: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        out,
        "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, class: &str, words: &str) {
    let words = escaped(words);
    let _ = writeln!(
        out,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"
    );
}

fn scaled(name: &str, axis: &Axis) -> String {
    if axis.log { format!("{name} (logarithmic)") } else { name.to_owned() }
}

/// A number as the label of a tick.
fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} M", v / 1e6),
        v if v >= 1e4 => format!("{} k", v / 1e3),
        v => format!("{v}"),
    }
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
