//! Commands of the host: write tables and read them back.

use culvert_abi::command::{CellWrite, Op, TunnelCounters, VmqFilter};
use culvert_abi::soc::{Descriptor, NO_BUFFER, RELEASE};
use culvert_abi::{FlowKey, FlowRecord, Peer, Tunnel, Vport};
use culvert_flow::datapath::Refused;
use culvert_flow::{Port, RecordId};
use culvert_packet::Reason;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::bus::Bus;
use crate::firmware::{FILTERS, Firmware};
use crate::payload::{Reply, count, item};

/// What a completion says: reason of a failure, bytes of reply, `arg0`.
type Done = Result<(u16, u32), Reason>;

impl Firmware<'_> {
    #[cold]
    pub(crate) fn command(&mut self, bus: &mut impl Bus, op: Op, d: &Descriptor) {
        let done = match op {
            Op::FlowInsert => self.flow_insert(bus, d),
            Op::FlowDelete => self.flow_delete(bus, d),
            Op::FlowRead => self.flow_read(bus, d, None),
            Op::FlowIdle => self.flow_read(bus, d, Some(d.arg1 as u32)),
            Op::FlowGet => self.flow_get(bus, d),
            Op::FlowClear => {
                self.datapath.clear();
                Ok((0, 0))
            }
            Op::TunnelSet => self.tunnel_set(bus, d),
            Op::GroupSet => set(bus, d, self.datapath.groups),
            Op::PeersSet => self.peers_set(bus, d),
            Op::LocalSet => self.local_set(bus, d),
            Op::VportSet => self.vport_set(bus, d),
            Op::VportRead => self.vport_read(bus, d),
            Op::CellsSet => self.cells_set(bus, d),
            Op::VmqFilters => self.vmq_filters(bus, d),
            Op::DropsRead => self.drops_read(bus, d),
            Op::TunnelRead => self.tunnel_read(bus, d),
            Op::HostRestart => {
                self.host_restart(bus);
                Ok((0, 0))
            }
            Op::Fence => Ok((0, 0)),
            _ => Err(Reason::BadDescriptor),
        };
        match done {
            Ok((len, arg0)) => Self::complete(bus, d, None, len, arg0),
            Err(reason) => Self::complete(bus, d, Some(reason), 0, 0),
        }
    }

    /// `arg0` of the answer: how many were installed. The first refusal ends the batch.
    fn flow_insert(&mut self, bus: &mut impl Bus, d: &Descriptor) -> Done {
        let n = count::<FlowRecord>(d).ok_or(Reason::BadDescriptor)?;
        let mut refused = None;
        let mut installed = 0;
        for i in 0..n {
            let record: FlowRecord = item(bus, d, i).ok_or(Reason::BadDescriptor)?;
            match self.datapath.install(&record, d.now) {
                Ok(_) => installed += 1,
                Err(Refused(reason)) => refused = refused.or(Some(reason)),
            }
        }
        refused.map_or(Ok((0, installed)), Err)
    }

    fn flow_delete(&mut self, bus: &mut impl Bus, d: &Descriptor) -> Done {
        let n = count::<FlowKey>(d).ok_or(Reason::BadDescriptor)?;
        let mut deleted = 0;
        for i in 0..n {
            let key: FlowKey = item(bus, d, i).ok_or(Reason::BadDescriptor)?;
            deleted += u32::from(self.datapath.delete(&key));
        }
        Ok((0, deleted))
    }

    fn flow_read(&mut self, bus: &mut impl Bus, d: &Descriptor, idle: Option<u32>) -> Done {
        let mut reply = Reply::new(d);
        let mut at = d.arg0;
        // Bounded, so that packets do not wait behind one command.
        let end = at.saturating_add(1 << 12).min(self.datapath.table.capacity());
        while at < end {
            let record = self.datapath.table.record(RecordId(at)).filter(|r| {
                idle.is_none_or(|ms| r.hot.pending == 0 && d.now.wrapping_sub(r.hot.last_used) >= ms)
            });
            if let Some(record) = record
                && !reply.push(bus, &record)
            {
                break;
            }
            at += 1;
        }
        Ok((reply.len(), if at >= self.datapath.table.capacity() { u32::MAX } else { at }))
    }

    fn flow_get(&mut self, bus: &mut impl Bus, d: &Descriptor) -> Done {
        // The reply overwrites the keys, so they are read first; a buffer holds at most 30 of them.
        let mut ids = [RecordId(0); 32];
        let mut found = 0;
        for i in 0..count::<FlowKey>(d).ok_or(Reason::BadDescriptor)?.min(ids.len()) {
            let key: FlowKey = item(bus, d, i).ok_or(Reason::BadDescriptor)?;
            let hash = self.datapath.table.hash(&key);
            if let Some(id) = self.datapath.table.find(&key, hash) {
                ids[found] = id;
                found += 1;
            }
        }
        let mut reply = Reply::new(d);
        for &id in &ids[..found] {
            let Some(record) = self.datapath.table.record(id) else { continue };
            if !reply.push(bus, &record) {
                break;
            }
        }
        Ok((reply.len(), found as u32))
    }

    fn tunnel_set(&mut self, bus: &mut impl Bus, d: &Descriptor) -> Done {
        let new: Tunnel = item(bus, d, 0).ok_or(Reason::BadDescriptor)?;
        let slot = self.datapath.tunnels.get_mut(d.arg0 as usize).ok_or(Reason::BadDescriptor)?;
        slot.rewrite(&new);
        Ok((0, 0))
    }

    fn peers_set(&mut self, bus: &mut impl Bus, d: &Descriptor) -> Done {
        let n = count::<Peer>(d).ok_or(Reason::BadDescriptor)?;
        if d.arg0 == 1 {
            self.datapath.peers.clear();
        }
        for i in 0..n {
            let peer: Peer = item(bus, d, i).ok_or(Reason::BadDescriptor)?;
            if !self.datapath.peers.set(peer) {
                return Err(Reason::TableFull);
            }
        }
        Ok((0, 0))
    }

    fn local_set(&mut self, bus: &mut impl Bus, d: &Descriptor) -> Done {
        for n in 0..4 {
            let local = item(bus, d, n).unwrap_or_default();
            self.datapath.peers.set_local(n, local);
        }
        Ok((0, 0))
    }

    fn vport_set(&mut self, bus: &mut impl Bus, d: &Descriptor) -> Done {
        let new: Vport = item(bus, d, 0).ok_or(Reason::BadDescriptor)?;
        let slot = self.datapath.vports.get_mut(d.arg0 as usize).ok_or(Reason::BadDescriptor)?;
        let limit = if new.target == Vport::VF { self.vf_vport.len() } else { FILTERS };
        if usize::from(new.number) >= limit {
            return Err(Reason::BadDescriptor);
        }
        slot.rewrite(&new);
        let id = d.arg0 as u16;
        for vport in self.vf_vport.iter_mut().filter(|v| **v == id) {
            *vport = Port::None.bits();
        }
        if new.flags & Vport::PRESENT != 0 && new.target == Vport::VF {
            self.vf_vport[usize::from(new.number)] = id;
        }
        Ok((0, 0))
    }

    fn vport_read(&mut self, bus: &mut impl Bus, d: &Descriptor) -> Done {
        read(bus, d, self.datapath.vports.len(), |i| self.datapath.vports[i])
    }

    fn tunnel_read(&mut self, bus: &mut impl Bus, d: &Descriptor) -> Done {
        read(bus, d, self.datapath.tunnels.len(), |i| {
            let tunnel = &self.datapath.tunnels[i];
            TunnelCounters { packets: tunnel.packets, bytes: tunnel.bytes }
        })
    }

    fn drops_read(&mut self, bus: &mut impl Bus, d: &Descriptor) -> Done {
        read(bus, d, self.datapath.counters.drops.len(), |i| self.datapath.counters.drops[i])
    }

    fn cells_set(&mut self, bus: &mut impl Bus, d: &Descriptor) -> Done {
        let n = count::<CellWrite>(d).ok_or(Reason::BadDescriptor)?;
        for i in 0..n {
            let write: CellWrite = item(bus, d, i).ok_or(Reason::BadDescriptor)?;
            let cell = match write.cell.checked_sub(CellWrite::VPORT) {
                Some(vport) => self.datapath.vports.get_mut(vport as usize).map(|v| &mut v.generation),
                None => self.datapath.map_cells.get_mut(write.cell as usize),
            };
            *cell.ok_or(Reason::BadDescriptor)? = write.value;
        }
        Ok((0, 0))
    }

    fn vmq_filters(&mut self, bus: &mut impl Bus, d: &Descriptor) -> Done {
        let n = count::<VmqFilter>(d).filter(|&n| n <= FILTERS).ok_or(Reason::BadDescriptor)?;
        let mut filters = [VmqFilter { mac: [0; 6], vmq: 0, vsid: 0, vport: 0 }; FILTERS];
        for (i, filter) in filters.iter_mut().enumerate().take(n) {
            *filter = item(bus, d, i).ok_or(Reason::BadDescriptor)?;
            if usize::from(filter.vmq) >= FILTERS {
                return Err(Reason::BadDescriptor);
            }
        }
        self.filters = filters;
        Ok((0, 0))
    }

    fn host_restart(&mut self, bus: &mut impl Bus) {
        let waiting = &self.waiting;
        self.datapath.host_restarted(|buffer| {
            if let Some(d) = waiting.get(buffer as usize) {
                let reason = Reason::HostRestart as u8;
                let port = crate::send::origin(d);
                bus.send(&Descriptor { op: Op::Drop as u8, reason, flags: RELEASE, port, ..*d });
            }
        });
    }
}

/// Writes one entry of a table.
fn set<T: FromBytes + KnownLayout + Immutable>(bus: &mut impl Bus, d: &Descriptor, table: &mut [T]) -> Done {
    let new = item(bus, d, 0).ok_or(Reason::BadDescriptor)?;
    *table.get_mut(d.arg0 as usize).ok_or(Reason::BadDescriptor)? = new;
    Ok((0, 0))
}

/// Reads a table back from entry `arg0` on, as many entries as fit into the buffer.
fn read<T: zerocopy::IntoBytes + Immutable>(
    bus: &mut impl Bus,
    d: &Descriptor,
    len: usize,
    entry: impl Fn(usize) -> T,
) -> Done {
    if d.buffer == NO_BUFFER {
        return Err(Reason::NoBuffer);
    }
    let mut reply = Reply::new(d);
    let mut at = d.arg0 as usize;
    while at < len && reply.fits(bus, size_of::<T>()) {
        reply.push(bus, &entry(at));
        at += 1;
    }
    Ok((reply.len(), if at >= len { u32::MAX } else { at as u32 }))
}
