//! Keeps services of packages from starting, at installation and at boot: only their programs are wanted.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{Context, Result};
use crate::run;

/// The program that Debian's packages ask before they start a service (Debian's policy manual, section 9.3.3.1).
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// The answer that forbids it.
const FORBIDDEN: i32 = 101;
/// Marks our policy, so that it is not taken for the administrator's.
const MARK: &str = "# Made by `cargo xtask setup` while it installs packages; it removes this again.";

/// Runs an installation that starts none of these services. They were not installed before.
///
/// # Errors
/// The machine has a policy of its own, which would start them; or the installation fails.
pub(super) fn held_back(services: &[&str], install: impl FnOnce() -> Result<()>) -> Result<()> {
    if services.is_empty() {
        return install();
    }
    let policy = Policy::forbid(Path::new(POLICY), services)?;
    let installed = install();
    drop(policy);
    // Also after a failure: some packages may be complete.
    for service in services.iter().filter(|service| Path::new("/etc/init.d").join(service).exists()) {
        run::run(Command::new("update-rc.d").args([service, "disable"]))?;
    }
    installed
}

/// Our policy in place of the system's, removed when this is dropped.
#[derive(Debug)]
struct Policy {
    /// The file, if it is ours.
    file: Option<PathBuf>,
}

impl Policy {
    fn forbid(file: &Path, services: &[&str]) -> Result<Self> {
        match fs::read_to_string(file) {
            // A killed installation has left it.
            Ok(text) if text.contains(MARK) => {
                fs::remove_file(file).context(|| file.display())?;
            }
            // Container images have one that forbids everything. Any other is the administrator's.
            Ok(_) => {
                let forbids = |service: &&str| {
                    let answer = Command::new(file).args([service, "start"]).output();
                    answer.is_ok_and(|answer| answer.status.code() == Some(FORBIDDEN))
                };
                return match services.iter().find(|service| !forbids(service)) {
                    None => Ok(Policy { file: None }),
                    Some(service) => Err(format!(
                        "{} does not forbid {service} to start: install its package yourself, or let it forbid that",
                        file.display()
                    )
                    .into()),
                };
            }
            Err(_) => {}
        }
        let made = File::options().write(true).create_new(true).mode(0o755).open(file);
        let mut made = made.context(|| file.display())?;
        let policy = Policy { file: Some(file.to_owned()) };
        made.write_all(script(services, std::process::id()).as_bytes()).context(|| file.display())?;
        Ok(policy)
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.file.as_ref().map(fs::remove_file) {
            eprintln!("{POLICY} cannot be removed: {error}");
        }
    }
}

/// Forbids these services and no others, as long as a process lives: one that is killed removes nothing.
fn script(services: &[&str], process: u32) -> String {
    format!(
        "#!/bin/sh\n{MARK}\n[ -d /proc/{process} ] || exit 0\nfor word; do\n  case \"${{word%.service}}\" in\n    {}) exit \
         {FORBIDDEN} ;;\n  esac\ndone\nexit 0\n",
        services.join(" | ")
    )
}

#[cfg(test)]
mod tests;
