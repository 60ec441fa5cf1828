//! Open vSwitch's rules: three ways to forward between a port and a tunnel.

use std::fmt::Write as _;

use crate::work::Kind;

/// What the rules match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Rules {
    /// One rule for everything: from the port to the tunnel, or back.
    Port,
    /// A rule for each of 8,192 networks of eight destinations.
    Destinations,
    /// Stateful: connection tracking; packets of established and of new connections pass.
    Connections,
}

impl Rules {
    /// All three.
    pub const ALL: [Rules; 3] = [Rules::Port, Rules::Destinations, Rules::Connections];

    /// For a table.
    pub fn name(self) -> &'static str {
        match self {
            Rules::Port => "port",
            Rules::Destinations => "destinations",
            Rules::Connections => "connections",
        }
    }

    /// The rules of the inner bridge, as `ovs-ofctl add-flows` reads them.
    pub fn text(self, kind: Kind) -> String {
        let (from, to) = if kind.decap { ("tunnel", "sink") } else { ("source", "tunnel") };
        match self {
            Rules::Port => format!("in_port={from},actions=output:{to}\n"),
            // All destinations of `work::frame` are in 10.2.0.0/16. The flow table holds about ten thousand entries, so a
            // rule for each of 65,536 addresses would measure misses.
            Rules::Destinations => (0..8192u32).fold(String::new(), |mut text, n| {
                let (high, low) = (n >> 5, (n & 31) << 3);
                let _ = writeln!(text, "in_port={from},ip,nw_dst=10.2.{high}.{low}/29,actions=output:{to}");
                text
            }),
            Rules::Connections => format!(
                "table=0,in_port={from},ip,ct_state=-trk,actions=ct(table=1)\n\
                 table=1,ip,ct_state=+trk+new,actions=ct(commit),output:{to}\n\
                 table=1,ip,ct_state=+trk+est,actions=output:{to}\n"
            ),
        }
    }
}
