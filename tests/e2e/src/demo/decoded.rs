//! An uplink's capture, decoded by tshark.

use std::path::PathBuf;

use culvert_e2e::tshark::Capture;

/// tshark's result for one uplink's capture.
#[derive(Default)]
pub(crate) struct Decoded {
    pub(crate) file: PathBuf,
    pub(crate) vxlan: usize,
    pub(crate) nvgre: usize,
    /// TCP segments that are missing, and those that were retransmitted, for any reason.
    pub(crate) lost: usize,
    pub(crate) retransmissions: usize,
    /// Truncated frames, whose checksums over the whole frame cannot be verified.
    pub(crate) unchecked: usize,
    pub(crate) problems: Vec<String>,
}

/// Fields of every frame, for one pass of tshark. The last ones are empty, or list the values of all layers.
const FIELDS: [&str; 12] = [
    "udp.dstport",
    "vxlan.vni",
    "gre.proto",
    "gre.key",
    "tcp.analysis.lost_segment",
    "tcp.analysis.retransmission",
    "_ws.malformed",
    "_ws.unreassembled",
    "ip.checksum.status",
    "udp.checksum.status",
    "tcp.checksum.status",
    "icmp.checksum.status",
];
/// Contoso's and Fabrikam's VSIDs.
const VSIDS: [u32; 2] = [5001, 6001];

/// Decodes a capture.
pub(crate) fn decode(file: PathBuf) -> Result<Decoded, String> {
    let capture = Capture::new(&file);
    let mut decoded = Decoded { file, ..Decoded::default() };
    let mut bad = 0;
    for row in capture.fields("", &FIELDS)? {
        let [port, vni, proto, key, lost, again, faults @ ..] =
            <[String; 12]>::try_from(row).unwrap_or_default();
        let vsid = |text: &str, shift: u32| {
            let value = text.strip_prefix("0x").map_or(text.parse(), |hex| u32::from_str_radix(hex, 16));
            value.is_ok_and(|value| VSIDS.contains(&(value >> shift)))
        };
        // The inner packet may be UDP as well.
        decoded.vxlan += usize::from(port.split(',').next() == Some("4789") && vsid(&vni, 0));
        decoded.nvgre += usize::from(proto == "0x6558" && vsid(&key, 8));
        decoded.lost += usize::from(!lost.is_empty());
        decoded.retransmissions += usize::from(!again.is_empty());
        let [malformed, unreassembled, checksums @ ..] = faults;
        let wrong = |status: &String| status.split(',').any(|s| s == "0" || s == "Bad");
        let unseen = |status: &String| status.split(',').any(|s| s == "2" || s == "Unverified");
        decoded.unchecked += usize::from(checksums.iter().any(unseen));
        bad +=
            usize::from(!(malformed.is_empty() && unreassembled.is_empty()) || checksums.iter().any(wrong));
    }
    if bad > 0 {
        decoded.problems = capture.problems()?;
        decoded.problems.push(format!("{bad} frames in all"));
    }
    Ok(decoded)
}
