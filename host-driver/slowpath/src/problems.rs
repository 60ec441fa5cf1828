//! [`Problems`]: what is wrong with the slow path, as its thread tells it to the handles.

use std::sync::{Arc, Mutex, PoisonError};

/// What is wrong, one sentence each.
pub(crate) type Shared = Arc<Mutex<Vec<String>>>;

/// The thread's side.
#[derive(Default)]
pub(crate) struct Problems {
    shared: Shared,
    /// Why the policy could not be applied again when the kernel's addresses had changed.
    kernel: Option<String>,
}

impl Problems {
    /// What the handles read.
    pub(crate) fn shared(&self) -> Shared {
        self.shared.clone()
    }

    /// Notes whether the policy was applied to the kernel's addresses as they are now. Logs a change.
    pub(crate) fn note_kernel<E: ToString>(&mut self, applied: &Result<(), E>) {
        let problem = applied.as_ref().err().map(ToString::to_string);
        if problem != self.kernel {
            match &problem {
                Some(error) => tracing::warn!(error, "the uplinks do not match the policy; trying again"),
                None => tracing::info!("the uplinks match the policy again"),
            }
        }
        self.kernel = problem;
    }

    /// Publishes it, with the policy's own problem.
    pub(crate) fn publish(&self, policy: Option<String>) {
        let all = policy.into_iter().chain(self.kernel.clone()).collect();
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = all;
    }
}
