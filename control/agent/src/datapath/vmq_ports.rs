//! Vports of a Culvert NIC that no VF serves: a bridge between each one's VMQ and its virtual machine's port.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use culvert_flow::Port;
use culvert_model::HostConfig;
use culvert_packet::VportId;
use culvert_pf::AttachedNic;
use culvert_policy::snapshot::Target;
use culvert_switch::PortState;
use culvert_vmq_bridge::{VmqBridge, VmqReading};

use super::interface::DatapathError;
use super::vm_ports::VmPorts;
use crate::Args;

/// The VMQ bridge of this host, and its VM ports.
pub(super) struct VmqPorts {
    bridge: VmqBridge,
    ports: VmPorts,
}

fn on_vmq(target: Target) -> bool {
    matches!(target, Target::Vmq(_))
}

impl VmqPorts {
    pub(super) fn start(
        nic: &Arc<AttachedNic>,
        args: &Args,
        run_dir: PathBuf,
    ) -> Result<Self, culvert_offload::Error> {
        Ok(VmqPorts { bridge: VmqBridge::start(nic.clone())?, ports: VmPorts::new(args, run_dir) })
    }

    /// Detaches ports that a configuration does not have, before it is applied: afterwards their VMQs may receive frames
    /// of other virtual machines.
    pub(super) fn prepare(&self, config: &HostConfig) -> Result<(), DatapathError> {
        let wanted = self.ports.wanted(config, on_vmq);
        self.ports.remove(&wanted, |id| Ok(self.bridge.detach(id)?))
    }

    /// Attaches the ports of a configuration, after it is applied.
    pub(super) fn commit(&self, config: &HostConfig) -> Result<(), DatapathError> {
        self.ports.add(self.ports.wanted(config, on_vmq), |id, attachment, open| match attachment.target {
            Target::Vmq(n) => Ok(self.bridge.attach(id, n, open)?),
            Target::Vf(_) | Target::Software => Ok(()),
        })
    }

    /// Where the virtual machine of each vport attaches.
    pub(super) fn attachments(&self) -> BTreeMap<VportId, String> {
        self.ports.attachments()
    }

    /// The states of the ports.
    pub(super) fn port_states(&self) -> BTreeMap<Port, PortState> {
        self.read().into_iter().map(|(id, port)| (Port::Vport(id), port.state)).collect()
    }

    /// Why the port of a vport has no link.
    pub(super) fn no_link(&self, id: VportId) -> String {
        self.ports.no_link(id)
    }

    /// What the bridge knows of each vport.
    pub(super) fn read(&self) -> BTreeMap<VportId, VmqReading> {
        // If the bridge does not answer, other calls report it.
        self.bridge.read().unwrap_or_default().into_iter().map(|port| (port.vport, port)).collect()
    }
}
