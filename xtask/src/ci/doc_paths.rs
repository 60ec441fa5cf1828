//! Paths that documents name: each must be there.

use std::fs;

use crate::failure::Result;
use crate::workspace::Workspace;

/// Folders that a path of the workspace begins with.
const FOLDERS: &[&str] = &[
    "benches/",
    "control/",
    "dataplane/",
    "docs/",
    "hdl-model/",
    "host-driver/",
    "nic-firmware/",
    "tests/",
    "xtask/",
];

pub(super) fn check(workspace: &Workspace) -> Result<()> {
    let mut problems = Vec::new();
    let mut count = 0;
    for file in workspace.files()? {
        // The change log names what was there once.
        if file.extension().is_none_or(|end| end != "md") || file.ends_with("CHANGELOG.md") {
            continue;
        }
        let Ok(text) = fs::read_to_string(workspace.root.join(&file)) else { continue };
        for (line, path) in paths(&text) {
            count += 1;
            if !workspace.root.join(path).exists() {
                problems.push(format!("{}:{line}: {path} is not there", file.display()));
            }
        }
    }
    for problem in &problems {
        eprintln!("{problem}");
    }
    println!("{count} paths in documents");
    if problems.is_empty() { Ok(()) } else { Err(format!("{} paths lead nowhere", problems.len()).into()) }
}

/// Paths of the workspace in a text, with their lines.
fn paths(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().flat_map(|(number, line)| {
        let is_path = |c: char| c.is_ascii_alphanumeric() || "/_-.*<>{}".contains(c);
        line.split(move |c| !is_path(c)).filter_map(move |word| {
            let path = word.trim_end_matches('.');
            let fits =
                FOLDERS.iter().any(|folder| path.starts_with(folder)) && !path.contains(['*', '<', '{']);
            fits.then_some((number + 1, path))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::paths;

    #[test]
    fn paths_are_found_in_code_and_prose() {
        let text =
            "See `tests/e2e/src`, docs/benchmarks.md.\nNot target/x, a/tests/b, tests/<name> or dataplane.";
        assert_eq!(paths(text).collect::<Vec<_>>(), [(1, "tests/e2e/src"), (1, "docs/benchmarks.md")]);
    }
}
