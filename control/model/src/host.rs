//! One host's part of the fabric.

use std::collections::BTreeSet;
use std::sync::Arc;

use culvert_packet::VportId;
use thiserror::Error;

use crate::{Fabric, Indices};

/// How many vports a host can have.
pub(crate) const VPORTS: u16 = 1024;

/// What one host carries out.
#[derive(Clone, Debug, Default)]
pub struct HostPart {
    /// The whole policy.
    pub fabric: Arc<Fabric>,
    /// Index of this host in it; none: the policy does not know this host.
    pub host: Option<usize>,
    /// The interfaces that are on this host.
    pub vports: Vec<LocalVport>,
}

/// An interface on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalVport {
    /// Its number.
    pub id: VportId,
    /// Index into [`Fabric::interfaces`].
    pub interface: usize,
}

/// More of something than a host has numbers for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("this host needs more than {limit} {what}")]
pub struct SnapshotError {
    /// What there is too much of.
    pub what: &'static str,
    /// How many there can be.
    pub limit: u16,
}

impl SnapshotError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        format!("spread the virtual machines so that each host needs at most {} {}", self.limit, self.what)
    }
}

/// Derives this host's part. Numbers come from and go to `indices`, which the caller persists before it carries the
/// part out.
///
/// # Errors
/// The host runs out of numbers.
pub fn host_part(fabric: Arc<Fabric>, host: &str, indices: &mut Indices) -> Result<HostPart, SnapshotError> {
    let host = fabric.host(host);
    let local = |i: &crate::Interface| host.is_some() && i.host == host;
    let names: BTreeSet<String> =
        fabric.interfaces.iter().filter(|i| local(i)).map(|i| i.name.to_ascii_lowercase()).collect();
    indices.vports.keep(&names);
    let mut vports = Vec::new();
    for (index, interface) in fabric.interfaces.iter().enumerate().filter(|(_, i)| local(i)) {
        let id = indices
            .vports
            .number(&interface.name.to_ascii_lowercase(), VPORTS)
            .ok_or(SnapshotError { what: "vports", limit: VPORTS })?;
        vports.push(LocalVport { id: VportId(id), interface: index });
    }
    Ok(HostPart { fabric, host, vports })
}
