//! `Exposition`: text in Prometheus' format, version 0.0.4.

use std::fmt::{Display, Write};

/// The text that is being written. Writing to a string cannot fail; its results are dropped for that reason.
#[derive(Default)]
pub(super) struct Exposition {
    text: String,
    /// The metric that samples belong to.
    name: String,
    /// A label's value before it is escaped; kept for its memory.
    value: String,
}

impl Exposition {
    /// Begins a metric.
    pub(super) fn metric(&mut self, name: &str, kind: &str, help: &str) {
        self.name.clear();
        let _ = write!(self.name, "culvert_{name}");
        let name = &self.name;
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// Adds a value of the metric, with its labels.
    pub(super) fn sample(&mut self, labels: &[(&str, &dyn Display)], value: impl Display) {
        self.text.push_str(&self.name);
        for (n, (label, value)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{label}=\"", if n == 0 { '{' } else { ',' });
            self.value.clear();
            let _ = write!(self.value, "{value}");
            for c in self.value.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// The text.
    pub(super) fn text(self) -> String {
        self.text
    }
}
