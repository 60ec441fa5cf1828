//! Workers together: who does what, and which of them does what the slow path wants done.

use std::sync::Arc;

use culvert_abi::FlowKey;
use culvert_flow::Port;
use culvert_flow::pending::Ticket;
use culvert_packet::VportId;
use culvert_pf::{Error, Result, Return};

use super::bell::Bell;
use super::crossing::crossings;
use super::exceptions::queue;
use super::forwarder::Forwarder;
use super::homes::Homes;
use super::packet::Pool;
use super::settings::SwitchSettings;
use super::slot::Opener;
use super::tables;
use crate::target::{PacketSource, Station, Step};

/// Slots of pending flows that tickets can tell apart.
const TICKETS: u32 = 1 << 16;

/// A switch without threads: what each of its workers has.
pub struct Team {
    /// The workers' parts.
    pub forwarders: Vec<Forwarder>,
    pub(super) placement: Placement,
    pub(super) bells: Vec<Arc<Bell>>,
}

impl Team {
    /// Without any ports, and the slow path's end of the queue of exceptions.
    ///
    /// # Errors
    /// There is not so much memory, or no descriptor to be had.
    ///
    /// # Panics
    /// There are no workers, or more than [`SwitchSettings::MAX_WORKERS`].
    pub fn new(settings: &SwitchSettings) -> Result<(Self, Box<dyn PacketSource>)> {
        let workers = settings.workers.len();
        assert!((1..=SwitchSettings::MAX_WORKERS).contains(&workers), "{workers} workers");
        let system = |what| move |source| Error::System { what, source };
        let pools = Pool::neighbours(workers, settings.buffers, settings.large_buffers)
            .map_err(system("packet buffers"))?;
        let packets = workers * (settings.buffers + settings.large_buffers);
        let mut sizes = settings.sizes;
        sizes.pending = sizes.pending.min(TICKETS / workers as u32);
        let bells: Vec<Arc<Bell>> = (0..workers).map(|_| Bell::new().map(Arc::new)).collect::<Result<_>>()?;
        let (first, source) = queue()?;
        let mut exceptions = vec![first];
        exceptions.extend((1..workers).map(|_| exceptions[0].sibling()).collect::<Vec<_>>());
        let mut forwarders = Vec::with_capacity(workers);
        for (n, ((pool, exceptions), crossing)) in
            pools.into_iter().zip(exceptions).zip(crossings(&bells)).enumerate()
        {
            let dp = tables::datapath(&sizes, packets, settings.secret).map_err(system("flow tables"))?;
            let first_ticket = (n as u32 * sizes.pending) as u16;
            forwarders.push(Forwarder::of(dp, pool, exceptions, crossing, first_ticket, packets));
        }
        let placement = Placement::new(workers, sizes.pending);
        Ok((Team { forwarders, placement, bells }, Box::new(source)))
    }

    /// Attaches a port at one of the workers. Says at which.
    pub fn attach(&mut self, at: Port, open: Opener) -> usize {
        let home = self.placement.place(at);
        self.tell_homes();
        for (n, f) in self.forwarders.iter_mut().enumerate() {
            if n != home {
                f.lead(at, home as u8);
            }
        }
        self.forwarders[home].attach(at, open);
        home
    }

    /// Says which frames from the wire are whose.
    pub fn set_stations(&mut self, stations: &[Station]) {
        self.placement.set_stations(stations);
        self.tell_homes();
    }

    fn tell_homes(&mut self) {
        for f in &mut self.forwarders {
            f.set_homes(self.placement.homes.clone());
        }
    }

    /// Carries steps out, each at the worker that it concerns.
    pub fn carry_out(&mut self, steps: Vec<Step>) {
        for (steps, f) in self.placement.split(steps).into_iter().zip(&mut self.forwarders) {
            f.carry_out(steps);
        }
        self.settle();
    }

    /// Goes on until no packet is under way between workers.
    pub fn settle(&mut self) {
        while self.forwarders.iter_mut().fold(false, |any, f| f.take_passed() | any) {}
        self.forwarders.iter_mut().for_each(|f| f.pool.take_back());
    }
}

/// Who does what.
pub(super) struct Placement {
    pub(super) homes: Homes,
    /// Vports that each worker has, of those that are attached.
    load: Vec<u32>,
    attached: Vec<Option<u8>>,
    /// Slots of pending flows that each worker has.
    tickets: u16,
}

impl Placement {
    fn new(workers: usize, pending: u32) -> Self {
        Placement {
            homes: Homes::default(),
            load: vec![0; workers],
            attached: vec![None; usize::from(Port::MAX_VPORTS)],
            tickets: pending.clamp(1, TICKETS - 1) as u16,
        }
    }

    /// A worker for a port that is about to be attached: for a vport the one with the fewest.
    pub(super) fn place(&mut self, at: Port) -> usize {
        match at {
            Port::Vport(id) => {
                self.leave(at);
                let least = (0..self.load.len()).min_by_key(|n| self.load[*n]).unwrap_or(0);
                if let Some(place) = self.attached.get_mut(usize::from(id.0)) {
                    *place = Some(least as u8);
                    self.load[least] += 1;
                }
                self.homes = std::mem::take(&mut self.homes).with(id, least as u8);
                least
            }
            Port::Uplink(n) => usize::from(n) % self.load.len(),
            Port::Host | Port::None => 0,
        }
    }

    /// A port is detached.
    pub(super) fn leave(&mut self, at: Port) {
        if let Port::Vport(id) = at
            && let Some(worker) = self.attached.get_mut(usize::from(id.0)).and_then(Option::take)
        {
            self.load[usize::from(worker)] -= 1;
        }
    }

    /// The worker that a vport's port is at.
    pub(super) fn worker_of(&self, vport: VportId) -> Option<usize> {
        self.attached.get(usize::from(vport.0)).copied().flatten().map(usize::from)
    }

    pub(super) fn set_stations(&mut self, stations: &[Station]) {
        self.homes = std::mem::take(&mut self.homes).with_stations(stations);
    }

    /// What each worker is to do of these steps, in order.
    pub(super) fn split(&self, steps: Vec<Step>) -> Vec<Vec<Step>> {
        let mut all: Vec<Vec<Step>> = self.load.iter().map(|_| Vec::new()).collect();
        if let [only] = all.as_mut_slice() {
            *only = steps;
            return all;
        }
        for step in steps {
            match step {
                Step::Insert(records) => {
                    for (n, records) in self.by_home(records, |record| &record.key) {
                        all[n].push(Step::Insert(records));
                    }
                }
                // A vport that was elsewhere before has left records there.
                Step::Delete(_) | Step::Tunnel(..) => all.iter_mut().for_each(|of| of.push(step.clone())),
                Step::Lookup(ref back, ref frame) => all[self.of_return(back, Port::None, frame)].push(step),
                Step::Out(ref back, to, ref frame) => all[self.of_return(back, to, frame)].push(step),
                Step::Dropped(ref back, _) => all[self.of_return(back, Port::None, &[])].push(step),
            }
        }
        all
    }

    /// Items by the worker that has the record of their key; those without any are left out.
    pub(super) fn by_home<T>(&self, items: Vec<T>, key: impl Fn(&T) -> &FlowKey) -> Vec<(usize, Vec<T>)> {
        let mut all: Vec<(usize, Vec<T>)> = (0..self.load.len()).map(|n| (n, Vec::new())).collect();
        for item in items {
            let home = usize::from(self.homes.of_key(key(&item)));
            all[home].1.push(item);
        }
        all.retain(|(_, items)| !items.is_empty());
        all
    }

    /// The worker that a packet came from, to which it goes back: so packets of a flow stay in order.
    fn of_return(&self, back: &Return, to: Port, frame: &[u8]) -> usize {
        if let Some(ticket) = back.ticket.and_then(|bits| Ticket::from_bits(bits.get())) {
            return usize::from(ticket.slot / self.tickets).min(self.load.len() - 1);
        }
        let home = match (back.input, to) {
            (Port::Vport(id), _) | (_, Port::Vport(id)) => self.homes.of_vport(id),
            _ => self.homes.of_frame(frame).0,
        };
        usize::from(home)
    }
}
