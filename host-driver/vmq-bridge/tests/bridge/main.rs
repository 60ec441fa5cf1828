//! VMs on VMQs of a fake NIC with limited room: frames arrive in both directions, and every lost frame is counted.

#[path = "../../../slowpath/tests/slow_path/fake.rs"]
#[expect(dead_code, reason = "the slow path's tests use the rest of it")]
mod fake;
mod large;
#[path = "../../../switch/tests/switch/mem_port.rs"]
mod mem_port;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use culvert_packet::VportId;
use culvert_switch::{BURST, Opener, SwitchPort};
use culvert_vmq_bridge::VmqBridge;
use fake::FakeNic;
use mem_port::{FrameQueue, MemPort};

const LIMIT: Duration = Duration::from_secs(10);

/// The VM's side of its port.
struct Vm {
    out: Arc<FrameQueue>,
    input: Arc<FrameQueue>,
}

fn frame(n: usize) -> Vec<u8> {
    let mut frame = vec![0; 60];
    frame[14..22].copy_from_slice(&(n as u64).to_be_bytes());
    frame
}

fn frames(range: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    range.map(frame).collect()
}

/// Waits until `ready` holds, within the time limit.
fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !ready() {
        assert!(Instant::now() < end, "time-out: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A fake NIC and a bridge on it.
fn start() -> (FakeNic, VmqBridge) {
    let nic = FakeNic::new(vec![]);
    let bridge = VmqBridge::start(Arc::new(nic.clone())).unwrap();
    (nic, bridge)
}

/// Attaches a VM to vport `10 + n` on VMQ `n`.
fn attach(bridge: &VmqBridge, n: u16) -> Vm {
    let vm = Vm { out: FrameQueue::new(), input: FrameQueue::new() };
    let (input, output) = (Arc::clone(&vm.out), Arc::clone(&vm.input));
    let open: Opener = Box::new(move || {
        let port = MemPort { input: Arc::clone(&input), output: Arc::clone(&output) };
        Ok(Box::new(port) as Box<dyn SwitchPort>)
    });
    bridge.attach(VportId(10 + n), n, open).unwrap();
    until("the VM's port is open", || links(bridge).contains(&(VportId(10 + n), true)));
    vm
}

fn links(bridge: &VmqBridge) -> Vec<(VportId, bool)> {
    bridge.read().unwrap().into_iter().map(|port| (port.vport, port.link)).collect()
}

/// Frames of a vport's VM that the NIC has received.
fn enqueued(nic: &FakeNic, vport: u16) -> Vec<Vec<u8>> {
    let state = nic.state();
    state.enqueued.iter().filter(|(v, _)| v.0 == vport).map(|(_, frame)| frame.clone()).collect()
}

/// Waits for `count` frames and takes all that the VM has received.
fn received(vm: &Vm, count: usize) -> Vec<Vec<u8>> {
    until("all frames are received", || vm.input.len() >= count);
    std::iter::from_fn(|| vm.input.take()).collect()
}

/// Drops that the NIC has counted, by vport and reason.
fn counted(nic: &FakeNic) -> BTreeMap<(u16, &'static str), u64> {
    nic.state().counted.clone()
}

#[test]
fn each_vm_uses_its_own_vmq_and_vport() {
    let (nic, bridge) = start();
    let vms = [attach(&bridge, 0), attach(&bridge, 1)];
    for n in 0..500 {
        vms[n % 2].out.put(frame(n));
        nic.vmq_frame(n % 2, &frame(1000 + n));
    }
    let expected = |from: usize, n: usize| (0..250).map(|i| frame(from + 2 * i + n)).collect::<Vec<_>>();
    for (n, vm) in vms.iter().enumerate() {
        assert_eq!(received(vm, 250), expected(1000, n));
        until("all frames are enqueued", || enqueued(&nic, 10 + n as u16).len() == 250);
        assert_eq!(enqueued(&nic, 10 + n as u16), expected(0, n));
    }
    assert_eq!(counted(&nic), BTreeMap::new());
}

#[test]
fn a_nic_without_room_makes_the_vm_wait_and_loses_nothing() {
    let (nic, bridge) = start();
    nic.state().room = 3;
    let vm = attach(&bridge, 0);
    frames(0..1000).into_iter().for_each(|frame| vm.out.put(frame));
    until("the NIC is full", || enqueued(&nic, 10).len() == 3);
    std::thread::sleep(Duration::from_millis(50));
    assert!(vm.out.len() >= 1000 - 3 - BURST, "the VM's ring is read: {} frames are left", vm.out.len());
    // The VM still receives.
    nic.vmq_frame(0, &frame(7));
    assert_eq!(received(&vm, 1), [frame(7)]);
    while enqueued(&nic, 10).len() < 1000 {
        nic.state().room = 97;
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(enqueued(&nic, 10), frames(0..1000));
    assert_eq!(counted(&nic), BTreeMap::new());
}

#[test]
fn frames_that_a_vm_does_not_accept_are_counted_for_its_vport() {
    let (nic, bridge) = start();
    let vm = attach(&bridge, 0);
    vm.input.room.store(100, SeqCst);
    frames(0..250).iter().for_each(|frame| nic.vmq_frame(0, frame));
    until("the other frames are counted", || counted(&nic).get(&(10, "ring_full")) == Some(&150));
    assert_eq!(received(&vm, 100), frames(0..100));
    vm.input.set_up(false);
    frames(0..40).iter().for_each(|frame| nic.vmq_frame(0, frame));
    until("all frames are counted", || counted(&nic).get(&(10, "queue_stopped")) == Some(&40));
    vm.input.set_up(true);
    // Longer than a frame from the wire, and longer than the NIC accepts.
    nic.vmq_frame(0, &[0; 2000]);
    vm.out.put(vec![0; 1920]);
    until("both frames are counted", || counted(&nic).get(&(10, "too_long")) == Some(&2));
    assert_eq!(counted(&nic).len(), 3, "{:?}", counted(&nic));
    assert_eq!((enqueued(&nic, 10), vm.input.len()), (vec![], 0));
}

#[test]
fn while_the_firmware_is_dead_vms_wait_and_drops_are_reported_later() {
    let (nic, bridge) = start();
    let vm = attach(&bridge, 0);
    nic.state().dead = true;
    vm.input.set_up(false);
    frames(0..200).into_iter().for_each(|frame| vm.out.put(frame));
    frames(0..30).iter().for_each(|frame| nic.vmq_frame(0, frame));
    until("the VMQ is empty", || nic.vmq_len(0) == 0);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!((enqueued(&nic, 10), counted(&nic)), (vec![], BTreeMap::new()));
    nic.state().dead = false;
    until("all frames are enqueued", || enqueued(&nic, 10).len() == 200);
    assert_eq!(enqueued(&nic, 10), frames(0..200));
    until("the drops are counted", || counted(&nic).get(&(10, "queue_stopped")) == Some(&30));
}

#[test]
fn a_stopped_vmq_is_reopened() {
    let (nic, bridge) = start();
    let vm = attach(&bridge, 1);
    until("the VMQ is open", || nic.state().opened == [1]);
    nic.stop_vmq(1);
    until("the VMQ is open again", || nic.state().opened == [1, 1]);
    nic.vmq_frame(1, &frame(1));
    vm.out.put(frame(2));
    assert_eq!(received(&vm, 1), [frame(1)]);
    until("the frame is enqueued", || enqueued(&nic, 11) == [frame(2)]);
}

#[test]
fn opening_a_port_is_retried() {
    let (nic, bridge) = start();
    let queues = [FrameQueue::new(), FrameQueue::new()];
    let (input, output) = (Arc::clone(&queues[0]), Arc::clone(&queues[1]));
    let mut tries = 0;
    let open: Opener = Box::new(move || {
        tries += 1;
        if tries == 1 {
            return Err(std::io::ErrorKind::NotFound.into());
        }
        let port = MemPort { input: Arc::clone(&input), output: Arc::clone(&output) };
        Ok(Box::new(port) as Box<dyn SwitchPort>)
    });
    bridge.attach(VportId(10), 0, open).unwrap();
    assert_eq!(links(&bridge), [(VportId(10), false)]);
    nic.vmq_frame(0, &frame(1));
    until("the drops are counted", || counted(&nic).get(&(10, "queue_stopped")) == Some(&1));
    until("the port is open", || links(&bridge) == [(VportId(10), true)]);
    nic.vmq_frame(0, &frame(2));
    until("the frame is received", || queues[1].take() == Some(frame(2)));
}

#[test]
fn frames_of_a_detached_port_are_counted() {
    let (nic, bridge) = start();
    nic.state().room = 10;
    let vm = attach(&bridge, 0);
    frames(0..500).into_iter().for_each(|frame| vm.out.put(frame));
    until("the NIC is full", || enqueued(&nic, 10).len() == 10);
    bridge.detach(VportId(10)).unwrap();
    assert_eq!(links(&bridge), []);
    let lost = counted(&nic).get(&(10, "queue_stopped")).copied().unwrap_or(0) as usize;
    assert_eq!(10 + lost + vm.out.len(), 500);
    nic.vmq_frame(0, &frame(1));
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!((vm.input.len(), nic.vmq_len(0)), (0, 1));
}
