//! [`Conditions`]: the states of a host's uplinks and vports, as they were last looked at.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use culvert_api::view::{PendingView, ProgressView, UplinkState, VportState};

/// Vports that health names one by one.
const NAMED_VPORTS: usize = 10;
/// Age of the last look from which on it says nothing about now.
const STALE: Duration = Duration::from_secs(5);

/// The states of all ports that the policy in the store asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// By number.
    pub uplinks: BTreeMap<u8, UplinkCondition>,
    /// By number.
    pub vports: BTreeMap<u16, VportCondition>,
    /// When that was; none: nobody has looked yet.
    pub looked: Option<Instant>,
}

/// State of an uplink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UplinkCondition {
    /// Its interface; may be empty.
    pub interface: String,
    /// The state.
    pub state: UplinkState,
    /// Why it is not `up`, and what to do.
    pub reason: String,
    /// Longest IP packet of its interface.
    pub mtu: Option<u32>,
    /// Longest IP packet that the policy needs.
    pub needed_mtu: Option<u32>,
}

impl UplinkCondition {
    fn is_done(&self) -> bool {
        matches!(self.state, UplinkState::Up | UplinkState::Unused)
    }
}

/// State of a vport.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VportCondition {
    /// The state.
    pub state: VportState,
    /// Why it is not `up`, and what to do.
    pub reason: String,
}

impl VportCondition {
    /// Whether a virtual machine can attach, or has.
    fn is_done(&self) -> bool {
        !matches!(self.state, VportState::Opening | VportState::Failed)
    }
}

impl Conditions {
    /// What is wrong, one sentence each. `name` is that of a vport's network interface.
    pub fn problems(&self, name: impl Fn(u16) -> String) -> Vec<String> {
        let uplinks = self.uplinks.iter().filter(|(_, u)| !u.is_done() && u.state != UplinkState::Opening);
        let mut all: Vec<String> = uplinks.map(|(n, u)| format!("uplink {n}: {}", u.reason)).collect();
        if let Some(age) = self.looked.map(|at| at.elapsed()).filter(|age| *age > STALE) {
            all.push(format!(
                "the states of uplinks and vports are as of {} s ago: the kernel does not answer, since another process \
                 holds up all changes of interfaces; look for a hanging ip, netplan or container engine",
                age.as_secs()
            ));
        }
        let failed: Vec<_> = self.vports.iter().filter(|(_, v)| v.state == VportState::Failed).collect();
        let named = failed.iter().take(NAMED_VPORTS);
        all.extend(named.map(|(id, v)| format!("vport {id} ({}): {}", name(**id), v.reason)));
        if failed.len() > NAMED_VPORTS {
            all.push(format!(
                "{} more vports have failed: see culvert vport list",
                failed.len() - NAMED_VPORTS
            ));
        }
        all
    }

    /// How far the policy is carried out.
    pub fn progress(&self, name: impl Fn(u16) -> String) -> ProgressView {
        let uplinks = self.uplinks.iter().filter(|(_, u)| !u.is_done()).map(|(n, u)| PendingView {
            port: format!("uplink {n}"),
            name: u.interface.clone(),
            state: u.state.as_str().to_owned(),
            reason: u.reason.clone(),
        });
        let vports = self.vports.iter().filter(|(_, v)| !v.is_done()).map(|(id, v)| PendingView {
            port: format!("vport {id}"),
            name: name(*id),
            state: v.state.as_str().to_owned(),
            reason: v.reason.clone(),
        });
        ProgressView {
            vports: self.vports.len(),
            vports_done: self.vports.values().filter(|v| v.is_done()).count(),
            uplinks: self.uplinks.values().filter(|u| u.state != UplinkState::Unused).count(),
            uplinks_done: self.uplinks.values().filter(|u| u.state == UplinkState::Up).count(),
            pending: uplinks.chain(vports).take(ProgressView::MAX_PENDING).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(n: u16) -> (u16, VportCondition) {
        (n, VportCondition { state: VportState::Failed, reason: "out of file descriptors".into() })
    }

    #[test]
    fn a_thousand_failed_vports_are_eleven_sentences() {
        let vports = Conditions { vports: (0..1000).map(failed).collect(), ..Conditions::default() };
        let problems = vports.problems(|n| format!("vm{n}"));
        assert_eq!(problems.len(), NAMED_VPORTS + 1);
        assert_eq!(problems[3], "vport 3 (vm3): out of file descriptors");
        assert!(problems[NAMED_VPORTS].starts_with("990 more vports"), "{}", problems[NAMED_VPORTS]);
        let progress = vports.progress(|_| String::new());
        assert_eq!((progress.vports, progress.vports_done, progress.pending.len()), (1000, 0, 100));
        assert!(!progress.is_done());
    }

    #[test]
    fn a_vport_without_a_vm_is_carried_out_and_an_uplink_without_a_link_is_not() {
        let mut all = Conditions::default();
        all.vports.insert(1, VportCondition::default());
        assert!(all.progress(|_| String::new()).is_done());
        let uplink = UplinkCondition { state: UplinkState::Down, ..UplinkCondition::default() };
        all.uplinks.insert(0, uplink);
        let progress = all.progress(|_| String::new());
        assert_eq!((progress.vports_done, progress.uplinks_done, progress.is_done()), (1, 0, false));
    }
}
