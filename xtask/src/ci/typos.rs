//! Typing errors, found by codespell with the words that `.codespellrc` allows.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::Result;
use crate::workspace::Workspace;
use crate::{run, setup};

pub(super) fn check(workspace: &Workspace) -> Result<()> {
    setup::prepare_checks()?;
    let files = texts(&workspace.root, workspace.files()?);
    println!("{} files", files.len());
    run::quietly(&mut codespell(&workspace.root, &files))
}

/// Files that are text of ours.
fn texts(root: &Path, mut files: Vec<PathBuf>) -> Vec<PathBuf> {
    files.retain(|file| {
        // Captures are not text, and the names in the lock file are others'.
        !file.ends_with("Cargo.lock") && fs::read_to_string(root.join(file)).is_ok()
    });
    files
}

fn codespell(root: &Path, files: &[PathBuf]) -> Command {
    let mut command = Command::new("codespell");
    command.arg("--").args(files).current_dir(root);
    command
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{codespell, texts};
    use crate::run;

    #[test]
    fn a_typing_error_in_a_text_fails_and_binary_files_are_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).expect("a file");
        write("right.md", b"A frame is received.\n");
        write("typo.md", format!("A frame is rec{}ved.\n", "ie").as_bytes());
        write("capture.pcapng", &[0xff, 0xfe, 0, 1]);
        let names = ["right.md", "typo.md", "capture.pcapng"].map(Into::into).to_vec();
        let files = texts(folder.path(), names);
        assert_eq!(files.len(), 2);
        if run::find_program("codespell").is_none() {
            eprintln!("codespell is not installed: what it finds is not tested");
            return;
        }
        assert!(run::output(&mut codespell(folder.path(), &files[..1])).is_ok());
        let failure = run::output(&mut codespell(folder.path(), &files)).expect_err("a typing error");
        assert!(failure.to_string().contains("typo.md:1"), "{failure}");
    }
}
