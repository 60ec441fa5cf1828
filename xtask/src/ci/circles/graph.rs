//! The graph of imports between files, and its circles.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use super::super::modules::Crate;
use super::resolve::Resolver;

/// Names that each file takes from other files.
pub(super) struct Imports {
    names: Vec<String>,
    edges: Vec<BTreeMap<usize, BTreeSet<String>>>,
}

impl Imports {
    /// Resolves every import and path of the crate.
    pub(super) fn of(krate: &Crate, base: &Path) -> Self {
        let shown = |file: &Path| file.strip_prefix(base).unwrap_or(file).display().to_string();
        let names = krate.files.iter().map(|file| shown(file)).collect();
        let mut edges = vec![BTreeMap::<usize, BTreeSet<String>>::new(); krate.files.len()];
        let resolver = Resolver::new(krate);
        for module in 0..krate.modules.len() {
            let from = krate.modules[module].file;
            for (to, name) in resolver.used_by(module) {
                if to != from {
                    edges[from].entry(to).or_default().insert(name);
                }
            }
        }
        Self { names, edges }
    }

    /// How many files the crate has.
    pub(super) fn files(&self) -> usize {
        self.names.len()
    }

    /// One text for each group of files that import each other, with the names that tie them.
    pub(super) fn circles(&self) -> Vec<String> {
        let reach: Vec<BTreeSet<usize>> = (0..self.names.len()).map(|file| self.reachable(file)).collect();
        let mut seen = BTreeSet::new();
        let mut circles = Vec::new();
        for file in 0..self.names.len() {
            if !reach[file].contains(&file) || !seen.insert(file) {
                continue;
            }
            let group: Vec<usize> =
                reach[file].iter().copied().filter(|&other| reach[other].contains(&file)).collect();
            seen.extend(&group);
            let mut text = format!("{} files import in a circle", group.len());
            for &from in &group {
                for (to, names) in self.edges[from].iter().filter(|(to, _)| group.contains(to)) {
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    let _ = write!(
                        text,
                        "\n    {} -> {}: {}",
                        self.names[from],
                        self.names[*to],
                        names.join(", ")
                    );
                }
            }
            circles.push(text);
        }
        circles
    }

    /// All files that this file imports, directly or through others.
    fn reachable(&self, file: usize) -> BTreeSet<usize> {
        let mut open = vec![file];
        let mut seen = BTreeSet::new();
        while let Some(next) = open.pop() {
            open.extend(self.edges[next].keys().filter(|&&to| seen.insert(to)));
        }
        seen
    }

    /// The edges as (importing file, imported file, names), for tests.
    #[cfg(test)]
    pub(super) fn list(&self) -> Vec<(&str, &str, Vec<&str>)> {
        let mut list = Vec::new();
        for (from, edges) in self.edges.iter().enumerate() {
            for (to, names) in edges {
                let names = names.iter().map(String::as_str).collect();
                list.push((self.names[from].as_str(), self.names[*to].as_str(), names));
            }
        }
        list
    }
}
