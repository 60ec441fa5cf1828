//! Files that import each other in a circle, within one crate.
//!
//! The check reads every target's module tree with `syn`. A file imports another one when a private `use` or a path in its
//! code names an item that the other file defines. A re-export is followed to the file that defines the name, so a `mod.rs`
//! that only declares and re-exports ties nothing. Items under `#[cfg(test)]` do not count.
//!
//! What it does not see: method calls on anything but `self`, names that macros make up, and paths in strings.

mod graph;
mod resolve;
#[cfg(test)]
mod tests;

use std::path::Path;

use self::graph::Imports;
use super::modules;
use crate::failure::Result;
use crate::workspace::Workspace;

pub(super) fn check(workspace: &Workspace) -> Result<()> {
    let mut files = 0;
    let mut problems = Vec::new();
    for package in workspace.metadata["packages"].as_array().into_iter().flatten() {
        for target in package["targets"].as_array().into_iter().flatten() {
            let root = Path::new(target["src_path"].as_str().unwrap_or_default());
            let imports = imports(root, &workspace.root)?;
            files += imports.files();
            let name = target["name"].as_str().unwrap_or_default();
            let kind = target["kind"][0].as_str().unwrap_or_default();
            problems.extend(imports.circles().iter().map(|circle| format!("{kind} {name}: {circle}")));
        }
    }
    for problem in &problems {
        eprintln!("{problem}");
    }
    println!("{files} files, {} circles", problems.len());
    if problems.is_empty() {
        Ok(())
    } else {
        Err(format!("{} groups of files import each other in a circle", problems.len()).into())
    }
}

/// Which file of the crate with this root file imports which; names of files are relative to `base`.
fn imports(root: &Path, base: &Path) -> Result<Imports> {
    Ok(Imports::of(&modules::read(root)?, base))
}
