//! A fake NIC: it records its commands, and delivers the upcalls, frames and events that a test pushes.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use culvert_flow::tables::{Peer, Tunnel, Vport};
use culvert_flow::{FlowKey, FlowRecord};
use culvert_offload::{
    Capabilities, DeviceInfo, Error, Event, EventFd, EventQueue, FlowCommand, FlowTables, Generation,
    NicCounters, PacketIo, PortCounters, Result, RxQueue, Scan, TableWrite, Upcall, UpcallMeta, UpcallQueue,
    VmqFilter, VmqFrame, VmqQueue,
};
use culvert_packet::{MacAddr, Reason, VportId};

/// Longest frame that the NIC accepts.
pub(crate) const MAX_FRAME: usize = 1918;

/// Tables of the fake NIC, and what it was called for.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) commands: Vec<FlowCommand>,
    pub(crate) generations: BTreeMap<Generation, u32>,
    pub(crate) vports: Vec<Vport>,
    pub(crate) tunnels: BTreeMap<u16, Tunnel>,
    pub(crate) locals: Vec<Peer>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) filters: Vec<VmqFilter>,
    pub(crate) records: Vec<FlowRecord>,
    pub(crate) starts: usize,
    /// Names of calls, in order.
    pub(crate) calls: Vec<&'static str>,
    /// Frames of VMs that were enqueued.
    pub(crate) enqueued: Vec<(VportId, Vec<u8>)>,
    /// How many more frames of VMs it accepts.
    pub(crate) room: usize,
    /// Drops at the host that were reported.
    pub(crate) counted: BTreeMap<(u16, &'static str), u64>,
    pub(crate) dead: bool,
    /// VMQs that were opened.
    pub(crate) opened: Vec<u16>,
}

/// The fake NIC. Clones share its state.
#[derive(Clone)]
pub(crate) struct FakeNic {
    state: Arc<Mutex<State>>,
    upcalls: FakeQueue<Upcall>,
    events: FakeEvents,
    vmqs: [FakeQueue<Vec<u8>>; 2],
    adopted: bool,
}

struct FakeQueue<T> {
    queue: Arc<Mutex<VecDeque<T>>>,
    interrupt: EventFd,
    /// Whether the next access reports that the queue has stopped.
    stopped: Arc<AtomicBool>,
}

impl<T> Clone for FakeQueue<T> {
    fn clone(&self) -> Self {
        let FakeQueue { queue, interrupt, stopped } = self;
        FakeQueue { queue: queue.clone(), interrupt: interrupt.clone(), stopped: stopped.clone() }
    }
}

#[derive(Clone)]
struct FakeEvents {
    queue: Arc<Mutex<VecDeque<Event>>>,
    interrupt: EventFd,
}

impl<T> FakeQueue<T> {
    fn new() -> Self {
        FakeQueue {
            queue: Arc::default(),
            interrupt: EventFd::new().expect("eventfd"),
            stopped: Arc::default(),
        }
    }

    fn push(&self, item: T) {
        self.queue.lock().expect("queue").push_back(item);
        self.interrupt.signal().expect("eventfd");
    }

    fn next(&self) -> Result<Option<T>> {
        if self.stopped.swap(false, SeqCst) {
            return Err(Error::Driver("fake: queue 4 has stopped".into()));
        }
        Ok(self.queue.lock().expect("queue").pop_front())
    }
}

impl<T: Send> RxQueue for FakeQueue<T> {
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

impl UpcallQueue for FakeQueue<Upcall> {
    fn pop(&mut self) -> Result<Option<Upcall>> {
        self.next()
    }
}

impl VmqQueue for FakeQueue<Vec<u8>> {
    fn pop(&mut self, buffer: &mut [u8]) -> Result<Option<VmqFrame>> {
        let Some(frame) = self.next()? else { return Ok(None) };
        let n = frame.len().min(buffer.len());
        buffer[..n].copy_from_slice(&frame[..n]);
        Ok(Some(VmqFrame { len: frame.len(), complete: n == frame.len() }))
    }
}

impl EventQueue for FakeEvents {
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
            upcalls: FakeQueue::new(),
            events: FakeEvents { queue: Arc::default(), interrupt: EventFd::new().expect("eventfd") },
            vmqs: [FakeQueue::new(), FakeQueue::new()],
            adopted,
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("state")
    }

    pub(crate) fn punt(&self, meta: UpcallMeta, frame: &[u8]) {
        self.upcalls.push(Upcall::parse(meta, frame.to_vec()));
    }

    /// Steers a frame into a VMQ.
    pub(crate) fn vmq_frame(&self, n: usize, frame: &[u8]) {
        self.vmqs[n].push(frame.to_vec());
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

    /// Waits until `wanted` finds something in the NIC's state.
    pub(crate) fn wait<T>(&self, what: &str, mut wanted: impl FnMut(&State) -> Option<T>) -> T {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            if let Some(found) = wanted(&self.state()) {
                return found;
            }
            assert!(Instant::now() < end, "{what}: {:?}", self.state().commands);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn call(&self, name: &'static str) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.calls.push(name);
        state
    }
}

impl FlowTables for FakeNic {
    fn execute(&self, commands: Vec<FlowCommand>) -> Result<()> {
        let mut state = self.call("execute");
        for command in &commands {
            match command {
                FlowCommand::SetTunnel(index, tunnel) => {
                    state.tunnels.insert(*index, **tunnel);
                }
                FlowCommand::Insert(records) => state.records.extend(records),
                FlowCommand::Delete(keys) => state.records.retain(|r| !keys.contains(&r.key)),
                FlowCommand::Reinject(..) | FlowCommand::PacketOut(..) | FlowCommand::Dropped(..) => {}
            }
        }
        state.commands.extend(commands);
        Ok(())
    }

    fn write(&self, write: TableWrite<'_>) -> Result<()> {
        if self.state().dead {
            return Err(Error::NotRunning { device: "fake".into() });
        }
        match write {
            TableWrite::RouterMac(_) => drop(self.call("router_mac")),
            TableWrite::LocalAddresses(addresses) => self.call("local").locals = addresses.to_vec(),
            TableWrite::Peers(peers) => self.call("peers").peers = peers.to_vec(),
            TableWrite::Tunnels(tunnels) => self.call("tunnels").tunnels.extend(tunnels.iter().copied()),
            TableWrite::Groups(_) => drop(self.call("groups")),
            TableWrite::Vports(vports) => {
                let mut state = self.call("vports");
                for (n, vport) in vports {
                    state.vports[usize::from(*n)] = *vport;
                }
            }
            TableWrite::Fdb(_) => {}
            TableWrite::VmqFilters(filters) => self.call("vmq_filters").filters = filters.to_vec(),
            TableWrite::Generations(writes) => {
                self.call("generations").generations.extend(writes.iter().map(|w| (w.of, w.value)));
            }
            TableWrite::Vf(..) => drop(self.call("vf")),
        }
        Ok(())
    }

    fn insert(&self, records: &[FlowRecord]) -> Result<()> {
        self.call("insert").records.extend_from_slice(records);
        Ok(())
    }

    fn find(&self, keys: &[FlowKey]) -> Result<Vec<FlowRecord>> {
        Ok(self.state().records.iter().filter(|r| keys.contains(&r.key)).copied().collect())
    }

    fn visit(&self, scan: Scan, each: &mut dyn FnMut(&FlowRecord, u32) -> ControlFlow<()>) -> Result<()> {
        if scan == Scan::All {
            // Broken off or at the end: all the same.
            let _ = self.state().records.iter().try_for_each(|record| each(record, 0));
        }
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
}

impl PacketIo for FakeNic {
    fn upcalls(&self) -> Option<Box<dyn UpcallQueue>> {
        Some(Box::new(self.upcalls.clone()))
    }

    fn vmq(&self, n: u16) -> Result<Box<dyn VmqQueue>> {
        self.state().opened.push(n);
        Ok(Box::new(self.vmqs[usize::from(n)].clone()))
    }

    fn enqueue(&self, vport: VportId, parts: [&[u8]; 2]) -> Result<bool> {
        let mut state = self.state();
        let frame = parts.concat();
        if frame.len() > MAX_FRAME {
            return Err(Error::TooLong { len: frame.len(), limit: MAX_FRAME });
        }
        if state.dead || state.room == 0 {
            return Ok(false);
        }
        state.room -= 1;
        state.enqueued.push((vport, frame));
        Ok(true)
    }

    fn enqueue_drops(&self, vport: VportId, reason: Reason, count: u32) -> Result<bool> {
        let mut state = self.state();
        if !state.dead {
            *state.counted.entry((vport.0, reason.as_str())).or_default() += u64::from(count);
        }
        Ok(!state.dead)
    }
}

impl DeviceInfo for FakeNic {
    fn capabilities(&self) -> Capabilities {
        Capabilities { uplinks: 2, flow_records: 1024, flow_records_per_vport: 256, is_volatile: true }
    }

    fn is_adopted(&self) -> bool {
        self.adopted
    }

    fn is_alive(&self) -> bool {
        !self.state().dead
    }

    fn router_mac(&self) -> MacAddr {
        MacAddr::ZERO
    }

    fn events(&self) -> Option<Box<dyn EventQueue>> {
        Some(Box::new(self.events.clone()))
    }

    fn links(&self) -> Result<[bool; 2]> {
        Ok([true, true])
    }

    fn vports(&self) -> Result<Vec<Vport>> {
        Ok(self.state().vports.clone())
    }

    fn counters(&self) -> Result<NicCounters> {
        Ok(NicCounters::default())
    }

    fn vf_counters(&self, _: u16) -> Result<PortCounters> {
        Ok(PortCounters::default())
    }

    fn drops(&self) -> Result<Vec<(Reason, u64)>> {
        Ok(Vec::new())
    }
}
