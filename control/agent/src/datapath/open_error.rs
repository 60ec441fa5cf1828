//! Why a port cannot be opened, in an operator's words: the thing, what the system said, and what to do.

use std::fmt;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::thread::CapabilitySet;

/// What is opened.
#[derive(Clone, Copy)]
pub(super) enum Opened<'a> {
    /// The packet socket of an interface.
    PacketSocket(&'a str),
    /// The XDP sockets of an interface.
    XdpSocket(&'a str),
    /// A TAP.
    Tap(&'a str),
    /// The socket of a vhost-user port.
    VhostUser(&'a Path),
}

impl fmt::Display for Opened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Opened::PacketSocket(interface) => write!(f, "packet socket on {interface}"),
            Opened::XdpSocket(interface) => write!(f, "XDP socket on {interface}"),
            Opened::Tap(interface) => write!(f, "TAP {interface}"),
            Opened::VhostUser(path) => write!(f, "vhost-user socket {}", path.display()),
        }
    }
}

impl Opened<'_> {
    /// Capabilities that it needs.
    fn needs(self) -> &'static [(&'static str, CapabilitySet)] {
        const ADMIN: (&str, CapabilitySet) = ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN);
        const RAW: (&str, CapabilitySet) = ("CAP_NET_RAW", CapabilitySet::NET_RAW);
        match self {
            Opened::PacketSocket(_) => &[RAW, ADMIN],
            Opened::XdpSocket(_) => &[RAW, ADMIN, ("CAP_BPF", CapabilitySet::BPF)],
            Opened::Tap(_) => &[ADMIN],
            Opened::VhostUser(_) => &[],
        }
    }

    fn remedy(self, error: &io::Error) -> String {
        let text = |text: &str| text.to_owned();
        match (Errno::from_io_error(error), self) {
            (Some(Errno::PERM | Errno::ACCESS), _) => self.permission(),
            (Some(Errno::MFILE), _) => {
                text("raise the limit of open files (LimitNOFILE= in culvertd's unit, or ulimit -n)")
            }
            (Some(Errno::NFILE), _) => text("raise the system's limit of open files (sysctl fs.file-max)"),
            (Some(Errno::NODEV | Errno::NXIO), Opened::PacketSocket(name) | Opened::XdpSocket(name)) => {
                format!("create the interface {name}, or start culvertd with another --uplink")
            }
            (Some(Errno::BUSY), Opened::Tap(name)) => {
                format!("end the other program that has {name} open, such as another culvertd")
            }
            (Some(Errno::INVAL), Opened::Tap(name)) => {
                format!("{name} is not a TAP: rename or delete that interface")
            }
            (Some(Errno::NOENT), Opened::Tap(_)) => text("load the kernel module tun (modprobe tun)"),
            (Some(Errno::ADDRINUSE), Opened::VhostUser(path)) => {
                format!("end the process that listens there, or remove {}", path.display())
            }
            (Some(Errno::BUSY | Errno::EXIST), Opened::XdpSocket(name)) => format!(
                "another XDP program or socket uses {name}: remove it (ip link set {name} xdp off), or start culvertd \
                 with --driver af-packet"
            ),
            (_, Opened::XdpSocket(_)) => {
                text("use a driver with XDP, or start culvertd with --driver af-packet")
            }
            (Some(Errno::NOMEM | Errno::NOBUFS), _) => {
                text("free memory, or raise the limit of locked memory")
            }
            _ => text("see culvertd's log"),
        }
    }

    fn permission(self) -> String {
        let effective = rustix::thread::capabilities(None).map(|sets| sets.effective);
        let effective = effective.unwrap_or(CapabilitySet::empty());
        let missing: Vec<&str> =
            self.needs().iter().filter(|(_, one)| !effective.contains(*one)).map(|(name, _)| *name).collect();
        match (missing.is_empty(), self) {
            (false, _) => {
                let all = missing.join(" and ");
                format!("culvertd lacks {all}: start it as root, or with AmbientCapabilities= in its unit")
            }
            (true, Opened::VhostUser(path)) => {
                format!("let culvertd write to {}", path.parent().unwrap_or(path).display())
            }
            (true, _) => "a security module, or a user namespace, does not allow it".to_owned(),
        }
    }
}

/// Adds to an error what was opened, and what to do.
pub(super) fn explain(what: Opened<'_>, error: &io::Error) -> io::Error {
    let text = format!("the {what} cannot be opened: {}: {}", in_words(error), what.remedy(error));
    io::Error::new(error.kind(), text)
}

/// A system's error without its number.
pub(super) fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error ").next().unwrap_or_default();
    let rest = text.split_once(" (os error ").and_then(|(_, rest)| rest.split_once(')'));
    let mut words = format!("{words}{}", rest.map_or("", |(_, rest)| rest));
    if let Some(first) = words.get_mut(..1).filter(|_| error.raw_os_error().is_some()) {
        first.make_ascii_lowercase();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_thing_the_cause_and_the_remedy() {
        let said = |what, errno: Errno| explain(what, &errno.into()).to_string();
        assert_eq!(
            said(Opened::Tap("vport0"), Errno::BUSY),
            "the TAP vport0 cannot be opened: device or resource busy: end the other program that has vport0 open, such \
             as another culvertd"
        );
        let socket = said(Opened::VhostUser(Path::new("/run/x/vport0.vhost")), Errno::ADDRINUSE);
        assert!(socket.contains("address already in use: end the process that listens there"), "{socket}");
        let files = said(Opened::PacketSocket("eth0"), Errno::MFILE);
        assert!(files.contains("eth0") && files.contains("too many open files: raise the limit"), "{files}");
        assert!(said(Opened::XdpSocket("eth0"), Errno::OPNOTSUPP).contains("--driver af-packet"));
    }
}
