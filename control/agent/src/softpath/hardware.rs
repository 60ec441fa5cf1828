//! What is below the slow path: a Culvert NIC, or the software NIC.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use culvert_api::Offload;
use culvert_api::view::{FirmwareView, NicInfo, UplinkView, VportState, WorkerCounters};
use culvert_model::HostPart;
use culvert_packet::{Reason, VportId};
use culvert_pci::VfHandle;
use culvert_pf::Nic;
use culvert_policy::snapshot::{Snapshot, Target};
use culvert_softpath::Handle;

use super::software::SoftwareNic;
use super::vmqs::Vmqs;
use super::{lost, offloads};
use crate::DatapathError;

/// One of both.
pub(super) enum Hardware {
    /// A Culvert NIC with its driver.
    Nic { nic: Arc<Nic>, vfs: Vec<VfHandle>, vmqs: Vmqs },
    /// Threads of this host.
    Software(SoftwareNic),
}

impl Hardware {
    /// Gets ready for a policy that is about to be carried out, and says what it is on this hardware.
    pub(super) fn before(&self, part: &HostPart) -> Result<Arc<Snapshot>, DatapathError> {
        match self {
            Hardware::Nic { vmqs, .. } => vmqs.before(part).map(|()| part.snapshot.clone()),
            Hardware::Software(software) => software.uplinks_of(part),
        }
    }

    /// A policy has been carried out.
    pub(super) fn after(&self, part: &HostPart) -> Result<(), DatapathError> {
        match self {
            Hardware::Nic { vmqs, .. } => vmqs.after(part),
            Hardware::Software(software) => software.ports_of(part),
        }
    }

    /// Where the virtual machine of a vport attaches.
    pub(super) fn attachment(&self, id: VportId, target: Target) -> String {
        match (self, target) {
            (Hardware::Nic { vfs, .. }, Target::Vf(n)) => {
                vfs.iter().find(|vf| vf.index == n).map(|vf| vf.address.to_string()).unwrap_or_default()
            }
            (Hardware::Nic { vmqs, .. }, _) => vmqs.attachment(id),
            (Hardware::Software(software), _) => software.attachment(id),
        }
    }

    /// What serves a vport, and whether its driver is there.
    pub(super) fn state(&self, id: VportId, target: Target) -> (Offload, VportState) {
        let state = |up| if up { VportState::Up } else { VportState::Down };
        match (self, target) {
            // A board that does not answer says so by the other calls.
            (Hardware::Nic { nic, .. }, Target::Vf(vf)) => {
                (Offload::Vf, state(nic.vf_is_driven(vf).unwrap_or(false)))
            }
            (Hardware::Nic { vmqs, .. }, _) => (Offload::Vmq, state(vmqs.has_link(id))),
            (Hardware::Software(software), _) => (Offload::Software, state(software.has_link(id))),
        }
    }

    /// The thread that serves a vport.
    pub(super) fn worker(&self, id: VportId) -> Option<u16> {
        match self {
            Hardware::Nic { .. } => None,
            Hardware::Software(software) => software.worker(id),
        }
    }

    /// What threads have to do.
    pub(super) fn workers(&self) -> Result<BTreeMap<u16, WorkerCounters>, DatapathError> {
        match self {
            Hardware::Nic { .. } => Ok(BTreeMap::new()),
            Hardware::Software(software) => software.workers(),
        }
    }

    /// What it is in tables.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Hardware::Nic { .. } => "nic",
            Hardware::Software(_) => "software",
        }
    }

    /// Why flows are in no NIC.
    pub(super) fn not_offloaded(&self) -> Option<Reason> {
        match self {
            Hardware::Nic { .. } => None,
            Hardware::Software(_) => Some(Reason::NoFlowOffload),
        }
    }

    /// How many uplinks there are.
    pub(super) fn uplinks(&self) -> u8 {
        match self {
            Hardware::Nic { nic, .. } => nic.identity().uplinks,
            Hardware::Software(software) => software.uplinks(),
        }
    }

    /// The NIC.
    pub(super) fn info(&self, handle: &Handle) -> Result<NicInfo, DatapathError> {
        let mut info = match self {
            Hardware::Nic { nic, vfs, .. } => of_nic(nic, vfs.len() as u16)?,
            Hardware::Software(software) => software.info()?,
        };
        let links = handle.links().map_err(|e| super::failed(&e))?;
        // Without the slow path's answer the MACs are missing, and nothing else.
        let addresses = handle.status().map(|s| s.addresses).unwrap_or_default();
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
            // What does not answer counts nothing; the rest is still worth showing.
            let vports = handle.vports().unwrap_or_default();
            info.flows = vports.iter().map(|(_, v)| u64::from(v.records)).sum();
        }
        Ok(info)
    }
}

fn of_nic(nic: &Nic, num_vfs: u16) -> Result<NicInfo, DatapathError> {
    let (identity, info) = (nic.identity(), nic.firmware());
    let status = nic.firmware_status().map_err(|e| lost(&e))?;
    Ok(NicInfo {
        location: identity.location.clone(),
        vendor_id: identity.vendor,
        device_id: identity.device,
        device: identity.name.clone(),
        driver: "culvert-pf".to_owned(),
        firmware: FirmwareView {
            version: format!("{:?}", status.state).to_lowercase(),
            abi: info.version.to_string(),
            alive: nic.alive(),
            boot_epoch: status.epoch,
            heartbeat: status.heartbeat.into(),
        },
        total_vfs: identity.total_vfs,
        num_vfs,
        vmqs: identity.vmqs,
        flow_capacity: info.flows.into(),
        offloads: offloads::of_nic(),
        ..NicInfo::default()
    })
}

/// The directory of sockets beside the API's.
pub(super) fn run_dir(socket: &Path) -> Result<PathBuf, DatapathError> {
    let dir = socket.parent().unwrap_or(Path::new(".")).to_owned();
    std::fs::create_dir_all(&dir)
        .map_err(|e| DatapathError::Unavailable { detail: format!("{}: {e}", dir.display()) })?;
    Ok(dir)
}
