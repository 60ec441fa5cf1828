//! Which threads a watch misses.
#![forbid(unsafe_code)]

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use culvert_threads::{Watch, beat, spawn};

#[test]
fn a_thread_that_hangs_is_missed_until_it_goes_on_or_ends() {
    let limit = Duration::from_secs(10);
    let (go, gone) = channel::<()>();
    let (done, beaten) = channel();
    let thread = spawn("packet-7", move || {
        beat();
        done.send(()).unwrap();
        while gone.recv().is_ok() {
            beat();
            done.send(()).unwrap();
        }
    });
    beaten.recv().unwrap();
    let mut watch = Watch::new(limit);
    let start = Instant::now();
    let mut silent = |seconds| watch.silent(start + Duration::from_secs(seconds));
    assert!(silent(0).is_empty() && silent(9).is_empty());
    assert_eq!(silent(11), ["packet-7"], "no sign since the first look");
    go.send(()).unwrap();
    beaten.recv().unwrap();
    assert!(silent(12).is_empty(), "it goes on");
    assert!(silent(21).is_empty());
    assert_eq!(silent(23), ["packet-7"]);
    drop(go);
    thread.unwrap().join().unwrap();
    assert!(silent(60).is_empty(), "it has ended as it should");
}
