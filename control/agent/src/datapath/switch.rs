//! The switch backend: kernel interfaces as uplinks, and ports of the switch for virtual machines.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use culvert_api::view::{FirmwareView, NicInfo};
use culvert_flow::Port;
use culvert_model::HostConfig;
use culvert_offload::DeviceInfo as _;
use culvert_packet::VportId;
use culvert_policy::snapshot::LocalPa;
use culvert_ports::{AfPacket, AfPacketOptions, AfXdp, AfXdpOptions, AfXdpParts, Filter, OverlaySources};
use culvert_switch::{LengthDrops, PortState, Switch, SwitchPort};

use super::interface::DatapathError;
use super::offloads;
use super::open_error::{Opened, explain};
use super::overlay_sources::overlay_sources;
use super::vm_ports::VmPorts;
use crate::Args;
use crate::args::{Driver, ProviderAddress};

/// How long a change of the policy waits for its ports to open: one that hangs is opened in the background.
const OPEN_LIMIT: Duration = Duration::from_secs(1);

/// The switch, its uplinks and its VM ports.
pub(super) struct SwitchBackend {
    switch: Arc<Switch>,
    interfaces: Vec<String>,
    addresses: ProviderAddress,
    driver: Driver,
    /// Fanout group of uplink 0's packet sockets; uplink 1 has the next.
    fanout: u16,
    /// Attached uplinks.
    attached: Mutex<BTreeMap<u8, Attachment>>,
    /// Whose packets are taken, if the kernel has the provider addresses.
    sources: OverlaySources,
    ports: VmPorts,
}

/// How an uplink is attached.
#[derive(Clone, PartialEq)]
struct Attachment {
    /// The provider address whose home it is.
    pa: LocalPa,
    /// The addresses whose packets it receives. If they are our own, these are all of them: an address moves to the other uplink
    /// when its home has no link, and packets for it may arrive there before this host has noticed.
    addresses: Vec<IpAddr>,
}

impl SwitchBackend {
    pub(super) fn new(switch: Arc<Switch>, args: &Args, run_dir: PathBuf, fanout: u16) -> Self {
        SwitchBackend {
            switch,
            interfaces: args.uplink.clone(),
            addresses: args.provider_address,
            driver: args.driver,
            fanout,
            attached: Mutex::default(),
            sources: OverlaySources::default(),
            ports: VmPorts::new(args, run_dir),
        }
    }

    fn attached(&self) -> MutexGuard<'_, BTreeMap<u8, Attachment>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the provider addresses are our own, not the kernel's.
    pub(super) fn own_addresses(&self) -> bool {
        self.addresses == ProviderAddress::Own
    }

    /// Why a provider address has no interface.
    pub(super) fn no_interface(&self, pa: &LocalPa) -> String {
        format!(
            "the policy gives uplink {} of this host the provider address {}, but culvertd has only {} uplinks: start \
             it with one more --uplink",
            pa.uplink,
            pa.addr,
            self.interfaces.len()
        )
    }

    /// Attaches the uplinks that have provider addresses in a configuration, and detaches the others. They take the packets of
    /// this configuration beside those of the one before.
    pub(super) fn prepare(&self, config: &HostConfig) -> Result<(), DatapathError> {
        if !self.own_addresses() {
            self.sources.add(&overlay_sources(&config.snapshot)).map_err(|e| refused(&e))?;
        }
        let mut attached = self.attached();
        let locals = &config.snapshot.local_pas;
        let addresses = |pa: &LocalPa| match self.addresses {
            ProviderAddress::Own => locals.iter().map(|pa| pa.addr).collect(),
            ProviderAddress::Kernel => vec![pa.addr],
        };
        let attachment = |pa: &LocalPa| Attachment { pa: *pa, addresses: addresses(pa) };
        let wanted: BTreeMap<u8, Attachment> = locals.iter().map(|pa| (pa.uplink, attachment(pa))).collect();
        let gone: Vec<u8> = attached.keys().filter(|n| !wanted.contains_key(n)).copied().collect();
        for n in gone {
            self.switch.detach(Port::Uplink(n))?;
            attached.remove(&n);
        }
        for (n, attachment) in wanted {
            if attached.get(&n) == Some(&attachment) {
                continue;
            }
            let Some(interface) = self.interface(n) else {
                return Err(DatapathError::Failed { detail: self.no_interface(&attachment.pa) });
            };
            self.attach_uplink(n, interface, &attachment)?;
            attached.insert(n, attachment);
        }
        // The first packets would be dropped for a port that is about to open.
        Ok(self.switch.wait_opened(OPEN_LIMIT)?)
    }

    /// Attaches a port for each vport of a configuration, and detaches the others. Packets that only the configuration before
    /// knew go to the kernel from now on.
    pub(super) fn commit(&self, config: &HostConfig) -> Result<(), DatapathError> {
        let wanted = self.ports.wanted(config, |_| true);
        self.ports.remove(&wanted, |id| Ok(self.switch.detach(Port::Vport(id))?))?;
        let attach = |id, _: &_, open| Ok(self.switch.attach(Port::Vport(id), open)?);
        self.ports.add(wanted, attach)?;
        self.switch.wait_opened(OPEN_LIMIT)?;
        if self.own_addresses() {
            return Ok(());
        }
        self.sources.set(overlay_sources(&config.snapshot)).map_err(|e| refused(&e))
    }

    fn attach_uplink(&self, n: u8, interface: &str, attachment: &Attachment) -> culvert_offload::Result<()> {
        // A kernel's address uses the MAC address of the interface; an address of ours has its own.
        let own = self.own_addresses();
        let filter = if own {
            Filter::Own(attachment.addresses.clone())
        } else {
            Filter::Kernel { address: attachment.pa.addr, sources: self.sources.clone() }
        };
        let interface = interface.to_owned();
        match self.driver {
            Driver::AfPacket => {
                let common = AfPacketOptions { filter, promiscuous: own, ..AfPacketOptions::default() };
                // The kernel spreads received packets over the workers, by flow. One worker keeps them from the kernel.
                let fanout = (self.switch.workers() > 1).then(|| self.fanout.wrapping_add(n.into()));
                self.switch.attach_to_all(Port::Uplink(n), move |worker| {
                    let options = AfPacketOptions { fanout, guard: !own && worker == 0, ..common.clone() };
                    let interface = interface.clone();
                    Box::new(move || match AfPacket::open(&interface, &options) {
                        Ok(port) => Ok(Box::new(port)),
                        Err(error) => Err(explain(Opened::PacketSocket(&interface), &error)),
                    })
                })
            }
            Driver::AfXdp => {
                let options = AfXdpOptions { filter, promiscuous: own, ..AfXdpOptions::default() };
                let workers = self.switch.workers() as u32;
                // An interface that does not exist yet has no queues.
                if AfXdp::receive_queues(&interface).unwrap_or(1) < workers {
                    let open = move || match AfXdp::open(&interface, &options) {
                        Ok(port) => Ok(Box::new(port) as Box<dyn SwitchPort>),
                        Err(error) => Err(explain(Opened::XdpSocket(&interface), &error)),
                    };
                    return self.switch.attach(Port::Uplink(n), Box::new(open));
                }
                let parts = AfXdpParts::new(workers);
                self.switch.attach_to_all(Port::Uplink(n), move |worker| {
                    let (interface, parts, options) = (interface.clone(), parts.clone(), options.clone());
                    Box::new(move || match AfXdp::open_part(&interface, &options, &parts, worker as u32) {
                        Ok(port) => Ok(Box::new(port)),
                        Err(error) => Err(explain(Opened::XdpSocket(&interface), &error)),
                    })
                })
            }
        }
    }

    /// The states of the ports, with the frames that were too long for them.
    pub(super) fn ports(&self) -> BTreeMap<Port, (PortState, LengthDrops)> {
        // If the switch does not answer, other calls report it.
        self.switch.port_states().unwrap_or_default()
    }

    /// Why the port of a vport has no link.
    pub(super) fn no_link(&self, id: VportId) -> String {
        self.ports.no_link(id)
    }

    /// The interface of an uplink.
    pub(super) fn interface(&self, n: u8) -> Option<&str> {
        self.interfaces.get(usize::from(n)).map(String::as_str)
    }

    /// Where the virtual machine of each vport attaches.
    pub(super) fn attachments(&self) -> BTreeMap<VportId, String> {
        self.ports.attachments()
    }

    /// Number of uplinks.
    pub(super) fn uplinks(&self) -> u8 {
        self.interfaces.len() as u8
    }

    /// Identity and capacity.
    pub(super) fn info(&self) -> Result<NicInfo, DatapathError> {
        Ok(NicInfo {
            location: self.interfaces.join(", "),
            device: "software switch".to_owned(),
            driver: "culvertd".to_owned(),
            firmware: FirmwareView { alive: true, ..FirmwareView::default() },
            flow_capacity: self.switch.capabilities().flow_records.into(),
            offloads: offloads::switch(),
            ..NicInfo::default()
        })
    }
}

fn refused(error: &std::io::Error) -> DatapathError {
    DatapathError::Failed {
        detail: format!("cannot set which packets of the overlay this host takes: {error}"),
    }
}
