//! The backend below the slow path: a Culvert NIC, or the switch.

use std::collections::BTreeMap;
use std::sync::Arc;

use culvert_api::Offload;
use culvert_api::view::{FirmwareView, LengthDrop, NicInfo, UplinkView, VportState};
use culvert_flow::Port;
use culvert_model::HostConfig;
use culvert_offload::VportReading;
use culvert_packet::{Reason, VportId};
use culvert_pf::{AttachedNic, NicStatus};
use culvert_policy::snapshot::Target;
use culvert_slowpath::Handle;
use culvert_switch::PortState;

use super::flow_view;
use super::interface::DatapathError;
use super::offloads;
use super::switch::SwitchBackend;
use super::vmq_ports::VmqPorts;

/// The port of a vport.
pub(super) struct PortView {
    /// What serves it.
    pub(super) served_by: Offload,
    /// Whether a driver has bound it.
    pub(super) state: VportState,
    /// Where its virtual machine attaches.
    pub(super) attachment: String,
    /// Its drops, as far as their reasons are known.
    pub(super) drops: Vec<(Reason, u64)>,
}

/// What forwards packets.
pub(super) enum Backend {
    /// A Culvert NIC, with the VMs on its VMQs.
    Nic { nic: Arc<AttachedNic>, vmqs: VmqPorts },
    /// The software datapath, on workers of this host.
    Switch(SwitchBackend),
}

impl Backend {
    /// Prepares for a configuration, before the slow path applies its snapshot.
    pub(super) fn prepare(&self, config: &HostConfig) -> Result<(), DatapathError> {
        match self {
            Backend::Nic { vmqs, .. } => vmqs.prepare(config),
            Backend::Switch(switch) => switch.prepare(config),
        }
    }

    /// Completes a configuration, after the slow path has applied its snapshot.
    pub(super) fn commit(&self, config: &HostConfig) -> Result<(), DatapathError> {
        match self {
            Backend::Nic { vmqs, .. } => vmqs.commit(config),
            Backend::Switch(switch) => switch.commit(config),
        }
    }

    /// The states of the ports that it serves itself.
    pub(super) fn port_states(&self) -> BTreeMap<Port, PortState> {
        match self {
            Backend::Nic { vmqs, .. } => vmqs.port_states(),
            Backend::Switch(switch) => {
                switch.ports().into_iter().map(|(at, (state, _))| (at, state)).collect()
            }
        }
    }

    /// Why the port of a vport has no link.
    pub(super) fn no_link(&self, id: VportId) -> String {
        match self {
            Backend::Nic { vmqs, .. } => vmqs.no_link(id),
            Backend::Switch(switch) => switch.no_link(id),
        }
    }

    /// The ports for which frames were too long.
    pub(super) fn length_drops(&self) -> Vec<LengthDrop> {
        let Backend::Switch(switch) = self else { return Vec::new() };
        let ports = switch.ports().into_iter().filter(|(_, (_, drops))| drops.packets > 0);
        let shown = ports.map(|(at, (_, drops))| LengthDrop {
            port: flow_view::port_name(at),
            packets: drops.packets,
            mtu: drops.mtu,
        });
        shown.collect()
    }

    /// Whether its firmware answers; `None`: it has none.
    pub(super) fn firmware(&self) -> Option<bool> {
        match self {
            Backend::Nic { nic, .. } => Some(nic.status().alive),
            Backend::Switch(_) => None,
        }
    }

    /// The ports of vports with these targets: what serves each, its state and its drops. Reads everything once.
    pub(super) fn ports(&self, handle: &Handle, vports: &[(VportReading, Target)]) -> Vec<PortView> {
        match self {
            Backend::Nic { nic, vmqs } => nic_ports(nic, vmqs, handle, vports),
            Backend::Switch(switch) => {
                let mut attachments = switch.attachments();
                let port = |(vport, _): &(VportReading, Target)| PortView {
                    served_by: Offload::Software,
                    state: state(vport.link.unwrap_or(false)),
                    attachment: attachments.remove(&VportId(vport.number)).unwrap_or_default(),
                    drops: vport.drops.clone(),
                };
                vports.iter().map(port).collect()
            }
        }
    }

    /// Its name in views.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Backend::Nic { .. } => "nic",
            Backend::Switch(_) => "software",
        }
    }

    /// Why its flows are not offloaded.
    pub(super) fn not_offloaded(&self) -> Option<Reason> {
        match self {
            Backend::Nic { .. } => None,
            Backend::Switch(_) => Some(Reason::NoFlowOffload),
        }
    }

    /// Number of uplinks.
    pub(super) fn uplinks(&self) -> u8 {
        match self {
            Backend::Nic { nic, .. } => nic.status().identity.map_or(2, |identity| identity.uplinks),
            Backend::Switch(switch) => switch.uplinks(),
        }
    }

    /// Virtual functions that it is to have.
    pub(super) fn planned_vfs(&self) -> u16 {
        match self {
            Backend::Nic { nic, .. } => nic.planned_vfs(),
            Backend::Switch(_) => 0,
        }
    }

    /// What is wrong with it.
    pub(super) fn problem(&self) -> Option<String> {
        match self {
            Backend::Nic { nic, .. } => nic.status().problem,
            Backend::Switch(_) => None,
        }
    }

    /// Frames that messages to VMMs have carried, by VF; only VFs of VMs that do not share their memory.
    pub(super) fn frames_by_message(&self) -> Result<Vec<(String, u64)>, DatapathError> {
        let Backend::Nic { nic, .. } = self else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for vf in nic.status().vfs {
            let frames = nic.vf_frames_by_message(vf.index)?;
            if frames > 0 {
                all.push((format!("vf{}_frames_by_message", vf.index), frames));
            }
        }
        Ok(all)
    }

    /// Identity, state and offloads. Of a NIC that does not answer: what is known.
    pub(super) fn info(&self, handle: &Handle) -> Result<NicInfo, DatapathError> {
        let mut info = match self {
            Backend::Nic { nic, .. } => nic_info(&nic.status())?,
            Backend::Switch(switch) => switch.info()?,
        };
        let links = handle.links()?;
        let addresses = handle.published().addresses;
        let uplinks = (0..self.uplinks()).map(|n| {
            let pa = addresses.iter().find(|a| a.pa.uplink == n);
            UplinkView {
                uplink: n,
                mac: pa.map(|a| a.pa.mac.to_string()).unwrap_or_default(),
                link: links.get(usize::from(n)).copied().unwrap_or(false),
                provider_address: pa.map(|a| a.pa.addr.to_string()).unwrap_or_default(),
                ..UplinkView::default()
            }
        });
        info.uplinks = uplinks.collect();
        if info.firmware.alive {
            // If the NIC does not answer, only this count is missing.
            info.flows = handle.flow_count().unwrap_or_default();
        }
        Ok(info)
    }
}

fn state(up: bool) -> VportState {
    if up { VportState::Up } else { VportState::Down }
}

fn nic_ports(
    nic: &AttachedNic,
    vmqs: &VmqPorts,
    handle: &Handle,
    vports: &[(VportReading, Target)],
) -> Vec<PortView> {
    let vfs: BTreeMap<u16, String> =
        nic.status().vfs.into_iter().map(|vf| (vf.index, vf.address.to_string())).collect();
    let (mut attachments, mut bridged) = (vmqs.attachments(), vmqs.read());
    // The NIC counts a vport's drops without their reasons; those of the host itself are known.
    let mut drops: BTreeMap<VportId, Vec<(Reason, u64)>> = BTreeMap::new();
    for ((id, reason), count) in handle.vport_drops() {
        drops.entry(id).or_default().push((reason, count));
    }
    let port = |(vport, target): &(VportReading, Target)| {
        let id = VportId(vport.number);
        let drops = drops.remove(&id).unwrap_or_default();
        if let Target::Vf(vf) = target {
            // If the board does not answer, other calls report it.
            let is_driven = nic.vf_is_driven(*vf).unwrap_or(false);
            let attachment = vfs.get(vf).cloned().unwrap_or_default();
            return PortView { served_by: Offload::Vf, state: state(is_driven), attachment, drops };
        }
        let bridged = bridged.remove(&id);
        let state = state(bridged.as_ref().is_some_and(|port| port.link));
        let drops = drops.into_iter().chain(bridged.into_iter().flat_map(|port| port.drops)).collect();
        let attachment = attachments.remove(&id).unwrap_or_default();
        PortView { served_by: Offload::Vmq, state, attachment, drops }
    };
    vports.iter().map(port).collect()
}

fn nic_info(status: &NicStatus) -> Result<NicInfo, DatapathError> {
    let problem = status.problem.clone().unwrap_or_default();
    let Some(identity) = &status.identity else { return Err(DatapathError::Unavailable { detail: problem }) };
    let (info, observed) = (&status.firmware, &status.observed);
    let seen = observed.at.map_or(0, |at| at.elapsed().as_secs());
    Ok(NicInfo {
        location: identity.location.clone(),
        vendor_id: identity.vendor,
        device_id: identity.device,
        device: identity.name.clone(),
        driver: "culvert-pf".to_owned(),
        firmware: FirmwareView {
            version: observed.firmware.map_or_else(String::new, |f| format!("{:?}", f.state).to_lowercase()),
            abi: info.version.to_string(),
            alive: status.alive,
            boot_epoch: observed.firmware.map_or(0, |f| f.epoch),
            heartbeat: observed.firmware.map_or(0, |f| f.heartbeat.into()),
        },
        total_vfs: identity.total_vfs,
        num_vfs: status.vfs.len() as u16,
        vmqs: identity.vmqs,
        flow_capacity: info.flows.into(),
        offloads: offloads::nic(),
        problem,
        stale_s: (!status.alive).then_some(seen),
        ..NicInfo::default()
    })
}
