//! A host without a Culvert NIC: interfaces of the kernel as uplinks, ports of the software path for virtual machines.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use culvert_api::view::{FirmwareView, NicInfo, WorkerCounters};
use culvert_flow::Port;
use culvert_model::HostPart;
use culvert_packet::VportId;
use culvert_policy::snapshot::{LocalPa, Snapshot};
use culvert_softpath::OffloadTarget;
use culvert_softpath::switch::ports::{AfPacket, AfPacketOptions, AfXdp, AfXdpOptions, AfXdpParts, Filter};
use culvert_softpath::switch::{Load, Switch, SwitchPort};

use super::ports::Ports;
use super::{lost, offloads};
use crate::args::{Driver, ProviderAddress};
use crate::{Args, DatapathError};

/// The software NIC and what is attached to it.
pub(super) struct SoftwareNic {
    switch: Arc<Switch>,
    interfaces: Vec<String>,
    addresses: ProviderAddress,
    driver: Driver,
    /// Number of the first uplink's group of packet sockets.
    fanout: u16,
    /// Uplinks that are attached, with the address that each takes packets for.
    attached: Mutex<BTreeMap<u8, LocalPa>>,
    ports: Ports,
}

impl SoftwareNic {
    pub(super) fn new(switch: Arc<Switch>, args: &Args, run_dir: PathBuf, fanout: u16) -> Self {
        SoftwareNic {
            switch,
            interfaces: args.uplink.clone(),
            addresses: args.provider_address,
            driver: args.driver,
            fanout,
            attached: Mutex::default(),
            ports: Ports::new(args, run_dir),
        }
    }

    fn attached(&self) -> MutexGuard<'_, BTreeMap<u8, LocalPa>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the uplinks take packets for the provider addresses of a policy. The policy as it is with them.
    pub(super) fn uplinks_of(&self, part: &HostPart) -> Result<Arc<Snapshot>, DatapathError> {
        let mut attached = self.attached();
        let wanted: BTreeMap<u8, LocalPa> =
            part.snapshot.local_pas.iter().map(|pa| (pa.uplink, *pa)).collect();
        let gone: Vec<u8> = attached.keys().filter(|n| !wanted.contains_key(n)).copied().collect();
        for n in gone {
            self.switch.detach(Port::Uplink(n)).map_err(|e| lost(&e))?;
            attached.remove(&n);
        }
        for (n, pa) in wanted {
            if attached.get(&n) == Some(&pa) {
                continue;
            }
            let Some(interface) = self.interfaces.get(usize::from(n)) else {
                return Err(DatapathError::Failed {
                    detail: format!(
                        "the policy gives this host a provider address on uplink {n} ({}), but culvertd was started \
                         with {} --uplink: name the interface with one more",
                        pa.addr,
                        self.interfaces.len()
                    ),
                });
            };
            self.attach_uplink(n, interface, pa.addr).map_err(|e| lost(&e))?;
            attached.insert(n, pa);
        }
        Ok(part.snapshot.clone())
    }

    /// Has a port for each vport of a policy, and no other.
    pub(super) fn ports_of(&self, part: &HostPart) -> Result<(), DatapathError> {
        let wanted = self.ports.wanted(part, |_| true);
        self.ports.remove(&wanted, |id| self.switch.detach(Port::Vport(id)).map_err(|e| lost(&e)))?;
        let attach = |id, _: &_, open| self.switch.attach(Port::Vport(id), open).map_err(|e| lost(&e));
        self.ports.add(wanted, attach)
    }

    fn attach_uplink(&self, n: u8, interface: &str, address: IpAddr) -> culvert_pf::Result<()> {
        // The kernel's address has the interface's MAC; another has one of ours.
        let own = self.addresses == ProviderAddress::Own;
        let filter = Filter::Overlay { address, control: own };
        let interface = interface.to_owned();
        match self.driver {
            Driver::AfPacket => {
                let common = AfPacketOptions { filter, promiscuous: own, ..AfPacketOptions::default() };
                // What comes is shared by all workers, by flow. One of them keeps it from the kernel.
                let fanout = (self.switch.workers() > 1).then(|| self.fanout.wrapping_add(n.into()));
                self.switch.attach_to_all(Port::Uplink(n), move |worker| {
                    let options = AfPacketOptions { fanout, guard: !own && worker == 0, ..common };
                    let interface = interface.clone();
                    Box::new(move || Ok(Box::new(AfPacket::open(&interface, &options)?)))
                })
            }
            Driver::AfXdp => {
                let options = AfXdpOptions { filter, promiscuous: own, ..AfXdpOptions::default() };
                let workers = self.switch.workers() as u32;
                // An interface that is not there has no queues yet.
                if AfXdp::receive_queues(&interface).unwrap_or(1) < workers {
                    let open =
                        move || Ok(Box::new(AfXdp::open(&interface, &options)?) as Box<dyn SwitchPort>);
                    return self.switch.attach(Port::Uplink(n), Box::new(open));
                }
                let parts = AfXdpParts::new(workers);
                self.switch.attach_to_all(Port::Uplink(n), move |worker| {
                    let (interface, parts) = (interface.clone(), parts.clone());
                    let open = move || AfXdp::open_part(&interface, &options, &parts, worker as u32);
                    Box::new(move || Ok(Box::new(open()?)))
                })
            }
        }
    }

    /// Where the virtual machine of a vport attaches.
    pub(super) fn attachment(&self, id: VportId) -> String {
        self.ports.place(id)
    }

    /// Whether somebody is on the other side of a vport.
    pub(super) fn has_link(&self, id: VportId) -> bool {
        // A switch that does not answer says so by other calls.
        let ports = self.switch.ports().unwrap_or_default();
        ports.iter().any(|(at, link, _)| *at == Port::Vport(id) && *link)
    }

    /// The thread that serves a vport.
    pub(super) fn worker(&self, id: VportId) -> Option<u16> {
        self.switch.worker_of(id).map(|n| n as u16)
    }

    /// What threads have to do.
    pub(super) fn workers(&self) -> Result<BTreeMap<u16, WorkerCounters>, DatapathError> {
        let loads = self.switch.loads().map_err(|e| lost(&e))?;
        let shown =
            |load: Load| WorkerCounters { vports: load.vports as u64, busy_ms: load.busy.as_millis() as u64 };
        Ok((0..).zip(loads.into_iter().map(shown)).collect())
    }

    /// How many uplinks there are.
    pub(super) fn uplinks(&self) -> u8 {
        self.interfaces.len() as u8
    }

    pub(super) fn info(&self) -> Result<NicInfo, DatapathError> {
        Ok(NicInfo {
            location: self.interfaces.join(", "),
            device: "software path".to_owned(),
            driver: "culvertd".to_owned(),
            firmware: FirmwareView { alive: true, ..FirmwareView::default() },
            flow_capacity: self.switch.flows().into(),
            offloads: offloads::of_software(),
            ..NicInfo::default()
        })
    }
}
