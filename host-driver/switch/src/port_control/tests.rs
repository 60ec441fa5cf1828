//! Ports that hang while they are opened or closed.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::AtomicU32;

use culvert_offload::EventFd;
use culvert_packet::VportId;

use super::*;
use crate::packet::Packet;
use crate::pool::Pool;
use crate::port::Sent;
use crate::{AttachedPort, PortState, Switch, SwitchSettings};

const LIMIT: Duration = Duration::from_secs(10);
const FIRST: Port = Port::Vport(VportId(1));
const OTHER: Port = Port::Vport(VportId(2));

/// What became of the ports of a test, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn add(&self, what: impl Into<String>) {
        packet_thread::assert_may_wait();
        self.0.lock().unwrap().push(what.into());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// A gate that lets nothing through until it is opened.
type Gate = Arc<Mutex<()>>;

/// A port that waits at a gate when it is closed.
struct GatedPort {
    name: String,
    log: Log,
    gate: Gate,
    event: EventFd,
}

impl SwitchPort for GatedPort {
    fn receive(&mut self, _: &mut Pool, _: &mut Vec<Packet>, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> io::Result<Sent> {
        packets.drain(..).for_each(|packet| pool.give(packet));
        Ok(Sent::default())
    }

    fn destroy(&mut self) {
        self.log.add(format!("destroy {}", self.name));
    }

    fn arm(&mut self) -> bool {
        true
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl Drop for GatedPort {
    fn drop(&mut self) {
        drop(self.gate.lock());
        self.log.add(format!("close {}", self.name));
    }
}

/// Opens ports that log what becomes of them. Opening and closing wait at gates.
fn opener(name: &str, log: &Log, open: &Gate, close: &Gate) -> Opener {
    let (name, log, open, gate) = (name.to_owned(), log.clone(), Arc::clone(open), Arc::clone(close));
    Box::new(move || {
        drop(open.lock());
        log.add(format!("open {name}"));
        let (name, log, gate, event) =
            (name.clone(), log.clone(), Arc::clone(&gate), EventFd::new().unwrap());
        Ok(Box::new(GatedPort { name, log, gate, event }))
    })
}

fn switch() -> Switch {
    let settings = SwitchSettings::new(1 << 10, culvert_flow::HashSecret([3; 9]));
    Switch::start(&SwitchSettings { buffers: 64, large_buffers: 1, ..settings }).unwrap()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn is_open(switch: &Switch, at: Port) -> bool {
    switch.ports().unwrap().iter().any(|(port, link, _)| *port == at && *link)
}

#[test]
fn a_port_that_hangs_while_it_opens_or_closes_holds_up_neither_workers_nor_other_ports() {
    let (log, gate, free) = (Log::default(), Gate::default(), Gate::default());
    let switch = switch();
    for hangs_when_opened in [true, false] {
        let closed = gate.lock().unwrap();
        let (open, close) = if hangs_when_opened { (&gate, &free) } else { (&free, &gate) };
        switch.attach(FIRST, opener("first", &log, open, close)).unwrap();
        if !hangs_when_opened {
            until("the first port is open", || is_open(&switch, FIRST));
            switch.detach(FIRST).unwrap();
            // Its successor waits until it is closed.
            switch.attach(FIRST, opener("next", &log, &free, &free)).unwrap();
        }
        switch.attach(OTHER, opener("second", &log, &free, &free)).unwrap();
        until("the second port is open", || is_open(&switch, OTHER));
        assert!(!is_open(&switch, FIRST));
        drop(closed);
        until("the first port is open", || is_open(&switch, FIRST));
        switch.detach(FIRST).unwrap();
        switch.detach(OTHER).unwrap();
        until("both are closed", || log.all().last().is_some_and(|line| line.starts_with("close")));
    }
    drop(switch);
    let of =
        |name: &str| -> Vec<String> { log.all().into_iter().filter(|line| line.ends_with(name)).collect() };
    let life = ["open", "destroy", "close"];
    assert_eq!(of("first"), [life, life].concat().iter().map(|w| format!("{w} first")).collect::<Vec<_>>());
    let lines: Vec<String> = log.all().into_iter().filter(|line| !line.ends_with("second")).collect();
    let (closed, opened) =
        (lines.iter().rposition(|l| l == "close first"), lines.iter().position(|l| l == "open next"));
    assert!(closed < opened, "closed before its successor opens: {lines:?}");
}

#[test]
fn a_port_that_is_detached_while_it_opens_is_closed() {
    let (log, gate, free) = (Log::default(), Gate::default(), Gate::default());
    let switch = switch();
    let closed = gate.lock().unwrap();
    switch.attach(FIRST, opener("first", &log, &gate, &free)).unwrap();
    switch.detach(FIRST).unwrap();
    drop(closed);
    // It is not opened at all if its thread had not begun.
    switch.attach(FIRST, opener("next", &log, &free, &free)).unwrap();
    until("the next one is open", || is_open(&switch, FIRST));
    let before: Vec<String> = log.all().into_iter().filter(|line| line.ends_with("first")).collect();
    assert!(before.is_empty() || before == ["open first", "destroy first", "close first"], "{before:?}");
}

#[test]
fn the_end_of_a_switch_closes_its_ports_and_does_not_wait_for_one_that_hangs() {
    let (log, gate, free) = (Log::default(), Gate::default(), Gate::default());
    let switch = switch();
    let closed = gate.lock().unwrap();
    switch.attach(FIRST, opener("first", &log, &free, &gate)).unwrap();
    switch.attach(OTHER, opener("second", &log, &free, &free)).unwrap();
    until("both are open", || is_open(&switch, FIRST) && is_open(&switch, OTHER));
    drop(switch);
    let all = log.all();
    assert!(all.contains(&"close second".to_owned()) && !all.contains(&"close first".to_owned()), "{all:?}");
    drop(closed);
    until("the other is closed, too", || log.all().contains(&"close first".to_owned()));
    assert!(!log.all().iter().any(|line| line.starts_with("destroy")), "a TAP outlives the daemon");
}

/// A port whose link its monitor finds out.
struct MonitoredLink(GatedPort, Arc<AtomicBool>);

struct LinkMonitor {
    truth: Arc<AtomicBool>,
    seen: Arc<AtomicBool>,
    polls: Arc<AtomicU32>,
}

impl PortMonitor for LinkMonitor {
    fn poll(&mut self) -> bool {
        packet_thread::assert_may_wait();
        self.polls.fetch_add(1, Ordering::SeqCst);
        let up = self.truth.load(Ordering::SeqCst);
        self.seen.swap(up, Ordering::SeqCst) != up
    }
}

#[test]
fn a_port_is_monitored_while_it_is_open() {
    let (truth, seen, polls) = (Arc::new(AtomicBool::new(true)), Arc::default(), Arc::new(AtomicU32::new(0)));
    let monitor =
        LinkMonitor { truth: Arc::clone(&truth), seen: Arc::clone(&seen), polls: Arc::clone(&polls) };
    let mut monitor = Some(monitor);
    let control = PortControl::start().unwrap();
    let notifier = Arc::new(Notifier::new().unwrap());
    let tx = control.tx(&notifier);
    let (log, gate) = (Log::default(), Gate::default());
    struct Port(MonitoredLink, Option<LinkMonitor>);
    impl SwitchPort for Port {
        fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, max: usize) -> io::Result<()> {
            self.0.0.receive(pool, packets, max)
        }
        fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> io::Result<Sent> {
            self.0.0.send(pool, packets)
        }
        fn link(&mut self) -> bool {
            self.0.1.load(Ordering::SeqCst)
        }
        fn monitor(&mut self) -> Option<Box<dyn PortMonitor>> {
            Some(Box::new(self.1.take()?))
        }
        fn arm(&mut self) -> bool {
            true
        }
        fn fd(&self) -> BorrowedFd<'_> {
            self.0.0.fd()
        }
    }
    let open: Opener = Box::new(move || {
        let event = EventFd::new().unwrap();
        let port = GatedPort { name: "port".into(), log: log.clone(), gate: Arc::clone(&gate), event };
        Ok(Box::new(Port(MonitoredLink(port, Arc::clone(&seen)), monitor.take())))
    });
    let mut port = AttachedPort::new(FIRST, open, 0, tx.clone());
    for up in [true, false, true] {
        truth.store(up, Ordering::SeqCst);
        until("the packet thread is told", || {
            tx.take_changed() && {
                port.reopen_if_due(0);
                port.link() == up
            }
        });
    }
    drop(port);
    // At most one more poll may be under way.
    std::thread::sleep(2 * INTERVAL);
    let count = polls.load(Ordering::SeqCst);
    std::thread::sleep(3 * INTERVAL);
    assert_eq!(polls.load(Ordering::SeqCst), count, "a closed port is no longer monitored");
}

#[test]
fn a_port_says_why_it_is_not_open_and_opens_when_it_can() {
    let switch = switch();
    let (log, allowed) = (Log::default(), Arc::new(AtomicBool::new(false)));
    let (mut open, may_open) = (opener("a", &log, &Gate::default(), &Gate::default()), Arc::clone(&allowed));
    let open_if_allowed = move || match may_open.load(Ordering::Acquire) {
        true => open(),
        false => Err(io::Error::other("the thing is busy")),
    };
    switch.attach(FIRST, Box::new(open_if_allowed)).unwrap();
    let state = || switch.port_states().unwrap().remove(&FIRST).map(|(state, _)| state);
    until("failed", || state() == Some(PortState::Failed("the thing is busy".into())));
    allowed.store(true, Ordering::Release);
    until("up", || state() == Some(PortState::Up));
    switch.detach(FIRST).unwrap();
    assert_eq!(state(), None);
}
