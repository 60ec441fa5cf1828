//! Which packets of the overlay a policy knows: all others on an address of the kernel's are the kernel's.

use std::collections::BTreeSet;

use culvert_netlink::OverlaySource;
use culvert_policy::Snapshot;

/// The sources of a policy: each virtual subnet with the provider addresses of all hosts that take part in its virtual network,
/// in whatever encapsulation. Packets of a subnet without vports here, of a host that has not heard of that yet, are among
/// them: policy drops them, and the kernel would answer them.
pub(super) fn overlay_sources(snapshot: &Snapshot) -> BTreeSet<OverlaySource> {
    let mut sources = BTreeSet::new();
    for peer in snapshot.peers.values() {
        let networks: BTreeSet<_> = peer
            .vsids
            .iter()
            .filter_map(|vsid| snapshot.subnets.get(vsid))
            .map(|subnet| subnet.rdid)
            .collect();
        let routed = snapshot.subnets.values().filter(|subnet| networks.contains(&subnet.rdid));
        let vsids: BTreeSet<u32> =
            routed.map(|subnet| subnet.vsid).chain(peer.vsids.iter().copied()).collect();
        for address in &peer.pas {
            sources.extend(vsids.iter().map(|vsid| OverlaySource { vsid: *vsid, address: *address }));
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use culvert_flow::HashSecret;
    use culvert_packet::{MacAddr, Rdid};
    use culvert_policy::snapshot::{Peer, Subnet};

    use super::*;

    #[test]
    fn each_host_sends_the_subnets_of_its_networks() {
        let mut snapshot = Snapshot::empty(MacAddr::ZERO, HashSecret([0; 9]));
        for (vsid, network) in [(5001, 1), (5002, 1), (6001, 2)] {
            let rdid = Rdid([network; 16]);
            let subnet =
                Subnet { vsid, rdid, prefixes: vec![], gateways: vec![], group_out: None, group_in: None };
            snapshot.subnets.insert(vsid, subnet);
        }
        let pas = ["192.168.2.20", "192.168.2.21"].map(|text| text.parse().unwrap());
        snapshot.peers.insert(7, Peer { pas: pas.to_vec(), vsids: [5001].into() });
        snapshot
            .peers
            .insert(8, Peer { pas: vec!["192.168.3.30".parse().unwrap()], vsids: [6001, 7001].into() });
        let found: Vec<(u32, String)> =
            overlay_sources(&snapshot).iter().map(|s| (s.vsid, s.address.to_string())).collect();
        let expected = [
            (5001, "192.168.2.20"),
            (5001, "192.168.2.21"),
            (5002, "192.168.2.20"),
            (5002, "192.168.2.21"),
            (6001, "192.168.3.30"),
            (7001, "192.168.3.30"),
        ];
        assert_eq!(found, expected.map(|(vsid, address)| (vsid, address.to_owned())));
    }
}
