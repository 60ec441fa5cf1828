//! Two hosts of docs/examples/pair.json, with two VMs of different tenants each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use culvert_api::Bundle;
use culvert_flow::{HashSecret, Port};
use culvert_model::{Fabric, Indices, Site, host_config};
use culvert_offload::DeviceInfo as _;
use culvert_packet::{MacAddr, VportId, craft, parse};
use culvert_policy::Snapshot;
use culvert_slowpath::{Limits, Settings, SlowPath};
use culvert_switch::{Opener, Switch, SwitchPort, SwitchSettings};
use serde_json::{Value, json};

use crate::mem_port::{FrameQueue, MemPort};

/// Nothing here takes this long unless it never ends.
const LIMIT: Duration = Duration::from_secs(60);

/// What a testbed is made of.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) flows: u32,
    pub(crate) buffers: usize,
    pub(crate) limits: Limits,
    pub(crate) workers: usize,
    /// Each worker has an end of the wire of its own.
    pub(crate) own_ends: bool,
    /// How many vports without a VM are attached, one before each of the first VMs.
    pub(crate) idle_vports: u16,
}

impl Plan {
    /// One worker or several, with one end of the wire between them or one each.
    pub(crate) fn worker_sets() -> impl Iterator<Item = Plan> {
        let of = |(workers, own_ends)| Plan { workers, own_ends, ..Plan::default() };
        [(1, false), (2, false), (3, false), (2, true), (3, true)].into_iter().map(of)
    }
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            flows: 1 << 14,
            buffers: 8192,
            limits: Limits::default(),
            workers: 1,
            own_ends: false,
            idle_vports: 0,
        }
    }
}

/// A VM's end of its port.
pub(crate) struct Vm {
    mac: MacAddr,
    ip: std::net::IpAddr,
    to_host: Arc<FrameQueue>,
    pub(crate) from_host: Arc<FrameQueue>,
    sent: u64,
    /// By source port: the numbers that have come, in order.
    got: BTreeMap<u16, Vec<u32>>,
}

pub(crate) struct Host {
    pub(crate) switch: Arc<Switch>,
    slow: SlowPath,
    name: &'static str,
}

impl Host {
    /// Waits until all ports are open: a frame to one that is not is dropped.
    fn wait_for_ports(&self) {
        let end = Instant::now() + LIMIT;
        while !self.switch.ports().unwrap().iter().all(|(_, open, _)| *open) {
            assert!(Instant::now() < end, "not all ports open");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

pub(crate) struct Testbed {
    pub(crate) hosts: [Host; 2],
    /// Contoso's on host 1 and 2, Fabrikam's on host 1 and 2.
    pub(crate) vms: [Vm; 4],
    /// From host 1 to host 2, and back: as many queues as there are ends.
    pub(crate) wire: [Vec<Arc<FrameQueue>>; 2],
    bundle: Value,
    /// Drops of both hosts before the test.
    before: BTreeMap<&'static str, u64>,
}

const VMS: [(&str, usize); 4] =
    [("contoso-sql", 0), ("contoso-web", 1), ("fabrikam-sql", 0), ("fabrikam-web", 1)];

fn snapshot(bundle: &Value, host: &str) -> Arc<Snapshot> {
    let fabric = Fabric::check(&Bundle::from_value(bundle).unwrap().bundle).unwrap().fabric;
    let site = Site { host: host.to_owned(), entropy: HashSecret([3; 9]), vfs: 0, vmqs: 0 };
    host_config(Arc::new(fabric), &site, &mut Indices::default()).unwrap().snapshot
}

fn opener(input: &Arc<FrameQueue>, output: &Arc<FrameQueue>) -> Opener {
    let (input, output) = (Arc::clone(input), Arc::clone(output));
    Box::new(move || {
        let port = MemPort { input: Arc::clone(&input), output: Arc::clone(&output) };
        Ok(Box::new(port) as Box<dyn SwitchPort>)
    })
}

impl Testbed {
    pub(crate) fn new(plan: &Plan) -> Self {
        let bundle: Value =
            serde_json::from_str(include_str!("../../../../docs/examples/pair.json")).unwrap();
        let ends = if plan.own_ends { plan.workers } else { 1 };
        let wire = [0, 1].map(|_| (0..ends).map(|_| FrameQueue::new()).collect::<Vec<_>>());
        let host = |name: &'static str, out: usize| {
            let secret = HashSecret([0x1234_5678_9abc_def1; 9]);
            let settings = SwitchSettings {
                buffers: plan.buffers,
                large_buffers: 8,
                workers: vec![None; plan.workers],
                ..SwitchSettings::new(plan.flows, secret)
            };
            let switch = Arc::new(Switch::start(&settings).unwrap());
            let end = |n: usize| opener(&wire[1 - out][n], &wire[out][n]);
            if plan.own_ends {
                switch.attach_to_all(Port::Uplink(0), end).unwrap();
            } else {
                switch.attach(Port::Uplink(0), end(0)).unwrap();
            }
            let settings = Settings { limits: plan.limits, ..Settings::default() };
            let slow = SlowPath::start(switch.clone(), settings).unwrap();
            Host { switch, slow, name }
        };
        let hosts = [host("host1", 0), host("host2", 1)];
        let mut idle_vports = 900..900 + plan.idle_vports;
        let vms = VMS.map(|(name, n)| {
            if let Some(id) = idle_vports.next() {
                let queue = FrameQueue::new();
                hosts[n].switch.attach(Port::Vport(VportId(id)), opener(&queue, &queue)).unwrap();
            }
            let snapshot = snapshot(&bundle, hosts[n].name);
            let (id, vport) = snapshot.vports.iter().find(|(_, v)| v.name == name).unwrap();
            let (to_host, from_host) = (FrameQueue::new(), FrameQueue::new());
            hosts[n].switch.attach(Port::Vport(*id), opener(&to_host, &from_host)).unwrap();
            Vm { mac: vport.mac, ip: vport.addresses[0], to_host, from_host, sent: 0, got: BTreeMap::new() }
        });
        let mut testbed = Testbed { hosts, vms, wire, bundle, before: BTreeMap::new() };
        testbed.hosts.iter().for_each(|host| host.wait_for_ports());
        testbed.apply();
        // Next hops are found with the first packet; what that costs is none of a test's business.
        for (from, to) in [(0, 1), (1, 0), (2, 3), (3, 2)] {
            testbed.send(from, to, 9, 0, 60);
            testbed.settle();
        }
        for vm in &mut testbed.vms {
            (vm.sent, vm.got) = (0, BTreeMap::new());
        }
        testbed.before = testbed.all_drops();
        testbed
    }

    fn apply(&self) {
        for host in &self.hosts {
            host.slow.handle().apply(snapshot(&self.bundle, host.name)).unwrap();
        }
    }

    /// Another generation of every vport: a rule more in the list of all.
    pub(crate) fn change_policy(&mut self, n: u64) {
        let rules = &mut self.bundle["accessControlLists"][0]["properties"]["aclRules"];
        let rules = rules.as_array_mut().unwrap();
        let mut rule = rules[0].clone();
        rule["resourceId"] = json!(format!("rule-{n}"));
        rule["properties"]["priority"] = json!(200 + n);
        rule["properties"]["destinationPortRange"] = json!((30 + n).to_string());
        rules.push(rule);
        self.apply();
    }

    /// A VM sends a datagram with a number of its flow, which its source port names, to another of its tenant.
    pub(crate) fn send(&mut self, from: usize, to: usize, flow: u16, number: u32, len: usize) {
        let ends = craft::Ends {
            src_mac: self.vms[from].mac,
            dst_mac: self.vms[to].mac,
            src: self.vms[from].ip,
            dst: self.vms[to].ip,
        };
        let mut payload = vec![0; len];
        payload[..4].copy_from_slice(&number.to_be_bytes());
        let mut frame = vec![0; len + 64];
        let len = craft::udp(&mut frame, &ends, flow, 7000, &payload).unwrap();
        frame.truncate(len);
        self.vms[from].sent += 1;
        self.vms[from].to_host.put(frame);
    }

    /// Takes what has come for a VM.
    pub(crate) fn collect(&mut self, vm: usize) {
        let vm = &mut self.vms[vm];
        while let Some(frame) = vm.from_host.take() {
            let headers = parse(&frame).unwrap();
            let at = usize::from(headers.l4) + 8;
            let number = u32::from_be_bytes(*frame[at..].first_chunk().unwrap());
            vm.got.entry(headers.l4_src).or_default().push(number);
        }
    }

    fn all_drops(&self) -> BTreeMap<&'static str, u64> {
        let mut all = BTreeMap::new();
        for host in &self.hosts {
            for (reason, n) in host.switch.drops().unwrap() {
                *all.entry(reason.as_str()).or_default() += n;
            }
        }
        all
    }

    /// Drops since the testbed was made.
    pub(crate) fn drops(&self) -> BTreeMap<&'static str, u64> {
        let mut all = self.all_drops();
        all.iter_mut().for_each(|(reason, n)| *n -= self.before.get(reason).copied().unwrap_or(0));
        all.retain(|_, n| *n > 0);
        all
    }

    /// Frames of and for a VM that its host has dropped.
    pub(crate) fn dropped_at(&self, vm: usize) -> u64 {
        let (_, host) = VMS[vm];
        let vports = self.hosts[host].switch.vports().unwrap();
        vports[usize::from(self.vport(vm).0)].drops
    }

    /// Frames that came for a VM.
    pub(crate) fn got(&self, vm: usize) -> u64 {
        self.vms[vm].got.values().map(|numbers| numbers.len() as u64).sum()
    }

    fn missing(&mut self) -> i64 {
        (0..4).for_each(|vm| self.collect(vm));
        let sent: u64 = self.vms.iter().map(|vm| vm.sent).sum();
        let got: u64 = (0..4).map(|vm| self.got(vm)).sum();
        let dropped: u64 = self.drops().values().sum();
        sent as i64 - (got + dropped) as i64
    }

    /// Waits until each frame has arrived or is counted, exactly, and all buffers are back.
    pub(crate) fn settle(&mut self) {
        let end = Instant::now() + LIMIT;
        loop {
            let missing = self.missing();
            let buffers = self.hosts.iter().all(|host| {
                let (free, all) = host.switch.free_buffers().unwrap();
                free == all
            });
            if missing == 0 && buffers && self.wire.iter().flatten().all(|queue| queue.len() == 0) {
                break;
            }
            assert!(Instant::now() < end, "{missing} frames are missing; drops {:?}", self.drops());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Whether each flow's frames came in order, none twice.
    pub(crate) fn assert_order(&self) {
        for vm in &self.vms {
            for (flow, numbers) in &vm.got {
                let ordered = numbers.windows(2).all(|pair| pair[0] < pair[1]);
                assert!(ordered, "flow {flow}: {numbers:?}");
            }
        }
    }

    /// Packets that went up to the slow paths.
    pub(crate) fn punted(&self) -> u64 {
        self.hosts.iter().map(|host| host.switch.counters().unwrap().punted).sum()
    }

    /// Whether the wire from host 1 to host 2 is up.
    pub(crate) fn set_up(&self, up: bool) {
        self.wire[0].iter().for_each(|queue| queue.set_up(up));
    }

    /// The longest frame that it takes.
    pub(crate) fn set_longest(&self, bytes: usize) {
        self.wire[0].iter().for_each(|queue| queue.longest.store(bytes, SeqCst));
    }

    /// Takes a VM's port away and puts it back: at whichever worker has room by now.
    pub(crate) fn reattach(&mut self, vm: usize) {
        let (port, switch) = (Port::Vport(self.vport(vm)), &self.hosts[VMS[vm].1].switch);
        switch.detach(port).unwrap();
        switch.attach(port, opener(&self.vms[vm].to_host, &self.vms[vm].from_host)).unwrap();
        self.hosts[VMS[vm].1].wait_for_ports();
    }

    pub(crate) fn flows(&self, vm: usize) -> usize {
        self.vms[vm].got.len()
    }

    /// The number of a VM's vport.
    pub(crate) fn vport(&self, vm: usize) -> VportId {
        let (name, host) = VMS[vm];
        let snapshot = snapshot(&self.bundle, self.hosts[host].name);
        *snapshot.vports.iter().find(|(_, v)| v.name == name).unwrap().0
    }
}
