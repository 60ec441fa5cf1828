//! Frame accounting between two guests: compares, for each flow, the frames that one sent with those that the other received.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::{Duration, Instant};

use culvert_guest::{FlowKey, FrameLog, LossOrder, compare};

use crate::vm::Vm;

/// How long a frame may be in flight after the guests reported the end of their work.
const IN_FLIGHT: Duration = Duration::from_secs(5);

/// Loss and order of every flow between two guests, both ways. Both must have been started with frame logs, and must have
/// stopped sending, except for the last acknowledgements, for which this waits.
///
/// # Errors
/// A guest does not write its logs, or they had no room.
pub fn account(one: &mut Vm, other: &mut Vm, dir: &Path) -> Result<Vec<(FlowKey, LossOrder)>, String> {
    let deadline = Instant::now() + IN_FLIGHT;
    loop {
        let flows = compare_logs(one, other, dir)?;
        if faults(&flows).is_empty() || Instant::now() >= deadline {
            return Ok(flows);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// IP packets that either guest has sent and the other has not received, once. Both must have been started with frame logs.
///
/// # Errors
/// A guest does not write its logs, they had no room, or a frame arrived that was not sent.
pub fn missing(one: &mut Vm, other: &mut Vm, dir: &Path) -> Result<u64, String> {
    let flows = compare_logs(one, other, dir)?;
    match flows.iter().find(|(_, fate)| fate.unexpected > 0) {
        Some((flow, fate)) => Err(format!("{flow}: {fate:?}")),
        None => Ok(flows.iter().map(|(_, fate)| fate.missing).sum()),
    }
}

/// As [`account`], of what the logs hold now.
///
/// # Errors
/// A guest does not write its logs, or they had no room.
pub fn compare_logs(one: &mut Vm, other: &mut Vm, dir: &Path) -> Result<Vec<(FlowKey, LossOrder)>, String> {
    let load = |path: &Path| {
        let file = File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
        FrameLog::load(BufReader::new(file)).map_err(|e| format!("{}: {e}", path.display()))
    };
    let (one_logs, other_logs) = (one.frame_log(dir)?, other.frame_log(dir)?);
    let mut all = Vec::new();
    for (from, to, sent, received) in [
        (one.address(), other.address(), &one_logs.0, &other_logs.1),
        (other.address(), one.address(), &other_logs.0, &one_logs.1),
    ] {
        let (sent, received) = (load(sent)?, load(received)?);
        for flow in sent.flows().into_iter().filter(|f| (f.source, f.destination) == (from, to)) {
            all.push((flow, compare(&sent, &received, &flow).map_err(|e| format!("{flow}: {e}"))?));
        }
    }
    Ok(all)
}

/// What is wrong with any of these flows, a line each; empty: every frame arrived, once and in order.
pub fn faults(flows: &[(FlowKey, LossOrder)]) -> Vec<String> {
    let bad = flows.iter().filter(|(_, fate)| !fate.is_clean());
    bad.map(|(flow, fate)| format!("{flow}: {fate:?}")).collect()
}
