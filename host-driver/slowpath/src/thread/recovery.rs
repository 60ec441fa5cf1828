//! Gives a NIC that lost its tables what it needs: restarted firmware, or another NIC in the place of a lost one.

use super::SlowPathThread;
use crate::error::Result;

impl SlowPathThread {
    /// Gives a NIC that has restarted its tables back, if it needs them and is alive.
    pub(super) fn try_recover(&mut self) {
        if !self.nic_state.is_recovering() || !self.nic.is_alive() {
            return;
        }
        // The new firmware does not know the old tickets; it sends no upcalls before it is started.
        self.lost_in_restarts += self.engine.discard_held() as u64;
        while let Ok(Some(upcall)) = self.upcalls.pop() {
            if upcall.meta.copy.is_some() {
                let now = self.clock.now();
                self.engine.upcall(upcall, now);
            } else {
                self.lost_in_restarts += 1;
            }
        }
        self.engine.take_commands();
        match self.recover() {
            Ok(()) => self.nic_state = self.nic_state.recovered(),
            Err(error) => tracing::warn!(%error, "recovery of the NIC failed; trying again"),
        }
    }

    /// Writes the newest policy and the connections' flow records into a NIC that has lost its tables, which may be another
    /// NIC.
    fn recover(&mut self) -> Result<()> {
        self.upcalls.repost()?;
        let Some(snapshot) = self.snapshot.clone().filter(|_| self.nic_state.is_configured()) else {
            return Ok(());
        };
        let now = self.clock.now();
        let tables = self.tables_of(&snapshot)?;
        self.engine.apply(&*self.nic, &tables, &self.tables, now)?;
        self.engine.refill(&*self.nic)?;
        self.tables = tables;
        Ok(())
    }
}
