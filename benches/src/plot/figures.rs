//! The pictures: rows of measured data, arranged in panels and lines.

use serde_json::Value;

use super::axis::Axis;
use super::figure::{Figure, Line};

/// A row of a benchmark.
struct Row<'a> {
    work: &'a str,
    rules: &'a str,
    bytes: f64,
    flows: f64,
    row: &'a Value,
}

/// The horizontal axis.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Along {
    Flows,
    Bytes,
}

const CYCLES: &str = "cycles per packet";

/// Pictures of the results of `switch`.
///
/// # Errors
/// The data is not from `switch`.
pub fn of_switch(data: &Value) -> Result<Vec<Figure>, String> {
    let rows = rows(data)?;
    let figure = |name, along| {
        let (title, kept) = title("Switch on one core", along, &rows);
        let panels = ["encap", "decap"].map(|way| {
            let line = |encap: &str| {
                let work = format!("{encap} {way}");
                line(encap, true, along, kept.iter().filter(|row| row.work == work), "cycles")
            };
            Ok((way.to_owned(), vec![line("VXLAN")?, line("NVGRE")?]))
        });
        finish(name, title, along, Axis::from_zero, panels)
    };
    Ok(vec![figure("switch-flows", Along::Flows)?, figure("switch-bytes", Along::Bytes)?])
}

/// Pictures of the results of `ovs_dpdk`.
///
/// # Errors
/// The data is not from `ovs_dpdk`.
pub fn of_ovs_dpdk(data: &Value) -> Result<Vec<Figure>, String> {
    let rows = rows(data)?;
    let figure = |name, along| {
        let (title, kept) = title("Culvert and Open vSwitch with DPDK on one core", along, &rows);
        let panels = ["VXLAN encap", "VXLAN decap"].map(|work| {
            let of = |rules: &'static str| kept.iter().filter(move |r| r.work == work && r.rules == rules);
            let one = ["connections", "destinations", "port"].into_iter().find(|r| of(r).count() > 0);
            // Culvert was measured beside each of Open vSwitch's rules, with the same work every time: one line is drawn.
            let mut lines = vec![line("Culvert", true, along, of(one.unwrap_or("port")), "culvert")?];
            for (rules, name) in [
                ("port", "OVS: one rule for all"),
                ("destinations", "OVS: 8,192 rules by destination"),
                ("connections", "OVS: connection tracking"),
            ] {
                lines.push(line(name, false, along, of(rules), "ovs")?);
            }
            Ok((work.to_owned(), lines))
        });
        finish(name, title, along, Axis::halves, panels)
    };
    Ok(vec![figure("ovs-dpdk-flows", Along::Flows)?, figure("ovs-dpdk-bytes", Along::Bytes)?])
}

fn rows(data: &Value) -> Result<Vec<Row<'_>>, String> {
    let rows = data["rows"].as_array().ok_or("no rows: is this the output of a benchmark with --json?")?;
    let row = |row| {
        Some(Row {
            work: text(row, "work")?,
            rules: text(row, "rules").unwrap_or_default(),
            bytes: row["bytes"].as_f64()?,
            flows: row["flows"].as_f64()?,
            row,
        })
    };
    rows.iter().map(|r| row(r).ok_or_else(|| format!("a row without work, bytes or flows: {r}"))).collect()
}

fn text<'a>(row: &'a Value, name: &str) -> Option<&'a str> {
    row[name].as_str()
}

/// The title of a picture and its rows: those with the value that most rows have on the other axis.
fn title<'a>(what: &str, along: Along, rows: &'a [Row<'a>]) -> (String, Vec<&'a Row<'a>>) {
    let of = |row: &Row<'_>| if along == Along::Flows { row.bytes } else { row.flows };
    let spread = |value: f64| {
        let mut along: Vec<f64> =
            rows.iter().filter(|r| of(r) == value).map(|r| r.bytes * 1e9 + r.flows).collect();
        along.sort_by(f64::total_cmp);
        along.dedup();
        along.len()
    };
    let mut values: Vec<f64> = rows.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    // Prefer a thousand flows; of lengths, the shortest.
    let most = values.iter().map(|v| spread(*v)).max().unwrap_or(0);
    let best: Vec<f64> = values.into_iter().filter(|v| spread(*v) == most).collect();
    let usual = best.iter().copied().find(|v| *v == 1000.0).or(best.first().copied()).unwrap_or(0.0);
    let title = match along {
        Along::Flows => format!("{what}, frames of {usual} bytes"),
        Along::Bytes => format!("{what}, {usual} flows"),
    };
    (title, rows.iter().filter(|row| of(row) == usual).collect())
}

fn line<'a>(
    name: &str,
    culvert: bool,
    along: Along,
    rows: impl Iterator<Item = &'a &'a Row<'a>>,
    field: &str,
) -> Result<Line, String> {
    let point = |row: &&Row<'_>| {
        let y = row.row[field].as_f64().ok_or_else(|| format!("a row without {field}: {}", row.row))?;
        Ok((if along == Along::Flows { row.flows } else { row.bytes }, y))
    };
    let mut points = rows.map(point).collect::<Result<Vec<_>, String>>()?;
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    Ok(Line { name: name.to_owned(), culvert, points })
}

fn finish(
    name: &'static str,
    title: String,
    along: Along,
    up: fn(&[f64]) -> Axis,
    panels: [Result<(String, Vec<Line>), String>; 2],
) -> Result<Figure, String> {
    let panels = panels.into_iter().collect::<Result<Vec<_>, _>>()?;
    let points: Vec<_> = panels.iter().flat_map(|(_, lines)| lines).flat_map(|l| &l.points).collect();
    if points.is_empty() {
        return Err(format!("{name}: no row of the data fits"));
    }
    let (xs, ys): (Vec<f64>, Vec<f64>) = points.into_iter().copied().unzip();
    let x = match along {
        Along::Flows => ("flows", Axis::decades(&xs)),
        Along::Bytes => ("bytes of the inner frame", Axis::of(&xs)),
    };
    Ok(Figure { name, title, x, y: (CYCLES, up(&ys)), panels })
}
