//! What the demo has seen: read out of hosts and captures, judged, and told.

use std::fmt;
use std::path::PathBuf;

use culvert_e2e::deployment::Deployment;
use culvert_e2e::tshark::Capture;
use culvert_guest::PingReport;
use culvert_packet::Encap;
use serde_json::{Value, json};

/// SHA-256 of 8 MiB of zeros.
pub(crate) const ZEROS_8_MIB: &str = "2daeb1f36095b44b318410b3f4e8b5d989dcc7bb023d1426c492dab0a3053e74";

/// Everything.
#[derive(Default)]
pub(crate) struct Report {
    software: Vec<usize>,
    pub(crate) rounds: Vec<Round>,
    pub(crate) hosts: Vec<HostReport>,
    pub(crate) captures: Vec<PathBuf>,
    pub(crate) decoded: Vec<Decoded>,
    pub(crate) linux: Option<Linux>,
    pub(crate) seconds: f64,
}

/// One encapsulation.
pub(crate) struct Round {
    pub(crate) encap: Encap,
    pub(crate) pairs: Vec<Pair>,
}

/// One tenant's two VMs.
pub(crate) struct Pair {
    pub(crate) tenant: &'static str,
    /// From SQL to Web, and back.
    pub(crate) pings: [PingReport; 2],
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) intact: bool,
}

/// One host.
pub(crate) struct HostReport {
    name: String,
    software: bool,
    /// Frames in at vports and uplinks, and those of them that were finished without waiting for a decision: by the
    /// firmware, or by the software path's flow table.
    frames: u64,
    finished: u64,
    flows: usize,
    drops: Vec<(String, u64)>,
    vports: Vec<(String, u64, u64)>,
}

/// What tshark says of one uplink's capture.
#[derive(Default)]
pub(crate) struct Decoded {
    file: PathBuf,
    vxlan: usize,
    nvgre: usize,
    /// TCP segments that are missing, and those that were sent again, for whatever reason.
    lost: usize,
    retransmissions: usize,
    /// Frames of which the capture has only the beginning, so that a checksum over all of it cannot be looked at.
    unchecked: usize,
    problems: Vec<String>,
}

/// The Linux VM's part.
pub(crate) struct Linux {
    pub(crate) boots: Vec<Boot>,
}

/// One boot of it.
pub(crate) struct Boot {
    pub(crate) kernel: String,
    pub(crate) driver: String,
    pub(crate) ping: bool,
    pub(crate) bytes: u64,
    pub(crate) intact: bool,
    pub(crate) seconds: f64,
}

impl HostReport {
    fn alone(&self) -> &'static str {
        if self.software { "by the flow table alone" } else { "by firmware alone" }
    }
}

/// Share of packets that the firmware must handle alone, and packets from which on that can be judged: each flow's first
/// ones come to the host.
const OFFLOADED: f64 = 0.999;
const JUDGED: u64 = 30_000;

fn sum(ports: &Value, field: &str) -> u64 {
    let ports = ports.as_object().into_iter().flatten();
    ports.filter_map(|(_, port)| port[field].as_u64()).sum()
}

impl Report {
    /// Of a deployment in which software serves these hosts, counted from 0.
    pub(crate) fn new(software: Vec<usize>) -> Self {
        Report { software, ..Report::default() }
    }

    /// Reads the hosts' counters.
    pub(crate) fn read_hosts(&mut self, deployment: &Deployment) -> Result<(), String> {
        for host in 0..2 {
            let counters = deployment.cli(host, &["counters"])?;
            let drops = deployment.cli(host, &["drops"])?;
            let flows = deployment.cli(host, &["flows"])?;
            let frames = sum(&counters["vports"], "inPackets") + sum(&counters["uplinks"], "inPackets");
            let entries = drops["drops"].as_array().cloned().unwrap_or_default();
            let vports = counters["vports"].as_object().cloned().unwrap_or_default();
            self.hosts.push(HostReport {
                name: format!("host{}", deployment.number(host)),
                software: self.software.contains(&host),
                frames,
                finished: counters["nic"]["finished"].as_u64().unwrap_or(0),
                flows: flows.as_array().map_or(0, Vec::len),
                drops: entries
                    .iter()
                    .map(|d| {
                        let reason = d["reason"].as_str().unwrap_or("?").to_owned();
                        (reason, d["packets"].as_u64().unwrap_or(0))
                    })
                    .collect(),
                vports: vports
                    .iter()
                    .map(|(name, port)| {
                        let packets = |field: &str| port[field].as_u64().unwrap_or(0);
                        // The name follows the vport's number.
                        let name = name.split_once(' ').map_or(name.as_str(), |(_, name)| name);
                        (name.to_owned(), packets("inPackets"), packets("outPackets"))
                    })
                    .collect(),
            });
        }
        Ok(())
    }

    /// Has tshark read the captures.
    pub(crate) fn read_captures(&mut self) -> Result<(), String> {
        let readers: Vec<_> =
            self.captures.iter().cloned().map(|file| std::thread::spawn(move || decode(file))).collect();
        for reader in readers {
            self.decoded.push(reader.join().map_err(|_| "a reader of a capture has failed")??);
        }
        Ok(())
    }

    fn dropped(&self, reason: &str) -> u64 {
        let drops = self.hosts.iter().flat_map(|h| &h.drops);
        drops.filter(|(r, _)| r == reason).map(|(_, n)| n).sum()
    }

    fn share(host: &HostReport) -> f64 {
        if host.frames == 0 { 0.0 } else { host.finished as f64 / host.frames as f64 }
    }

    /// What is not as it should be.
    pub(crate) fn shortcomings(&self) -> Vec<String> {
        let mut all = Vec::new();
        for round in &self.rounds {
            for pair in &round.pairs {
                if !pair.intact {
                    all.push(format!(
                        "{} over {}: the received bytes are not those sent",
                        pair.tenant, round.encap
                    ));
                }
                for ping in &pair.pings {
                    if ping.received != ping.sent {
                        let lost = ping.sent - ping.received;
                        all.push(format!("{} over {}: {lost} pings lost", pair.tenant, round.encap));
                    }
                }
            }
        }
        for host in &self.hosts {
            if host.frames >= JUDGED && Self::share(host) < OFFLOADED {
                let share = 100.0 * Self::share(host);
                all.push(format!(
                    "{}: only {share:.2} % of the frames were finished {}",
                    host.name,
                    host.alone()
                ));
            }
        }
        if self.dropped("isolated") + self.dropped("unknown_destination_mac") == 0 {
            all.push("the frame for the other tenant was not dropped".to_owned());
        }
        if self.dropped("acl_deny") == 0 {
            all.push("the connection that the access control list denies was not dropped".to_owned());
        }
        for d in &self.decoded {
            if d.lost > 0 {
                all.push(format!("{}: TCP segments are missing at {} places", d.file.display(), d.lost));
            }
            all.extend(d.problems.iter().take(3).map(|p| format!("{}: {p}", d.file.display())));
        }
        let decoded = |count: fn(&Decoded) -> usize| self.decoded.iter().map(count).sum::<usize>();
        if decoded(|d| d.vxlan) == 0 || decoded(|d| d.nvgre) == 0 {
            all.push("the captures hold no VXLAN or no NVGRE".to_owned());
        }
        for boot in self.linux.iter().flat_map(|l| &l.boots) {
            if !boot.ping || !boot.intact {
                all.push("the Linux VM did not get its pings or its copy through".to_owned());
            }
        }
        all
    }

    /// Whether everything is as it should be.
    pub(crate) fn is_good(&self) -> bool {
        self.shortcomings().is_empty()
    }

    /// The same as data.
    pub(crate) fn json(&self) -> Value {
        let rounds = self.rounds.iter().map(|r| {
            let pairs = r.pairs.iter().map(|p| {
                json!({
                    "tenant": p.tenant, "bytes": p.bytes, "seconds": p.seconds, "intact": p.intact,
                    "mbitPerSecond": mbit(p), "pings": p.pings.iter().map(|g| json!({
                        "sent": g.sent, "received": g.received, "firstUs": g.first_us, "minUs": g.min_us,
                        "avgUs": g.avg_us, "maxUs": g.max_us })).collect::<Vec<_>>(),
                })
            });
            json!({"encapsulation": r.encap.to_string(), "pairs": pairs.collect::<Vec<_>>()})
        });
        let hosts = self.hosts.iter().map(|h| {
            json!({
                "name": h.name, "software": h.software, "frames": h.frames, "finishedAlone": h.finished,
                "offloadedShare": Self::share(h), "flows": h.flows,
                "drops": h.drops.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
                "vports": h.vports.iter().map(|(name, i, o)| json!({"name": name, "in": i, "out": o}))
                    .collect::<Vec<_>>(),
            })
        });
        let captures = self.decoded.iter().map(|d| {
            json!({
                "file": d.file, "vxlan": d.vxlan, "nvgre": d.nvgre, "lostSegments": d.lost,
                "retransmissions": d.retransmissions, "cutShort": d.unchecked, "problems": d.problems.len(),
            })
        });
        let linux = self.linux.as_ref().map(|l| {
            l.boots.iter().map(|b| {
                json!({"kernel": b.kernel, "driver": b.driver, "ping": b.ping, "bytes": b.bytes, "intact": b.intact,
                    "seconds": b.seconds})
            }).collect::<Vec<_>>()
        });
        json!({
            "topology": topology(&self.software).lines().collect::<Vec<_>>(),
            "rounds": rounds.collect::<Vec<_>>(), "hosts": hosts.collect::<Vec<_>>(),
            "captures": captures.collect::<Vec<_>>(), "linux": linux, "seconds": self.seconds,
            "shortcomings": self.shortcomings(),
        })
    }
}

fn mbit(pair: &Pair) -> f64 {
    if pair.seconds > 0.0 { pair.bytes as f64 * 8e-6 / pair.seconds } else { 0.0 }
}

/// What is asked of every frame, in one pass of tshark. The last ones are empty, or list the values of all layers.
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

fn decode(file: PathBuf) -> Result<Decoded, String> {
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

/// What is where: of each host its parts, and how a VM is attached to it.
fn topology(software: &[usize]) -> String {
    let parts = |host| match software.contains(&host) {
        true => ("(culvertd alone)", "TAP"),
        false => ("(board, firmware, culvertd)", "VF"),
    };
    let ((one, a), (two, b)) = (parts(0), parts(1));
    format!(
        "  host1 {one:49}host2 {two}
  PA 192.168.1.10, .11                                   PA 192.168.2.20, .21
    contoso-sql  10.1.1.11 {a:>3} --+                   +-- {b:3} 10.1.1.12  contoso-web   VSID 5001
                                 +-- router (kernel) +
    fabrikam-sql 10.1.1.11 {a:>3} --+                   +-- {b:3} 10.1.1.12  fabrikam-web  VSID 6001"
    )
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}\n", topology(&self.software))?;
        for round in &self.rounds {
            for p in &round.pairs {
                let [there, back] = &p.pings;
                writeln!(
                    f,
                    "  {:5} {:8}  {:3} MiB in {:5.2} s = {:6.0} Mbit/s, digest {}   round trip {:.2} ms (first {:.2}), back {:.2} ms",
                    round.encap.to_string(),
                    p.tenant,
                    p.bytes >> 20,
                    p.seconds,
                    mbit(p),
                    if p.intact { "right" } else { "WRONG" },
                    there.avg_us as f64 / 1000.0,
                    there.first_us.unwrap_or(0) as f64 / 1000.0,
                    back.avg_us as f64 / 1000.0,
                )?;
            }
        }
        for h in &self.hosts {
            writeln!(
                f,
                "\n  {}: {} frames in at VMs and uplinks, {:.3} % finished {}, {} flows",
                h.name,
                h.frames,
                100.0 * Self::share(h),
                h.alone(),
                h.flows
            )?;
            for (name, i, o) in &h.vports {
                writeln!(f, "    {name:14} {i:8} frames from it, {o:8} to it")?;
            }
            for (reason, n) in &h.drops {
                writeln!(f, "    dropped {n:6}  {reason}")?;
            }
        }
        writeln!(f)?;
        for d in &self.decoded {
            writeln!(
                f,
                "  {}: {} VXLAN, {} NVGRE, {} TCP segments lost, {} sent again too early, {}",
                d.file.display(),
                d.vxlan,
                d.nvgre,
                d.lost,
                d.retransmissions.saturating_sub(d.lost),
                match (d.problems.is_empty(), d.unchecked) {
                    (false, _) => "PROBLEMS".to_owned(),
                    (true, 0) => "all checksums good".to_owned(),
                    (true, n) => format!("all checksums good ({n} frames were cut short: their headers')"),
                }
            )?;
        }
        for (n, b) in self.linux.iter().flat_map(|l| &l.boots).enumerate() {
            writeln!(
                f,
                "  Linux {} ({}), boot {}: ping {}, {} MiB in {:.1} s, digest {}",
                b.kernel,
                b.driver,
                n + 1,
                if b.ping { "answered" } else { "NOT ANSWERED" },
                b.bytes >> 20,
                b.seconds,
                if b.intact { "right" } else { "WRONG" }
            )?;
        }
        for shortcoming in self.shortcomings() {
            writeln!(f, "  NOT AS IT SHOULD BE: {shortcoming}")?;
        }
        write!(f, "\n  {:.1} s", self.seconds)
    }
}

/// A TCP SYN from 10.1.1.11 to a port of 10.1.1.12, with right checksums.
pub(crate) fn syn(src: [u8; 6], dst: [u8; 6], port: u16) -> Vec<u8> {
    use culvert_packet::craft::{Ends, tcp};
    use culvert_packet::{MacAddr, tcp as wire};
    let ends = Ends {
        src_mac: MacAddr(src),
        dst_mac: MacAddr(dst),
        src: super::SQL_ADDRESS,
        dst: super::WEB_ADDRESS,
    };
    let mut frame = vec![0; 128];
    let header =
        wire::Header { src_port: 40_000, dst_port: port, flags: wire::Flags::SYN, ..wire::Header::default() };
    let len = tcp(&mut frame, &ends, &header, &[]).unwrap_or(0);
    frame.truncate(len);
    frame
}
