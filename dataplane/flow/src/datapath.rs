//! The state of one data path, and the host's operations on it: install, delete, complete an upcall, restart.

use culvert_packet::{MacAddr, Reason, VportId};

use crate::pending::{Completion, Pending, Ticket};
use crate::port::Port;
use crate::record::{Direction, FlowCold, FlowHot, FlowKey, FlowRecord};
use crate::table::{FlowTable, RecordId};
use crate::tables::{Group, Peers, Tunnel, Vport};

/// Counters of the whole data path.
#[derive(Clone, Debug)]
pub struct Counters {
    /// Dropped packets by `Reason` number.
    pub drops: [u64; 256],
    /// Packets that the data path finished itself.
    pub finished: u64,
    /// Packets punted to the host.
    pub punted: u64,
    /// Records evicted because their buckets were full.
    pub evicted: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Counters { drops: [0; 256], finished: 0, punted: 0, evicted: 0 }
    }
}

/// One data path. The caller provides the tables' memory; nothing is allocated.
pub struct Datapath<'m> {
    /// The flow table.
    pub table: FlowTable<'m>,
    /// Pending flows: those that wait for the host's decision.
    pub pending: Pending<'m>,
    /// Tunnels.
    pub tunnels: &'m mut [Tunnel],
    /// Replication groups.
    pub groups: &'m mut [Group],
    /// Provider addresses.
    pub peers: Peers<'m>,
    /// Vports.
    pub vports: &'m mut [Vport],
    /// Generations of mappings.
    pub map_cells: &'m mut [u32],
    /// The distributed router's MAC.
    pub router_mac: MacAddr,
    /// Counters.
    pub counters: Counters,
    /// Drops of each vport by `Reason` number. May be shorter than the vports, or empty: then only the sums are known.
    pub vport_drops: &'m mut [DropsByReason],
}

/// Dropped packets by `Reason` number.
pub type DropsByReason = [u64; 256];

/// Why a record was not installed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused(pub Reason);

impl Datapath<'_> {
    /// The vport whose quota a record uses.
    fn owner(key: &FlowKey, hot: &FlowHot) -> Option<VportId> {
        match key.direction() {
            Some(Direction::Outbound) => Some(VportId(key.source)),
            Some(Direction::Inbound) => match hot.out() {
                Port::Vport(id) if hot.pending == 0 => Some(id),
                _ => None,
            },
            None => None,
        }
    }

    fn count_record(&mut self, owner: Option<VportId>, add: bool) {
        if let Some(vport) = owner.and_then(|id| self.vports.get_mut(usize::from(id.0))) {
            vport.records = if add { vport.records + 1 } else { vport.records.saturating_sub(1) };
        }
    }

    /// Whether a vport's quota allows one more record.
    fn within_quota(&self, owner: Option<VportId>) -> bool {
        owner.and_then(|id| self.vports.get(usize::from(id.0))).is_none_or(|v| v.records < v.quota)
    }

    /// Makes a record for a key. A vport over its quota only replaces a record of its own.
    fn place(
        &mut self,
        key: &FlowKey,
        hash: u64,
        owner: Option<VportId>,
        now: u32,
    ) -> Result<RecordId, Refused> {
        let within = self.within_quota(owner);
        let room =
            self.table.place(key, hash, now, |k, h| h.pending == 0 && (within || Self::owner(k, h) == owner));
        let Some(placed) = room else { return Err(Refused(Reason::TableFull)) };
        if let Some(gone) = placed.evicted {
            self.count_record(Self::owner(&gone.key, &gone.hot), false);
            self.counters.evicted += 1;
        } else if !within {
            self.table.remove(placed.id);
            return Err(Refused(Reason::VportQuota));
        }
        self.count_record(owner, true);
        Ok(placed.id)
    }

    /// Makes the pending record of a flow that has none; its first packet is on the way to the host.
    ///
    /// # Errors
    /// There is no room for it. The packet then goes to the host without a ticket, and the host installs no record for
    /// it. Order is kept: the flow's next packets take the same way.
    pub fn open(&mut self, key: &FlowKey, hash: u64, now: u32) -> Result<Ticket, Refused> {
        let owner = match key.direction() {
            Some(Direction::Outbound) => Some(VportId(key.source)),
            _ => None,
        };
        let id = self.place(key, hash, owner, now)?;
        self.table.hot_mut(id).out = Port::None.bits();
        match self.pending.open(id) {
            Some(ticket) => {
                self.table.hot_mut(id).pending = ticket.slot + 1;
                Ok(ticket)
            }
            None => {
                self.remove(id);
                Err(Refused(Reason::PendingFull))
            }
        }
    }

    /// Makes a live record pending again, because it is stale.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn reopen(&mut self, id: RecordId) -> Result<Ticket, Refused> {
        let ticket = self.pending.open(id).ok_or(Refused(Reason::PendingFull))?;
        let owner = Self::owner(self.table.key(id), self.table.hot(id));
        self.table.hot_mut(id).pending = ticket.slot + 1;
        if self.table.key(id).direction() == Some(Direction::Inbound) {
            // An inbound record counts against its vport only while it is live.
            self.count_record(owner, false);
        }
        Ok(ticket)
    }

    /// Prefetches the buckets and records of keys, at most 64, that are installed next.
    pub fn prefetch_install<'k>(&self, keys: impl Iterator<Item = &'k FlowKey>) {
        let (mut hashes, mut n) = ([0; 64], 0);
        for (hash, key) in hashes.iter_mut().zip(keys) {
            *hash = self.table.hash(key);
            self.table.prefetch_bucket(*hash);
            n += 1;
        }
        hashes[..n].iter().for_each(|hash| self.table.prefetch_place(*hash));
    }

    /// Inserts a record, or gives an existing one new actions and keeps its counters. Decides a pending one.
    ///
    /// # Errors
    /// There is no room, or the key has no direction.
    pub fn install(&mut self, record: &FlowRecord, now: u32) -> Result<RecordId, Refused> {
        if record.key.direction().is_none() {
            return Err(Refused(Reason::BadDescriptor));
        }
        let hash = self.table.hash(&record.key);
        let fresh = FlowHot { pending: 0, last_used: now, ..record.hot };
        let id = match self.table.find(&record.key, hash) {
            Some(id) => {
                let old = *self.table.hot(id);
                let live = old.pending == 0;
                let before = Self::owner(&record.key, &old);
                *self.table.hot_mut(id) =
                    FlowHot { pending: old.pending, packets: old.packets, bytes: old.bytes, ..fresh };
                if live {
                    self.count_record(before, false);
                    self.count_record(Self::owner(&record.key, &fresh), true);
                } else {
                    self.pending.decide(old.pending - 1);
                }
                id
            }
            None => {
                let id = self.place(&record.key, hash, Self::owner(&record.key, &fresh), now)?;
                *self.table.hot_mut(id) = fresh;
                id
            }
        };
        let cold = self.table.cold_mut(id);
        *cold = FlowCold { incarnation: cold.incarnation, created: cold.created, ..record.cold };
        Ok(id)
    }

    /// Deletes the record of a key. A pending record stays until its last upcall completes.
    pub fn delete(&mut self, key: &FlowKey) -> bool {
        let hash = self.table.hash(key);
        match self.table.find(key, hash) {
            Some(id) if self.table.hot(id).pending == 0 => {
                self.remove(id);
                true
            }
            _ => false,
        }
    }

    /// Deletes all records that are not pending.
    pub fn clear(&mut self) {
        for i in 0..self.table.capacity() {
            let id = RecordId(i);
            if self.table.is_used(id) && self.table.hot(id).pending == 0 {
                self.remove(id);
            }
        }
    }

    fn remove(&mut self, id: RecordId) {
        let owner = Self::owner(self.table.key(id), self.table.hot(id));
        self.table.remove(id);
        self.count_record(owner, false);
    }

    /// `count` packets of a pending flow have come back from the host. On [`Completion::Live`] the caller sends the
    /// waiting packets and then calls [`go_live`](Self::go_live).
    pub fn complete_upcall(&mut self, ticket: Ticket, count: u32) -> Completion {
        let completion = self.pending.complete_upcall(ticket, count);
        if let Completion::Undecided(id) = completion {
            self.pending.close(ticket.slot);
            self.remove(id);
        }
        completion
    }

    /// Makes a decided record live, after its waiting packets have been sent.
    pub fn go_live(&mut self, ticket: Ticket, id: RecordId) {
        self.pending.close(ticket.slot);
        self.table.hot_mut(id).pending = 0;
        if self.table.key(id).direction() == Some(Direction::Inbound) {
            let owner = Self::owner(self.table.key(id), self.table.hot(id));
            self.count_record(owner, true);
        }
    }

    /// Ends all pending flows after a restart of the host, and counts their packets as lost. Calls `waiting` for each
    /// buffer in a waiting list, whose packet is lost, too.
    pub fn host_restarted(&mut self, mut waiting: impl FnMut(crate::pending::BufferId)) {
        let mut from = 0;
        while let Some((slot, id, outstanding)) = self.pending.used_from(from) {
            let mut lost = u64::from(outstanding);
            while let Some(buffer) = self.pending.next_waiting(slot) {
                waiting(buffer);
                lost += 1;
            }
            self.counters.drops[Reason::HostRestart as usize] += lost;
            self.pending.close(slot);
            self.remove(id);
            from = slot + 1;
        }
    }

    /// Counts a dropped packet.
    pub fn count_drop(&mut self, reason: Reason, input: Port) {
        self.count_drops(reason, input, 1);
    }

    /// Counts dropped packets, for the vport that is charged for them.
    pub fn count_drops(&mut self, reason: Reason, charged: Port, count: u64) {
        self.counters.drops[reason as usize] += count;
        let Port::Vport(VportId(id)) = charged else { return };
        if let Some(vport) = self.vports.get_mut(usize::from(id)) {
            vport.drops += count;
        }
        if let Some(drops) = self.vport_drops.get_mut(usize::from(id)) {
            drops[reason as usize] += count;
        }
    }
}
