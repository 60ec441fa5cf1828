//! Writes a policy into the NIC: first everything that decisions may name, then the generations that make older flows
//! stale, then a fence.

use culvert_flow::tables::Vport;
use culvert_offload::{Error, Generation, GenerationWrite, OffloadNic, Result, TableWrite};
use culvert_packet::VportId;

use crate::engine::Engine;
use crate::nic_tables::{NicTables, peer_entry};
use crate::policy::Policy;

impl<P: Policy> Engine<P> {
    /// Writes `tables` into the NIC in place of `old`. When it returns, the NIC forwards no packet by a flow that the new
    /// policy changes.
    ///
    /// # Errors
    /// The NIC refuses or does not answer. It may have parts of the tables then; the same call, repeated, writes all.
    pub fn apply(
        &mut self,
        nic: &dyn OffloadNic,
        tables: &NicTables,
        old: &NicTables,
        now: u32,
    ) -> Result<()> {
        if nic.router_mac() != tables.router_mac {
            nic.write(TableWrite::RouterMac(tables.router_mac))?;
        }
        write(nic, tables)?;
        self.replace_tables(tables, now);
        nic.execute(self.take_commands())?;
        let vports = tables.vports.iter();
        let mut generations = tables.mapping_generations_after(old);
        generations.extend(
            vports.map(|(n, v)| GenerationWrite { of: Generation::Vport(VportId(*n)), value: v.generation }),
        );
        nic.write(TableWrite::Generations(&generations))?;
        nic.fence()
    }

    /// Gives a NIC that has lost its tables, once a policy is [applied](Self::apply), what belongs to no policy: known
    /// tunnels and the flow records of all connections. Then it starts.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub(crate) fn refill(&mut self, nic: &dyn OffloadNic) -> Result<()> {
        nic.write(TableWrite::Tunnels(&self.tunnels()))?;
        self.aged_packets.clear();
        let records = self.policy.records();
        // A NIC with fewer records than connections keeps those that fit; the others come as upcalls.
        match nic.insert(&records) {
            Ok(()) | Err(Error::Refused { .. }) => {}
            Err(e) => return Err(e),
        }
        nic.start()
    }
}

/// Writes the tables that do not depend on next hops.
fn write(nic: &dyn OffloadNic, tables: &NicTables) -> Result<()> {
    let local: Vec<_> = tables.local_pas.iter().map(|pa| peer_entry(pa.addr, tables.host)).collect();
    nic.write(TableWrite::LocalAddresses(&local))?;
    nic.write(TableWrite::Peers(&tables.peers))?;
    for (vf, config) in &tables.vfs {
        nic.write(TableWrite::Vf(*vf, config))?;
    }
    nic.write(TableWrite::Groups(&tables.groups))?;
    nic.write(TableWrite::Fdb(&tables.fdb))?;
    nic.write(TableWrite::VmqFilters(&tables.vmq_filters))?;
    let is_listed = |n: usize| tables.vports.iter().any(|(id, _)| usize::from(*id) == n);
    let present = nic.vports()?;
    let removed = present.iter().enumerate().filter(|(n, v)| v.flags & Vport::PRESENT != 0 && !is_listed(*n));
    let removed: Vec<_> = removed.map(|(n, _)| (n as u16, Vport::default())).collect();
    nic.write(TableWrite::Vports(&removed))?;
    nic.write(TableWrite::Vports(&tables.vports))
}
