//! The systemd unit with each of its drop-ins: what systemd finds wrong with it, and what it leaves open.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::failure::{Context, Result};
use crate::workspace::Workspace;
use crate::{run, setup};

/// Where unit and drop-ins are.
const FOLDER: &str = "docs/systemd";
const UNIT: &str = "culvertd.service";
/// Exposure that `systemd-analyze security` may find, in tenths: up to 4 it says "OK", and each drop-in adds a little.
const EXPOSURE: u32 = 30;

pub(super) fn check(workspace: &Workspace) -> Result<()> {
    setup::prepare_checks()?;
    let folder = workspace.root.join(FOLDER);
    let unit = fs::read_to_string(folder.join(UNIT)).context(|| format!("{FOLDER}/{UNIT}"))?;
    let mut drop_ins: Vec<_> = fs::read_dir(&folder)
        .context(|| FOLDER)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "conf"))
        .collect();
    drop_ins.sort();
    let place = workspace.target.join("units");
    for drop_in in std::iter::once(None).chain(drop_ins.iter().map(Some)) {
        let name = drop_in.and_then(|path| path.file_name()).map(|name| name.to_string_lossy());
        analyze(&unit, drop_in.map(|path| &**path), &place)
            .context(|| format!("{UNIT} {}", name.as_deref().unwrap_or("alone")))?;
    }
    println!("{UNIT}, alone and with {} drop-ins", drop_ins.len());
    Ok(())
}

/// Analyzes the unit, with a drop-in, in a folder of its own. The program is not installed; another stands for it.
fn analyze(unit: &str, drop_in: Option<&Path>, place: &Path) -> Result<()> {
    // What an earlier run has left.
    let _gone = fs::remove_dir_all(place);
    let drop_ins = place.join(format!("{UNIT}.d"));
    fs::create_dir_all(&drop_ins).context(|| drop_ins.display())?;
    let unit = unit.replace("ExecStart=/usr/bin/culvertd", "ExecStart=/bin/true");
    let file = place.join(UNIT);
    fs::write(&file, unit).context(|| file.display())?;
    if let Some(from) = drop_in {
        fs::copy(from, drop_ins.join("drop-in.conf")).context(|| from.display())?;
    }
    let systemd = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(arguments).arg(&file).env("LC_ALL", "C").env("SYSTEMD_COLORS", "0");
        command
    };
    // It warns of unknown settings and goes on.
    let done = systemd(&["verify", "--man=no"]).output().context(|| "systemd-analyze")?;
    let said = String::from_utf8_lossy(&done.stderr);
    let ours: Vec<&str> = said.lines().filter(|line| line.contains(UNIT)).collect();
    if !done.status.success() || !ours.is_empty() {
        return Err(format!("systemd-analyze verify: {}\n{}", done.status, said.trim()).into());
    }
    let threshold = format!("--threshold={EXPOSURE}");
    run::output(&mut systemd(&["security", "--no-pager", "--offline=true", &threshold])).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[Service]\nType=notify\nExecStart=/usr/bin/culvertd\nDynamicUser=yes\n";

    #[test]
    fn a_setting_that_systemd_does_not_know_fails_and_so_does_a_unit_that_is_open() {
        if run::find_program("systemd-analyze").is_none() {
            eprintln!("systemd is not installed: what it finds is not tested");
            return;
        }
        let place = tempfile::tempdir().expect("a folder");
        let result = |unit: &str| analyze(unit, None, place.path()).expect_err("it is wrong").to_string();
        let unknown = result(&format!("{GOOD}SystemCallFiltre=@system-service\n"));
        assert!(unknown.contains("SystemCallFiltre"), "{unknown}");
        let open = result(GOOD);
        assert!(open.contains("Overall exposure level"), "{open}");
    }
}
