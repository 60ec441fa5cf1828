//! What a deployment is started with.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::host::SwitchOptions;

/// Describes a deployment: two hosts with emulated NICs and no captures, unless the methods say otherwise. Hosts count from 0.
/// `Builder::start` builds it.
#[derive(Clone, Debug)]
pub struct Builder {
    pub(super) policy: Value,
    pub(super) hosts: usize,
    pub(super) software: Vec<usize>,
    pub(super) foreign: Vec<usize>,
    pub(super) silent_routers: Vec<usize>,
    pub(super) capture: bool,
    pub(super) wires: Vec<(usize, usize, String)>,
    pub(super) emulator: Option<PathBuf>,
    pub(super) switch: SwitchOptions,
}

impl Builder {
    pub(super) fn new(policy: Value) -> Self {
        Builder {
            policy,
            hosts: 2,
            software: Vec::new(),
            foreign: Vec::new(),
            silent_routers: Vec::new(),
            capture: false,
            wires: Vec::new(),
            emulator: None,
            switch: SwitchOptions::default(),
        }
    }

    /// Sets the number of hosts.
    #[must_use]
    pub fn hosts(mut self, hosts: usize) -> Self {
        self.hosts = hosts;
        self
    }

    /// Gives these hosts no NIC: the software switch serves them, in a network namespace of their own.
    #[must_use]
    pub fn software(mut self, hosts: impl IntoIterator<Item = usize>) -> Self {
        self.software.extend(hosts);
        self
    }

    /// Adds a host that does not run Culvert: it has a provider subnet and a network namespace with its uplinks, nothing else.
    #[must_use]
    pub fn foreign(mut self, host: usize) -> Self {
        self.foreign.push(host);
        self
    }

    /// Captures every uplink to a file.
    #[must_use]
    pub fn capture(mut self) -> Self {
        self.capture = true;
        self
    }

    /// Lets the router of this host's subnet answer no ARP requests, until
    /// [`Network::answer_arp`](crate::network::Network::answer_arp).
    #[must_use]
    pub fn silent_router(mut self, host: usize) -> Self {
        self.silent_routers.push(host);
        self
    }

    /// Connects an uplink of an emulated NIC to another wire than its veth pair, in the syntax of `culvert-emu --uplink0`.
    #[must_use]
    pub fn wire(mut self, host: usize, uplink: usize, wire: impl Into<String>) -> Self {
        self.wires.push((host, uplink, wire.into()));
        self
    }

    /// Gives the boards this program as the emulator of their processors.
    #[must_use]
    pub fn emulator(mut self, program: &Path) -> Self {
        self.emulator = Some(program.to_owned());
        self
    }

    /// Lets software hosts use the kernel's address, the policy's first provider address, on uplink 0 alone.
    #[must_use]
    pub fn kernel_addresses(mut self) -> Self {
        self.switch.kernel_address = true;
        self
    }

    /// Sets `culvertd --driver` of software hosts.
    #[must_use]
    pub fn driver(mut self, driver: &'static str) -> Self {
        self.switch.driver = Some(driver);
        self
    }

    /// Limits the daemons of software hosts to these capabilities.
    #[must_use]
    pub fn capabilities(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.switch.capabilities = Some(names.into_iter().collect());
        self
    }

    /// Number of provider subnets: one for each host, also for foreign ones.
    pub(super) fn subnets(&self) -> usize {
        let foreign = self.foreign.iter().map(|host| host + 1).max();
        foreign.unwrap_or(0).max(self.hosts).max(2)
    }
}
