//! Schemathesis, which compares the API with its OpenAPI document: in a Python environment of the cache.

use std::path::PathBuf;
use std::process::Command;

use crate::failure::Result;
use crate::folder::{beside, remove_dir, replace_dir};
use crate::run;
use crate::workspace::Workspace;

/// What is installed, with its version: another one may find other things.
const PACKAGE: &str = "schemathesis==4.32.5";

/// The Python that has it.
pub(crate) fn python(workspace: &Workspace) -> Result<PathBuf> {
    let _lock = workspace.lock_cache()?;
    let folder = workspace.cache()?.join("schemathesis-4.32.5");
    let python = folder.join("bin/python3");
    if python.is_file() {
        return Ok(python);
    }
    println!("installing {PACKAGE} from PyPI into the cache");
    let partial = beside(&folder, "new");
    remove_dir(&partial)?;
    run::run(Command::new("python3").args(["-m", "venv"]).arg(&partial))
        .map_err(|failure| format!("{failure}; Debian and Ubuntu have it in the package python3-venv"))?;
    // The interpreter, not the scripts: those name the folder that they were made in.
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE];
    run::run(Command::new(partial.join("bin/python3")).args(pip))?;
    replace_dir(&partial, &folder)?;
    Ok(python)
}
