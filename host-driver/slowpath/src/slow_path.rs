//! [`SlowPath`]: starts and stops the slow path's thread.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use culvert_offload::{EventFd, OffloadNic};

use crate::connection_store::ConnectionFile;
use crate::error::{Error, Result};
use crate::handle::Handle;
use crate::host_policy::{HostPolicy, Limits};
use crate::thread::SlowPathThread;

/// Commands that wait at most.
const MAX_COMMANDS: usize = 64;

/// Settings of the slow path.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Limits of the connection table.
    pub limits: Limits,
    /// Interfaces, one for each uplink, on which the kernel has the provider addresses; `None`: the slow path has
    /// addresses of its own.
    pub kernel_interfaces: Option<Vec<String>>,
    /// File that stores connections for the next daemon; `None`: connections end with this daemon, or the next one adopts
    /// them from the NIC's records.
    pub connection_file: Option<PathBuf>,
}

/// The slow path of one NIC. Its thread stops on drop.
pub struct SlowPath {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl SlowPath {
    /// Starts the thread that handles the NIC's upcalls. Packets are forwarded once a policy is applied.
    ///
    /// # Errors
    /// The NIC's queues or the connection file are in use, or the system is out of descriptors or threads.
    pub fn start(nic: Arc<dyn OffloadNic>, settings: Settings) -> Result<Self> {
        let (sender, receiver) = sync_channel(MAX_COMMANDS);
        let wake = EventFd::new()?;
        let mut policy = HostPolicy::new(&settings.limits);
        if !nic.capabilities().is_volatile {
            policy = policy.without_records();
        }
        if let Some(path) = &settings.connection_file {
            match ConnectionFile::open(path, settings.limits.connections) {
                Ok(file) => policy = policy.stored_in(file),
                Err(error @ Error::ConnectionsInUse { .. }) => return Err(error),
                Err(error) => tracing::warn!(%error, "connections will not survive a restart"),
            }
        }
        let mut thread =
            SlowPathThread::new(nic.clone(), policy, receiver, wake.clone(), settings.kernel_interfaces)?;
        let problems = thread.problems();
        let views = thread.views();
        views.published.lock().max_connections = settings.limits.connections;
        let thread = culvert_threads::spawn("slow-path", move || thread.run())
            .map_err(|source| Error::System { what: "starting the slow path's thread".into(), source })?;
        Ok(SlowPath { handle: Handle::new(nic, sender, wake, problems, views), thread: Some(thread) })
    }

    /// A handle for other threads.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for SlowPath {
    fn drop(&mut self) {
        self.handle.stop_later();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
