//! Frames that tests send and recognise.

use std::net::{IpAddr, Ipv4Addr};

use culvert_packet::{MacAddr, craft};

/// Addresses of packets that no kernel sends by itself.
pub(crate) fn ends(dst: impl Into<IpAddr>) -> craft::Ends {
    let dst = dst.into();
    let src = match dst {
        IpAddr::V4(_) => Ipv4Addr::new(203, 0, 113, 1).into(),
        IpAddr::V6(_) => "2001:db8::1".parse().unwrap(),
    };
    craft::Ends { src_mac: MacAddr([2, 0, 0, 0, 0, 1]), dst_mac: MacAddr([2, 0, 0, 0, 0, 2]), src, dst }
}

/// A datagram to a port, with a payload of `len` bytes that begins with a number.
pub(crate) fn datagram(port: u16, number: u32, len: usize) -> Vec<u8> {
    let mut payload = vec![0; len];
    payload[..4].copy_from_slice(&number.to_be_bytes());
    let mut frame = vec![0; len + 100];
    let len = craft::udp(&mut frame, &ends(Ipv4Addr::new(198, 51, 100, 1)), 1, port, &payload).unwrap();
    frame.truncate(len);
    frame
}

/// Whether a frame is one of [`datagram`]'s.
pub(crate) fn is_ours(frame: &[u8]) -> bool {
    frame.get(..12) == datagram(1, 0, 4).get(..12)
}

/// The number in a [`datagram`].
pub(crate) fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(*frame[42..].first_chunk().unwrap())
}

/// Datagrams to port 9 with these numbers.
pub(crate) fn numbered(numbers: std::ops::Range<u32>, len: usize) -> Vec<Vec<u8>> {
    numbers.map(|n| datagram(9, n, len)).collect()
}

/// The numbers of those frames that are [`datagram`]s.
pub(crate) fn numbers<'a>(frames: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<u32> {
    frames.into_iter().filter(|frame| is_ours(frame)).map(|frame| number(frame)).collect()
}

/// A frame that `make` writes into a buffer, and whose length it returns.
pub(crate) fn built(make: impl FnOnce(&mut [u8]) -> usize) -> Vec<u8> {
    let mut frame = vec![0; 400];
    let len = make(&mut frame);
    frame.truncate(len);
    frame
}
