//! Loss and order as a test would ask for them.

use super::*;

/// A UDP frame with this TTL and payload.
fn frame(ttl: u8, payload: &[u8]) -> Vec<u8> {
    let mut f = vec![2; 14];
    f[12..].copy_from_slice(&[8, 0]);
    f.extend([0x45, 0, 0, (28 + payload.len()) as u8, 0, 0, 0x40, 0, ttl, 17, ttl, ttl]);
    f.extend([10, 1, 1, 11, 10, 1, 1, 12, 0, 7, 0, 9, 0, (8 + payload.len()) as u8, ttl, 0]);
    f.extend(payload);
    f
}

fn log(frames: &[&[u8]], ttl: u8) -> FrameLog {
    let mut log = FrameLog::new(100);
    frames.iter().for_each(|payload| log.record(&frame(ttl, payload)));
    log
}

fn fate(sent: &[&[u8]], received: &[&[u8]]) -> LossOrder {
    let (sent, received) = (log(sent, 64), log(received, 63));
    compare(&sent, &received, &sent.flows()[0]).unwrap()
}

#[test]
fn a_routed_frame_is_the_same_frame() {
    let result = fate(&[b"a", b"b", b"c"], &[b"a", b"b", b"c"]);
    assert_eq!(result, LossOrder { sent: 3, ..LossOrder::default() });
    assert!(result.is_clean());
}

#[test]
fn loss_order_and_strangers_are_counted() {
    assert_eq!(fate(&[b"a", b"b", b"c"], &[b"a", b"c"]).missing, 1);
    assert_eq!(fate(&[b"a", b"b", b"c"], &[b"c", b"a", b"b"]).inverted, 2);
    assert_eq!(fate(&[b"a"], &[b"a", b"a", b"x"]).unexpected, 2);
    assert_eq!(fate(&[b"a", b"b"], &[]).missing, 2);
}

#[test]
fn retransmissions_are_told_apart() {
    assert!(fate(&[b"a", b"b", b"a"], &[b"a", b"b", b"a"]).is_clean());
    assert_eq!(fate(&[b"a", b"b", b"a"], &[b"a", b"b"]).missing, 1);
}

#[test]
fn padding_and_other_flows_do_not_count() {
    let sent = log(&[b"a"], 64);
    let mut received = FrameLog::new(10);
    let mut padded = frame(64, b"a");
    padded.resize(60, 0);
    received.record(&padded);
    let mut other = frame(64, b"a");
    other[35] = 8;
    received.record(&other);
    received.record(&[0; 60]);
    received.record(&other[..20]);
    assert_eq!(received.flows().len(), 2);
    assert!(compare(&sent, &received, &sent.flows()[0]).unwrap().is_clean());
}

#[test]
fn a_full_log_says_so() {
    let mut small = FrameLog::new(1);
    small.record(&frame(64, b"a"));
    let flow = small.flows()[0];
    assert!(compare(&small, &small, &flow).is_ok());
    small.record(&frame(64, b"b"));
    assert!(matches!(compare(&small, &small, &flow), Err(Error::LogFull(1))));
    assert!(small.save(Vec::new()).is_err());
}

#[test]
fn a_log_survives_its_file() {
    let sent = log(&[b"a", b"b"], 64);
    let mut file = Vec::new();
    sent.save(&mut file).unwrap();
    let back = FrameLog::load(&file[..]).unwrap();
    assert_eq!(back.len(), 2);
    assert!(compare(&sent, &back, &sent.flows()[0]).unwrap().is_clean());
    assert!(FrameLog::load(&b"[]\nnonsense"[..]).is_err());
}
