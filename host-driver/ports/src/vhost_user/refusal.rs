//! Why a request of a VMM's is refused.

use super::mem_table::TableError;

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{0}")]
    Invalid(&'static str),
    #[error(transparent)]
    Memory(#[from] TableError),
}

impl From<&'static str> for Refusal {
    fn from(why: &'static str) -> Self {
        Refusal::Invalid(why)
    }
}
