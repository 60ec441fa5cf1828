//! The report as JSON.

use serde_json::{Value, json};

use crate::report::Report;
use crate::topology::topology;

impl Report {
    /// The report as JSON.
    pub(crate) fn json(&self) -> Value {
        let rounds = self.rounds.iter().map(|r| {
            let pairs = r.pairs.iter().map(|p| {
                json!({
                    "tenant": p.tenant, "bytes": p.bytes, "seconds": p.seconds, "intact": p.intact,
                    "mbitPerSecond": p.mbit(), "pings": p.pings.iter().map(|g| json!({
                        "sent": g.sent, "received": g.received, "firstUs": g.first_us, "minUs": g.min_us,
                        "avgUs": g.avg_us, "maxUs": g.max_us })).collect::<Vec<_>>(),
                })
            });
            json!({"encapsulation": r.encap.to_string(), "pairs": pairs.collect::<Vec<_>>()})
        });
        let hosts = self.hosts.iter().map(|h| {
            json!({
                "name": h.name, "software": h.software, "frames": h.frames, "finishedAlone": h.finished,
                "offloadedShare": h.share(), "flows": h.flows,
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
