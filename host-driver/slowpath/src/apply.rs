//! Writing a policy into the NIC: everything that decisions may name first, then the generations that make older flows
//! stale, then a fence.

use culvert_flow::tables::Vport;
use culvert_offload::{Error, Generation, GenerationWrite, OffloadNic, Result, TableWrite};
use culvert_packet::VportId;

use crate::decide::Policy;
use crate::engine::Engine;
use crate::plan::{Plan, peer};

impl<P: Policy> Engine<P> {
    /// Puts `plan` into the NIC in place of `old`. When it returns, the NIC serves no packet by a flow that the new
    /// policy changes.
    ///
    /// # Errors
    /// The NIC refuses, or does not answer. It may hold parts of the plan then; the same call puts all of it right.
    pub fn apply(
        &mut self,
        nic: &dyn OffloadNic,
        host: u16,
        plan: &Plan,
        old: &Plan,
        now: u32,
    ) -> Result<()> {
        if nic.router_mac() != plan.router_mac {
            nic.write(TableWrite::RouterMac(plan.router_mac))?;
        }
        write(nic, host, plan)?;
        self.plan(plan, now);
        nic.execute(self.take_commands())?;
        let vports = plan.vports.iter();
        let mut generations = plan.generations_after(old);
        generations.extend(
            vports.map(|(n, v)| GenerationWrite { of: Generation::Vport(VportId(*n)), value: v.generation }),
        );
        nic.write(TableWrite::Generations(&generations))?;
        nic.fence()
    }

    /// Fills a NIC that has lost its tables: the plan, the tunnels that are known, the flows that connections have.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn recover(&mut self, nic: &dyn OffloadNic, host: u16, plan: &Plan) -> Result<()> {
        write(nic, host, plan)?;
        nic.write(TableWrite::Generations(&plan.generations))?;
        nic.write(TableWrite::Tunnels(&self.tunnels()))?;
        self.seen.clear();
        let records = self.policy.records();
        // A NIC with less room than there are connections keeps what fits; the others come as exceptions.
        match nic.insert(&records) {
            Ok(()) | Err(Error::Refused { .. }) => {}
            Err(e) => return Err(e),
        }
        nic.start()
    }
}

/// The tables that do not depend on next hops.
fn write(nic: &dyn OffloadNic, host: u16, plan: &Plan) -> Result<()> {
    let locals: Vec<_> = plan.locals.iter().map(|pa| peer(pa.addr, host)).collect();
    nic.write(TableWrite::LocalAddresses(&locals))?;
    nic.write(TableWrite::Peers(&plan.peers))?;
    for (vf, config) in &plan.vfs {
        nic.write(TableWrite::Vf(*vf, config))?;
    }
    nic.write(TableWrite::Groups(&plan.groups))?;
    nic.write(TableWrite::Fdb(&plan.fdb))?;
    nic.write(TableWrite::VmqFilters(&plan.filters))?;
    let listed = |n: usize| plan.vports.iter().any(|(id, _)| usize::from(*id) == n);
    let there = nic.vports()?;
    let removed = there.iter().enumerate().filter(|(n, v)| v.flags & Vport::PRESENT != 0 && !listed(*n));
    let removed: Vec<_> = removed.map(|(n, _)| (n as u16, Vport::default())).collect();
    nic.write(TableWrite::Vports(&removed))?;
    nic.write(TableWrite::Vports(&plan.vports))
}
