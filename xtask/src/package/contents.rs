//! What the packages hold, and where.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{Context, Result};
use crate::folder::create_dir;
use crate::run;
use crate::workspace::Workspace;

/// A program, and how it writes its pages and completions.
struct Program {
    name: &'static str,
    man_pages: &'static str,
    completions: &'static str,
}

const CULVERT: Program = Program { name: "culvert", man_pages: "man-pages", completions: "completions" };
const CULVERTD: Program =
    Program { name: "culvertd", man_pages: "--man-pages", completions: "--completions" };
const CULVERT_EMU: Program =
    Program { name: "culvert-emu", man_pages: "--man-pages", completions: "--completions" };

/// Folders that shells read, with how a program's file is called.
const SHELLS: [(&str, &str, &str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions", "", ""),
    ("zsh", "usr/share/zsh/vendor-completions", "_", ""),
    ("fish", "usr/share/fish/vendor_completions.d", "", ".fish"),
];

/// A package.
pub(super) struct Package {
    pub(super) name: &'static str,
    description: &'static str,
    depends: &'static str,
    programs: &'static [Program],
    /// Folder of the programs.
    from: PathBuf,
    /// Other files: from where, to where.
    files: Vec<(PathBuf, &'static str)>,
    /// Scripts of dpkg, with the package's configuration files.
    scripts: &'static [(&'static str, &'static str)],
}

/// Starts nothing: which host this is stands in a file that says nothing at first. A daemon that runs is started again, and the
/// installation does not wait until it forwards.
const POSTINST: &str = r#"#!/bin/sh
set -e
if [ "$1" = configure ]; then
    systemd-sysusers ${DPKG_ROOT:+--root="$DPKG_ROOT"} culvert.conf
    if [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        systemctl --no-block try-restart culvertd.service || true
    fi
fi
"#;

const PRERM: &str = r#"#!/bin/sh
set -e
if [ "$1" = remove ] && [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
    systemctl disable --now culvertd.service || true
fi
"#;

const POSTRM: &str = r#"#!/bin/sh
set -e
if [ "$1" = purge ]; then
    rm -rf "$DPKG_ROOT/var/lib/private/culvert" "$DPKG_ROOT/var/lib/culvert"
fi
if [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
"#;

pub(super) fn packages(workspace: &Workspace, programs: &Path, firmware: &Path) -> [Package; 2] {
    let ours = |path: &str| workspace.root.join(path);
    let culvert = Package {
        name: "culvert",
        description: "overlay networks for virtual machines at SmartNIC speed\n \
                      The daemon of a host, its command line tool, and the NIC's firmware.",
        depends: "systemd | systemd-standalone-sysusers",
        programs: &[CULVERTD, CULVERT],
        from: programs.to_owned(),
        files: vec![
            (firmware.to_owned(), "usr/lib/culvert/culvert-fw.bin"),
            (ours("docs/systemd/culvertd.service"), "usr/lib/systemd/system/culvertd.service"),
            (ours("docs/systemd/sysusers"), "usr/lib/sysusers.d/culvert.conf"),
            (ours("docs/systemd/default"), "etc/default/culvertd"),
            (ours("docs/systemd/af-xdp.conf"), "usr/share/doc/culvert/examples/af-xdp.conf"),
            (ours("docs/systemd/nic.conf"), "usr/share/doc/culvert/examples/nic.conf"),
            (ours("docs/examples/pair.json"), "usr/share/doc/culvert/examples/pair.json"),
            (ours("docs/examples/routed.json"), "usr/share/doc/culvert/examples/routed.json"),
            (ours("README.md"), "usr/share/doc/culvert/README.md"),
            (ours("CHANGELOG.md"), "usr/share/doc/culvert/changelog"),
            (ours("LICENSE-MIT"), "usr/share/doc/culvert/copyright"),
            (ours("LICENSE-APACHE"), "usr/share/doc/culvert/LICENSE-APACHE"),
        ],
        scripts: &[
            ("conffiles", "/etc/default/culvertd\n"),
            ("postinst", POSTINST),
            ("prerm", PRERM),
            ("postrm", POSTRM),
        ],
    };
    let emulator = Package {
        name: "culvert-emu",
        description: "emulated NIC of Culvert\n PCIe functions behind vfio-user sockets, with the NIC's firmware in QEMU.",
        depends: "qemu-system-riscv | qemu-system-misc",
        programs: &[CULVERT_EMU],
        from: programs.to_owned(),
        files: vec![(ours("LICENSE-MIT"), "usr/share/doc/culvert-emu/copyright")],
        scripts: &[],
    };
    [culvert, emulator]
}

/// The workspace's version.
pub(super) fn version(workspace: &Workspace) -> Result<String> {
    let packages = workspace.metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let agent = packages.iter().find(|package| package["name"] == "culvert-agent");
    let version = agent.and_then(|package| package["version"].as_str());
    version.map(str::to_owned).ok_or_else(|| "cargo metadata names no version of culvert-agent".into())
}

impl Package {
    /// Writes everything into a folder, as `dpkg-deb` wants it.
    pub(super) fn write(&self, root: &Path, version: &str, machine: &str) -> Result<()> {
        for program in self.programs {
            program.install(&self.from, root)?;
        }
        for (from, to) in &self.files {
            let bytes = fs::read(from).context(|| from.display())?;
            write(&root.join(to), &bytes, 0o644)?;
        }
        for (name, text) in self.scripts {
            let mode = if *name == "conffiles" { 0o644 } else { 0o755 };
            write(&root.join("DEBIAN").join(name), text.as_bytes(), mode)?;
        }
        // The programs need the C library that they were linked with, or a newer one.
        let library = run::output(Command::new("getconf").arg("GNU_LIBC_VERSION"))?;
        let library = library.trim().rsplit(' ').next().unwrap_or_default();
        let control = format!(
            "Package: {}\nVersion: {version}\nArchitecture: {machine}\nMaintainer: The Culvert developers <culvert@localhost>\n\
             Section: net\nPriority: optional\nDepends: libc6 (>= {library}), libgcc-s1, {}\nDescription: {}\n",
            self.name, self.depends, self.description
        );
        write(&root.join("DEBIAN/control"), control.as_bytes(), 0o644)
    }
}

impl Program {
    fn install(&self, from: &Path, root: &Path) -> Result<()> {
        let program = from.join(self.name);
        let to = root.join("usr/bin").join(self.name);
        write(&to, &fs::read(&program).context(|| program.display())?, 0o755)?;
        // Lines for backtraces are most of a program.
        run::output(Command::new("strip").arg(&to))?;
        let pages = root.join("pages");
        run::output(Command::new(&program).arg(self.man_pages).arg(&pages))?;
        for page in fs::read_dir(&pages).context(|| pages.display())?.flatten() {
            let name = page.file_name().to_string_lossy().into_owned();
            let section = name.rsplit('.').next().unwrap_or_default().to_owned();
            let page = page.path();
            let bytes = fs::read(&page).context(|| page.display())?;
            let to = root.join(format!("usr/share/man/man{section}")).join(name);
            write(&to, &bytes, 0o644)?;
            run::output(Command::new("gzip").arg("-9n").arg(&to))?;
        }
        fs::remove_dir_all(&pages).context(|| pages.display())?;
        for (shell, folder, before, after) in SHELLS {
            let text = run::output(Command::new(&program).args([self.completions, shell]))?;
            write(&root.join(folder).join(format!("{before}{}{after}", self.name)), text.as_bytes(), 0o644)?;
        }
        Ok(())
    }
}

/// Writes a file and the folders above it, whatever the umask.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    if let Some(folder) = path.parent() {
        create_dir(folder)?;
    }
    fs::write(path, bytes)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .context(|| path.display())
}
