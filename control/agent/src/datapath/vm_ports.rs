//! Ports of virtual machines that no VF serves: attaches and detaches them as a configuration asks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use culvert_api::SoftwarePort;
use culvert_model::HostConfig;
use culvert_packet::{MacAddr, VportId};
use culvert_policy::snapshot::Target;
use culvert_ports::{Tap, VhostUser};
use culvert_switch::Opener;

use super::interface::DatapathError;
use super::open_error::{Opened, explain};
use crate::args::Port as PortKind;
use crate::{Args, SocketGroup};

/// Queue pairs that a virtual machine may use.
const QUEUE_PAIRS: usize = 8;

/// How a port is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attachment {
    kind: SoftwarePort,
    mac: MacAddr,
    /// MAC of a TAP that is created.
    tap_mac: MacAddr,
    mtu: u16,
    /// What serves its vport.
    pub(super) target: Target,
}

/// The VM ports of this host.
pub(super) struct VmPorts {
    default: SoftwarePort,
    run_dir: PathBuf,
    /// Who may open the sockets.
    group: Option<SocketGroup>,
    attached: Mutex<BTreeMap<VportId, Attachment>>,
}

/// Ports by their vport.
pub(super) type Attachments = BTreeMap<VportId, Attachment>;

impl VmPorts {
    /// No ports yet. Sockets will be in `run_dir`.
    pub(super) fn new(args: &Args, run_dir: PathBuf) -> Self {
        let default = match args.port {
            PortKind::Tap => SoftwarePort::Tap,
            PortKind::VhostUser => SoftwarePort::VhostUser,
        };
        VmPorts { default, run_dir, group: args.vm_socket_group.clone(), attached: Mutex::default() }
    }

    fn attached(&self) -> MutexGuard<'_, Attachments> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The attachments that a configuration wants for the vports whose target `ours` accepts.
    pub(super) fn wanted(&self, config: &HostConfig, ours: impl Fn(Target) -> bool) -> Attachments {
        let wanted = config.vports.iter().filter_map(|vport| {
            let known = config.snapshot.vports.get(&vport.id).filter(|known| ours(known.target))?;
            let asked = config.fabric.interfaces.get(vport.interface).and_then(|i| i.software_port);
            let (kind, target) = (asked.unwrap_or(self.default), known.target);
            let tap_mac = tap_mac(known.mac, config.fabric.settings.router_mac);
            Some((vport.id, Attachment { kind, mac: known.mac, tap_mac, mtu: known.mtu, target }))
        });
        wanted.collect()
    }

    /// Detaches ports that are not wanted, or wanted in another way.
    pub(super) fn remove(
        &self,
        wanted: &Attachments,
        mut detach: impl FnMut(VportId) -> Result<(), DatapathError>,
    ) -> Result<(), DatapathError> {
        let gone: Vec<VportId> =
            self.attached().iter().filter(|(id, a)| wanted.get(id) != Some(a)).map(|(id, _)| *id).collect();
        for id in gone {
            // Views read the attachments meanwhile.
            detach(id)?;
            self.attached().remove(&id);
        }
        Ok(())
    }

    /// Attaches wanted ports that are not attached yet.
    pub(super) fn add(
        &self,
        wanted: Attachments,
        mut attach: impl FnMut(VportId, &Attachment, Opener) -> Result<(), DatapathError>,
    ) -> Result<(), DatapathError> {
        for (id, attachment) in wanted {
            if !self.attached().contains_key(&id) {
                attach(id, &attachment, self.opener(id, &attachment))?;
                self.attached().insert(id, attachment);
            }
        }
        Ok(())
    }

    fn opener(&self, id: VportId, attachment: &Attachment) -> Opener {
        let Attachment { kind, tap_mac, mtu, .. } = attachment.clone();
        match kind {
            SoftwarePort::Tap => {
                let name = tap_name(id);
                Box::new(move || match Tap::open_persistent(&name, mtu, Some(tap_mac)) {
                    Ok(tap) => Ok(Box::new(tap)),
                    Err(error) => Err(explain(Opened::Tap(&name), &error)),
                })
            }
            SoftwarePort::VhostUser => {
                let (socket, group) = (self.socket(id), self.group.clone());
                let open = move || {
                    let port = VhostUser::open(&socket, QUEUE_PAIRS)?;
                    group.as_ref().map_or(Ok(()), |group| group.admit(&socket))?;
                    Ok(port)
                };
                let path = self.socket(id);
                Box::new(move || match open() {
                    Ok(port) => Ok(Box::new(port)),
                    Err(error) => Err(explain(Opened::VhostUser(&path), &error)),
                })
            }
        }
    }

    fn socket(&self, id: VportId) -> PathBuf {
        self.run_dir.join(format!("vport{}.vhost", id.0))
    }

    /// Where the virtual machine of each vport attaches.
    pub(super) fn attachments(&self) -> BTreeMap<VportId, String> {
        let shown = |(id, attachment): (&VportId, &Attachment)| {
            let place = match attachment.kind {
                SoftwarePort::Tap => format!("tap:{}", tap_name(*id)),
                SoftwarePort::VhostUser => format!("vhost-user:{}", self.socket(*id).display()),
            };
            (*id, place)
        };
        self.attached().iter().map(shown).collect()
    }
}

impl VmPorts {
    /// Why the port of a vport has no link.
    pub(super) fn no_link(&self, id: VportId) -> String {
        match self.attached().get(&id).map(|a| a.kind) {
            Some(SoftwarePort::Tap) => {
                let name = tap_name(id);
                format!("the TAP {name} is down in its network namespace: ip link set {name} up there")
            }
            _ => "no virtual machine is connected to its socket".to_owned(),
        }
    }
}

/// Name of a vport's TAP interface.
fn tap_name(id: VportId) -> String {
    format!("vport{}", id.0)
}

/// First bytes of a TAP's MAC: locally administered and so high that a bridge does not take the address as its own, which is
/// the lowest of its ports'.
const TAP_MAC_PREFIXES: [u8; 3] = [0xfe, 0xfa, 0xf6];

/// The MAC of a VM's TAP: the VM's own behind another first byte, as libvirt has it. It must not be the VM's, because a bridge
/// takes frames for the MAC of its own port as its own; nor the router's.
fn tap_mac(vm: MacAddr, router: MacAddr) -> MacAddr {
    let [_, rest @ ..] = vm.0;
    let all = TAP_MAC_PREFIXES.map(|first| {
        let mut mac = [first; 6];
        mac[1..].copy_from_slice(&rest);
        MacAddr(mac)
    });
    all.into_iter().find(|mac| *mac != vm && *mac != router).unwrap_or(all[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taps_mac_is_local_and_neither_the_vms_nor_the_routers() {
        let vm = MacAddr([0x00, 0x1d, 0xd8, 7, 0, 0x11]);
        let [first, second, third] = TAP_MAC_PREFIXES.map(|byte| MacAddr([byte, 0x1d, 0xd8, 7, 0, 0x11]));
        assert_eq!(tap_mac(vm, MacAddr([2, 0, 0, 0, 0, 1])), first);
        assert_eq!(tap_mac(vm, first), second);
        assert_eq!(tap_mac(first, vm), second);
        assert_eq!(tap_mac(first, second), third);
        assert!(
            TAP_MAC_PREFIXES.iter().all(|byte| byte & 3 == 2),
            "unicast, locally administered (IEEE 802)"
        );
    }
}
