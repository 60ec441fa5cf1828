//! What the command line needs of the system, looked at before anything is opened.
//!
//! None of it ends the daemon: an interface may come later, and each thing is opened again and again. The log names it at
//! once, with its remedy.

use std::fs::File;
use std::io;

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::thread::{CapabilitySet, capabilities};

use crate::Args;
use crate::args::{Driver, Port};

/// What is missing: a sentence, and the remedy.
pub(crate) fn missing(args: &Args) -> Vec<(String, &'static str)> {
    let mut all = Vec::new();
    for (capability, name, why) in needed(args) {
        // A kernel that does not say what this process may do lets it try.
        if capabilities(None).is_ok_and(|own| !own.effective.contains(capability)) {
            all.push((
                format!("culvertd has no {name}, which {why}"),
                "run it by its systemd unit, or as root; AmbientCapabilities= gives the unit more",
            ));
        }
    }
    for interface in &args.uplink {
        if let Err(error) = interface_exists(interface) {
            all.push((
                format!("the uplink {interface} cannot be found: {error}"),
                "name an interface that `ip link` lists with --uplink, or make it; culvertd waits for it",
            ));
        }
    }
    if args.port == Port::Tap
        && let Err(error) = File::options().read(true).write(true).open("/dev/net/tun")
    {
        all.push((
            format!("TAPs need /dev/net/tun, which cannot be opened: {error}"),
            "load the module tun, and let the unit have the device (DeviceAllow=)",
        ));
    }
    all
}

/// Capabilities with their names and what needs each.
fn needed(args: &Args) -> Vec<(CapabilitySet, &'static str, &'static str)> {
    let mut all = Vec::new();
    if !args.uplink.is_empty() {
        all.push((CapabilitySet::NET_RAW, "CAP_NET_RAW", "the uplinks' packet sockets need"));
    }
    if !args.uplink.is_empty() || args.port == Port::Tap {
        let why = "TAPs, routes and the guard of the uplinks need";
        all.push((CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN", why));
    }
    if args.driver == Driver::AfXdp {
        all.push((CapabilitySet::BPF, "CAP_BPF", "--driver af-xdp needs"));
        all.push((CapabilitySet::PERFMON, "CAP_PERFMON", "the program of --driver af-xdp needs"));
    }
    all
}

fn interface_exists(name: &str) -> io::Result<()> {
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    Ok(name_to_index(any, name).map(|_| ())?)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn a_missing_interface_is_named_with_its_error() {
        let args =
            Args::parse_from(["culvertd", "--host", "h", "--uplink", "lo", "--uplink", "culvert-none"]);
        let texts: Vec<String> = missing(&args).into_iter().map(|(problem, _)| problem).collect();
        let named = |word: &str| texts.iter().any(|text| text.contains(word));
        assert!(named("culvert-none cannot be found: No such device"), "{texts:?}");
        assert!(!named("uplink lo "), "{texts:?}");
    }
}
