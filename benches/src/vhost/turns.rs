//! Both switches with the same guests, one after the other: while one is measured the other has nothing to do, or stands still.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use culvert_packet::Encap;

use super::Way;
use super::client::{Client, Seen};
use super::ours::Ours;
use super::theirs::{Rules, Theirs};
use super::wire;
use crate::peers::control::{self, Mode, Shape};
use crate::peers::frame::{check_inner, inner};
use crate::peers::machine::{Pinned, Undisturbed};
use crate::work::{self, Kind};

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
    /// Whether no other thread may interrupt those that are measured.
    pub undisturbed: bool,
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
    undisturbed: bool,
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
        let theirs = Theirs::start(&there, &places.source, places.core, (way, rules), "")?;
        let guests = Client::connected(way, |name| there.join(name))?;
        theirs.daemon.hold();
        let ours = Ours::start(&here, way, places.core, 1)?;
        let guests = [Client::connected(way, |name| here.join(name))?, guests];
        let Places { core, guests: client, undisturbed, .. } = *places;
        Ok(Peers { guests, ours, theirs, core, client, undisturbed, wire: [0.0; 2] })
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
                return match case.way {
                    Way::Out => self.verify_their_wire(case),
                    Way::Guests | Way::In => self.guests[1].verify(case.bytes.into()),
                };
            }
        }
        Err(format!("it does not come to know {} flows within {} s", case.flows, LIMIT.as_secs()))
    }

    /// Sees that what leaves by Open vSwitch's wire is what was sent, behind the right outer headers.
    fn verify_their_wire(&mut self, case: &Case) -> Result<(), String> {
        let failed = |e| format!("frame source: {e}");
        self.theirs.daemon.frames.ask().map_err(failed)?;
        self.guests[1].run(WARM, true);
        let frame = self.theirs.daemon.frames.taken().map_err(failed)?;
        let kind = Kind { decap: false, encap: Encap::Vxlan };
        check_inner(work::pair_frame(kind, 0, case.bytes.into()), inner(kind, &frame)?)
    }

    /// Has frames come from our switch's wire, in cases where any do.
    fn tell_ours(&mut self, case: &Case, on: bool) {
        let wire = &self.ours.wire;
        if on && case.way == Way::In {
            let told = Arc::clone(wire);
            self.guests[0].give_credit(wire.written(), move |limit| told.allow(limit));
        }
        wire.tell((on && case.way == Way::In).then(|| shape(case)));
    }

    /// The same for Open vSwitch's.
    fn tell_theirs(&mut self, case: &Case, on: bool) -> Result<(), String> {
        if on && case.way == Way::In {
            let frames = &self.theirs.daemon.frames;
            let failed = |e| format!("frame source: {e}");
            let (memory, written) = (frames.map().map_err(failed)?, frames.written().map_err(failed)?);
            self.guests[1].give_credit(written, move |limit| memory.store_long(control::LIMIT, limit));
        }
        self.theirs.tell((on && case.way == Way::In).then(|| shape(case)))
    }

    /// Measures our switch.
    ///
    /// # Errors
    /// It has ended.
    pub fn ours(&mut self, case: &Case) -> Result<Turn, String> {
        let _pinned = pin(self.client)?;
        let undisturbed = self.undisturbed.then(|| Undisturbed::with(&self.ours.thread)).transpose()?;
        let before = self.guests[0].settle();
        let (written, left) = (self.ours.wire.written(), self.ours.wire.left());
        self.tell_ours(case, true);
        // Who sleeps wakes for a wire in memory after a tenth of a second.
        let waking = if case.way == Way::In { 4 * WARM } else { WARM };
        self.guests[0].run(waking, true);
        let watch = self.ours.watch()?;
        let seen = self.guests[0].run(case.window, true);
        let time = watch.read()?;
        self.tell_ours(case, false);
        let after = self.guests[0].settle();
        drop(undisturbed);
        let sent = after.0 - before.0 + self.ours.wire.written() - written;
        let came = after.1 - before.1 + self.ours.wire.left() - left;
        Ok(turn(&seen, time, self.wire[0], (sent, came)))
    }

    /// Measures Open vSwitch.
    ///
    /// # Errors
    /// It does not answer.
    pub fn theirs(&mut self, case: &Case) -> Result<Turn, String> {
        self.theirs.daemon.go_on();
        let _pinned = pin(self.client)?;
        let undisturbed =
            self.undisturbed.then(|| Undisturbed::with(self.theirs.daemon.thread())).transpose()?;
        let before = self.guests[1].settle();
        let (made, left) = (self.written()?, self.left(case)?);
        self.tell_theirs(case, true)?;
        self.theirs.clear()?;
        self.guests[1].run(WARM, true);
        let watch = self.theirs.daemon.watch()?;
        let seen = self.guests[1].run(case.window, true);
        let time = watch.read()?;
        let (own, missed) = self.theirs.own()?;
        self.tell_theirs(case, false)?;
        let after = self.guests[1].settle();
        let sent = after.0 - before.0 + self.written()? - made;
        let came = after.1 - before.1 + self.left(case)? - left;
        self.theirs.daemon.hold();
        drop(undisturbed);
        if missed > 0.0 {
            return Err(format!("Open vSwitch did not know the flows of {missed} frames"));
        }
        Ok(Turn { own, ..turn(&seen, time, self.wire[1], (sent, came)) })
    }

    /// Frames that came from Open vSwitch's wire.
    fn written(&self) -> Result<u64, String> {
        self.theirs.daemon.frames.written().map_err(|e| format!("frame source: {e}"))
    }

    /// Frames that left by Open vSwitch's wire.
    fn left(&self, case: &Case) -> Result<u64, String> {
        if case.way == Way::Out { Ok(self.theirs.daemon.sent("wire")? as u64) } else { Ok(0) }
    }

    /// What our switch has dropped, by reason.
    ///
    /// # Errors
    /// It has ended.
    pub fn drops(&self) -> Result<Vec<(String, u64)>, String> {
        self.ours.drops()
    }
}

fn turn(seen: &Seen, (spent, ran): (f64, f64), wire: f64, (sent, came): (u64, u64)) -> Turn {
    let packets = seen.packets.max(1) as f64;
    let lost = 1.0 - came as f64 / sent.max(1) as f64;
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
