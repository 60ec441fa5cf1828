//! Writes the inputs that each target starts from, for libFuzzer: `culvert-fuzz-corpus <folder>`; with `--hex <file>`
//! prints an input as `corpus/` has it.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use culvert_fuzz::{TARGETS, corpus};

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let done = match &arguments[..] {
        [folder] => write(folder),
        [flag, file] if flag.as_os_str() == "--hex" => {
            std::fs::read(file).map(|bytes| print!("{}", corpus::print(&bytes)))
        }
        _ => Err(std::io::Error::other("usage: culvert-fuzz-corpus FOLDER | --hex FILE")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A folder for each target, with a file for each input.
fn write(folder: &Path) -> std::io::Result<()> {
    for target in TARGETS {
        let folder = folder.join(target.name);
        std::fs::create_dir_all(&folder)?;
        for (name, bytes) in corpus::inputs(target)? {
            std::fs::write(folder.join(name), bytes)?;
        }
    }
    Ok(())
}
