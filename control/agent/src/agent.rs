//! The daemon's heart: desired policy in, this host's part out to the datapath, one change at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use culvert_api::view::HealthView;
use culvert_api::{ResourcePath, Warning};
use culvert_model::{Fabric, HostPart, Indices, Site, host_part};
use tracing::{error, info, warn};

use crate::store::Stored;
use crate::{Datapath, DatapathError, Documents, Error, Store};

/// Virtual functions of the largest NIC.
const MOST_VFS: u16 = 64;
/// Receive queues of the largest NIC.
const MOST_VMQS: u16 = 16;

/// The daemon without its sockets. Calls may wait for disk and NIC.
pub struct Agent {
    site: Site,
    store: Store,
    datapath: Arc<dyn Datapath>,
    /// Held while a change is made, so that changes do not pass each other.
    writing: Mutex<()>,
    current: RwLock<Arc<Current>>,
    started: Instant,
}

/// What holds now.
#[derive(Clone, Default)]
pub(crate) struct Current {
    pub(crate) stored: Stored,
    /// None: the store's policy does not pass this version's checks; the NIC is left as it is.
    pub(crate) part: Option<Arc<HostPart>>,
    pub(crate) applied: Applied,
    pub(crate) warnings: Vec<Warning>,
}

/// How far the datapath is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The policy's version that it carries out.
    pub version: u64,
    /// Why that is not the desired one.
    pub problem: Option<DatapathError>,
}

/// A change that was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Change<T> {
    /// What the edit returned.
    pub value: T,
    /// The documents before and after.
    pub before: Documents,
    /// The documents now.
    pub after: Documents,
    /// The policy's version now.
    pub version: u64,
    /// Whether the datapath carries it out.
    pub applied: Applied,
    /// What is odd about the policy.
    pub warnings: Vec<Warning>,
}

impl Agent {
    /// Takes the store's policy up and has it carried out. A datapath that fails now is tried again by
    /// [`Agent::reconcile`].
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn start(host: &str, store: Store, datapath: Arc<dyn Datapath>) -> Result<Arc<Self>, Error> {
        let stored = store.load()?;
        // A NIC that does not answer yet is taken for the largest one.
        let nic = datapath.nic().ok();
        let site = Site {
            host: host.to_owned(),
            entropy: store.entropy()?,
            vfs: nic.as_ref().map_or(MOST_VFS, |n| n.num_vfs),
            vmqs: nic.as_ref().map_or(MOST_VMQS, |n| n.vmqs),
        };
        let agent = Self {
            site,
            store,
            datapath,
            writing: Mutex::new(()),
            current: RwLock::default(),
            started: Instant::now(),
        };
        let mut current = match agent.derive(&stored.documents, &stored.indices) {
            Ok((part, indices, warnings)) => {
                let next = Stored { indices, ..stored.clone() };
                agent.store.commit(&stored, &next)?;
                Current { stored: next, part: Some(part), warnings, applied: Applied::default() }
            }
            Err(e) => {
                error!(error = %e, "the stored policy is not usable; the NIC stays as it is until it is replaced");
                Current { stored, ..Current::default() }
            }
        };
        agent.apply(&mut current);
        info!(host, version = current.stored.version, "policy taken up");
        agent.publish(current);
        Ok(Arc::new(agent))
    }

    /// Changes the desired policy by `edit`, checks the whole, keeps it, and has it carried out. `deleting`: what the
    /// edit removes, to say so if something else needs it.
    ///
    /// # Errors
    /// The edit's, the policy's problems, or the store's. Then nothing has changed. A datapath that cannot carry the
    /// policy out is no error: it is in the answer, and tried again.
    pub fn change<T>(
        &self,
        deleting: Option<&ResourcePath>,
        edit: impl FnOnce(&mut Documents) -> Result<T, Error>,
    ) -> Result<Change<T>, Error> {
        let _one_at_a_time = self.lock();
        let now = self.current();
        let before = now.stored.documents.clone();
        let mut after = before.clone();
        let value = edit(&mut after)?;
        if after == before && now.part.is_some() {
            let (version, applied) = (now.stored.version, now.applied.clone());
            return Ok(Change { value, before, after, version, applied, warnings: now.warnings.clone() });
        }
        let (part, indices, warnings) =
            self.derive(&after, &now.stored.indices).map_err(|e| match (e, deleting) {
                (Error::Policy(problems), Some(path)) => Error::InUse { path: path.clone(), problems },
                (e, _) => e,
            })?;
        let next = Stored { documents: after.clone(), indices, version: now.stored.version + 1 };
        self.store.commit(&now.stored, &next)?;
        let version = next.version;
        let mut current = Current {
            stored: next,
            part: Some(part),
            warnings: warnings.clone(),
            applied: now.applied.clone(),
        };
        self.apply(&mut current);
        let applied = current.applied.clone();
        self.publish(current);
        info!(version, applied = applied.version, "policy changed");
        Ok(Change { value, before, after, version, applied, warnings })
    }

    /// Checks what a change would give, and changes nothing.
    ///
    /// # Errors
    /// As [`Agent::change`].
    pub fn dry_run<T>(
        &self,
        edit: impl FnOnce(&mut Documents) -> Result<T, Error>,
    ) -> Result<Change<T>, Error> {
        let now = self.current();
        let before = now.stored.documents.clone();
        let mut after = before.clone();
        let value = edit(&mut after)?;
        let (_, _, warnings) = self.derive(&after, &now.stored.indices)?;
        let (version, applied) = (now.stored.version, now.applied.clone());
        Ok(Change { value, before, after, version, applied, warnings })
    }

    /// Has the desired policy carried out, if it is not yet. Returns whether it is now.
    pub fn reconcile(&self) -> bool {
        let _one_at_a_time = self.lock();
        let now = self.current();
        if now.applied.problem.is_none() {
            return true;
        }
        let mut current = Current::clone(&now);
        self.apply(&mut current);
        let done = current.applied.problem.is_none();
        if done {
            info!(version = current.applied.version, "the datapath carries the policy out again");
        }
        self.publish(current);
        done
    }

    /// How the daemon is.
    pub fn health(&self) -> HealthView {
        let now = self.current();
        let mut problems = Vec::new();
        match &now.part {
            None => problems.push("the stored policy is not usable by this version; apply one".to_owned()),
            Some(part) if part.host.is_none() && now.stored.version > 0 => problems.push(format!(
                "the policy has no server \"{}\"; it has {}",
                self.site.host,
                part.fabric.hosts.iter().map(|h| h.name.as_str()).collect::<Vec<_>>().join(", ")
            )),
            Some(_) => {}
        }
        problems.extend(now.applied.problem.as_ref().map(ToString::to_string));
        let firmware_alive = match self.datapath.nic() {
            Ok(nic) if nic.firmware.alive => true,
            Ok(_) => {
                problems.push("the NIC's firmware does not answer".to_owned());
                false
            }
            Err(e) => {
                problems.push(e.to_string());
                false
            }
        };
        problems.dedup();
        HealthView {
            ok: problems.is_empty(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: self.site.host.clone(),
            desired_version: now.stored.version,
            applied_version: now.applied.version,
            firmware_alive,
            uptime_s: self.started.elapsed().as_secs(),
            problems,
        }
    }

    /// The packet path.
    pub fn datapath(&self) -> &dyn Datapath {
        self.datapath.as_ref()
    }

    /// The desired policy.
    pub fn documents(&self) -> Documents {
        self.current().stored.documents.clone()
    }

    pub(crate) fn current(&self) -> Arc<Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn publish(&self, current: Current) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(current);
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        // The lock guards no data: what a panicked change left is the state before it.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn derive(
        &self,
        documents: &Documents,
        indices: &Indices,
    ) -> Result<(Arc<HostPart>, Indices, Vec<Warning>), Error> {
        let checked = Fabric::check(&documents.bundle()?).map_err(Error::Policy)?;
        let mut indices = indices.clone();
        let part = host_part(Arc::new(checked.fabric), &self.site, &mut indices)?;
        Ok((Arc::new(part), indices, checked.warnings))
    }

    fn apply(&self, current: &mut Current) {
        let Some(part) = &current.part else { return };
        match self.datapath.apply(part.clone()) {
            Ok(()) => current.applied = Applied { version: current.stored.version, problem: None },
            Err(problem) => {
                warn!(%problem, version = current.stored.version, "the policy is not carried out yet");
                current.applied.problem = Some(problem);
            }
        }
    }
}

impl Current {
    /// Indices into the fabric's interfaces by vport number, of this host.
    pub(crate) fn vports(&self) -> HashMap<u16, usize> {
        self.part.iter().flat_map(|p| p.vports.iter()).map(|v| (v.id.0, v.interface)).collect()
    }
}
