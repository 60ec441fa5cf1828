//! Software hosts with provider addresses of their own: an address whose uplink loses its link is served by the other uplink,
//! and returns with the link. Neither costs more than 0.3 s of traffic, in either direction.
#![forbid(unsafe_code)]

use std::time::Duration;

use culvert_e2e::deployment::Deployment;
use culvert_e2e::netns;
use culvert_e2e::policies::routed;
use culvert_e2e::vm::Vm;

const LIMIT: Duration = Duration::from_secs(60);
/// Datagrams of a probe, one each 10 ms, that a change may cost.
const MAX_LOST: u64 = 30;

/// Who takes the link away.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// The switch at the other end of the wire.
    Switch,
    /// The host's operator.
    Host,
}

fn set_link(d: &Deployment, cut: Cut, up: bool) {
    match cut {
        Cut::Switch => d.network().set_link(1, 1, up).unwrap(),
        Cut::Host => {
            let state = if up { "up" } else { "down" };
            d.network().host(1, &["ip", "link", "set", "h1u1", state]).map(drop).unwrap();
        }
    }
}

/// Changes the link while both guests probe each other. Returns what the probes say.
fn probe_change(d: &Deployment, guests: &mut [Vm; 2], cut: Cut, up: bool) {
    let addresses = [guests[1].address(), guests[0].address()];
    for (guest, to) in guests.iter_mut().zip(addresses) {
        guest.start_probe(to, Duration::from_secs(4)).unwrap();
    }
    std::thread::sleep(Duration::from_secs(1));
    set_link(d, cut, up);
    for guest in guests {
        let probe = guest.probe(LIMIT).unwrap();
        println!("{cut:?} {up}: {probe:?}");
        assert!(probe.sent >= 300, "{probe:?}");
        assert!(probe.received <= probe.sent, "duplicates: {probe:?}");
        assert!(probe.sent - probe.received <= MAX_LOST, "link up: {up}, cut: {cut:?}: {probe:?}");
        assert_eq!(probe.reordered, 0, "{probe:?}");
    }
}

fn fails_over_and_back(driver: &'static str, cuts: &[Cut]) {
    let mut policy = routed().unwrap();
    // Contoso's SQL is pinned to uplink 1.
    policy["networkInterfaces"][0]["properties"]["uplink"] = 1.into();
    let d = Deployment::builder(policy).software(0..2).driver(driver).start().unwrap();
    let mut guests = [
        d.guest(0, "contoso-sql", "10.1.1.11/24", 0).unwrap(),
        d.guest(1, "contoso-web", "10.1.1.12/24", 0).unwrap(),
    ];
    guests.iter_mut().for_each(|guest| guest.echo().unwrap());
    let to = guests[1].address();
    assert_eq!(guests[0].ping(to, 3, 20).unwrap().received, 3);
    for cut in cuts {
        for up in [false, true] {
            probe_change(&d, &mut guests, *cut, up);
        }
    }
}

#[test]
fn an_address_fails_over_and_back_by_packet_sockets() {
    netns::enter().unwrap();
    fails_over_and_back("af-packet", &[Cut::Switch, Cut::Host]);
}

#[test]
fn an_address_fails_over_and_back_by_xdp_sockets() {
    netns::enter().unwrap();
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: XDP programs need root");
        return;
    }
    fails_over_and_back("af-xdp", &[Cut::Switch]);
}
