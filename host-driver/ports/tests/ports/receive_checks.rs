//! Checks that a packet socket and XDP sockets have in common: a port on one end of a veth, a packet socket on the other.

use std::time::Duration;

use culvert_ports::AfPacket;
use culvert_switch::{Pool, SwitchPort};

use crate::frames::{datagram, is_ours, number, numbered, numbers};
use crate::namespace::{TIMEOUT, wait_until};
use crate::test_port::TestPort;

/// Frames wait, in order, while the pool is empty. One that fits into no buffer of the pool does not wait, and is counted.
pub(crate) fn frames_wait_for_a_buffer<P: SwitchPort>(
    mut near: TestPort<P>,
    mut far: TestPort<AfPacket>,
    raise_mtu: impl FnOnce(),
) {
    near.pool = Pool::new(8, 0).unwrap();
    far.send(&numbered(0..20, 60));
    let mut all = Vec::new();
    wait_until("all have come", || {
        let some = near.receive();
        assert!(some.len() <= 8);
        all.extend(numbers(&some));
        all.len() == 20
    });
    assert_eq!((all, near.take_rx_drops()), ((0..20).collect(), 0));
    raise_mtu();
    far.send(&[datagram(9, 20, 5000), datagram(9, 21, 60)]);
    let rest = near.receive_until(|frame| is_ours(frame) && number(frame) == 21);
    assert_eq!((numbers(&rest), near.take_rx_drops()), (vec![21], 1));
}

/// Each frame makes the file descriptor of an armed port readable.
pub(crate) fn a_frame_wakes_a_sleeping_reader<P: SwitchPort>(
    mut near: TestPort<P>,
    mut far: TestPort<AfPacket>,
) {
    for n in 0..100 {
        wait_until("nothing is there", || {
            near.receive();
            near.port.arm() && !near.readable(Duration::ZERO)
        });
        far.send(&numbered(n..n + 1, 60));
        assert!(near.readable(TIMEOUT) && !near.port.arm(), "frame {n}");
        near.receive_until(|frame| is_ours(frame) && number(frame) == n);
    }
}
