//! A unit file of systemd's, as far as this test needs it.

use std::fs;
use std::path::Path;

/// The settings of a unit, in their order.
pub(crate) struct Unit {
    settings: Vec<(String, String)>,
}

impl Unit {
    pub(crate) fn read(path: &Path) -> Self {
        let mut unit = Unit { settings: Vec::new() };
        unit.extend(path);
        unit
    }

    /// Adds a drop-in.
    pub(crate) fn extend(&mut self, path: &Path) {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let lines = text.lines().filter(|line| !line.starts_with(['#', '[']));
        let settings = lines.filter_map(|line| line.split_once('='));
        self.settings.extend(settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    /// The words of a setting that may stand several times.
    pub(crate) fn words<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.settings.iter().filter(move |(n, _)| n == name).flat_map(|(_, value)| value.split_whitespace())
    }

    /// The command that it starts.
    pub(crate) fn command(&self) -> impl Iterator<Item = &str> {
        self.words("ExecStart")
    }
}
