//! Answers ARP requests for this host's provider addresses (RFC 826) in the core, so that peers find the NIC while its
//! host is down.

use core::net::Ipv4Addr;

use culvert_packet::arp::{Operation, Packet};
use culvert_packet::{EtherType, MacAddr};

use crate::datapath::Datapath;
use crate::frame::Frame;
use crate::tables::Tunnel;

/// Mask of the VLAN id in a tag; the priority does not matter.
const VID: u16 = 0x0fff;

impl Datapath<'_> {
    /// Turns an ARP request for the source address of one of this uplink's tunnels into the reply. `false`: the frame is
    /// none, and is unchanged. The host answers for addresses without a tunnel.
    #[cold]
    #[inline(never)]
    pub(crate) fn answer_arp(&self, frame: &mut Frame<'_>, uplink: u8) -> bool {
        let bytes = frame.bytes_mut();
        let at = match ethertype(bytes, 12) {
            Some(EtherType::VLAN) => 18,
            _ => 14,
        };
        if ethertype(bytes, at - 2) != Some(EtherType::ARP) {
            return false;
        }
        let Some(Ok(request)) = bytes.get(at..).map(Packet::parse) else { return false };
        let asked = request.operation == Operation::REQUEST
            && request.sender_mac.is_unicast()
            && self.is_ours(request.target)
            && !self.is_ours(request.sender);
        if !asked {
            return false;
        }
        let ours = |t: &&Tunnel| t.uplink == uplink && source(t, at) == Some(request.target);
        let Some(tunnel) = self.tunnels.iter().find(ours) else { return false };
        let Some(mac) = tunnel.header[6..].first_chunk().copied().map(MacAddr) else { return false };
        let vid = |header: &[u8]| (at == 18).then(|| u16::from_be_bytes([header[14], header[15]]) & VID);
        let to = bytes.first_chunk().copied().map(MacAddr);
        if vid(bytes) != vid(&tunnel.header) || !(to == Some(MacAddr::BROADCAST) || to == Some(mac)) {
            return false;
        }
        bytes[..6].copy_from_slice(&request.sender_mac.0);
        bytes[6..12].copy_from_slice(&mac.0);
        request.reply(mac).emit(&mut bytes[at..]).is_ok()
    }

    fn is_ours(&self, addr: Ipv4Addr) -> bool {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&addr.octets());
        self.peers.is_local(4, &bytes)
    }
}

fn ethertype(bytes: &[u8], at: usize) -> Option<EtherType> {
    bytes.get(at..)?.first_chunk().map(|b| EtherType(u16::from_be_bytes(*b)))
}

/// The IPv4 address that a tunnel in use sends from, its IP header being at `at`.
fn source(tunnel: &Tunnel, at: usize) -> Option<Ipv4Addr> {
    let header = tunnel.header.get(usize::from(tunnel.ip_offset)..)?;
    let fits = tunnel.encap().is_some() && usize::from(tunnel.ip_offset) == at && header.first()? >> 4 == 4;
    let octets: [u8; 4] = header.get(12..)?.first_chunk().copied()?;
    fits.then_some(Ipv4Addr::from(octets))
}
