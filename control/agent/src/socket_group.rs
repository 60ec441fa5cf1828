//! Groups whose members may open the daemon's sockets.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::str::FromStr;

use rustix::fs::{Gid, chown};

/// A group of this system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketGroup {
    name: String,
    id: Gid,
}

impl FromStr for SocketGroup {
    type Err = String;

    /// By name or number.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(id) = text.parse::<u32>() {
            return Ok(SocketGroup { name: text.to_owned(), id: Gid::from_raw(id) });
        }
        match nix::unistd::Group::from_name(text) {
            Ok(Some(group)) => {
                Ok(SocketGroup { name: text.to_owned(), id: Gid::from_raw(group.gid.as_raw()) })
            }
            Ok(None) => {
                Err(format!("this system has no such group: make it with `addgroup --system {text}`"))
            }
            Err(error) => Err(format!("cannot look the group up: {}", io::Error::from(error))),
        }
    }
}

impl SocketGroup {
    /// Lets the group's members open the socket at `path`.
    ///
    /// # Errors
    /// This process may not give the socket to the group; the message says what it lacks.
    pub fn admit(&self, path: &Path) -> io::Result<()> {
        chown(path, None, Some(self.id)).map_err(|errno| {
            let error = io::Error::from(errno);
            let remedy = "add culvertd's user to it (SupplementaryGroups= in the unit)";
            let Self { name, .. } = self;
            io::Error::new(
                error.kind(),
                format!("{} cannot be given to the group {name}: {error}; {remedy}", path.display()),
            )
        })?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
    }
}
