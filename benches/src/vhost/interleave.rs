//! Culvert and Open vSwitch with the same guests, measured alternately: while one is measured, the other is idle or stopped.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use culvert_packet::Encap;

use super::client::{Client, ClientSample};
use super::culvert::CulvertSwitch;
use super::ovs::{OvsSwitch, Rules};
use super::traffic::Traffic;
use super::wire;
use crate::cpu::{Pinned, Undisturbed};
use crate::ovs_dpdk::control::{self, Mode, Shape};
use crate::ovs_dpdk::frame::{check_inner, inner};
use crate::work::{self, Kind};

/// Files and cores of the switches and the guests.
pub struct Setup {
    /// A folder for all files.
    pub dir: PathBuf,
    /// The library that generates frames in Open vSwitch's process.
    pub source: PathBuf,
    /// The core of the switches.
    pub core: usize,
    /// The core of the guests.
    pub guests: usize,
    /// Whether the measured threads get real-time priority.
    pub undisturbed: bool,
}

/// One case.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Source and destination of frames.
    pub traffic: Traffic,
    /// Length of inner frames.
    pub bytes: u16,
    /// Number of flows.
    pub flows: u32,
    /// Duration of a measurement.
    pub window: Duration,
}

/// One measurement of a switch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Millions of delivered frames per second.
    pub mpps: f64,
    /// Cycles of the switch's core per frame, without the wire.
    pub cycles: f64,
    /// Cycles of the wire per frame.
    pub wire: f64,
    /// Cycles per frame by the switch's own statistics; 0 if it has none.
    pub own: f64,
    /// Lost frames, in percent.
    pub lost: f64,
    /// Time in which guests waited for the switch, in percent.
    pub waits: f64,
    /// Cycles of the guests' core per frame.
    pub busy: f64,
    /// Time in which the switch's thread ran, in percent.
    pub ran: f64,
}

/// Both switches and the guests of each.
pub struct Interleave {
    // Dropped first: the switches must not use the guests' memory afterwards.
    guests: [Client; 2],
    culvert: CulvertSwitch,
    ovs: OvsSwitch,
    core: usize,
    client: usize,
    undisturbed: bool,
    /// Cycles of the wire per frame: of Culvert, of Open vSwitch.
    wire: [f64; 2],
}

/// Time to warm caches and tables.
const WARM_UP: Duration = Duration::from_millis(30);
/// Limit until all flows are in the tables.
const LIMIT: Duration = Duration::from_secs(20);

impl Interleave {
    /// Starts both and connects their guests.
    ///
    /// # Errors
    /// What is missing or fails.
    pub fn start(setup: &Setup, traffic: Traffic, rules: Rules) -> Result<Self, String> {
        let (culvert_dir, ovs_dir) = (setup.dir.join("culvert"), setup.dir.join("ovs"));
        let ovs = OvsSwitch::start(&ovs_dir, &setup.source, setup.core, (traffic, rules), "")?;
        let guests = Client::connected(traffic, |name| ovs_dir.join(name))?;
        ovs.daemon.pause();
        let culvert = CulvertSwitch::start(&culvert_dir, traffic, setup.core, 1)?;
        let guests = [Client::connected(traffic, |name| culvert_dir.join(name))?, guests];
        let Setup { core, guests: client, undisturbed, .. } = *setup;
        Ok(Interleave { guests, culvert, ovs, core, client, undisturbed, wire: [0.0; 2] })
    }

    /// Sends a case's flows until both have them in their tables, and checks that frames arrive unchanged.
    ///
    /// # Errors
    /// A switch does not forward the flows, or changes frames.
    pub fn prepare(&mut self, case: &Case) -> Result<(), String> {
        self.guests.iter_mut().for_each(|guests| guests.prepare(case.bytes.into(), case.flows));
        self.set_culvert_wire(case, true);
        let known = self.until_known(case, |both| Ok(both.culvert.connections()? >= case.flows as usize));
        self.set_culvert_wire(case, false);
        known.map_err(|e| format!("Culvert: {e}"))?;
        self.ovs.daemon.resume();
        self.ovs.flush()?;
        self.set_ovs_wire(case, true)?;
        let known = self.learn_ovs(case);
        self.set_ovs_wire(case, false)?;
        known.map_err(|e| format!("Open vSwitch: {e}"))?;
        if case.traffic == Traffic::WireToGuest {
            self.wire[1] = self.ovs.wire_alone(shape(case), case.window / 2)?;
            self.ovs.daemon.pause();
            let _pinned = pin(self.core)?;
            self.wire[0] = wire::alone(shape(case), 500_000).map_err(|e| e.to_string())?;
        }
        self.ovs.daemon.pause();
        Ok(())
    }

    fn until_known(
        &mut self,
        case: &Case,
        mut known: impl FnMut(&mut Self) -> Result<bool, String>,
    ) -> Result<(), String> {
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            self.guests[0].run(5 * WARM_UP, true);
            if known(self)? {
                return self.guests[0].verify(case.bytes.into());
            }
        }
        Err(format!("{} flows are not all in the tables within {} s", case.flows, LIMIT.as_secs()))
    }

    fn learn_ovs(&mut self, case: &Case) -> Result<(), String> {
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            self.ovs.clear_stats()?;
            let client = self.guests[1].run(5 * WARM_UP, true);
            if client.packets > 0 && self.ovs.own_stats()?.1 == 0.0 {
                return match case.traffic {
                    Traffic::GuestToWire => self.verify_ovs_wire(case),
                    Traffic::GuestToGuest | Traffic::WireToGuest => self.guests[1].verify(case.bytes.into()),
                };
            }
        }
        Err(format!("{} flows are not all in the tables within {} s", case.flows, LIMIT.as_secs()))
    }

    /// Checks that frames leave Open vSwitch's wire unchanged, with the right outer headers.
    fn verify_ovs_wire(&mut self, case: &Case) -> Result<(), String> {
        let failed = |e| format!("frame source: {e}");
        self.ovs.daemon.frames.request_frame().map_err(failed)?;
        self.guests[1].run(WARM_UP, true);
        let frame = self.ovs.daemon.frames.taken().map_err(failed)?;
        let kind = Kind { decap: false, encap: Encap::Vxlan };
        check_inner(work::pair_frame(kind, 0, case.bytes.into()), inner(kind, &frame)?)
    }

    /// Starts or stops the frames of Culvert's wire, in cases that have any.
    fn set_culvert_wire(&mut self, case: &Case, on: bool) {
        let wire = &self.culvert.wire;
        if on && case.traffic == Traffic::WireToGuest {
            let control = Arc::clone(wire);
            self.guests[0].give_credit(wire.written(), move |limit| control.set_limit(limit));
        }
        wire.set_shape((on && case.traffic == Traffic::WireToGuest).then(|| shape(case)));
    }

    /// Starts or stops the frames of Open vSwitch's wire, in cases that have any.
    fn set_ovs_wire(&mut self, case: &Case, on: bool) -> Result<(), String> {
        if on && case.traffic == Traffic::WireToGuest {
            let frames = &self.ovs.daemon.frames;
            let failed = |e| format!("frame source: {e}");
            let (memory, written) = (frames.map().map_err(failed)?, frames.written().map_err(failed)?);
            self.guests[1].give_credit(written, move |limit| memory.store_long(control::LIMIT, limit));
        }
        self.ovs.set_shape((on && case.traffic == Traffic::WireToGuest).then(|| shape(case)))
    }

    /// Measures Culvert.
    ///
    /// # Errors
    /// It has ended.
    pub fn measure_culvert(&mut self, case: &Case) -> Result<Sample, String> {
        let _pinned = pin(self.client)?;
        let undisturbed = self.undisturbed.then(|| Undisturbed::with(&self.culvert.thread)).transpose()?;
        let before = self.guests[0].drain();
        let (written, left) = (self.culvert.wire.written(), self.culvert.wire.left());
        self.set_culvert_wire(case, true);
        // A sleeping switch notices a wire in memory within a tenth of a second.
        let waking = if case.traffic == Traffic::WireToGuest { 4 * WARM_UP } else { WARM_UP };
        self.guests[0].run(waking, true);
        let watch = self.culvert.watch()?;
        let client = self.guests[0].run(case.window, true);
        let time = watch.read()?;
        self.set_culvert_wire(case, false);
        let after = self.guests[0].drain();
        drop(undisturbed);
        let sent = after.0 - before.0 + self.culvert.wire.written() - written;
        let received = after.1 - before.1 + self.culvert.wire.left() - left;
        Ok(sample(&client, time, self.wire[0], (sent, received)))
    }

    /// Measures Open vSwitch.
    ///
    /// # Errors
    /// It does not answer.
    pub fn measure_ovs(&mut self, case: &Case) -> Result<Sample, String> {
        self.ovs.daemon.resume();
        let _pinned = pin(self.client)?;
        let undisturbed =
            self.undisturbed.then(|| Undisturbed::with(self.ovs.daemon.thread())).transpose()?;
        let before = self.guests[1].drain();
        let (written, left) = (self.written()?, self.left(case)?);
        self.set_ovs_wire(case, true)?;
        self.ovs.clear_stats()?;
        self.guests[1].run(WARM_UP, true);
        let watch = self.ovs.daemon.watch()?;
        let client = self.guests[1].run(case.window, true);
        let time = watch.read()?;
        let (own, missed) = self.ovs.own_stats()?;
        self.set_ovs_wire(case, false)?;
        let after = self.guests[1].drain();
        let sent = after.0 - before.0 + self.written()? - written;
        let received = after.1 - before.1 + self.left(case)? - left;
        self.ovs.daemon.pause();
        drop(undisturbed);
        if missed > 0.0 {
            return Err(format!("{missed} frames missed in Open vSwitch's tables"));
        }
        Ok(Sample { own, ..sample(&client, time, self.wire[1], (sent, received)) })
    }

    /// Frames that Open vSwitch's wire has sent.
    fn written(&self) -> Result<u64, String> {
        self.ovs.daemon.frames.written().map_err(|e| format!("frame source: {e}"))
    }

    /// Frames that left through Open vSwitch's wire.
    fn left(&self, case: &Case) -> Result<u64, String> {
        if case.traffic == Traffic::GuestToWire { Ok(self.ovs.daemon.sent("wire")? as u64) } else { Ok(0) }
    }

    /// Packets that Culvert has dropped, by reason.
    ///
    /// # Errors
    /// It has ended.
    pub fn drops(&self) -> Result<Vec<(String, u64)>, String> {
        self.culvert.drops()
    }
}

fn sample(
    client: &ClientSample,
    (spent, ran): (f64, f64),
    wire: f64,
    (sent, received): (u64, u64),
) -> Sample {
    let packets = client.packets.max(1) as f64;
    let lost = 1.0 - received as f64 / sent.max(1) as f64;
    // The wire also works for frames that are lost.
    let made = wire / (1.0 - lost);
    Sample {
        mpps: client.packets as f64 / client.seconds / 1e6,
        cycles: spent * ran / packets - made,
        wire: made,
        own: 0.0,
        lost: 100.0 * lost,
        waits: 100.0 * client.idle,
        busy: client.busy,
        ran: 100.0 * ran,
    }
}

/// The frames from the wire.
fn shape(case: &Case) -> Shape {
    let kind = Kind { decap: true, encap: Encap::Vxlan };
    Shape { mode: Mode::Given, kind, bytes: case.bytes, flows: case.flows, pair: true }
}

fn pin(core: usize) -> Result<Pinned, String> {
    Pinned::to(core).map_err(|e| format!("core {core}: {e}"))
}
