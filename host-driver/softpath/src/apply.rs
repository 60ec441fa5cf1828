//! Writing a policy into the NIC: everything that decisions may name first, then the generations that make older flows
//! stale, then a fence.

use culvert_abi::Vport;
use culvert_abi::command::CellWrite;
use culvert_pf::Result;

use crate::decide::Policy;
use crate::engine::Engine;
use crate::plan::{Plan, peer};
use crate::target::OffloadTarget;

impl<P: Policy> Engine<P> {
    /// Puts `plan` into the NIC in place of `old`. When it returns, the NIC serves no packet by a flow that the new
    /// policy changes.
    ///
    /// # Errors
    /// The NIC refuses, or does not answer. It may hold parts of the plan then; the same call puts all of it right.
    pub fn apply(
        &mut self,
        nic: &dyn OffloadTarget,
        host: u16,
        plan: &Plan,
        old: &Plan,
        now: u32,
    ) -> Result<()> {
        if nic.router_mac() != plan.router_mac {
            nic.set_router_mac(plan.router_mac)?;
        }
        write(nic, host, plan)?;
        self.plan(plan, now);
        nic.send(self.take_steps())?;
        let vports = plan.vports.iter();
        let mut cells = plan.cells_after(old);
        cells.extend(
            vports.map(|(n, v)| CellWrite { cell: CellWrite::VPORT + u32::from(*n), value: v.generation }),
        );
        nic.set_cells(&cells)?;
        nic.fence()
    }

    /// Fills a NIC that has lost its tables: the plan, the tunnels that are known, the flows that connections have.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn recover(&mut self, nic: &dyn OffloadTarget, host: u16, plan: &Plan) -> Result<()> {
        write(nic, host, plan)?;
        nic.set_cells(&plan.cells)?;
        nic.set_tunnels(&self.tunnels())?;
        self.seen.clear();
        let records = self.policy.records();
        // A NIC with less room than there are connections keeps what fits; the others come as exceptions.
        match nic.insert(&records) {
            Ok(()) | Err(culvert_pf::Error::Refused { .. }) => {}
            Err(e) => return Err(e),
        }
        nic.start()
    }
}

/// The tables that do not depend on next hops.
fn write(nic: &dyn OffloadTarget, host: u16, plan: &Plan) -> Result<()> {
    let locals: Vec<_> = plan.locals.iter().map(|pa| peer(pa.addr, host)).collect();
    nic.set_local(&locals)?;
    nic.set_peers(&plan.peers)?;
    for (vf, config) in &plan.vfs {
        nic.configure_vf(*vf, config)?;
    }
    nic.set_groups(&plan.groups)?;
    nic.set_stations(&plan.stations)?;
    nic.set_vmq_filters(&plan.filters)?;
    let listed = |n: usize| plan.vports.iter().any(|(id, _)| usize::from(*id) == n);
    let there = nic.vports()?;
    let removed = there.iter().enumerate().filter(|(n, v)| v.flags & Vport::PRESENT != 0 && !listed(*n));
    let removed: Vec<_> = removed.map(|(n, _)| (n as u16, Vport::default())).collect();
    nic.set_vports(&removed)?;
    nic.set_vports(&plan.vports)
}
