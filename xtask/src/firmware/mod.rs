//! `cargo xtask firmware`: the RISC-V image, as an ELF file for debuggers and as the flat image that the driver loads.

mod elf;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use culvert_abi::image::{Header, MAGIC, MAX_LEN};
use zerocopy::IntoBytes;

use crate::failure::{Context, Result};
use crate::folder::create_dir;
use crate::run;
use crate::setup::{self, RiscvTarget};
use crate::workspace::{FIRMWARE_TARGET, Workspace};

/// The crate of the image and its binary.
const PACKAGE: &str = "culvert-image";

/// Builds the image; returns the path of the flat one.
pub(crate) fn execute(workspace: &Workspace) -> Result<PathBuf> {
    build(workspace, &setup::prepare(workspace, &setup::Options::default())?)
}

/// Builds the image for a target that is set up.
pub(crate) fn build(workspace: &Workspace, target: &RiscvTarget) -> Result<PathBuf> {
    let mut cargo = workspace.cargo("build");
    cargo.args(["--locked", "--package", PACKAGE, "--profile", "firmware"]);
    target.apply(&mut cargo);
    run::run(&mut cargo)?;

    let built = workspace.target.join(FIRMWARE_TARGET).join("firmware").join(PACKAGE);
    let elf = fs::read(&built).context(|| format!("cannot read {}", built.display()))?;
    let image = flat(&elf).map_err(|problem| format!("{}: {problem}", built.display()))?;
    let folder = workspace.target.join("firmware");
    create_dir(&folder)?;
    let path = folder.join("culvert-fw.bin");
    for (name, bytes) in [("culvert-fw.elf", &elf), ("culvert-fw.bin", &image)] {
        // Another process may be reading the old image: replace it in one step.
        let partial = folder.join(format!("{name}.partial"));
        fs::write(&partial, bytes).context(|| format!("cannot write {}", partial.display()))?;
        fs::rename(&partial, folder.join(name))
            .context(|| format!("cannot replace {name} in {}", folder.display()))?;
    }
    eprintln!("firmware image: {} ({} bytes)", path.display(), image.len());
    Ok(path)
}

/// Lints the image, which is no default member because only its own target can build it.
pub(crate) fn lint(workspace: &Workspace) -> Result<()> {
    let target = setup::prepare(workspace, &setup::Options::default())?;
    let mut cargo: Command = workspace.cargo("clippy");
    cargo.args(["--locked", "--package", PACKAGE]);
    target.apply(&mut cargo);
    cargo.args(["--", "-Dwarnings"]);
    run::run(&mut cargo)
}

/// Header and flat image of an ELF file.
fn flat(elf: &[u8]) -> Result<Vec<u8>> {
    let memory = elf::load(elf, MAX_LEN as usize - size_of::<Header>())?;
    let header = Header {
        magic: MAGIC,
        abi: culvert_abi::VERSION,
        load: memory.start,
        entry: memory.entry,
        len: u32::try_from(memory.bytes.len()).context(|| "length of the image")?,
        crc: crc32fast::hash(&memory.bytes),
    };
    let image = [header.as_bytes(), &memory.bytes].concat();
    // The board checks the same; here the message can name the cause.
    match Header::parse(&image) {
        Ok(_) => Ok(image),
        Err(error) => Err(format!(
            "the board would refuse this image ({error:?}): {:#x} bytes at {:#x}, entry {:#x}",
            memory.bytes.len(),
            memory.start,
            memory.entry
        )
        .into()),
    }
}
