//! A worker set: the forwarders of all workers, which hand packets to each other, without threads.

use std::sync::Arc;

use culvert_flow::Port;
use culvert_offload::{Error, FdbEntry, FlowCommand, Result, UpcallQueue};

use crate::forwarder::{Forwarder, Parts};
use crate::handoff::handoffs;
use crate::notifier::Notifier;
use crate::placement::Placement;
use crate::pool::Pool;
use crate::port::Opener;
use crate::settings::SwitchSettings;
use crate::tables;
use crate::tickets::TicketRange;
use crate::upcall_queue::upcall_queue;

/// The forwarders of all workers.
pub struct WorkerSet {
    /// By worker.
    pub forwarders: Vec<Forwarder>,
    pub(super) placement: Placement,
    pub(super) notifiers: Vec<Arc<Notifier>>,
}

impl WorkerSet {
    /// Creates the workers without any ports, and the slow path's end of the upcall queue.
    ///
    /// # Errors
    /// Out of memory or file descriptors.
    ///
    /// # Panics
    /// The settings have no worker, or more than [`SwitchSettings::MAX_WORKERS`].
    pub fn new(settings: &SwitchSettings) -> Result<(Self, Box<dyn UpcallQueue>)> {
        let workers = settings.workers.len();
        assert!((1..=SwitchSettings::MAX_WORKERS).contains(&workers), "{workers} workers");
        let system = |what| move |source| Error::System { what, source };
        let pools = Pool::neighbours(workers, settings.buffers, settings.large_buffers)
            .map_err(system("packet buffers"))?;
        let packets = settings.buffers + settings.large_buffers;
        let tickets = TicketRange::split(workers, settings.sizes.pending);
        let notifiers: Vec<Arc<Notifier>> =
            (0..workers).map(|_| Notifier::new().map(Arc::new)).collect::<Result<_>>()?;
        let (upcalls, queue) = upcall_queue(workers)?;
        let mut forwarders = Vec::with_capacity(workers);
        let parts = pools.into_iter().zip(upcalls).zip(handoffs(&notifiers)).zip(tickets.iter().copied());
        for (((pool, upcalls), handoff), tickets) in parts {
            let mut sizes = settings.sizes;
            sizes.pending = tickets.count();
            let dp = tables::datapath(&sizes, packets, settings.secret).map_err(system("flow tables"))?;
            forwarders.push(Forwarder::new(Parts { dp, pool, upcalls, handoff, tickets }));
        }
        let placement = Placement::new(tickets);
        Ok((WorkerSet { forwarders, placement, notifiers }, Box::new(queue)))
    }

    /// Creates a single forwarder, whatever the settings say of workers.
    ///
    /// # Errors
    /// Out of memory or file descriptors.
    pub fn single(settings: &SwitchSettings) -> Result<(Forwarder, Box<dyn UpcallQueue>)> {
        let (mut set, queue) = Self::new(&SwitchSettings { workers: vec![None], ..settings.clone() })?;
        Ok((set.forwarders.remove(0), queue))
    }

    /// Attaches a port at one of the workers. Returns which.
    pub fn attach(&mut self, at: Port, open: Opener) -> usize {
        let worker = self.placement.place(at);
        self.publish_steering();
        for (n, f) in self.forwarders.iter_mut().enumerate() {
            if n != worker {
                f.set_remote(at, worker as u8);
            }
        }
        self.forwarders[worker].attach(at, open);
        worker
    }

    /// Replaces the forwarding database.
    pub fn set_fdb(&mut self, fdb: &[FdbEntry]) {
        self.placement.set_fdb(fdb);
        self.publish_steering();
    }

    fn publish_steering(&mut self) {
        for f in &mut self.forwarders {
            f.out.set_steering(self.placement.steering.clone());
        }
    }

    /// Executes commands, each at the workers that it concerns.
    pub fn execute(&mut self, commands: Vec<FlowCommand>) {
        for (commands, f) in self.placement.split(commands).into_iter().zip(&mut self.forwarders) {
            f.execute(commands);
        }
        self.drain();
    }

    /// Forwards until no packet is on its way between workers.
    pub fn drain(&mut self) {
        while self.forwarders.iter_mut().fold(false, |any, f| f.poll_handoff() | any) {}
        let mut waiting = true;
        while std::mem::take(&mut waiting) {
            self.forwarders.iter_mut().for_each(|f| f.out.pool.take_back());
            self.forwarders.iter_mut().for_each(|f| waiting |= !f.out.pool.publish_returns());
        }
    }
}
