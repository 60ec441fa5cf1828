//! What the demo measured, and what is wrong with it.

use std::path::PathBuf;

use culvert_e2e::deployment::Deployment;
use culvert_guest::PingReport;
use culvert_packet::Encap;

use crate::decoded::{Decoded, decode};
use crate::host_report::HostReport;

/// SHA-256 of 8 MiB of zeros.
pub(crate) const ZEROS_8_MIB: &str = "2daeb1f36095b44b318410b3f4e8b5d989dcc7bb023d1426c492dab0a3053e74";

/// The whole report.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) software: Vec<usize>,
    pub(crate) rounds: Vec<Round>,
    pub(crate) hosts: Vec<HostReport>,
    pub(crate) captures: Vec<PathBuf>,
    pub(crate) decoded: Vec<Decoded>,
    pub(crate) linux: Option<Linux>,
    pub(crate) seconds: f64,
}

/// What both tenants did with one encapsulation.
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

/// The Linux VM.
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

/// Share of frames that must need no decision, and the number of frames from which on the share is checked: each flow's first
/// packets go to the host.
const OFFLOADED: f64 = 0.999;
const JUDGED: u64 = 30_000;

impl Pair {
    /// Rate of the transfer.
    pub(crate) fn mbit(&self) -> f64 {
        if self.seconds > 0.0 { self.bytes as f64 * 8e-6 / self.seconds } else { 0.0 }
    }
}

impl Report {
    /// A report of a deployment with these software hosts, which count from 0.
    pub(crate) fn new(software: Vec<usize>) -> Self {
        Report { software, ..Report::default() }
    }

    /// Reads the hosts' counters.
    pub(crate) fn read_hosts(&mut self, deployment: &Deployment) -> Result<(), String> {
        for host in 0..2 {
            self.hosts.push(HostReport::read(deployment, host, self.software.contains(&host))?);
        }
        Ok(())
    }

    /// Decodes the captures with tshark.
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

    /// What is wrong, a line each; empty for a good run.
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
            if host.frames >= JUDGED && host.share() < OFFLOADED {
                let share = 100.0 * host.share();
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

    /// Whether nothing is wrong.
    pub(crate) fn is_good(&self) -> bool {
        self.shortcomings().is_empty()
    }
}
