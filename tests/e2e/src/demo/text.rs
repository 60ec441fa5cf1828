//! The report as text.

use std::fmt;

use crate::report::Report;
use crate::topology::topology;

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
                    p.mbit(),
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
                100.0 * h.share(),
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
            writeln!(f, "  WRONG: {shortcoming}")?;
        }
        write!(f, "\n  {:.1} s", self.seconds)
    }
}
