//! The threads themselves.

use culvert_flow::{HashSecret, Port};
use culvert_packet::VportId;
use culvert_switch::{Switch, SwitchSettings};

use crate::testbed::{Plan, Testbed};

fn settings(workers: Vec<Option<usize>>) -> SwitchSettings {
    let common = SwitchSettings::new(1 << 10, HashSecret([3; 9]));
    SwitchSettings { buffers: 64, large_buffers: 1, workers, ..common }
}

#[test]
fn a_processor_that_is_not_there_is_named() {
    let error = Switch::start(&settings(vec![None, Some(100_000)])).err().expect("no vm has so many");
    let text = format!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string));
    assert!(text.contains("processor 100000"), "{text}");
}

#[test]
fn vports_go_to_the_workers_that_have_the_fewest() {
    let switch = Switch::start(&settings(vec![None; 3])).unwrap();
    let port = |n| Port::Vport(VportId(n));
    let nothing =
        || -> culvert_switch::Opener { Box::new(|| Err(std::io::Error::from(std::io::ErrorKind::NotFound))) };
    let at = |switch: &Switch| (0..6).map(|n| switch.worker_of(VportId(n))).collect::<Vec<_>>();
    for n in 0..5 {
        switch.attach(port(n), nothing()).unwrap();
    }
    assert_eq!(at(&switch), [Some(0), Some(1), Some(2), Some(0), Some(1), None]);
    switch.detach(port(1)).unwrap();
    switch.detach(port(4)).unwrap();
    switch.attach(port(5), nothing()).unwrap();
    assert_eq!(at(&switch), [Some(0), None, Some(2), Some(0), None, Some(1)]);
    let vports = switch.loads().unwrap().iter().map(|load| load.vports).collect::<Vec<_>>();
    assert_eq!(vports, [2, 1, 1]);
}

#[test]
fn who_works_is_busy() {
    let mut testbed = Testbed::new(&Plan { workers: 2, ..Plan::default() });
    let busy = |testbed: &Testbed| {
        testbed.hosts[0].switch.loads().unwrap().iter().map(|load| load.busy).collect::<Vec<_>>()
    };
    let before = busy(&testbed);
    for number in 0..2000 {
        testbed.send(0, 1, 1000, number, 100);
        testbed.send(2, 3, 1000, number, 100);
    }
    testbed.settle();
    let after = busy(&testbed);
    assert!(before.iter().zip(&after).all(|(before, after)| before < after), "{before:?} {after:?}");
}
