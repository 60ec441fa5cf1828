//! Captures decoded by tshark: an oracle that shares no code with our parser.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Verify all checksums, resolve no names, and decode TCP payload as data: tests send random bytes, in which tshark would find
/// broken packets of other protocols.
const OPTIONS: [&str; 9] = [
    "-n",
    "-o",
    "ip.check_checksum:TRUE",
    "-o",
    "udp.check_checksum:TRUE",
    "-o",
    "tcp.check_checksum:TRUE",
    "-d",
    "tcp.port==1-65535,data",
];

/// Display filter for malformed frames and bad checksums in any layer. A TCP checksum of 0xffff passes: tshark expects 0, which
/// is the same number to a receiver (RFC 1624 section 3), and Linux writes 0xffff when it completes a checksum in software.
const PROBLEMS: &str = "_ws.malformed || _ws.unreassembled || ip.checksum.status == 0 || udp.checksum.status == 0 \
                        || (tcp.checksum.status == 0 && !(tcp.checksum == 0xffff)) || icmp.checksum.status == 0";

/// A capture file.
#[derive(Clone, Debug)]
pub struct Capture {
    file: PathBuf,
}

impl Capture {
    /// A capture to ask about.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Capture { file: file.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// The fields of each frame that passes the display filter (empty: all frames). A field that occurs in several layers
    /// gives its values from the outermost in, separated by commas; one that does not occur is empty.
    ///
    /// # Errors
    /// tshark does not start or refuses the filter, a field or the file: with what it printed.
    pub fn fields(&self, filter: &str, fields: &[&str]) -> Result<Vec<Vec<String>>, String> {
        let mut command = self.command(filter);
        command.args(["-T", "fields", "-E", "separator=/t", "-E", "occurrence=a", "-E", "aggregator=,"]);
        for field in fields {
            command.args(["-e", field]);
        }
        let text = output(command)?;
        Ok(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
    }

    /// Number of frames that pass the display filter.
    ///
    /// # Errors
    /// As for [`fields`](Self::fields).
    pub fn count(&self, filter: &str) -> Result<usize, String> {
        Ok(self.fields(filter, &["frame.number"])?.len())
    }

    /// The decoded frames that pass the display filter, as tshark's JSON (a list of packets with their layers).
    ///
    /// # Errors
    /// As for [`fields`](Self::fields), or the output is not JSON.
    pub fn packets(&self, filter: &str) -> Result<Vec<serde_json::Value>, String> {
        let mut command = self.command(filter);
        command.args(["-T", "json", "--no-duplicate-keys"]);
        serde_json::from_str(&output(command)?).map_err(|e| format!("tshark's JSON: {e}"))
    }

    /// The bytes of each frame that passes the display filter.
    ///
    /// # Errors
    /// As for [`packets`](Self::packets).
    pub fn bytes(&self, filter: &str) -> Result<Vec<Vec<u8>>, String> {
        let mut command = self.command(filter);
        command.args(["-T", "jsonraw", "-j", "frame"]);
        let packets: Vec<serde_json::Value> =
            serde_json::from_str(&output(command)?).map_err(|e| format!("tshark's JSON: {e}"))?;
        let raw = |p: &serde_json::Value| unhex(p["_source"]["layers"]["frame_raw"][0].as_str()?);
        packets.iter().map(|p| raw(p).ok_or_else(|| format!("no bytes in {p}"))).collect()
    }

    /// One line for each frame that tshark cannot decode or that has a bad checksum in any layer.
    ///
    /// # Errors
    /// As for [`fields`](Self::fields).
    pub fn problems(&self) -> Result<Vec<String>, String> {
        let fields =
            ["frame.number", "frame.protocols", "_ws.col.Info", "ip.checksum.status", "udp.checksum.status"];
        let describe = |row: Vec<String>| {
            let [number, protocols, info, ip, udp] = <[String; 5]>::try_from(row).unwrap_or_default();
            format!("frame {number} ({protocols}): {info}; checksum status of IP {ip}, of UDP {udp}")
        };
        Ok(self.fields(PROBLEMS, &fields)?.into_iter().map(describe).collect())
    }

    fn command(&self, filter: &str) -> Command {
        let mut command = Command::new("tshark");
        command.arg("-r").arg(&self.file).args(OPTIONS);
        if !filter.is_empty() {
            command.args(["-Y", filter]);
        }
        command
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// Runs tshark, which ends at the end of the file.
fn output(mut command: Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("tshark: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

#[cfg(test)]
mod tests;
