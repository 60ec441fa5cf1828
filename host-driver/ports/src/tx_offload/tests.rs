//! What a receiver without offloads gets.

use culvert_switch::Pool;

use super::*;

#[test]
fn a_packet_that_is_prepared_again_keeps_its_checksum() {
    let mut pool = Pool::new(1, 0).expect("memory");
    let mut packet = pool.take().expect("a buffer");
    let frame: Vec<u8> = (0..60).collect();
    assert!(packet.fill(&frame));
    packet.offload =
        Offload { checksum: ChecksumState::Partial, start: 34, offset: 16, ..Offload::default() };
    let mut prepared = || {
        assert!(matches!(TxFrames::of(&mut packet, TxOffloads::NONE), TxFrames::Whole { .. }));
        packet.bytes().to_vec()
    };
    let first = prepared();
    assert_ne!(first, frame);
    assert_eq!(prepared(), first);
    pool.give(packet);
}
