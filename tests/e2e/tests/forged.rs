//! Forged frames of a guest and from the wire: each is dropped with its reason, and no other frame is.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use culvert_device::wire::{AfPacket, Wire as _};
use culvert_e2e::deployment::Deployment;
use culvert_e2e::netns;
use culvert_e2e::policies::figure8;
use culvert_e2e::tshark::Capture;
use culvert_e2e::vm::Vm;
use culvert_packet::craft::{self, Ends};
use culvert_packet::{Encap, MacAddr};
use serde_json::{Value, json};

const SQL: MacAddr = MacAddr([0x00, 0x1d, 0xd8, 0x07, 0x00, 0x11]);
const WEB: MacAddr = MacAddr([0x00, 0x1d, 0xd8, 0x07, 0x00, 0x12]);
const LIMIT: Duration = Duration::from_secs(5);

/// Offsets in a VXLAN or NVGRE packet without an outer VLAN tag.
mod at {
    pub(super) const IP_CHECKSUM: usize = 24;
    pub(super) const IP_SOURCE: usize = 26;
    pub(super) const UDP: usize = 34;
    pub(super) const UDP_CHECKSUM: usize = 40;
    pub(super) const VXLAN: usize = 42;
    pub(super) const VNI: usize = 46;
    pub(super) const GRE: usize = 34;
}

/// Figure 8 with a third server, which has a provider address and a Contoso VM, but none of Fabrikam's.
fn policy(encap: Encap) -> Value {
    let mut policy = figure8(encap).unwrap();
    let mut server = policy["servers"][1].clone();
    server["resourceId"] = "host3".into();
    let uplinks = server["properties"]["networkInterfaces"].as_array_mut().unwrap();
    for (n, uplink) in uplinks.iter_mut().enumerate() {
        uplink["properties"]["providerAddress"] = format!("192.168.2.3{n}").into();
    }
    policy["servers"].as_array_mut().unwrap().push(server);
    let mut vm = policy["networkInterfaces"][1].clone();
    vm["resourceId"] = "contoso-third".into();
    vm["properties"]["privateMacAddress"] = "001DD8070013".into();
    vm["properties"]["server"] = json!({ "resourceRef": "/servers/host3" });
    vm["properties"]["ipConfigurations"][0]["properties"]["privateIPAddress"] = "10.1.1.13".into();
    policy["networkInterfaces"].as_array_mut().unwrap().push(vm);
    policy
}

struct Testbed {
    d: Deployment,
    sql: Vm,
    web: Vm,
}

impl Testbed {
    fn start(encap: Encap) -> Self {
        netns::enter().unwrap();
        let d = Deployment::builder(policy(encap)).capture().start().unwrap();
        let mut sql = d.guest(0, "contoso-sql", "10.1.1.11/24", 0).unwrap();
        let web = d.guest(1, "contoso-web", "10.1.1.12/24", 0).unwrap();
        assert_eq!(sql.ping(web.address(), 2, 50).unwrap().received, 2);
        Testbed { d, sql, web }
    }

    /// Runs `act`; host 1 must drop one packet for `reason`, and none for another.
    #[track_caller]
    fn dropped(&mut self, reason: &str, act: impl FnOnce(&mut Vm)) {
        let before = self.d.drops(0).unwrap();
        act(&mut self.sql);
        let grown = |now: &BTreeMap<String, u64>| -> BTreeMap<String, u64> {
            let more = |(r, n): (&String, &u64)| (r.clone(), n - before.get(r).copied().unwrap_or(0));
            now.iter().map(more).filter(|(_, n)| *n > 0).collect()
        };
        let mut now = BTreeMap::new();
        let _judged_below = self.d.until(LIMIT, "a drop is counted", |d| {
            now = grown(&d.drops(0)?);
            Ok(!now.is_empty())
        });
        assert_eq!(now, BTreeMap::from([(reason.to_owned(), 1)]));
    }

    /// Runs `act`; contoso-sql must receive one frame.
    #[track_caller]
    fn delivered(&mut self, act: impl FnOnce()) {
        let before = self.sql.counters().unwrap().rx_frames;
        act();
        for _ in 0..50 {
            if self.sql.counters().unwrap().rx_frames == before + 1 {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!(
            "{} frames arrived, drops {:?}",
            self.sql.counters().unwrap().rx_frames - before,
            self.d.drops(0)
        );
    }

    /// A packet for contoso-sql, as uplink 0 of host 1 received it, and a packet socket that can send such packets.
    fn original(&self, filter: &str) -> (Vec<u8>, AfPacket) {
        // The board flushes its capture ten times a second.
        std::thread::sleep(Duration::from_millis(300));
        let packets = Capture::new(self.d.capture(0, 0)).bytes(filter).unwrap();
        let packet = packets.into_iter().next().expect("the capture has an echo reply");
        (packet, self.d.network().station(1, 0).unwrap())
    }
}

/// A changed copy with a valid outer IPv4 checksum (RFC 1071).
fn forged(packet: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut copy = packet.to_vec();
    change(&mut copy);
    copy[at::IP_CHECKSUM..at::IP_CHECKSUM + 2].fill(0);
    let words = copy[14..34].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum: u32 = words.sum();
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    copy[at::IP_CHECKSUM..at::IP_CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    copy
}

#[test]
fn forged_frames_of_a_guest() {
    let mut bed = Testbed::start(Encap::Vxlan);
    let v4 = |last| IpAddr::V4(Ipv4Addr::new(10, 1, 1, last));
    let frame = |src_mac, src, tci: Option<u16>| {
        let ends = Ends { src_mac, dst_mac: WEB, src, dst: v4(12) };
        let mut bytes = vec![0; 128];
        let mut len = craft::ping(&mut bytes, &ends, 7, 1, b"forged").unwrap();
        if let Some(tci) = tci {
            len = craft::tag(&mut bytes, len, tci).unwrap();
        }
        bytes.truncate(len);
        bytes
    };
    let received = bed.web.counters().unwrap().rx_frames;
    for (reason, bytes) in [
        ("spoofed_mac", frame(MacAddr([0x00, 0x1d, 0xd8, 0x07, 0x00, 0x99]), v4(11), None)),
        // Also the MAC of another VM of the same tenant.
        ("spoofed_mac", frame(WEB, v4(12), None)),
        ("spoofed_ca", frame(SQL, v4(99), None)),
        ("spoofed_ca", frame(SQL, v4(12), None)),
        ("vlan_not_allowed", frame(SQL, v4(11), Some(7))),
    ] {
        bed.dropped(reason, |sql| sql.frame(&bytes).unwrap());
    }
    assert_eq!(bed.web.counters().unwrap().rx_frames, received, "a forged frame has arrived");
    // The same frame with its true addresses arrives.
    bed.sql.frame(&frame(SQL, v4(11), None)).unwrap();
    bed.d.until(LIMIT, "delivered", |_| Ok(bed.web.counters()?.rx_frames == received + 1)).unwrap();
}

#[test]
fn forged_vxlan_packets_from_the_wire() {
    let mut bed = Testbed::start(Encap::Vxlan);
    let (packet, mut station) = bed.original("vxlan.vni == 5001 && icmp.type == 0");
    let mut send = |bytes: &[u8]| station.send(&[], bytes).unwrap();
    bed.delivered(|| send(&packet));

    let set = |at: usize, bytes: &[u8]| forged(&packet, |p| p[at..at + bytes.len()].copy_from_slice(bytes));
    let bad_ip_checksum = {
        let mut copy = packet.clone();
        copy[at::IP_CHECKSUM] ^= 0x40;
        copy
    };
    for (reason, bytes) in [
        ("unknown_source_pa", set(at::IP_SOURCE, &[192, 168, 2, 99])),
        (
            "pa_not_in_vsid",
            forged(&packet, |p| {
                p[at::IP_SOURCE..at::IP_SOURCE + 4].copy_from_slice(&[192, 168, 2, 30]);
                p[at::VNI..at::VNI + 3].copy_from_slice(&6001u32.to_be_bytes()[1..]);
            }),
        ),
        ("unknown_vsid", set(at::VNI, &7001u32.to_be_bytes()[1..])),
        ("vxlan_no_i_flag", set(at::VXLAN, &[0])),
        ("outer_ip_checksum", bad_ip_checksum),
        ("outer_udp_checksum", set(at::UDP_CHECKSUM, &[0x12, 0x34])),
        ("outer_truncated", set(at::UDP + 4, &[0xff, 0xff])),
    ] {
        bed.dropped(reason, |_| send(&bytes));
    }
    // RFC 7348, section 5: reserved bits are ignored on receipt.
    bed.delivered(|| send(&set(at::VXLAN, &[0xff, 0xff, 0xff, 0xff])));
    bed.delivered(|| send(&set(at::VNI + 3, &[0xff])));
}

#[test]
fn forged_nvgre_packets_from_the_wire() {
    let mut bed = Testbed::start(Encap::Nvgre);
    let (packet, mut station) = bed.original("gre.key && icmp.type == 0");
    let mut send = |bytes: &[u8]| station.send(&[], bytes).unwrap();
    bed.delivered(|| send(&packet));
    assert_eq!(packet[at::GRE..at::GRE + 4], [0x20, 0x00, 0x65, 0x58]);
    let flags =
        |high: u8, low: u8| forged(&packet, |p| p[at::GRE..at::GRE + 2].copy_from_slice(&[high, low]));
    for (reason, bytes) in [
        // RFC 7637, section 3.2: C and S 0, K 1, version 0, protocol 0x6558.
        ("gre_flags", flags(0xa0, 0)),
        ("gre_flags", flags(0x30, 0)),
        ("gre_no_key", flags(0x00, 0)),
        ("gre_version", flags(0x20, 1)),
        ("gre_protocol", forged(&packet, |p| p[at::GRE + 2..at::GRE + 4].copy_from_slice(&[0x08, 0x00]))),
        ("unknown_source_pa", forged(&packet, |p| p[at::IP_SOURCE + 3] = 99)),
    ] {
        bed.dropped(reason, |_| send(&bytes));
    }
    bed.delivered(|| send(&packet));
}
