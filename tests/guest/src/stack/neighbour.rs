//! Neighbours learnt from received frames. smoltcp drops a packet for which it must resolve the MAC first, where Linux and Windows
//! queue it; a test that counts losses would count these as the network's.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// How long smoltcp keeps a neighbour, less a margin.
const FRESH: Duration = Duration::from_secs(30);
/// Limit of remembered neighbours.
const MAX_NEIGHBOURS: usize = 1024;

/// Neighbours that smoltcp knows.
pub(super) struct Neighbours {
    own: Option<Ipv4Addr>,
    prefix: u8,
    gateway: Option<Ipv4Addr>,
    learnt: HashMap<Ipv4Addr, Instant>,
}

fn v4(addr: IpAddr) -> Option<Ipv4Addr> {
    match addr {
        IpAddr::V4(a) => Some(a),
        IpAddr::V6(_) => None,
    }
}

impl Neighbours {
    pub(super) fn new(ip: IpAddr, prefix: u8, gateway: Option<IpAddr>) -> Self {
        Self { own: v4(ip), prefix, gateway: gateway.and_then(v4), learnt: HashMap::new() }
    }

    /// An ARP reply that teaches the stack the sender of this IPv4 frame, or the gateway, unless it knows it.
    pub(super) fn arp_reply_for(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let own = self.own?;
        if frame.get(12..14)? != [0x08, 0x00] || frame[0] & 1 != 0 {
            return None;
        }
        let source = Ipv4Addr::from(*frame.get(26..30)?.first_chunk::<4>()?);
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        let on_link = (source.to_bits() ^ own.to_bits()) & mask == 0;
        let sender = if on_link { source } else { self.gateway? };
        let now = Instant::now();
        if self.learnt.get(&sender).is_some_and(|at| now - *at < FRESH) {
            return None;
        }
        if self.learnt.len() >= MAX_NEIGHBOURS {
            self.learnt.clear();
        }
        self.learnt.insert(sender, now);
        let (own_mac, mac) = (&frame[0..6], &frame[6..12]);
        let head: [&[u8]; 3] = [own_mac, mac, &[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 2]];
        Some(
            [head.concat(), mac.to_vec(), sender.octets().to_vec(), own_mac.to_vec(), own.octets().to_vec()]
                .concat(),
        )
    }
}
