//! Lengths of files and of crates.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::modules;
use crate::failure::{Context, Result};
use crate::workspace::Workspace;

/// Lines that a Rust file may have.
const FILE: usize = 400;
/// Lines that a crate may have without its tests.
const CRATE: usize = 8_000;

pub(super) fn check(workspace: &Workspace) -> Result<()> {
    let mut problems = Vec::new();
    for file in workspace.files()?.iter().filter(|file| file.extension().is_some_and(|end| end == "rs")) {
        problems.extend(file_problem(file, lines(&workspace.root.join(file))?));
    }
    let mut largest = (0, String::new());
    for package in workspace.metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let mut files = BTreeMap::new();
        for target in package["targets"].as_array().into_iter().flatten() {
            let root = Path::new(target["src_path"].as_str().unwrap_or_default());
            if ["lib", "bin"].contains(&target["kind"][0].as_str().unwrap_or_default()) {
                files.extend(crate_files(root)?);
            }
        }
        let length = files.values().sum();
        problems.extend(crate_problem(name, length));
        largest = largest.max((length, name.to_owned()));
    }
    for problem in &problems {
        eprintln!("{problem}");
    }
    println!("the largest crate is {} with {} lines", largest.1, largest.0);
    if problems.is_empty() { Ok(()) } else { Err(format!("{} are too long", problems.len()).into()) }
}

/// The files of a target without those under `#[cfg(test)]`, with their lengths.
fn crate_files(root: &Path) -> Result<BTreeMap<PathBuf, usize>> {
    let files = modules::read(root)?.files;
    files.into_iter().map(|file| lines(&file).map(|lines| (file, lines))).collect()
}

fn lines(file: &Path) -> Result<usize> {
    let text = fs::read_to_string(file).context(|| format!("cannot read {}", file.display()))?;
    Ok(text.lines().count())
}

fn file_problem(file: &Path, lines: usize) -> Option<String> {
    (lines > FILE).then(|| format!("{}: {lines} lines, more than {FILE}: split it", file.display()))
}

fn crate_problem(name: &str, lines: usize) -> Option<String> {
    (lines > CRATE).then(|| format!("{name}: {lines} lines without its tests, more than {CRATE}: split it"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{CRATE, FILE, crate_files, crate_problem, file_problem};

    #[test]
    fn one_line_too_many_is_a_problem() {
        assert_eq!(file_problem(Path::new("a.rs"), FILE), None);
        assert!(file_problem(Path::new("a.rs"), FILE + 1).is_some_and(|text| text.contains("a.rs: 401")));
        assert_eq!(crate_problem("culvert-x", CRATE), None);
        assert!(crate_problem("culvert-x", CRATE + 1).is_some());
    }

    #[test]
    fn tests_are_not_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("a file");
        write("lib.rs", "mod a;\n#[cfg(test)]\nmod tests;\n");
        write("a.rs", "const A: u8 = 1;\n");
        write("tests.rs", "const B: u8 = 1;\n");
        let files = crate_files(&folder.path().join("lib.rs")).expect("a crate");
        assert_eq!(files.values().copied().collect::<Vec<_>>(), [1, 3]);
    }
}
