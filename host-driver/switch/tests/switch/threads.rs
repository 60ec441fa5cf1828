//! The threads themselves.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use culvert_flow::{HashSecret, Port};
use culvert_offload::EventFd;
use culvert_packet::VportId;
use culvert_switch::{Packet, Pool, Sent, Switch, SwitchPort, SwitchSettings};

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

/// A port with a fault.
struct Faulty(EventFd);

impl SwitchPort for Faulty {
    fn receive(&mut self, _: &mut Pool, _: &mut Vec<Packet>, _: usize) -> io::Result<()> {
        panic!("a fault of this port");
    }

    fn send(&mut self, _: &mut Pool, _: &mut Vec<Packet>) -> io::Result<Sent> {
        Ok(Sent::default())
    }

    fn arm(&mut self) -> bool {
        true
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Says to a process of this program that it is to have a switch with a faulty port.
const FAULTY: &str = "CULVERT_FAULTY_SWITCH";

/// Not a test: the process that the next test starts.
#[test]
fn a_process_with_a_faulty_port() {
    if std::env::var_os(FAULTY).is_some() {
        let settings = SwitchSettings { buffers: 256, ..settings(vec![None]) };
        let switch = Switch::start(&settings).unwrap();
        let open = || Ok(Box::new(Faulty(EventFd::new().map_err(io::Error::other)?)) as Box<dyn SwitchPort>);
        switch.attach(Port::Vport(VportId(0)), Box::new(open)).unwrap();
        std::thread::sleep(Duration::from_secs(60));
    }
}

#[test]
fn a_worker_that_panics_ends_the_process_with_a_last_word() {
    let arguments = ["--exact", "threads::a_process_with_a_faulty_port", "--nocapture"];
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .env(FAULTY, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            child.kill().unwrap();
            panic!("the process goes on without its worker");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(culvert_threads::EXIT_CODE.into()), "{text}");
    assert!(["switch-0", "a fault of this port", "threads.rs:"].iter().all(|w| text.contains(w)), "{text}");
}
