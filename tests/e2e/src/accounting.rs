//! Frame accounting between two guests: what each put into its transmit ring against what the other took out of its
//! receive ring, flow by flow.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::{Duration, Instant};

use culvert_guest::{FlowKey, FrameLog, LossOrder, compare};

use crate::vm::Vm;

/// How long a frame may be under way after the guests have told of the end of what they did.
const UNDER_WAY: Duration = Duration::from_secs(5);

/// The fate of every flow between two guests, both ways. Both must have been started with frame logs, and send no more
/// than the acknowledgements of what they have done; those are waited for, since what is lost stays lost.
///
/// # Errors
/// A guest does not write its logs, or they had no room.
pub fn account(one: &mut Vm, other: &mut Vm, dir: &Path) -> Result<Vec<(FlowKey, LossOrder)>, String> {
    let deadline = Instant::now() + UNDER_WAY;
    loop {
        let flows = compare_logs(one, other, dir)?;
        if faults(&flows).is_empty() || Instant::now() >= deadline {
            return Ok(flows);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn compare_logs(one: &mut Vm, other: &mut Vm, dir: &Path) -> Result<Vec<(FlowKey, LossOrder)>, String> {
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
