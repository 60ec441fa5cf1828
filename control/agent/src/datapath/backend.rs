//! The backend below the slow path: a Culvert NIC, or the switch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use culvert_api::Offload;
use culvert_api::view::{FirmwareView, NicInfo, UplinkView, VportState, WorkerCounters};
use culvert_model::HostConfig;
use culvert_packet::{Reason, VportId};
use culvert_pf::{AttachedNic, NicStatus};
use culvert_policy::snapshot::Target;
use culvert_slowpath::Handle;

use super::interface::DatapathError;
use super::offloads;
use super::switch::SwitchBackend;
use super::vmq_ports::VmqPorts;

/// How long a view waits for the slow path.
pub(super) const STATUS_LIMIT: Duration = Duration::from_millis(500);

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

    /// Where the virtual machine of a vport attaches.
    pub(super) fn attachment(&self, id: VportId, target: Target) -> String {
        match (self, target) {
            (Backend::Nic { nic, .. }, Target::Vf(n)) => {
                let vf = nic.status().vfs.into_iter().find(|vf| vf.index == n);
                vf.map(|vf| vf.address.to_string()).unwrap_or_default()
            }
            (Backend::Nic { vmqs, .. }, _) => vmqs.attachment(id),
            (Backend::Switch(switch), _) => switch.attachment(id),
        }
    }

    /// What serves a vport, and whether a driver has bound it.
    pub(super) fn state(&self, id: VportId, target: Target) -> (Offload, VportState) {
        let state = |up| if up { VportState::Up } else { VportState::Down };
        match (self, target) {
            // If the board does not answer, other calls report it.
            (Backend::Nic { nic, .. }, Target::Vf(vf)) => {
                (Offload::Vf, state(nic.vf_is_driven(vf).unwrap_or(false)))
            }
            (Backend::Nic { vmqs, .. }, _) => (Offload::Vmq, state(vmqs.has_link(id))),
            (Backend::Switch(switch), _) => (Offload::Software, state(switch.has_link(id))),
        }
    }

    /// The worker that serves a vport.
    pub(super) fn worker(&self, id: VportId) -> Option<u16> {
        match self {
            Backend::Nic { .. } => None,
            Backend::Switch(switch) => switch.worker(id),
        }
    }

    /// Load of the workers.
    pub(super) fn workers(&self) -> Result<BTreeMap<u16, WorkerCounters>, DatapathError> {
        match self {
            Backend::Nic { .. } => Ok(BTreeMap::new()),
            Backend::Switch(switch) => switch.workers(),
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
        // If the slow path does not answer, only the MAC addresses are missing.
        let addresses = handle.status_within(STATUS_LIMIT).map(|s| s.addresses).unwrap_or_default();
        let uplinks = (0..self.uplinks()).map(|n| {
            let pa = addresses.iter().find(|a| a.pa.uplink == n);
            UplinkView {
                uplink: n,
                mac: pa.map(|a| a.pa.mac.to_string()).unwrap_or_default(),
                link: links.get(usize::from(n)).copied().unwrap_or(false),
                provider_address: pa.map(|a| a.pa.addr.to_string()).unwrap_or_default(),
            }
        });
        info.uplinks = uplinks.collect();
        if info.firmware.alive {
            // If the slow path does not answer, only this count is missing.
            let vports = handle.vports().unwrap_or_default();
            info.flows = vports.iter().map(|(_, v)| u64::from(v.records)).sum();
        }
        Ok(info)
    }
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
