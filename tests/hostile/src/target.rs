//! What is attacked: the kinds of ports.

use clap::ValueEnum;
use culvert_packet::MacAddr;
use culvert_packet::craft::Ends;

/// What is attacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// A VF of a board, by its vfio-user socket.
    Vf,
    /// The vhost-user port of a VM whose frames a NIC steers into a queue.
    Vmq,
    /// A vhost-user port of the software switch.
    Switch,
}

impl Target {
    /// From the attacker's VM to its peer on the other host.
    #[must_use]
    pub fn ends(self) -> Ends {
        let last = match self {
            Target::Vf | Target::Switch => 0x11,
            Target::Vmq => 0x15,
        };
        let addr = |last| [10, 1, 1, last].into();
        let mac = |last| MacAddr([0x00, 0x1d, 0xd8, 0x07, 0x00, last]);
        let own = if last == 0x11 { 11 } else { 15 };
        Ends { src_mac: mac(last), dst_mac: mac(0x12), src: addr(own), dst: addr(12) }
    }

    /// The attacker's network interface in the policy.
    #[must_use]
    pub fn vport(self) -> &'static str {
        match self {
            Target::Vf | Target::Switch => "contoso-sql",
            Target::Vmq => "contoso-monitor",
        }
    }
}
