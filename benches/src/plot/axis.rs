//! Axes: where a value lies between the ends, and which values are named.

/// An axis from its first value to its last.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// Both ends.
    pub ends: (f64, f64),
    /// Logarithmic.
    pub log: bool,
    /// Values that are named.
    pub ticks: Vec<f64>,
}

impl Axis {
    /// Linear, from one end to the other of `values`, each of which is named.
    pub fn of(values: &[f64]) -> Self {
        let mut ticks = values.to_vec();
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        Axis { ends: ends(&ticks), log: false, ticks }
    }

    /// Logarithmic, whole decades around `values`.
    pub fn decades(values: &[f64]) -> Self {
        let (low, high) = ends(values);
        let (low, high) = (low.max(1e-3).log10().floor() as i32, high.max(1e-3).log10().ceil() as i32);
        let ticks: Vec<f64> = (low..=high.max(low + 1)).map(|n| 10f64.powi(n)).collect();
        Axis { ends: ends(&ticks), log: true, ticks }
    }

    /// Logarithmic, by 1, 2 and 5, around `values`.
    pub fn halves(values: &[f64]) -> Self {
        let (low, high) = ends(values);
        let decades = low.max(1e-3).log10().floor() as i32..=high.max(1e-3).log10().ceil() as i32;
        let all: Vec<f64> = decades.flat_map(|n| [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(n))).collect();
        let first = all.iter().rposition(|tick| *tick <= low).unwrap_or(0);
        let last = all.iter().position(|tick| *tick >= high).unwrap_or(all.len() - 1).max(first + 1);
        let ticks = all[first..=last.min(all.len() - 1)].to_vec();
        Axis { ends: ends(&ticks), log: true, ticks }
    }

    /// Linear from 0 to above `values`, with a handful of round steps.
    pub fn from_zero(values: &[f64]) -> Self {
        let high = ends(values).1.max(1.0);
        let decade = 10f64.powi((high / 5.0).log10().floor() as i32);
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|s| s * decade).into_iter().find(|s| s * 6.0 >= high);
        let step = step.unwrap_or(10.0 * decade);
        let ticks: Vec<f64> = (0..=(high / step).ceil() as u32).map(|n| f64::from(n) * step).collect();
        Axis { ends: ends(&ticks), log: false, ticks }
    }

    /// Where `value` lies: 0 at the first end, 1 at the last.
    pub fn place(&self, value: f64) -> f64 {
        let scale = |v: f64| if self.log { v.max(1e-3).log10() } else { v };
        let (low, high) = (scale(self.ends.0), scale(self.ends.1));
        if high > low { ((scale(value) - low) / (high - low)).clamp(0.0, 1.0) } else { 0.5 }
    }
}

fn ends(values: &[f64]) -> (f64, f64) {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if low <= high { (low, high) } else { (0.0, 1.0) }
}
