//! Whoever sleeps is woken, once; whoever is awake is left alone.

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Bell;

fn rings(bell: &Bell) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(bell, PollFlags::IN)], Some(&now)).expect("it can be asked") == 1
}

#[test]
fn it_rings_for_sleepers_only() {
    let bell = Bell::new().expect("a descriptor");
    bell.ring().expect("rung");
    assert!(!rings(&bell), "nobody sleeps");
    bell.sleeping();
    bell.ring().expect("rung");
    assert!(rings(&bell));
    bell.awake();
    bell.ring().expect("rung");
    assert!(!rings(&bell));
}
