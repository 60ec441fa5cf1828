//! Both switches with the same guests, one after the other: while one is measured the other has nothing to do, or stands still.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use culvert_packet::Encap;

use super::Way;
use super::client::{Client, Seen};
use super::ours::Ours;
use super::theirs::{Rules, Theirs};
use super::wire;
use crate::peers::control::{Mode, Shape};
use crate::peers::machine::Pinned;
use crate::work::Kind;

/// Where things are and run.
pub struct Places {
    /// A folder for all that is written.
    pub dir: PathBuf,
    /// The library that makes frames in Open vSwitch's process.
    pub source: PathBuf,
    /// The core of the switches.
    pub core: usize,
    /// The core of the guests.
    pub guests: usize,
}

/// One case.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// From where to where.
    pub way: Way,
    /// Length of inner frames.
    pub bytes: u16,
    /// How many flows.
    pub flows: u32,
    /// How long each turn is.
    pub window: Duration,
}

/// What a turn showed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    /// Millions of frames per second that came to the end of their way.
    pub mpps: f64,
    /// Cycles of the switch's core for each, without what makes frames on the wire.
    pub cycles: f64,
    /// Cycles of what makes frames on the wire.
    pub wire: f64,
    /// By the switch's own clock and count; 0 if it has none.
    pub own: f64,
    /// The part of the frames that was lost, in percent.
    pub lost: f64,
    /// The part of the time in which guests waited for the switch, in percent.
    pub waits: f64,
    /// Cycles of the guests' core for each frame.
    pub busy: f64,
    /// The part of the time in which the switch's thread had its core, in percent.
    pub ran: f64,
}

/// Both switches and the guests of each.
pub struct Peers {
    // Guests go first: then nobody uses their memory any more.
    guests: [Client; 2],
    ours: Ours,
    theirs: Theirs,
    core: usize,
    client: usize,
    /// Cycles of what makes frames on the wire: in ours, in theirs.
    wire: [f64; 2],
}

/// Time for caches and tables to be filled with what is measured.
const WARM: Duration = Duration::from_millis(30);
/// Time until all flows are known.
const LIMIT: Duration = Duration::from_secs(20);

impl Peers {
    /// Starts both and connects their guests.
    ///
    /// # Errors
    /// What is missing or fails.
    pub fn start(places: &Places, way: Way, rules: Rules) -> Result<Self, String> {
        let (here, there) = (places.dir.join("ours"), places.dir.join("theirs"));
        let theirs = Theirs::start(&there, &places.source, places.core, way, rules)?;
        let guests = Client::connected(way, |name| there.join(name))?;
        theirs.daemon.hold();
        let ours = Ours::start(&here, way, places.core)?;
        let guests = [Client::connected(way, |name| here.join(name))?, guests];
        Ok(Peers { guests, ours, theirs, core: places.core, client: places.guests, wire: [0.0; 2] })
    }

    /// Lets both come to know a case's flows, and sees that frames come as they were sent.
    ///
    /// # Errors
    /// They do not.
    pub fn prepare(&mut self, case: &Case) -> Result<(), String> {
        let way = case.way;
        self.guests.iter_mut().for_each(|guests| guests.prepare(case.bytes.into(), case.flows));
        self.tell_ours(case, true);
        let known = self.until_known(case, |peers| Ok(peers.ours.connections()? >= case.flows as usize));
        self.tell_ours(case, false);
        known.map_err(|e| format!("our switch: {e}"))?;
        self.theirs.daemon.go_on();
        self.theirs.forget()?;
        self.tell_theirs(case, true)?;
        let known = self.learn_theirs(case);
        self.tell_theirs(case, false)?;
        known.map_err(|e| format!("Open vSwitch: {e}"))?;
        if way == Way::In {
            self.wire[1] = self.theirs.alone(shape(case), case.window / 2)?;
            self.theirs.daemon.hold();
            let _pinned = pin(self.core)?;
            self.wire[0] = wire::alone(shape(case), 500_000).map_err(|e| e.to_string())?;
        }
        self.theirs.daemon.hold();
        Ok(())
    }

    fn until_known(
        &mut self,
        case: &Case,
        mut known: impl FnMut(&mut Self) -> Result<bool, String>,
    ) -> Result<(), String> {
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            self.guests[0].run(5 * WARM, true);
            if known(self)? {
                return self.guests[0].verify(case.bytes.into());
            }
        }
        Err(format!("it does not come to know {} flows within {} s", case.flows, LIMIT.as_secs()))
    }

    fn learn_theirs(&mut self, case: &Case) -> Result<(), String> {
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            self.theirs.clear()?;
            let seen = self.guests[1].run(5 * WARM, true);
            if seen.packets > 0 && self.theirs.own()?.1 == 0.0 {
                return self.guests[1].verify(case.bytes.into());
            }
        }
        Err(format!("it does not come to know {} flows within {} s", case.flows, LIMIT.as_secs()))
    }

    fn tell_ours(&self, case: &Case, on: bool) {
        self.ours.wire.tell((on && case.way == Way::In).then(|| shape(case)));
    }

    fn tell_theirs(&self, case: &Case, on: bool) -> Result<(), String> {
        self.theirs.tell((on && case.way == Way::In).then(|| shape(case)))
    }

    /// Measures our switch.
    ///
    /// # Errors
    /// It has ended.
    pub fn ours(&mut self, case: &Case) -> Result<Turn, String> {
        let _pinned = pin(self.client)?;
        let guests = &mut self.guests[0];
        let (wire, before) = (self.ours.wire.clone(), guests.settle());
        let written = wire.written();
        wire.tell((case.way == Way::In).then(|| shape(case)));
        // Who sleeps on a wire in memory wakes after a tenth of a second.
        guests.run(5 * WARM, true);
        let watch = self.ours.watch()?;
        let seen = guests.run(case.window, true);
        let time = watch.read()?;
        wire.tell(None);
        let after = guests.settle();
        let sent = after.0 - before.0 + wire.written() - written;
        Ok(turn(case, &seen, time, self.wire[0], (sent, after.1 - before.1)))
    }

    /// Measures Open vSwitch.
    ///
    /// # Errors
    /// It does not answer.
    pub fn theirs(&mut self, case: &Case) -> Result<Turn, String> {
        self.theirs.daemon.go_on();
        let _pinned = pin(self.client)?;
        let theirs = &self.theirs;
        let guests = &mut self.guests[1];
        let before = guests.settle();
        let written = || theirs.daemon.frames.written().map_err(|e| format!("frame source: {e}"));
        let made = written()?;
        self.theirs.tell((case.way == Way::In).then(|| shape(case)))?;
        guests.run(WARM, true);
        theirs.clear()?;
        guests.run(WARM, true);
        let watch = theirs.daemon.watch()?;
        let seen = guests.run(case.window, true);
        let time = watch.read()?;
        let (own, missed) = theirs.own()?;
        theirs.tell(None)?;
        let after = guests.settle();
        let sent = after.0 - before.0 + written()? - made;
        theirs.daemon.hold();
        if missed > 0.0 {
            return Err(format!("Open vSwitch did not know the flows of {missed} frames"));
        }
        Ok(Turn { own, ..turn(case, &seen, time, self.wire[1], (sent, after.1 - before.1)) })
    }

    /// What our switch has dropped, by reason.
    ///
    /// # Errors
    /// It has ended.
    pub fn drops(&self) -> Result<Vec<(String, u64)>, String> {
        self.ours.drops()
    }
}

fn turn(case: &Case, seen: &Seen, (spent, ran): (f64, f64), wire: f64, (sent, came): (u64, u64)) -> Turn {
    let packets = seen.packets.max(1) as f64;
    let lost = if case.way.receives() { 1.0 - came as f64 / sent.max(1) as f64 } else { 0.0 };
    // What makes frames works for those that are lost, too.
    let made = wire / (1.0 - lost);
    Turn {
        mpps: seen.packets as f64 / seen.seconds / 1e6,
        cycles: spent * ran / packets - made,
        wire: made,
        own: 0.0,
        lost: 100.0 * lost,
        waits: 100.0 * seen.idle,
        busy: seen.busy,
        ran: 100.0 * ran,
    }
}

/// What comes from the wire.
fn shape(case: &Case) -> Shape {
    let kind = Kind { decap: true, encap: Encap::Vxlan };
    Shape { mode: Mode::Given, kind, bytes: case.bytes, flows: case.flows, pair: true }
}

fn pin(core: usize) -> Result<Pinned, String> {
    Pinned::to(core).map_err(|e| format!("core {core}: {e}"))
}
