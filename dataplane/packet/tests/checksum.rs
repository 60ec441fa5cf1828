//! The Internet checksum against the examples of its RFCs and against the textbook sum.

use culvert_packet::Protocol;
use culvert_packet::checksum::{self, Checksum};
use proptest::prelude::*;

/// Sum of 16-bit words, the way RFC 1071 section 4.1 writes it.
fn textbook(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[test]
fn rfc_1071_section_3_example() {
    let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(checksum::sum(&bytes), 0xddf2);
    assert_eq!(checksum::of(&bytes), 0x220d);
}

#[test]
fn rfc_1624_section_4_example() {
    // The case that RFC 1141's equation gets wrong: the result is 0 and not 0xffff.
    assert_eq!(checksum::update(0xdd2f, 0x5555, 0x3285), 0x0000);
    // The carry of the first folding carries again.
    assert_eq!(checksum::update(0x0000, 0x0000, 0x0001), 0xfffe);
}

#[test]
fn header_with_right_checksum_sums_to_all_ones() {
    let header = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00, 0x01, 0xc0,
        0xa8, 0x00, 0xc7,
    ];
    assert_eq!(checksum::sum(&header), 0xffff);
    assert!(checksum::header_is_valid(&header));
    for bit in 0..160 {
        let mut wrong = header;
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert!(!checksum::header_is_valid(&wrong), "bit {bit}");
    }
}

#[test]
fn sum_of_nothing_is_zero() {
    assert_eq!(checksum::sum(&[]), 0);
    assert_eq!(Checksum::new().finish(), 0xffff);
}

#[test]
fn longest_packet_of_ones_does_not_overflow() {
    assert_eq!(checksum::sum(&vec![0xff; 65536]), 0xffff);
}

proptest! {
    #[test]
    fn equals_the_textbook_sum(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert_eq!(checksum::sum(&bytes), textbook(&bytes));
    }

    #[test]
    fn pieces_of_any_length_add_up(bytes in proptest::collection::vec(any::<u8>(), 0..200), cuts in proptest::collection::vec(0usize..40, 0..8)) {
        let mut sum = Checksum::new();
        let mut rest = &bytes[..];
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            sum.bytes(piece);
            rest = after;
        }
        sum.bytes(rest);
        prop_assert_eq!(sum.sum(), textbook(&bytes));
    }

    #[test]
    fn updates_equal_computing_anew(mut bytes in proptest::collection::vec(any::<u8>(), 32..64), at in 0usize..8, new in any::<[u8; 16]>()) {
        // Not all zero: the one sum whose two representations differ.
        bytes[31] |= 1;
        let at = at * 2;
        let before = checksum::of(&bytes);
        let old: [u8; 16] = bytes[at..at + 16].try_into().unwrap();

        let word = |b: &[u8]| u16::from_be_bytes([b[0], b[1]]);
        let double = |b: &[u8]| u32::from_be_bytes([b[0], b[1], b[2], b[3]]);
        let mut changed = bytes.clone();
        changed[at..at + 2].copy_from_slice(&new[..2]);
        prop_assert_eq!(checksum::update(before, word(&old), word(&new)), checksum::of(&changed));
        changed[at..at + 4].copy_from_slice(&new[..4]);
        prop_assert_eq!(checksum::update_u32(before, double(&old), double(&new)), checksum::of(&changed));
        changed[at..at + 16].copy_from_slice(&new);
        prop_assert_eq!(checksum::update_bytes(before, &old, &new), checksum::of(&changed));
    }

    #[test]
    fn pseudo_header_is_its_bytes(src in any::<[u8; 4]>(), dst in any::<[u8; 4]>(), length in any::<u16>()) {
        let mut bytes = [src, dst, [0, 17, 0, 0]].concat();
        bytes[10..].copy_from_slice(&length.to_be_bytes());
        let mut sum = Checksum::new();
        sum.pseudo_v4(src.into(), dst.into(), Protocol::UDP, length);
        prop_assert_eq!(sum.sum(), textbook(&bytes));
    }
}
