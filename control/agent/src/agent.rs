//! [`Agent`]: checks, stores and applies one change of the desired policy at a time.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use culvert_api::view::{HealthView, ProgressView};
use culvert_api::{ResourcePath, Warning};
use culvert_model::{Fabric, HostConfig, Indices, Site, host_config};
use tracing::{error, info, warn};

use crate::store::Stored;
use crate::store_watch::StoreWatch;
use crate::{Datapath, DatapathError, Documents, Error, Store};

/// VMQs of the largest NIC.
const MAX_VMQS: u16 = 16;

/// The daemon without its sockets. Calls block on disk and NIC.
pub struct Agent {
    site: Site,
    store: Store,
    datapath: Arc<dyn Datapath>,
    /// Held during a change: changes are made in order.
    writing: Mutex<()>,
    current: RwLock<Arc<Current>>,
    started: Instant,
    store_watch: StoreWatch,
    /// The problems that the log has.
    told: Mutex<BTreeSet<String>>,
    stopping: AtomicBool,
}

/// The state that replies are made from.
#[derive(Clone, Default)]
pub(crate) struct Current {
    pub(crate) stored: Stored,
    /// None: the stored policy does not pass this version's checks; the NIC keeps its tables.
    pub(crate) config: Option<Arc<HostConfig>>,
    pub(crate) applied: Applied,
    pub(crate) warnings: Vec<Warning>,
    pub(crate) more_warnings: usize,
}

/// What the daemon makes of a policy.
struct Derived {
    config: Arc<HostConfig>,
    indices: Indices,
    warnings: Vec<Warning>,
    more_warnings: usize,
}

/// Which policy the datapath has applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Version of the applied policy.
    pub version: u64,
    /// Why it is not the desired one.
    pub problem: Option<DatapathError>,
}

/// A change that was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Change<T> {
    /// What the edit returned.
    pub value: T,
    /// The documents before the change.
    pub before: Documents,
    /// The documents after the change.
    pub after: Documents,
    /// The policy's version after the change.
    pub version: u64,
    /// Whether the datapath has applied it.
    pub applied: Applied,
    /// What is unusual in the policy, but not wrong: the first hundred.
    pub warnings: Vec<Warning>,
    /// Warnings beyond those.
    pub more_warnings: usize,
}

impl Agent {
    /// Loads the stored policy and applies it. If the datapath fails now, [`Agent::reconcile`] retries.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn start(host: &str, store: Store, datapath: Arc<dyn Datapath>) -> Result<Arc<Self>, Error> {
        store.claim(host)?;
        let stored = store.load()?;
        // As long as the NIC does not answer, assume the largest one.
        let nic = datapath.nic().ok();
        let site = Site {
            host: host.to_owned(),
            entropy: store.entropy()?,
            vfs: nic.as_ref().map_or_else(|| datapath.planned_vfs(), |n| n.num_vfs),
            vmqs: nic.as_ref().map_or(MAX_VMQS, |n| n.vmqs),
        };
        let store_watch = StoreWatch::new(store.path());
        let agent = Self {
            site,
            store_watch,
            told: Mutex::default(),
            store,
            datapath,
            writing: Mutex::new(()),
            current: RwLock::default(),
            started: Instant::now(),
            stopping: AtomicBool::new(false),
        };
        let mut current = match agent.derive(&stored.documents, &stored.indices) {
            Ok(Derived { config, indices, warnings, more_warnings }) => {
                let next = Stored { indices, ..stored.clone() };
                agent.store.commit(&stored, &next)?;
                Current {
                    stored: next,
                    config: Some(config),
                    warnings,
                    more_warnings,
                    applied: Applied::default(),
                }
            }
            Err(e) => {
                error!(error = %e, "cannot use the stored policy; the NIC keeps its tables until a new policy is applied");
                Current { stored, ..Current::default() }
            }
        };
        agent.apply(&mut current);
        info!(host, version = current.stored.version, "policy loaded");
        agent.publish(current);
        Ok(Arc::new(agent))
    }

    /// Edits the desired policy, checks all of it, stores it and applies it. `deleting` is the resource that the edit
    /// removes, for the error if another one refers to it.
    ///
    /// # Errors
    /// The edit fails, the policy has problems, or the store fails: then nothing has changed. A datapath that cannot
    /// apply the policy is not an error: the reply says so, and [`Agent::reconcile`] retries.
    pub fn change<T>(
        &self,
        deleting: Option<&ResourcePath>,
        edit: impl FnOnce(&mut Documents) -> Result<T, Error>,
    ) -> Result<Change<T>, Error> {
        let _serialized = self.lock();
        self.is_running()?;
        let now = self.current();
        let before = now.stored.documents.clone();
        let mut after = before.clone();
        let value = edit(&mut after)?;
        if after == before && now.config.is_some() {
            let (version, applied) = (now.stored.version, now.applied.clone());
            let (warnings, more_warnings) = (now.warnings.clone(), now.more_warnings);
            return Ok(Change { value, before, after, version, applied, warnings, more_warnings });
        }
        let Derived { config, indices, warnings, more_warnings } =
            self.derive(&after, &now.stored.indices).map_err(|e| match (e, deleting) {
                (Error::Policy(problems), Some(path)) => Error::InUse { path: path.clone(), problems },
                (e, _) => e,
            })?;
        let next = Stored { documents: after.clone(), indices, version: now.stored.version + 1 };
        self.is_running()?;
        self.store.commit(&now.stored, &next)?;
        let version = next.version;
        let mut current = Current {
            stored: next,
            config: Some(config),
            warnings: warnings.clone(),
            more_warnings,
            applied: now.applied.clone(),
        };
        self.apply(&mut current);
        let applied = current.applied.clone();
        self.publish(current);
        info!(version, applied = applied.version, "policy changed");
        Ok(Change { value, before, after, version, applied, warnings, more_warnings })
    }

    /// Checks a change without making it.
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
        let Derived { warnings, more_warnings, .. } = self.derive(&after, &now.stored.indices)?;
        let (version, applied) = (now.stored.version, now.applied.clone());
        Ok(Change { value, before, after, version, applied, warnings, more_warnings })
    }

    /// Applies the desired policy if it is not applied yet. Returns whether it is now.
    pub fn reconcile(&self) -> bool {
        let _serialized = self.lock();
        self.store.recover();
        let now = self.current();
        if now.applied.problem.is_none() {
            return true;
        }
        let mut current = Current::clone(&now);
        self.apply(&mut current);
        let done = current.applied.problem.is_none();
        if done {
            info!(version = current.applied.version, "policy applied");
        }
        self.publish(current);
        done
    }

    /// State of the daemon.
    pub fn health(&self) -> HealthView {
        let now = self.current();
        let mut problems = Vec::new();
        match &now.config {
            None => problems.push("this version cannot use the stored policy: apply a new one".to_owned()),
            Some(config) if config.host.is_none() && now.stored.version > 0 => problems.push(format!(
                "the policy has no server \"{}\"; it has {}",
                self.site.host,
                config.fabric.hosts.iter().map(|h| h.name.as_str()).collect::<Vec<_>>().join(", ")
            )),
            Some(_) => {}
        }
        problems.extend(now.applied.problem.as_ref().map(ToString::to_string));
        problems.extend(self.store_watch.problem());
        problems.extend(self.store.problem());
        let datapath = self.datapath.problems();
        let firmware_alive = self.datapath.firmware();
        if firmware_alive == Some(false) && datapath.is_empty() {
            problems.push("the NIC's firmware does not answer".to_owned());
        }
        problems.extend(datapath);
        let (conditions, name) = (self.datapath.conditions(), now.vport_names());
        problems.extend(conditions.problems(&name));
        let mut told: Vec<String> = Vec::new();
        for problem in problems {
            // The same cause may be a part of what it led to.
            if !told.iter().any(|known| known.contains(&problem)) {
                told.push(problem);
            }
        }
        HealthView {
            ok: told.is_empty(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: self.site.host.clone(),
            desired_version: now.stored.version,
            applied_version: now.applied.version,
            firmware_alive,
            uptime_s: self.started.elapsed().as_secs(),
            problems: told,
            progress: conditions.progress(&name),
        }
    }

    /// How far the policy in the store is carried out.
    pub fn progress(&self) -> ProgressView {
        self.datapath.conditions().progress(self.current().vport_names())
    }

    /// Looks at all ports, and logs what has become wrong, and what is right again.
    pub fn watch(&self) {
        self.datapath.watch();
        let now: BTreeSet<String> = self.health().problems.into_iter().collect();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        now.difference(&told).for_each(|problem| error!(problem, "not ok"));
        told.difference(&now).for_each(|problem| info!(problem, "no longer"));
        *told = now;
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
        // The lock guards no data: a change that panicked has published nothing.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn derive(&self, documents: &Documents, indices: &Indices) -> Result<Derived, Error> {
        self.is_running()?;
        let checked = Fabric::check(&documents.bundle()).map_err(Error::Policy)?;
        self.is_running()?;
        let mut indices = indices.clone();
        let config = host_config(Arc::new(checked.fabric), &self.site, &mut indices)?;
        let (warnings, more_warnings) = (checked.warnings, checked.more_warnings);
        Ok(Derived { config: Arc::new(config), indices, warnings, more_warnings })
    }

    /// Makes changes in progress end early, with nothing changed.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn is_running(&self) -> Result<(), Error> {
        if self.stopping.load(Ordering::Relaxed) { Err(Error::Stopping) } else { Ok(()) }
    }

    fn apply(&self, current: &mut Current) {
        let Some(config) = &current.config else { return };
        match self.datapath.apply(config.clone()) {
            Ok(()) => current.applied = Applied { version: current.stored.version, problem: None },
            // Said once: it is tried again every second.
            Err(problem) if current.applied.problem.as_ref() == Some(&problem) => {}
            Err(problem) => {
                warn!(%problem, version = current.stored.version, "the policy is not applied yet");
                current.applied.problem = Some(problem);
            }
        }
    }
}

impl Current {
    /// The names of this host's network interfaces, by number of the vport.
    pub(crate) fn vport_names(&self) -> impl Fn(u16) -> String + use<> {
        let (config, vports) = (self.config.clone(), self.vports());
        move |id| {
            let known = config.as_ref().zip(vports.get(&id));
            known.map_or_else(String::new, |(config, n)| config.fabric.interfaces[*n].name.clone())
        }
    }

    /// Indices into the fabric's interfaces, by number of this host's vports.
    pub(crate) fn vports(&self) -> HashMap<u16, usize> {
        self.config.iter().flat_map(|p| p.vports.iter()).map(|v| (v.id.0, v.interface)).collect()
    }
}
