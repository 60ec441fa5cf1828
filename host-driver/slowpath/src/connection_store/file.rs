//! The connection file of a daemon: what the previous daemon left, and what this one stores.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use culvert_packet::VportId;
use culvert_policy::{Connection, ConnectionId, Snapshot};
use rustix::fs::OFlags;
use rustix::process::geteuid;
use rustix::time::{ClockId, clock_gettime};

use super::format::{BootId, Header, MAX_ENTRIES, Unusable, VportIdentity};
use super::lock::Lock;
use super::previous::PreviousConnections;
use super::writer::Writer;
use crate::error::{Error, Result};

/// Milliseconds until a file that cannot be made is tried again, and for which damage is told about.
const RETRY_MS: u64 = 60_000;

/// The connection file of a daemon. Only one at a time exists for a path.
pub struct ConnectionFile {
    path: PathBuf,
    entries: u32,
    boot: BootId,
    previous: Option<PreviousConnections>,
    is_unused: bool,
    /// Once [`begin`](Self::begin) has made this daemon's file.
    writer: Option<Writer>,
    /// What went wrong last, and when by the system's clock.
    problem: Option<(u64, String)>,
    /// Keeps other daemons away.
    _lock: Lock,
}

impl ConnectionFile {
    /// Opens the file at `path`, which need not exist, for at most `limit` connections. An unusable file is discarded with
    /// a warning that says why.
    ///
    /// # Errors
    /// Another daemon uses it, or the directory is not writable.
    pub fn open(path: &Path, limit: usize) -> Result<Self> {
        let system =
            |what: &str, source| Error::System { what: format!("{what} {}", path.display()), source };
        let lock = Lock::acquire(&beside(path, "lock")).map_err(|e| system("the lock of", e))?;
        let lock = lock.ok_or_else(|| Error::ConnectionsInUse { path: path.to_owned() })?;
        let boot = boot_id().map_err(|e| system("the machine's boot id, for", e))?;
        // The last entry is never written.
        let entries = limit.saturating_add(1).min(MAX_ENTRIES) as u32;
        let previous = match open_private(path).and_then(|file| PreviousConnections::read(file, boot)) {
            Ok(previous) => Some(previous),
            Err(Unusable::System(e)) if e.kind() == io::ErrorKind::NotFound => None,
            Err(error @ Unusable::Boot) => {
                tracing::info!(path = %path.display(), %error, "saved connections discarded");
                None
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "saved connections discarded");
                None
            }
        };
        let path = path.to_owned();
        let (is_unused, writer, problem) = (true, None, None);
        Ok(ConnectionFile { path, entries, boot, previous, is_unused, writer, problem, _lock: lock })
    }

    /// `true` at the first call.
    pub(super) fn is_first_use(&mut self) -> bool {
        std::mem::take(&mut self.is_unused)
    }

    /// Takes what the previous daemon left.
    pub(super) fn take_previous(&mut self) -> Option<PreviousConnections> {
        self.previous.take()
    }

    /// Makes this daemon's file, empty and under another name: until [`publish`](Self::publish) the previous file is the
    /// valid one. The slow path's time is `now` when the system's clock is `clock`.
    ///
    /// # Errors
    /// The file system is full.
    pub(super) fn begin(&mut self, now: u32, clock: u64) -> io::Result<()> {
        let unpublished = beside(&self.path, "new");
        // A daemon that was killed before it published its file may have left one.
        match std::fs::remove_file(&unpublished) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let header = Header { entries: self.entries, boot: self.boot, alive: clock };
        self.writer = Some(Writer::create(&unpublished, &header, now)?);
        Ok(())
    }

    /// Replaces the previous daemon's file by this daemon's.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn publish(&mut self) -> io::Result<()> {
        self.flush();
        std::fs::rename(beside(&self.path, "new"), &self.path)
    }

    /// Stops storing connections for a minute.
    pub(super) fn give_up(&mut self, clock: u64, error: &io::Error) {
        tracing::warn!(%error, "connections will not survive a restart: cannot write the connection file");
        self.problem = Some((clock, error.to_string()));
        self.remove();
    }

    /// Removes the files: a later daemon would restore outdated connections.
    pub(super) fn remove(&mut self) {
        self.writer = None;
        for path in [self.path.clone(), beside(&self.path, "new")] {
            if let Err(error) = std::fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "cannot remove the connection file: remove it before the next start");
            }
        }
    }

    /// Writes what has changed since the last call. Call it before the packets leave that the changes decide on: then a
    /// daemon that is killed loses nothing.
    pub(crate) fn flush(&mut self) {
        if let Some(writer) = &mut self.writer {
            writer.flush();
        }
    }

    /// Notes a connection as it is now.
    pub(crate) fn put(&mut self, id: ConnectionId, connection: &Connection) {
        if let Some(writer) = &mut self.writer {
            writer.put(id, connection);
        }
    }

    /// Notes a connection that was last seen at `last_seen` of the system's clock.
    pub(super) fn put_seen_at(&mut self, id: ConnectionId, connection: &Connection, last_seen: u32) {
        if let Some(writer) = &mut self.writer {
            writer.put_seen_at(id, connection, last_seen);
        }
    }

    /// Removes a connection.
    pub(crate) fn clear(&mut self, id: ConnectionId) {
        if let Some(writer) = &mut self.writer {
            writer.clear(id);
        }
    }

    /// Writes the identity of a vport; `None`: there is no vport of this number. Connections of the VM that had the number
    /// before must have been removed.
    pub(super) fn put_vport(&mut self, id: VportId, identity: Option<VportIdentity>) {
        if let Some(writer) = &mut self.writer {
            writer.put_vport(id, identity);
        }
    }

    /// Writes the identities of all vports of a new policy, which replaces `old`.
    pub(crate) fn put_vports(&mut self, old: Option<&Snapshot>, new: &Snapshot) {
        let before = old.into_iter().flat_map(|s| s.vports.keys());
        let all: BTreeSet<VportId> = before.chain(new.vports.keys()).copied().collect();
        for id in all {
            let identity = new.vports.get(&id).map(|v| VportIdentity { mac: v.mac, vsid: v.vsid });
            self.put_vport(id, identity);
        }
    }

    /// Writes that this daemon is alive, by the system's clock, and checks the file. `true`: it has to be
    /// [written anew](Self::write_anew).
    pub(crate) fn put_alive(&mut self, clock: u64) -> bool {
        let Some(writer) = &mut self.writer else {
            return self.problem.as_ref().is_some_and(|(at, _)| clock.saturating_sub(*at) >= RETRY_MS);
        };
        writer.put_alive(clock);
        match writer.check(&self.path) {
            Ok(()) => {
                // A file that was written anew has been told about for long enough.
                let is_over = |(at, _): &(u64, String)| clock.saturating_sub(*at) >= RETRY_MS;
                self.problem = self.problem.take().filter(|problem| !is_over(problem));
                false
            }
            Err(damage) => {
                let path = self.path.display().to_string();
                tracing::error!(
                    path,
                    damage,
                    "the connection file is damaged; its connections are written anew"
                );
                self.problem = Some((clock, format!("the connection file {path} was damaged: {damage}")));
                true
            }
        }
    }

    /// Writes the file anew, with these connections and the vports of a policy. The slow path's time is `now` when the
    /// system's clock is `clock`.
    pub(crate) fn write_anew<'c>(
        &mut self,
        connections: impl Iterator<Item = (ConnectionId, &'c Connection)>,
        policy: Option<&Snapshot>,
        now: u32,
        clock: u64,
    ) {
        let begun = self.begin(now, clock);
        if let Some(policy) = policy {
            self.put_vports(None, policy);
        }
        connections.for_each(|(id, connection)| self.put(id, connection));
        match begun.and_then(|()| self.publish()) {
            Ok(()) => tracing::info!(path = %self.path.display(), "the connection file is written anew"),
            Err(error) => {
                self.give_up(clock, &error);
            }
        }
    }

    /// What is wrong with the file.
    pub(crate) fn problem(&self) -> Option<String> {
        let path = self.path.display();
        match (&self.writer, &self.problem) {
            (Some(writer), None) => writer.problem().map(|why| {
                format!(
                    "the connection file {path} cannot be written ({why}): free space beside the API's socket"
                )
            }),
            (Some(_), Some((_, damage))) => Some(format!("{damage}; it was written anew")),
            (None, Some((_, why))) => {
                Some(format!("connections will not survive a restart: no connection file {path}: {why}"))
            }
            (None, None) => None,
        }
    }
}

/// The system's monotonic clock in milliseconds. All processes see the same clock until the machine reboots.
pub(crate) fn monotonic_ms() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

/// Opens a regular file that only this user can read and write: others could inject connections by it.
fn open_private(path: &Path) -> std::result::Result<File, Unusable> {
    // Follows no symbolic link, and does not wait for the writer of a pipe.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    let is_private =
        metadata.is_file() && metadata.uid() == geteuid().as_raw() && metadata.mode() & 0o077 == 0;
    if is_private { Ok(file) } else { Err(Unusable::Owner) }
}

/// The path with another extension behind it.
fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

/// The kernel's id of the current boot (random(4)).
fn boot_id() -> io::Result<BootId> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let id = u128::from_str_radix(&digits, 16).map_err(io::Error::other)?;
    Ok(BootId(id.to_be_bytes()))
}
