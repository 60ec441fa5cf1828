//! The vports of a Culvert NIC that no VF serves: each has a VMQ, and a port for its virtual machine beside it.

use std::path::PathBuf;
use std::sync::Arc;

use culvert_model::HostPart;
use culvert_packet::VportId;
use culvert_pf::Nic;
use culvert_policy::snapshot::Target;
use culvert_softpath::switch::Relay;

use super::lost;
use super::ports::Ports;
use crate::{Args, DatapathError};

/// The relay of this host, and its ports.
pub(super) struct Vmqs {
    relay: Relay,
    ports: Ports,
}

fn on_vmq(target: Target) -> bool {
    matches!(target, Target::Vmq(_))
}

impl Vmqs {
    pub(super) fn start(nic: &Arc<Nic>, args: &Args, run_dir: PathBuf) -> Result<Self, culvert_pf::Error> {
        Ok(Vmqs { relay: Relay::start(nic.clone())?, ports: Ports::new(args, run_dir) })
    }

    /// Takes ports away that a policy does not want, before it is carried out: what comes into a VMQ afterwards may be for
    /// another machine.
    pub(super) fn before(&self, part: &HostPart) -> Result<(), DatapathError> {
        let wanted = self.ports.wanted(part, on_vmq);
        self.ports.remove(&wanted, |id| self.relay.detach(id).map_err(|e| lost(&e)))
    }

    /// Attaches the ports that a policy wants, once it is carried out.
    pub(super) fn after(&self, part: &HostPart) -> Result<(), DatapathError> {
        self.ports.add(self.ports.wanted(part, on_vmq), |id, attachment, open| match attachment.target {
            Target::Vmq(n) => self.relay.attach(id, n, open).map_err(|e| lost(&e)),
            Target::Vf(_) | Target::Software => Ok(()),
        })
    }

    /// Where the virtual machine of a vport attaches.
    pub(super) fn attachment(&self, id: VportId) -> String {
        self.ports.place(id)
    }

    /// Whether somebody is on the other side of a vport.
    pub(super) fn has_link(&self, id: VportId) -> bool {
        // A relay that does not answer says so by other calls.
        self.relay.links().unwrap_or_default().contains(&(id, true))
    }
}
