//! Where an attack takes place: the target, its socket, how long, and random numbers.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::guest::{Guest, Setup};
use crate::random::Random;
use crate::target::Target;
use crate::{vfio_user, vhost_user};

/// Where an attack takes place.
pub struct Place {
    /// What is attacked.
    pub target: Target,
    socket: PathBuf,
    end: Instant,
    next_seed: Cell<u64>,
    begun: Cell<bool>,
}

impl Place {
    /// A place for an attack of this length.
    #[must_use]
    pub fn new(target: Target, socket: &Path, time: Duration, seed: u64) -> Self {
        Place {
            target,
            socket: socket.to_owned(),
            end: Instant::now() + time,
            next_seed: Cell::new(seed << 32),
            begun: Cell::new(false),
        }
    }

    /// The port's socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Whether the attack's time is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    /// When the attack's time is over.
    #[must_use]
    pub fn end(&self) -> Instant {
        self.end
    }

    /// Sleeps for the rest of the attack's time.
    pub fn sit_out(&self) {
        std::thread::sleep(self.end.saturating_duration_since(Instant::now()));
    }

    /// The next of the attack's sequences of random numbers.
    #[must_use]
    pub fn random(&self) -> Random {
        let seed = self.next_seed.get();
        self.next_seed.set(seed.wrapping_add(1));
        Random::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    /// Whether the target has let the attack begin. What fails afterwards is the target's answer.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.get()
    }

    fn begins<T>(&self, result: io::Result<T>) -> io::Result<T> {
        self.begun.set(self.begun.get() || result.is_ok());
        result
    }

    /// A guest that was brought up as it should be.
    ///
    /// # Errors
    /// The port refuses it.
    pub fn guest(&self) -> io::Result<Guest> {
        self.begins(Guest::bring_up(self.target, &self.socket, &Setup::default()))
    }

    /// A guest that is brought up otherwise.
    ///
    /// # Errors
    /// The port refuses it.
    pub fn guest_with(&self, setup: &Setup) -> io::Result<Guest> {
        Guest::bring_up(self.target, &self.socket, setup)
    }

    /// A vfio-user client that has agreed on the version.
    ///
    /// # Errors
    /// The device does not answer.
    pub fn vfio_user(&self) -> io::Result<vfio_user::Client> {
        self.begins(vfio_user::Client::negotiated(&self.socket))
    }

    /// A vhost-user front end that has agreed on features.
    ///
    /// # Errors
    /// The port does not answer.
    pub fn vhost_user(&self) -> io::Result<vhost_user::Client> {
        self.begins(vhost_user::Client::negotiated(&self.socket, u64::MAX))
    }

    /// A connection without a word on it.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connection(&self) -> io::Result<std::os::unix::net::UnixStream> {
        self.begins(crate::socket::connect(&self.socket))
    }
}
