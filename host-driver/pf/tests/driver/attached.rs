//! A NIC that dies, hangs, is removed or cannot be brought up, and comes back.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use culvert_offload::{DeviceInfo, Event, EventQueue, FlowTables, PacketIo, TableWrite};
use culvert_packet::{Reason, VportId};
use culvert_pci::{Device, Error};
use culvert_pf::{AttachedNic, NicState};

use crate::board::{ANSWERS, GONE, SILENT};
use crate::fixtures::{frame, vport};
use crate::testbed::{RunningBoard, config, image, start_board, until};

/// Opens the PF of the board that is plugged in.
type Plugged = Box<dyn Fn() -> Box<dyn Device> + Send>;

/// Where a board can be plugged in.
#[derive(Clone, Default)]
struct Socket(Arc<Mutex<Option<Plugged>>>);

impl Socket {
    /// Plugs a board in; `None`: pulls it out.
    fn plug(&self, board: Option<&RunningBoard>) {
        *self.0.lock().unwrap() = board.map(|board| {
            let opener = board.opener();
            Box::new(opener) as Plugged
        });
    }

    fn open(&self) -> culvert_pci::Result<Box<dyn Device>> {
        let plugged = self.0.lock().unwrap();
        let absent =
            || Error::Connect { path: "pf.sock".into(), source: io::ErrorKind::ConnectionRefused.into() };
        plugged.as_ref().map(|open| open()).ok_or_else(absent)
    }

    fn attach(&self) -> AttachedNic {
        let socket = self.clone();
        AttachedNic::start("pf.sock", Box::new(move || socket.open()), config(), 2).unwrap()
    }
}

fn next(events: &dyn EventQueue, what: &str) -> Event {
    until(what, || events.next().filter(|event| !matches!(event, Event::Link(_))))
}

fn set_vport(nic: &AttachedNic) {
    nic.write(TableWrite::Vports(&[(0, vport(culvert_abi::Vport::VF, 0))])).unwrap();
}

#[test]
fn a_nic_that_dies_is_taken_again_with_its_upcalls_and_counters() {
    let (socket, first) = (Socket::default(), start_board());
    socket.plug(Some(&first));
    let nic = socket.attach();
    let (events, mut upcalls) = (nic.events().unwrap(), PacketIo::upcalls(&nic).unwrap());
    assert!(PacketIo::upcalls(&nic).is_none() && nic.events().is_none());
    set_vport(&nic);
    FlowTables::start(&nic).unwrap();
    assert!(PacketIo::enqueue_drops(&nic, VportId(0), Reason::RingFull, 7).unwrap());
    nic.doorbell().unwrap();
    let ring_full = |nic: &AttachedNic| {
        let drops = nic.drops().ok()?;
        drops.iter().find(|(reason, _)| *reason == Reason::RingFull).map(|(_, count)| *count)
    };
    until("the drops are counted", || ring_full(&nic).filter(|n| *n == 7));
    let mut vmq = PacketIo::vmq(&nic, 0).unwrap();

    socket.plug(None);
    first.set_fault(GONE);
    assert!(matches!(next(&*events, "the loss"), Event::Lost(_)));
    let absent =
        until("the attempt to open it", || Some(nic.status()).filter(|s| s.state == NicState::Absent));
    let problem = absent.problem.unwrap();
    assert!(problem.contains("is culvert-emu running") && problem.contains("when it returns"), "{problem}");
    assert!(!nic.is_alive() && nic.vports().is_err() && nic.fence().is_err());
    assert!(!PacketIo::enqueue_drops(&nic, VportId(0), Reason::RingFull, 1).unwrap(), "it is kept");
    assert!(upcalls.pop().unwrap().is_none());
    assert!(vmq.pop(&mut [0; 2048]).is_err(), "a VMQ ends with its NIC");
    assert_eq!(absent.identity.unwrap().total_vfs, 64, "what was known stays known");

    let second = start_board();
    let plugged = Instant::now();
    socket.plug(Some(&second));
    assert!(matches!(next(&*events, "its return"), Event::FirmwareReady { .. }));
    assert!(plugged.elapsed() < Duration::from_secs(2), "{:?}", plugged.elapsed());
    assert_eq!(second.loaded(), (image(), 1));
    let status = nic.status();
    assert_eq!((status.state, status.problem, status.vfs.len()), (NicState::Running, None, 2));
    set_vport(&nic);
    FlowTables::start(&nic).unwrap();
    assert_eq!(ring_full(&nic), Some(7), "counters go on");
    second.frame(culvert_abi::soc::BoardPort::Vf(0), &frame(2));
    let upcall = until("an upcall of the new NIC", || upcalls.pop().unwrap());
    assert_eq!(upcall.meta.reason, Reason::Miss);
}

/// A board that is stopped for a while, such as by SIGSTOP, is the same NIC afterwards: it keeps its tables.
#[test]
fn a_board_that_does_not_answer_for_a_while_is_used_again() {
    let (socket, board) = (Socket::default(), start_board());
    socket.plug(Some(&board));
    let nic = socket.attach();
    let events = nic.events().unwrap();
    set_vport(&nic);
    FlowTables::start(&nic).unwrap();
    board.set_fault(SILENT);
    assert!(matches!(next(&*events, "the silence"), Event::Silent(_)));
    let begun = Instant::now();
    assert!(!nic.is_alive() && nic.vports().is_err() && nic.counters().is_err() && nic.drops().is_err());
    assert!(nic.links().is_ok() && nic.status().problem.is_some());
    assert!(begun.elapsed() < Duration::from_millis(500), "nothing waits for it: {:?}", begun.elapsed());
    assert_eq!(nic.status().state, NicState::Running, "it is not lost");
    board.set_fault(ANSWERS);
    assert!(matches!(next(&*events, "the answer"), Event::FirmwareReady { epoch: 1 }));
    assert_eq!(nic.vports().unwrap().iter().filter(|v| v.flags != 0).count(), 1);
    assert_eq!((board.loaded().1, nic.status().problem), (1, None));
}

#[test]
fn a_nic_that_is_absent_at_first_is_taken_when_it_comes() {
    let (socket, board) = (Socket::default(), start_board());
    let nic = socket.attach();
    assert_eq!(nic.status().state, NicState::Absent);
    assert!(nic.capabilities().flow_records > 0);
    socket.plug(Some(&board));
    until("it is there", || nic.is_alive().then_some(()));
    assert_eq!(nic.status().vfs.len(), 2);
}

/// Firmware that beats but never answers CONFIGURE: it is replaced once, then reported, and tried again more and more
/// rarely.
#[test]
fn firmware_that_never_answers_configure_is_an_error_with_a_limit() {
    let (socket, board) = (Socket::default(), start_board());
    board.lock().deaf = true;
    let nic = {
        socket.plug(Some(&board));
        socket.attach()
    };
    let status = nic.status();
    assert_eq!(status.state, NicState::Failed);
    assert!(status.problem.unwrap().contains("CONFIGURE"));
    assert!(!nic.is_alive());
    assert_eq!(board.loaded().1, 1);
    // The next attempt finds running firmware that does not answer, and loads the image again.
    board.lock().deaf = false;
    until("it answers", || nic.is_alive().then_some(()));
    assert_eq!(nic.status().problem, None);
}

#[test]
fn another_device_is_an_error_at_once() {
    let (socket, board) = (Socket::default(), start_board());
    board.set_register(culvert_abi::regs::ABI, 99);
    socket.plug(Some(&board));
    let refused = AttachedNic::start("pf.sock", Box::new(move || socket.open()), config(), 2).err().unwrap();
    assert!(matches!(refused, culvert_pf::Error::Abi { .. }), "{refused}");
}
