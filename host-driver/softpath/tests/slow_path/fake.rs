//! A NIC that records what it is told, and gives out what a test puts into it.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use culvert_abi::command::{CellWrite, Op, VmqFilter};
use culvert_abi::pf::{Entry, MAX_PAYLOAD};
use culvert_abi::{FlowKey, FlowRecord, Group, Peer, Tunnel, Vport};
use culvert_packet::{MacAddr, Reason, VportId};
use culvert_pf::{Counters, Error, Event, Interrupt, PortCounters, Result, VfConfig};
use culvert_softpath::target::{EventSource, PacketSource};
use culvert_softpath::{OffloadTarget, Step};

/// What a NIC holds and was told.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) steps: Vec<Step>,
    pub(crate) cells: BTreeMap<u32, u32>,
    pub(crate) vports: Vec<Vport>,
    pub(crate) tunnels: BTreeMap<u16, Tunnel>,
    pub(crate) locals: Vec<Peer>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) filters: Vec<VmqFilter>,
    pub(crate) records: Vec<FlowRecord>,
    pub(crate) starts: usize,
    /// Names of calls, in order.
    pub(crate) calls: Vec<&'static str>,
    /// Frames of machines that it was offered and has taken.
    pub(crate) offered: Vec<(VportId, Vec<u8>)>,
    /// How many more it takes.
    pub(crate) room: usize,
    /// Drops at the host that it was told of.
    pub(crate) counted: BTreeMap<(u16, &'static str), u64>,
    pub(crate) dead: bool,
    /// VMQs that were set up.
    pub(crate) set_up: Vec<u16>,
}

/// The NIC; clones are the same one.
#[derive(Clone)]
pub(crate) struct FakeNic {
    state: Arc<Mutex<State>>,
    exceptions: Source,
    events: FakeEvents,
    vmqs: [Source; 2],
    adopted: bool,
}

type Packets = VecDeque<(Entry, Vec<u8>)>;

#[derive(Clone)]
struct Source {
    queue: Arc<Mutex<Packets>>,
    interrupt: Interrupt,
    /// It has stopped, and says so once.
    stopped: Arc<AtomicBool>,
}

#[derive(Clone)]
struct FakeEvents {
    queue: Arc<Mutex<VecDeque<Event>>>,
    interrupt: Interrupt,
}

impl Source {
    fn new() -> Self {
        Source {
            queue: Arc::default(),
            interrupt: Interrupt::new().expect("eventfd"),
            stopped: Arc::default(),
        }
    }

    fn put(&self, entry: Entry, frame: Vec<u8>) {
        self.queue.lock().expect("queue").push_back((entry, frame));
        self.interrupt.signal().expect("eventfd");
    }
}

impl PacketSource for Source {
    fn pop(&mut self) -> Result<Option<(Entry, Vec<u8>)>> {
        if self.stopped.swap(false, SeqCst) {
            return Err(Error::QueueFault { device: "fake".into(), queue: 4 });
        }
        Ok(self.queue.lock().expect("queue").pop_front())
    }

    fn repost(&mut self) -> Result<()> {
        Ok(())
    }

    fn arm(&self) -> bool {
        self.queue.lock().expect("queue").is_empty()
    }

    fn disarm(&self) {
        self.interrupt.try_clear().expect("eventfd");
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.interrupt.as_fd()
    }
}

impl EventSource for FakeEvents {
    fn next(&self) -> Option<Event> {
        self.interrupt.try_clear().expect("eventfd");
        self.queue.lock().expect("queue").pop_front()
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.interrupt.as_fd()
    }
}

impl FakeNic {
    pub(crate) fn new(records: Vec<FlowRecord>) -> Self {
        let adopted = !records.is_empty();
        let state =
            State { vports: vec![Vport::default(); 16], records, room: usize::MAX, ..State::default() };
        FakeNic {
            state: Arc::new(Mutex::new(state)),
            exceptions: Source::new(),
            events: FakeEvents { queue: Arc::default(), interrupt: Interrupt::new().expect("eventfd") },
            vmqs: [Source::new(), Source::new()],
            adopted,
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("state")
    }

    pub(crate) fn punt(&self, entry: Entry, frame: &[u8]) {
        self.exceptions.put(entry, frame.to_vec());
    }

    /// Steers a frame into a VMQ.
    pub(crate) fn vmq_frame(&self, n: usize, frame: &[u8]) {
        self.vmqs[n].put(Entry { op: Op::Transmit as u8, ..Entry::default() }, frame.to_vec());
    }

    /// Frames that are in a VMQ.
    pub(crate) fn vmq_len(&self, n: usize) -> usize {
        self.vmqs[n].queue.lock().expect("queue").len()
    }

    /// Stops a VMQ at a fault.
    pub(crate) fn stop_vmq(&self, n: usize) {
        self.vmqs[n].stopped.store(true, SeqCst);
        self.vmqs[n].interrupt.signal().expect("eventfd");
    }

    pub(crate) fn event(&self, event: Event) {
        self.events.queue.lock().expect("queue").push_back(event);
        self.events.interrupt.signal().expect("eventfd");
    }

    /// Waits until the NIC was told what is wanted.
    pub(crate) fn wait<T>(&self, what: &str, mut wanted: impl FnMut(&State) -> Option<T>) -> T {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            if let Some(found) = wanted(&self.state()) {
                return found;
            }
            assert!(Instant::now() < end, "{what}: {:?}", self.state().steps);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn call(&self, name: &'static str) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.calls.push(name);
        state
    }
}

impl OffloadTarget for FakeNic {
    fn send(&self, steps: Vec<Step>) -> Result<()> {
        let mut state = self.call("send");
        for step in &steps {
            match step {
                Step::Tunnel(index, tunnel) => {
                    state.tunnels.insert(*index, **tunnel);
                }
                Step::Insert(records) => state.records.extend(records),
                Step::Delete(keys) => state.records.retain(|r| !keys.contains(&r.key)),
                Step::Lookup(..) | Step::Out(..) | Step::Dropped(..) => {}
            }
        }
        state.steps.extend(steps);
        Ok(())
    }

    fn insert(&self, records: &[FlowRecord]) -> Result<()> {
        self.call("insert").records.extend_from_slice(records);
        Ok(())
    }

    fn read_all(&self, limit: usize) -> Result<Vec<FlowRecord>> {
        Ok(self.state().records.iter().take(limit).copied().collect())
    }

    fn idle(&self, _: u32, _: usize) -> Result<Vec<FlowRecord>> {
        Ok(Vec::new())
    }

    fn get(&self, keys: &[FlowKey]) -> Result<Vec<FlowRecord>> {
        Ok(self.state().records.iter().filter(|r| keys.contains(&r.key)).copied().collect())
    }

    fn set_tunnels(&self, tunnels: &[(u16, Tunnel)]) -> Result<()> {
        self.call("set_tunnels").tunnels.extend(tunnels.iter().copied());
        Ok(())
    }

    fn set_groups(&self, _: &[(u16, Group)]) -> Result<()> {
        drop(self.call("set_groups"));
        Ok(())
    }

    fn set_vports(&self, vports: &[(u16, Vport)]) -> Result<()> {
        let mut state = self.call("set_vports");
        for (n, vport) in vports {
            state.vports[usize::from(*n)] = *vport;
        }
        Ok(())
    }

    fn set_peers(&self, peers: &[Peer]) -> Result<()> {
        self.call("set_peers").peers = peers.to_vec();
        Ok(())
    }

    fn set_local(&self, local: &[Peer]) -> Result<()> {
        self.call("set_local").locals = local.to_vec();
        Ok(())
    }

    fn set_cells(&self, cells: &[CellWrite]) -> Result<()> {
        self.call("set_cells").cells.extend(cells.iter().map(|c| (c.cell, c.value)));
        Ok(())
    }

    fn set_vmq_filters(&self, filters: &[VmqFilter]) -> Result<()> {
        self.call("set_vmq_filters").filters = filters.to_vec();
        Ok(())
    }

    fn fence(&self) -> Result<()> {
        drop(self.call("fence"));
        Ok(())
    }

    fn start(&self) -> Result<()> {
        self.call("start").starts += 1;
        Ok(())
    }

    fn router_mac(&self) -> MacAddr {
        MacAddr::ZERO
    }

    fn set_router_mac(&self, _: MacAddr) -> Result<()> {
        drop(self.call("set_router_mac"));
        Ok(())
    }

    fn configure_vf(&self, _: u16, _: &VfConfig) -> Result<()> {
        drop(self.call("configure_vf"));
        Ok(())
    }

    fn vports(&self) -> Result<Vec<Vport>> {
        Ok(self.state().vports.clone())
    }

    fn counters(&self) -> Result<Counters> {
        Ok(Counters::default())
    }

    fn vf_counters(&self, _: u16) -> Result<PortCounters> {
        Ok(PortCounters::default())
    }

    fn drops(&self) -> Result<Vec<(Reason, u64)>> {
        Ok(Vec::new())
    }

    fn links(&self) -> Result<[bool; 2]> {
        Ok([true, true])
    }

    fn uplinks(&self) -> u8 {
        2
    }

    fn flows(&self) -> u32 {
        1024
    }

    fn adopted(&self) -> bool {
        self.adopted
    }

    fn alive(&self) -> bool {
        !self.state().dead
    }

    fn exceptions(&self) -> Option<Box<dyn PacketSource>> {
        Some(Box::new(self.exceptions.clone()))
    }

    fn events(&self) -> Option<Box<dyn EventSource>> {
        Some(Box::new(self.events.clone()))
    }

    fn vmq(&self, n: u16) -> Result<Box<dyn PacketSource>> {
        self.state().set_up.push(n);
        Ok(Box::new(self.vmqs[usize::from(n)].clone()))
    }

    fn offer(&self, vport: VportId, parts: [&[u8]; 2]) -> Result<bool> {
        let mut state = self.state();
        let limit = MAX_PAYLOAD as usize;
        let frame = parts.concat();
        if frame.len() > limit {
            return Err(Error::TooLong { len: frame.len(), limit });
        }
        if state.dead || state.room == 0 {
            return Ok(false);
        }
        state.room -= 1;
        state.offered.push((vport, frame));
        Ok(true)
    }

    fn offer_drops(&self, vport: VportId, reason: Reason, count: u32) -> Result<bool> {
        let mut state = self.state();
        if !state.dead {
            *state.counted.entry((vport.0, reason.as_str())).or_default() += u64::from(count);
        }
        Ok(!state.dead)
    }
}
