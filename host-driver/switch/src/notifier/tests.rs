//! Whoever sleeps is woken, once; whoever is awake is left alone.

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Notifier;

fn rings(notifier: &Notifier) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(notifier, PollFlags::IN)], Some(&now)).expect("it can be asked") == 1
}

#[test]
fn it_rings_for_sleepers_only() {
    let notifier = Notifier::new().expect("a descriptor");
    notifier.notify().expect("notified");
    assert!(!rings(&notifier), "nobody sleeps");
    notifier.sleeping();
    notifier.notify().expect("notified");
    assert!(rings(&notifier));
    notifier.awake();
    notifier.notify().expect("notified");
    assert!(!rings(&notifier));
}
