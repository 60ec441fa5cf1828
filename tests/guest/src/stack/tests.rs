//! Two stacks joined in memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::hex::hex;
use crate::loopback::Loopback;
use crate::{Command, Digest, Error, Event, FramePort as _, compare};

const MS: fn(u64) -> Duration = Duration::from_millis;
const LIMIT: Duration = Duration::from_secs(60);

fn config(name: &str, last: u8) -> StackConfig {
    StackConfig {
        name: name.into(),
        ip: [10, 1, 1, last].into(),
        prefix: 24,
        gateway: None,
        window: 64 << 10,
        log_frames: Some(100_000),
    }
}

fn pair() -> (NetStack, NetStack) {
    let (a, b) = Loopback::pair([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).unwrap();
    (NetStack::start(a, config("sql", 11)).unwrap(), NetStack::start(b, config("web", 12)).unwrap())
}

#[test]
fn a_transfer_arrives_whole_and_in_order() {
    let (sql, web) = pair();
    let bytes = 1 << 20;
    let receiving = web.tcp_receive(5001, LIMIT).unwrap();
    let sending = sql.tcp_send(web.ip(), 5001, bytes, 42, LIMIT).unwrap();
    let received = receiving.transfer(LIMIT).unwrap();
    let sent = sending.transfer(LIMIT).unwrap();
    assert_eq!((sent.bytes, received.bytes), (bytes, bytes));
    assert_eq!(received.sha256, Digest::of_stream(42, bytes));
    assert_eq!(received.sha256, sent.sha256);
    assert!((sent.sent, received.sent) == (true, false));
    // The last acknowledgements may still be under way when both have told of their end; what is lost stays lost.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let (sql_tx, sql_rx) = sql.frame_logs().unwrap();
        let (web_tx, web_rx) = web.frame_logs().unwrap();
        let fates = [(&sql_tx, &web_rx), (&web_tx, &sql_rx)].map(|(tx, rx)| {
            let [flow] = tx.flows()[..] else { panic!("one flow each way, not {:?}", tx.flows()) };
            (flow, compare(tx, rx, &flow).unwrap())
        });
        if fates.iter().all(|(_, fate)| fate.is_clean() && fate.sent > 10) {
            break;
        }
        assert!(Instant::now() < deadline, "{fates:?}");
        thread::sleep(MS(10));
    }
}

#[test]
fn pings_are_answered_also_during_a_transfer() {
    let (sql, web) = pair();
    let receiving = web.tcp_receive(5001, LIMIT).unwrap();
    let sending = sql.tcp_send(web.ip(), 5001, 4 << 20, 1, LIMIT).unwrap();
    let report = sql.ping(web.ip(), 5, MS(5), LIMIT).unwrap();
    assert_eq!((report.sent, report.received), (5, 5));
    assert!(report.min_us > 0 && report.min_us <= report.avg_us && report.avg_us <= report.max_us);
    sending.transfer(LIMIT).unwrap();
    assert_eq!(receiving.transfer(LIMIT).unwrap().bytes, 4 << 20);
}

/// The other end of a wire, which answers ARP at once, and datagrams all at once when it has `hold` of them.
fn answer_late(mut port: Loopback, hold: usize, stop: &AtomicBool) {
    let mut held = Vec::new();
    let mut late = true;
    while !stop.load(Ordering::Relaxed) {
        let Some(mut frame) = port.receive().unwrap() else {
            thread::sleep(MS(1));
            continue;
        };
        frame.copy_within(6..12, 0);
        frame[6..12].copy_from_slice(&port.mac());
        match frame[12..14] {
            [0x08, 0x06] => {
                // The request's addresses exchanged, its operation a reply's.
                frame[21] = 2;
                let (sender, target) = (frame[22..32].to_vec(), frame[38..42].to_vec());
                frame[22..28].copy_from_slice(&port.mac());
                frame[28..32].copy_from_slice(&target);
                frame[32..42].copy_from_slice(&sender);
                port.send(&frame, None).unwrap();
            }
            _ => {
                // Addresses and ports exchanged; the sums stay right.
                for (one, other, len) in [(26, 30, 4), (34, 36, 2)] {
                    for n in 0..len {
                        frame.swap(one + n, other + n);
                    }
                }
                held.push(frame);
            }
        }
        late &= held.len() < hold;
        if !late {
            held.drain(..).for_each(|frame| port.send(&frame, None).unwrap());
        }
        port.flush().unwrap();
    }
}

#[test]
fn answers_that_come_all_at_once_are_counted_all() {
    let (a, b) = Loopback::pair([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).unwrap();
    let sql = NetStack::start(a, config("sql", 11)).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| answer_late(b, 150, &stop));
        let probe = sql.udp_probe([10, 1, 1, 12].into(), 7, MS(1), MS(300)).unwrap();
        let report = probe.probe(LIMIT).unwrap();
        stop.store(true, Ordering::Relaxed);
        assert_eq!((report.sent, report.received, report.reordered), (300, 300, 0), "{report:?}");
    });
}

#[test]
fn an_absent_host_is_a_lost_ping_and_a_failed_transfer() {
    let (sql, _web) = pair();
    let report = sql.ping([10, 1, 1, 99].into(), 2, MS(5), MS(50)).unwrap();
    assert_eq!((report.sent, report.received, report.first_us), (2, 0, None));
    let sending = sql.tcp_send([10, 1, 1, 99].into(), 5001, 10, 1, MS(50)).unwrap();
    assert!(matches!(sending.transfer(LIMIT), Err(Error::Failed(m)) if m.contains("time is over")));
}

#[test]
fn a_closed_port_refuses() {
    let (sql, web) = pair();
    let sending = sql.tcp_send(web.ip(), 9, 10, 1, LIMIT).unwrap();
    assert!(matches!(sending.transfer(LIMIT), Err(Error::Failed(m)) if m.contains("refused")));
}

#[test]
fn the_probe_sees_an_outage_of_the_echo() {
    let (sql, web) = pair();
    web.udp_echo(7).unwrap();
    let probe = sql.udp_probe(web.ip(), 7, MS(10), MS(200)).unwrap();
    let report = probe.probe(LIMIT).unwrap();
    assert_eq!((report.sent, report.received, report.reordered), (20, 20, 0));
    let probe = sql.udp_probe(web.ip(), 7, MS(10), MS(1_000)).unwrap();
    thread::sleep(MS(300));
    drop(web);
    let report = probe.probe(LIMIT).unwrap();
    assert!(report.received < report.sent);
    assert!((300..=1_000).contains(&report.longest_outage_ms), "{report:?}");
}

#[test]
fn forged_frames_are_sent_and_seen() {
    let (sql, web) = pair();
    let mut frame = vec![0xff; 60];
    frame[6..12].copy_from_slice(&[2, 0xba, 0xd0, 0, 0, 1]);
    frame[20..26].copy_from_slice(b"forged");
    let seen = web.await_frame(b"forged", LIMIT).unwrap();
    web.counters().unwrap();
    sql.send_frame(&frame).unwrap();
    assert_eq!(seen.finish(LIMIT).unwrap(), Event::Frame { hex: hex(&frame) });
    assert_eq!(web.counters().unwrap().rx_frames, 1);
    let never = web.await_frame(b"other", MS(20)).unwrap();
    assert!(matches!(never.finish(LIMIT), Err(Error::Failed(_))));
    let nonsense = Command::Frame { hex: "no hex".into() };
    assert!(sql.submit(nonsense).unwrap().finish(LIMIT).is_err());
}

/// Processor time of this process's thread of that name, in clock ticks (proc(5): `utime` and `stime` of `stat`).
fn ticks(thread: &str) -> u64 {
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        if std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == thread) {
            let stat = std::fs::read_to_string(task.join("stat")).unwrap();
            // The name, in parentheses, is field 2.
            let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
            return fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        }
    }
    panic!("no thread {thread}");
}

#[test]
fn an_idle_stack_sleeps() {
    let (a, b) = Loopback::pair([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).unwrap();
    let idle = NetStack::start(a, config("idle-sql", 11)).unwrap();
    let other = NetStack::start(b, config("idle-web", 12)).unwrap();
    assert_eq!(idle.ping(other.ip(), 1, MS(1), LIMIT).unwrap().received, 1);
    let before = ticks("idle-sql");
    thread::sleep(MS(1_000));
    let used = ticks("idle-sql") - before;
    // A tick is 10 ms: 5 % of a core.
    assert!(used <= 5, "{used} ticks in a second of idleness");
}

#[test]
fn commands_are_json() {
    let command: Command = serde_json::from_str(r#"{"cmd":"ping","dst":"10.1.1.12","count":5}"#).unwrap();
    let expected =
        Command::Ping { dst: [10, 1, 1, 12].into(), count: 5, interval_ms: 200, timeout_ms: 3_000 };
    assert_eq!(command, expected);
    let event = serde_json::to_value(Event::Listening { port: 7 }).unwrap();
    assert_eq!(event, serde_json::json!({"event": "listening", "port": 7}));
}
