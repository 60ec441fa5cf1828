//! The software switch between ports in memory: its tables filled with flows, and measured.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use culvert_flow::Port;
use culvert_offload::EventFd;
use culvert_offload::UpcallQueue;
use culvert_packet::VportId;
use culvert_switch::{BURST, Forwarder, Packet, Pool, Sent, SwitchPort, SwitchSettings, WorkerSet};

use crate::clock::{cycles, ran};
use crate::generator::{Generator, Order};
use crate::work::{self, Kind};

/// Buffers of 2 KiB.
pub const POOL: usize = 32_768;
/// Descriptors of each ring.
pub const RING: usize = 256;

/// Cost per packet, in the time in which the thread had a core.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Cycles of the time-stamp counter.
    pub cycles: f64,
    /// Nanoseconds.
    pub ns: f64,
    /// The fraction of the time in which the thread had a core: below 1 if others used it too.
    pub ran: f64,
}

/// A port in memory: sent packets stay in a ring until it is full, then their buffers are freed.
struct Ring {
    transmit: VecDeque<Packet>,
    never: EventFd,
}

impl Ring {
    fn new() -> std::io::Result<Self> {
        let never = EventFd::new().map_err(std::io::Error::other)?;
        Ok(Ring { transmit: VecDeque::with_capacity(2 * RING), never })
    }
}

impl SwitchPort for Ring {
    fn receive(&mut self, _: &mut Pool, _: &mut Vec<Packet>, _: usize) -> std::io::Result<()> {
        Ok(())
    }

    fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> std::io::Result<Sent> {
        let mut sent = Sent { packets: packets.len() as u64, ..Sent::default() };
        for packet in packets.drain(..) {
            sent.bytes += packet.bytes().len() as u64;
            self.transmit.push_back(packet);
        }
        while self.transmit.len() >= RING {
            self.transmit.drain(..BURST).for_each(|packet| pool.give(packet));
        }
        Ok(sent)
    }

    fn arm(&mut self) -> bool {
        true
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.never.as_fd()
    }
}

/// A switch with its tables and ports, and received packets that the generator has written.
pub struct MemSwitch {
    switch: Forwarder,
    _upcalls: Box<dyn UpcallQueue>,
    burst: Vec<Packet>,
    receive: VecDeque<Packet>,
    order: Order,
}

impl MemSwitch {
    /// Tables for up to `most` flows, for all cases.
    ///
    /// # Panics
    /// Out of memory.
    pub fn new(most: u32) -> Self {
        let settings = SwitchSettings {
            buffers: POOL,
            large_buffers: 0,
            ..SwitchSettings::new(Self::records(most), work::secret())
        };
        let (mut switch, upcalls) = WorkerSet::single(&settings).expect("memory for tables and packets");
        for at in [Port::Vport(VportId(0)), Port::Uplink(0)] {
            switch.attach(at, Box::new(|| Ok(Box::new(Ring::new()?))));
        }
        switch.now = 1;
        MemSwitch {
            switch,
            _upcalls: upcalls,
            burst: Vec::with_capacity(BURST),
            receive: VecDeque::with_capacity(RING),
            order: Order::default(),
        }
    }

    /// Size of a table for `flows` flows: two records for each, and spare ones.
    pub fn records(flows: u32) -> u32 {
        (flows * 3).next_power_of_two().max(1 << 10)
    }

    /// Clears the tables and installs these flows, both directions of each.
    ///
    /// # Panics
    /// The tables are too small.
    pub fn fill(&mut self, kind: Kind, flows: u32) {
        let dp = self.switch.datapath();
        dp.clear();
        dp.vports[0] = work::vport();
        dp.tunnels[0] = work::tunnel(kind.encap);
        let (local, peer) = work::addresses();
        dp.peers.set_local(0, local);
        dp.peers.set(peer);
        for cell in dp.map_cells.iter_mut() {
            *cell = 1;
        }
        for n in 0..flows {
            for decap in [false, true] {
                let mut record = work::record(Kind { decap, ..kind }, n);
                // Spread the flows over all mapping cells.
                (record.hot.map_cell, record.hot.gen_map) = (work::host(n) as u16, 1);
                dp.install(&record, 0).expect("there is room");
            }
        }
    }

    /// Runs `packets` packets of the flows from ring to ring; without `work`, the generator and the rings alone.
    ///
    /// # Panics
    /// The switch does not forward a packet.
    pub fn run(&mut self, generator: &Generator, flows: u32, packets: u32, work: bool) -> Cost {
        let input = work::input(generator.kind());
        let MemSwitch { switch, burst, receive, order, .. } = self;
        let finished = switch.datapath().counters.finished;
        let (start, begin, before) = (Instant::now(), cycles(), ran());
        let mut left = packets;
        while left > 0 {
            while receive.len() < RING {
                let mut packet = switch.pool().take().expect("the pool is larger than all rings");
                let n = order.next(flows);
                assert!(packet.set(0, generator.len()));
                packet.input = input;
                generator.write(n, packet.bytes_mut());
                receive.push_back(packet);
            }
            burst.extend(receive.drain(..BURST));
            if work {
                switch.burst(burst);
            } else {
                burst.drain(..).for_each(|packet| switch.pool().give(packet));
            }
            left = left.saturating_sub(BURST as u32);
        }
        let (spent, ns) = ((cycles() - begin) as f64, start.elapsed().as_nanos() as f64);
        let ran = ((ran() - before) as f64 / ns).min(1.0);
        receive.drain(..).for_each(|packet| switch.pool().give(packet));
        let done = switch.datapath().counters.finished - finished;
        assert!(!work || done >= u64::from(packets), "every packet is a hit");
        let per = ran / f64::from(packets);
        Cost { cycles: spent * per, ns: ns * per, ran }
    }
}
