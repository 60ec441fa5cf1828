//! Whether the NIC has its tables.

/// Whether the NIC has its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NicState {
    /// No policy was applied yet: the NIC is not started.
    Unconfigured,
    /// The NIC has the tables of the policy.
    Running,
    /// The firmware has restarted before a policy was applied.
    RecoveringUnconfigured,
    /// The firmware has restarted and lost the tables of the policy.
    Recovering,
}

impl NicState {
    /// Whether a policy was applied.
    pub(crate) fn is_configured(self) -> bool {
        matches!(self, NicState::Running | NicState::Recovering)
    }

    /// Whether the firmware has restarted and waits for recovery.
    pub(crate) fn is_recovering(self) -> bool {
        matches!(self, NicState::Recovering | NicState::RecoveringUnconfigured)
    }

    /// The state after the first policy was applied.
    pub(crate) fn configured(self) -> Self {
        if self.is_recovering() { NicState::Recovering } else { NicState::Running }
    }

    /// The state after a restart of the firmware.
    pub(crate) fn restarted(self) -> Self {
        if self.is_configured() { NicState::Recovering } else { NicState::RecoveringUnconfigured }
    }

    /// The state after a recovery.
    pub(crate) fn recovered(self) -> Self {
        if self.is_configured() { NicState::Running } else { NicState::Unconfigured }
    }
}

#[cfg(test)]
mod tests;
