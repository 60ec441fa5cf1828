//! `AttachedNic`: the place of a NIC that may die, be removed and come back.
//!
//! A thread of its own opens the NIC, watches it, and opens it again when it is lost; the rest of the host drives whatever
//! is in the place through one handle, and gets errors while there is nothing. The states:
//!
//! | state | what is there | next |
//! | --- | --- | --- |
//! | absent | nothing that can be opened | bringing up, when it can |
//! | bringing up | an open function whose firmware is loaded, configured, given its VFs | running; failed |
//! | running | a NIC that takes commands, or whose firmware or board is silent for now | lost |
//! | failed | a function that cannot be brought up; another attempt comes, each after twice the time | bringing up; absent |
//! | lost | a NIC that ended, whose users let go of it | absent |
//!
//! A NIC that comes back is empty: [`FirmwareReady`](culvert_offload::Event::FirmwareReady) asks the owner for its tables,
//! as after a restart of the firmware. Counters go on from where they were last read, once a second.

mod attempt;
mod counters;
mod offload;
mod place;
mod queues;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use self::attempt::Attempt;
use self::place::Place;
pub use self::place::{NicState, NicStatus, Opener};
use crate::bring_up::Config;
use crate::sync::lock;
use crate::{Error, Result};

/// How long the end of the thread is waited for.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// The place of a NIC. Its thread ends when it is dropped; the NIC keeps forwarding.
pub struct AttachedNic {
    place: Arc<Place>,
    thread: Option<JoinHandle<()>>,
}

impl AttachedNic {
    /// Opens the NIC at `location` and enables up to `vfs` VFs. If it is absent or does not come up, this goes on in the
    /// background.
    ///
    /// # Errors
    /// No later attempt can succeed, or the system has no descriptors or threads.
    pub fn start(location: &str, open: Opener, config: Config, vfs: u16) -> Result<Self> {
        let place = Arc::new(Place::new(location, config, vfs)?);
        let mut attempt = Attempt::new(place.clone(), open);
        match attempt.bring_up() {
            Ok(nic) => place.put(nic),
            Err(error) if error.is_permanent() => return Err(error),
            Err(error) => attempt.failed(&error),
        }
        let thread = culvert_threads::spawn("nic-attach", move || attempt.run());
        let thread = thread.map_err(|source| Error::System { what: "starting a thread", source })?;
        Ok(AttachedNic { place, thread: Some(thread) })
    }

    /// What is known of the NIC. Makes no access to it.
    pub fn status(&self) -> NicStatus {
        self.place.status()
    }

    /// Number of VFs that a NIC gets which was never seen: as many as are wanted.
    pub fn planned_vfs(&self) -> u16 {
        self.place.vfs
    }

    /// Whether a guest's driver runs VF `vf`.
    ///
    /// # Errors
    /// The NIC is absent, or its board or firmware does not answer.
    pub fn vf_is_driven(&self, vf: u16) -> Result<bool> {
        let nic = self.place.nic()?;
        if !nic.alive() {
            return Err(Error::FirmwareDead { device: self.place.location.clone() });
        }
        nic.vf_is_driven(vf)
    }

    /// Frames of VF `vf` that messages to its VMM have carried, because the VM's memory is not shared.
    ///
    /// # Errors
    /// The NIC is absent, or its board does not answer.
    pub fn vf_frames_by_message(&self, vf: u16) -> Result<u64> {
        self.place.nic()?.vf_frames_by_message(vf)
    }
}

impl Drop for AttachedNic {
    fn drop(&mut self) {
        *lock(&self.place.stop) = true;
        self.place.stopped.notify_all();
        // A thread that waits for a board that hangs is left behind.
        let end = Instant::now() + STOP_LIMIT;
        if let Some(thread) = self.thread.take() {
            while !thread.is_finished() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}
