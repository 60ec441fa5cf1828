//! Replays a small capture through the policy of figure 8, and prints the verdict on each packet with its trace.
//!
//! `cargo run -p culvert-cli --example replay`

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use culvert_packet::MacAddr;
use culvert_packet::craft::{self, Ends};

const FIGURE8: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/figure8.json");
const SQL: MacAddr = MacAddr([0x00, 0x1d, 0xd8, 0x07, 0x00, 0x11]);
const WEB: MacAddr = MacAddr([0x00, 0x1d, 0xd8, 0x07, 0x00, 0x12]);

fn main() -> Result<(), Box<dyn Error>> {
    print!("{}", replay(&culvert()?)?);
    Ok(())
}

/// The report of `culvert replay` on a capture of three packets from Contoso's SQL server.
pub(crate) fn replay(culvert: &Path) -> Result<String, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let (input, output) = (dir.path().join("in.pcap"), dir.path().join("out.pcapng"));
    // The second packet hits the record of the first; the third has the MAC of another VM.
    fs::write(&input, pcap(&[datagram(SQL)?, datagram(SQL)?, datagram(WEB)?]))?;

    let mut command = Command::new(culvert);
    command.args(["replay", "--policy", FIGURE8, "--host", "host1", "--vport", "contoso-sql", "--trace"]);
    let done = command.arg("--in").arg(&input).arg("--out").arg(&output).output()?;
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).into());
    }
    Ok(String::from_utf8(done.stdout)?)
}

/// A UDP datagram to Contoso's web server.
fn datagram(src_mac: MacAddr) -> Result<Vec<u8>, Box<dyn Error>> {
    let ends = Ends { src_mac, dst_mac: WEB, src: [10, 1, 1, 11].into(), dst: [10, 1, 1, 12].into() };
    let mut frame = vec![0; 128];
    let len = craft::udp(&mut frame, &ends, 40_000, 53, b"hello").map_err(|reason| reason.as_str())?;
    frame.truncate(len);
    Ok(frame)
}

/// A capture of Ethernet frames, one second apart: the pcap file header, then a header before each frame.
fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file: Vec<u8> = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1].map(u32::to_le_bytes).concat();
    for (second, frame) in (0..).zip(frames) {
        let len = frame.len() as u32;
        file.extend([second, 0, len, len].map(u32::to_le_bytes).concat());
        file.extend(frame);
    }
    file
}

/// The `culvert` program beside this example; cargo builds it if it is missing.
fn culvert() -> Result<PathBuf, Box<dyn Error>> {
    let exe = std::env::current_exe()?;
    let program = exe.ancestors().nth(2).ok_or("this example has no folder")?.join("culvert");
    if !program.exists() {
        let cargo = std::env::var_os("CARGO").ok_or("run `cargo build` first")?;
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let built = Command::new(cargo).args(["build", "--quiet", "--manifest-path", manifest]).status()?;
        if !built.success() {
            return Err("cargo cannot build culvert".into());
        }
    }
    Ok(program)
}
