//! What happens during a soak.

use std::fmt;
use std::time::Duration;

use culvert_e2e::deployment::Deployment;
use culvert_e2e::network::Network;
use culvert_e2e::policies::routed;

use crate::ledger::Ledger;
use crate::pairs::Pairs;

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// An event. Hosts and uplinks count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Traffic alone.
    Nothing,
    /// A rule for other packets comes and goes, so that all flows are decided again.
    Policy,
    /// A third guest is killed in the middle of its traffic, and another one takes its VF.
    KillGuest,
    /// A daemon is killed and started again.
    KillDaemon(usize),
    /// A daemon is stopped as an operator would, and started again.
    StopDaemon(usize),
    /// The NIC's firmware is killed; the board starts it again.
    KillFirmware,
    /// A host's uplink loses its carrier for a while.
    Link(usize, usize),
    /// An uplink's MTU is too small for full frames for a while.
    Mtu(usize),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Nothing => write!(f, "nothing"),
            Event::Policy => write!(f, "policy changes"),
            Event::KillGuest => write!(f, "guest killed"),
            Event::KillDaemon(host) => write!(f, "daemon of host {} killed", host + 1),
            Event::StopDaemon(host) => write!(f, "daemon of host {} restarted", host + 1),
            Event::KillFirmware => write!(f, "firmware killed"),
            Event::Link(host, uplink) => write!(f, "link of {} down", Network::interface(host + 1, *uplink)),
            Event::Mtu(host) => write!(f, "MTU of {} small", Network::interface(host + 1, 0)),
        }
    }
}

impl Event {
    pub(crate) fn choose(random: &mut Random) -> Self {
        let (host, uplink) = (random.below(2) as usize, random.below(2) as usize);
        match random.below(8) {
            0 => Event::Nothing,
            1 => Event::Policy,
            2 => Event::KillGuest,
            3 => Event::KillDaemon(host),
            4 => Event::StopDaemon(host),
            5 => Event::KillFirmware,
            6 => Event::Link(host, uplink),
            _ => Event::Mtu(host),
        }
    }

    /// Whether frames may die with a program or on a link, uncounted. All others must arrive, or be drops with a reason.
    pub(crate) fn may_lose(self) -> bool {
        match self {
            Event::Nothing | Event::Policy | Event::KillGuest => false,
            Event::KillDaemon(_) | Event::StopDaemon(_) | Event::KillFirmware => true,
            Event::Link(..) | Event::Mtu(_) => true,
        }
    }

    /// Lets it happen; everything is back when this returns.
    pub(crate) fn happen(
        self,
        d: &mut Deployment,
        pairs: &mut Pairs,
        ledger: &mut Ledger,
        number: u64,
    ) -> Result<(), String> {
        match self {
            Event::Nothing => {}
            Event::Policy => {
                let mut policy = routed()?;
                let rules = policy["accessControlLists"][0]["properties"]["aclRules"]
                    .as_array_mut()
                    .ok_or("the policy has no rules")?;
                let mut rule = rules.first().ok_or("the policy has no rule")?.clone();
                rule["resourceId"] = format!("deny-{number}").into();
                rule["properties"]["priority"] = (200 + number % 1000).into();
                rule["properties"]["destinationPortRange"] = (20_000 + number % 10_000).to_string().into();
                rules.push(rule);
                d.change_policy(&policy)?;
            }
            Event::KillGuest => pairs.replace_third(d)?,
            Event::KillDaemon(host) => {
                ledger.note(d, host)?;
                d.kill_daemon(host);
                d.start_daemon(host)?;
                ledger.restarted(host);
            }
            Event::StopDaemon(host) => {
                ledger.note(d, host)?;
                d.stop_daemon(host)?;
                d.start_daemon(host)?;
                ledger.restarted(host);
            }
            Event::KillFirmware => {
                let old = d.kill_firmware(0)?;
                let limit = Duration::from_secs(10);
                d.until(limit, "a new firmware", |d| Ok(d.firmware(0).is_ok_and(|new| new != old)))?;
                d.until(limit, "healthy", |d| Ok(d.cli(0, &["health"])?["ok"] == true))?;
            }
            Event::Link(host, uplink) => {
                d.network().set_link(host + 1, uplink, false)?;
                std::thread::sleep(Duration::from_millis(700));
                d.network().set_link(host + 1, uplink, true)?;
            }
            Event::Mtu(host) => {
                let name = Network::interface(host + 1, 0);
                let set = |mtu: &str| d.network().host(host + 1, &["ip", "link", "set", &name, "mtu", mtu]);
                set("1400")?;
                std::thread::sleep(Duration::from_millis(700));
                set(&Network::MTU.to_string())?;
            }
        }
        Ok(())
    }
}
