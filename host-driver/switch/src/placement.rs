//! Placement: which worker serves which port, and which worker a flow command is for.

use culvert_flow::pending::Ticket;
use culvert_flow::{FlowKey, Port};
use culvert_offload::{FdbEntry, FlowCommand, ReinjectMeta};
use culvert_packet::VportId;

use crate::steering::SteeringTable;
use crate::tickets::TicketRange;

/// The control side of steering.
pub(super) struct Placement {
    pub(super) steering: SteeringTable,
    /// How many attached vports each worker serves.
    load: Vec<u32>,
    /// The worker of each attached vport.
    attached: Vec<Option<u8>>,
    /// By worker.
    tickets: Vec<TicketRange>,
}

impl Placement {
    /// For workers with these tickets.
    pub(super) fn new(tickets: Vec<TicketRange>) -> Self {
        Placement {
            steering: SteeringTable::default(),
            load: vec![0; tickets.len()],
            attached: vec![None; usize::from(Port::MAX_VPORTS)],
            tickets,
        }
    }

    /// Chooses the worker for a port that is about to be attached: for a vport the one with the fewest.
    pub(super) fn place(&mut self, at: Port) -> usize {
        match at {
            Port::Vport(id) => {
                self.remove(at);
                let least = (0..self.load.len()).min_by_key(|n| self.load[*n]).unwrap_or(0);
                if let Some(worker) = self.attached.get_mut(usize::from(id.0)) {
                    *worker = Some(least as u8);
                    self.load[least] += 1;
                }
                self.steering = std::mem::take(&mut self.steering).with(id, least as u8);
                least
            }
            Port::Uplink(n) => usize::from(n) % self.load.len(),
            Port::Host | Port::None => 0,
        }
    }

    /// Notes that a port is detached.
    pub(super) fn remove(&mut self, at: Port) {
        if let Port::Vport(id) = at
            && let Some(worker) = self.attached.get_mut(usize::from(id.0)).and_then(Option::take)
        {
            self.load[usize::from(worker)] -= 1;
        }
    }

    /// The worker that serves a vport's port.
    pub(super) fn worker_of(&self, vport: VportId) -> Option<usize> {
        self.attached.get(usize::from(vport.0)).copied().flatten().map(usize::from)
    }

    /// Replaces the forwarding database.
    pub(super) fn set_fdb(&mut self, fdb: &[FdbEntry]) {
        self.steering = std::mem::take(&mut self.steering).with_fdb(fdb);
    }

    /// The commands for each worker, in order.
    pub(super) fn split(&self, commands: Vec<FlowCommand>) -> Vec<Vec<FlowCommand>> {
        let mut all: Vec<Vec<FlowCommand>> = self.load.iter().map(|_| Vec::new()).collect();
        if let [only] = all.as_mut_slice() {
            *only = commands;
            return all;
        }
        for command in commands {
            let worker = match command {
                FlowCommand::Insert(records) => {
                    for (n, records) in self.by_worker(records, |record| &record.key) {
                        all[n].push(FlowCommand::Insert(records));
                    }
                    continue;
                }
                // A vport that another worker served before has left records there.
                FlowCommand::Delete(_) | FlowCommand::SetTunnel(..) => {
                    all.iter_mut().for_each(|of| of.push(command.clone()));
                    continue;
                }
                FlowCommand::Reinject(ref meta, ref frame, _) => self.of_reinjected(meta, Port::None, frame),
                FlowCommand::PacketOut(ref meta, to, ref frame) => self.of_reinjected(meta, to, frame),
                FlowCommand::Dropped(ref meta, _) => self.of_reinjected(meta, Port::None, &[]),
            };
            all[worker].push(command);
        }
        all
    }

    /// Groups items by the worker that holds the record of their key. Workers without items are left out.
    pub(super) fn by_worker<T>(&self, items: Vec<T>, key: impl Fn(&T) -> &FlowKey) -> Vec<(usize, Vec<T>)> {
        let mut all: Vec<(usize, Vec<T>)> = (0..self.load.len()).map(|n| (n, Vec::new())).collect();
        for item in items {
            let worker = usize::from(self.steering.of_key(key(&item)));
            all[worker].1.push(item);
        }
        all.retain(|(_, items)| !items.is_empty());
        all
    }

    /// The worker that a packet goes back to: the one that it came from, so that a flow's packets stay in order.
    fn of_reinjected(&self, meta: &ReinjectMeta, to: Port, frame: &[u8]) -> usize {
        if let Some(ticket) = meta.ticket {
            return self.of_ticket(ticket);
        }
        usize::from(match (meta.input, to) {
            (Port::Vport(id), _) | (_, Port::Vport(id)) => self.steering.of_vport(id),
            _ => self.steering.of_frame(frame).0,
        })
    }

    /// The worker that gave a ticket out. A ticket that nobody gave out goes to worker 0, which refuses it.
    fn of_ticket(&self, ticket: Ticket) -> usize {
        self.tickets.iter().position(|range| range.contains(ticket)).unwrap_or(0)
    }
}
