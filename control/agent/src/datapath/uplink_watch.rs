//! [`UplinkWatch`]: an uplink's interface as the kernel has it, by name, whether or not a port is open on it.

use std::io;

use culvert_netlink::Interface;

use super::open_error::in_words;

/// Watches one interface, in the network namespace of the daemon.
pub(super) struct UplinkWatch {
    name: String,
    /// Its index when it was last there.
    index: Option<u32>,
}

impl UplinkWatch {
    pub(super) fn new(name: &str) -> Self {
        UplinkWatch { name: name.to_owned(), index: None }
    }

    /// Reads it.
    ///
    /// # Errors
    /// It is not there, or cannot be read: what happened, and what to do.
    pub(super) fn look(&mut self) -> Result<Interface, String> {
        let name = &self.name;
        match Interface::read(name) {
            Ok(interface) => {
                self.index = Some(interface.index);
                Ok(interface)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.gone()),
            Err(error) => Err(format!("the interface {name} cannot be read: {}", in_words(&error))),
        }
    }

    fn gone(&self) -> String {
        let name = &self.name;
        let Some(index) = self.index else {
            return format!(
                "there is no interface {name}: create it, or start culvertd with another --uplink"
            );
        };
        match Interface::name_of(index) {
            Ok(other) => format!(
                "the interface {name} is now called {other}: rename it (ip link set {other} name {name}), or start \
                 culvertd with --uplink {other}"
            ),
            Err(_) => format!(
                "the interface {name} was deleted or moved to another network namespace: bring it back, and culvertd \
                 uses it again"
            ),
        }
    }
}
