//! [`HostWatch`]: a look at the uplinks and vports of a host, and what the kernel, the workers and the NIC say of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use culvert_api::view::{UplinkState, VportState};
use culvert_flow::Port;
use culvert_model::HostConfig;
use culvert_packet::{Encap, VportId};
use culvert_policy::snapshot::{LocalPa, Snapshot, Target};
use culvert_slowpath::Handle;
use culvert_switch::PortState;

use super::backend::Backend;
use super::conditions::{Conditions, UplinkCondition, VportCondition};
use super::switch::SwitchBackend;
use super::uplink_watch::UplinkWatch;

/// After how long a port that is being opened counts as failed.
const OPENING_LIMIT: Duration = Duration::from_secs(5);
/// Views look anew when the last look is older.
const FRESH: Duration = Duration::from_millis(100);

/// What the host is to do, and what the last look at it has seen.
#[derive(Default)]
pub(super) struct HostWatch {
    wanted: Mutex<Wanted>,
    memory: Mutex<Memory>,
    conditions: RwLock<Arc<Conditions>>,
}

/// A configuration, and why it is not applied.
#[derive(Clone, Default)]
struct Wanted {
    config: Option<Arc<HostConfig>>,
    problem: Option<String>,
}

/// What a look must remember for the next one.
#[derive(Default)]
struct Memory {
    uplinks: BTreeMap<u8, UplinkWatch>,
    /// Since when ports are being opened.
    opening: BTreeMap<Port, Instant>,
}

type PortStates = BTreeMap<Port, PortState>;

impl HostWatch {
    /// Sets what the host is to do, and why it does not.
    pub(super) fn set_wanted(&self, config: Arc<HostConfig>, problem: Option<String>) {
        let wanted = Wanted { config: Some(config), problem };
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = wanted;
    }

    /// What the last look has seen.
    pub(super) fn conditions(&self) -> Arc<Conditions> {
        self.conditions.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at all ports, unless the last look is recent.
    pub(super) fn look_if_due(&self, backend: &Backend, handle: &Handle) {
        // Who is looking now may wait for the kernel; a view does not.
        let Ok(mut memory) = self.memory.try_lock() else { return };
        if self.conditions().looked.is_none_or(|at| at.elapsed() > FRESH) {
            self.look_with(&mut memory, backend, handle);
        }
    }

    /// Looks at all ports of the configuration that is to be applied, and publishes what it sees.
    pub(super) fn look(&self, backend: &Backend, handle: &Handle) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        self.look_with(&mut memory, backend, handle);
    }

    fn look_with(&self, memory: &mut Memory, backend: &Backend, handle: &Handle) {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (config, problem) = (wanted.config, wanted.problem);
        let mut seen = Conditions::default();
        if let Some(config) = config {
            let states = backend.port_states();
            memory.note_opening(&states);
            for pa in &config.snapshot.local_pas {
                if let Some(condition) = uplink((backend, handle), pa, &config, &states, memory) {
                    seen.uplinks.insert(pa.uplink, condition);
                }
            }
            if let Backend::Switch(switch) = &backend {
                for n in (0..switch.uplinks()).filter(|n| !seen.uplinks.contains_key(n)).collect::<Vec<_>>() {
                    seen.uplinks.insert(n, unused(n, switch, memory));
                }
            }
            for vport in &config.vports {
                let condition =
                    vport_condition(backend, vport.id, vport.target, &states, memory, problem.as_deref());
                seen.vports.insert(vport.id.0, condition);
            }
        }
        seen.looked = Some(Instant::now());
        *self.conditions.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(seen);
    }
}

/// `None`: it is not known, and the NIC's own problem says why.
fn uplink(
    (backend, handle): (&Backend, &Handle),
    pa: &LocalPa,
    config: &HostConfig,
    states: &PortStates,
    memory: &mut Memory,
) -> Option<UplinkCondition> {
    let switch = match backend {
        Backend::Switch(switch) => switch,
        Backend::Nic { .. } => {
            let up = handle.links().ok()?.get(usize::from(pa.uplink)).copied()?;
            let (state, reason) = match up {
                true => (UplinkState::Up, ""),
                false => {
                    (UplinkState::Down, "the NIC's port has no link: check the cable and the other side")
                }
            };
            return Some(UplinkCondition { state, reason: reason.to_owned(), ..UplinkCondition::default() });
        }
    };
    let mut seen = UplinkCondition { needed_mtu: needed_mtu(config, pa), ..UplinkCondition::default() };
    let state = states.get(&Port::Uplink(pa.uplink));
    let (uplink, reason) = match switch.interface(pa.uplink) {
        None => (UplinkState::Failed, switch.no_interface(pa)),
        Some(name) => {
            name.clone_into(&mut seen.interface);
            let known = memory.uplinks.entry(pa.uplink).or_insert_with(|| UplinkWatch::new(name));
            match known.look() {
                Err(why) => (UplinkState::Failed, why),
                Ok(interface) => {
                    seen.mtu = Some(interface.mtu);
                    let facts = Facts { name, switch, pa, interface: &interface, needed: seen.needed_mtu };
                    facts.judge(state, memory.is_slow(Port::Uplink(pa.uplink)))
                }
            }
        }
    };
    (seen.state, seen.reason) = (uplink, reason);
    Some(seen)
}

fn vport_condition(
    backend: &Backend,
    id: VportId,
    target: Target,
    states: &PortStates,
    memory: &Memory,
    problem: Option<&str>,
) -> VportCondition {
    let condition = |state, reason: String| VportCondition { state, reason };
    if let (Backend::Nic { nic, .. }, Target::Vf(vf)) = (backend, target) {
        // If the board does not answer, the NIC's problem says so.
        return match nic.vf_is_driven(vf).unwrap_or(false) {
            true => condition(VportState::Up, String::new()),
            false => condition(VportState::Down, "no driver has taken the virtual function".to_owned()),
        };
    }
    match states.get(&Port::Vport(id)) {
        Some(PortState::Up) => condition(VportState::Up, String::new()),
        Some(PortState::NoLink) => condition(VportState::Down, backend.no_link(id)),
        Some(PortState::Failed(why)) => condition(VportState::Failed, why.to_string()),
        Some(PortState::Opening) if memory.is_slow(Port::Vport(id)) => condition(VportState::Failed, slow()),
        Some(PortState::Opening) => condition(VportState::Opening, "its port is being opened".to_owned()),
        None => {
            let why = problem.map_or_else(String::new, |problem| format!(": {problem}"));
            condition(VportState::Opening, format!("it waits for the policy to be applied{why}"))
        }
    }
}

/// State of an uplink that the policy does not use: its interface should be there all the same.
fn unused(n: u8, switch: &SwitchBackend, memory: &mut Memory) -> UplinkCondition {
    let name = switch.interface(n).unwrap_or_default();
    let seen = UplinkCondition { interface: name.to_owned(), ..UplinkCondition::default() };
    match memory.uplinks.entry(n).or_insert_with(|| UplinkWatch::new(name)).look() {
        Ok(interface) => UplinkCondition { mtu: Some(interface.mtu), ..seen },
        Err(reason) => UplinkCondition { state: UplinkState::Failed, reason, ..seen },
    }
}

impl Memory {
    fn note_opening(&mut self, states: &PortStates) {
        let is_opening = |at: &Port| matches!(states.get(at), Some(PortState::Opening));
        self.opening.retain(|at, _| is_opening(at));
        for at in states.keys().filter(|at| is_opening(at)) {
            self.opening.entry(*at).or_insert_with(Instant::now);
        }
    }

    fn is_slow(&self, at: Port) -> bool {
        self.opening.get(&at).is_some_and(|since| since.elapsed() > OPENING_LIMIT)
    }
}

/// What is known of an uplink that has its interface.
struct Facts<'a> {
    name: &'a str,
    switch: &'a SwitchBackend,
    pa: &'a LocalPa,
    interface: &'a culvert_netlink::Interface,
    needed: Option<u32>,
}

impl Facts<'_> {
    /// The state that an operator has to know first.
    fn judge(&self, port: Option<&PortState>, is_slow: bool) -> (UplinkState, String) {
        let Facts { name, interface, .. } = self;
        if !interface.enabled {
            return (UplinkState::Down, format!("the interface {name} is down: ip link set {name} up"));
        }
        if !interface.up {
            let why = format!("the interface {name} has no link: check the cable and the other side");
            return (UplinkState::Down, why);
        }
        if !self.switch.own_addresses() && !interface.holds(self.pa.addr) {
            let missing =
                culvert_slowpath::Error::NotOnInterface { interface: (*name).to_owned(), addr: self.pa.addr };
            return (UplinkState::Failed, missing.to_string());
        }
        match port {
            Some(PortState::Failed(why)) => (UplinkState::Failed, why.to_string()),
            Some(PortState::Opening) if is_slow => (UplinkState::Failed, slow()),
            Some(PortState::Opening) | None => {
                (UplinkState::Opening, format!("the interface {name} is being opened"))
            }
            Some(PortState::NoLink) => {
                (UplinkState::Down, format!("the interface {name} is coming up: no packets pass it yet"))
            }
            Some(PortState::Up) => match self.needed.filter(|needed| *needed > interface.mtu) {
                None => (UplinkState::Up, String::new()),
                Some(needed) => (UplinkState::Degraded, self.too_small(needed)),
            },
        }
    }

    fn too_small(&self, needed: u32) -> String {
        let Facts { name, pa, interface, .. } = self;
        format!(
            "the interface {name} has an MTU of {}, but full packets of the virtual machines need {needed} with their \
             outer headers, and the policy's provider network has {}: ip link set {name} mtu {}, on the switches between \
             the hosts too, or give the logicalNetwork's subnet in the policy an mtu of {}",
            interface.mtu, pa.mtu, pa.mtu, interface.mtu
        )
    }
}

fn slow() -> String {
    let limit = OPENING_LIMIT.as_secs();
    format!(
        "it has been opening for more than {limit} s: the kernel or another process holds it up; see culvertd's log"
    )
}

/// Longest outer IP packet of this host's virtual machines, if they have tunnels.
fn needed_mtu(config: &HostConfig, pa: &LocalPa) -> Option<u32> {
    let snapshot = &config.snapshot;
    let longest = snapshot.vports.values().map(|vport| vport.mtu).max()?;
    let headers =
        snapshot.networks.values().map(|network| outer_len(network.encap, pa.addr.is_ipv4())).max()?;
    Some(u32::from(longest) + headers)
}

/// Length of the headers in front of an inner IP packet, from the outer IP header on.
fn outer_len(encap: Encap, is_ipv4: bool) -> u32 {
    // UDP and VXLAN (RFC 7348), or GRE with a key (RFC 7637); then the inner Ethernet header.
    let own = match encap {
        Encap::Vxlan => 8 + 8,
        Encap::Nvgre => 8,
    };
    own + 14 + if is_ipv4 { 20 } else { 40 }
}

/// Why a tunnel takes no packet of this length, for a trace.
pub(super) fn tunnel_limit(snapshot: &Snapshot, tunnel: u16) -> Option<String> {
    let spec = snapshot.tunnels.get(&tunnel)?;
    let most = u32::from(spec.mtu).checked_sub(outer_len(spec.encap, spec.local_pa.is_ipv4()))?;
    Some(format!(
        "the tunnel from {} to {} on uplink {} takes IP packets of at most {most} bytes (mtu {} of the provider network)",
        spec.local_pa, spec.remote_pa, spec.uplink, spec.mtu
    ))
}
