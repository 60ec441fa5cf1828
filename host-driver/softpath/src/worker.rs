//! The slow path's thread: sleeps until the NIC, a command or the time wants something.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use culvert_abi::command::CellWrite;
use culvert_flow::FlowRecord;
use culvert_packet::Reason;
use culvert_pf::{Event, Interrupt};
use culvert_policy::Snapshot;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::decide::Policy as _;
use crate::engine::{Engine, Punted};
use crate::error::{Error, Result};
use crate::handle::{Command, Settings, Status};
use crate::kept;
use crate::kernel::KernelUplinks;
use crate::plan::Plan;
use crate::policy::HostPolicy;
use crate::target::{EventSource, OffloadTarget, PacketSource, Step};

/// Packets taken from a queue in one go.
const BURST: usize = 128;
/// Milliseconds between looks at idle connections, and the longest sleep.
const SECOND: u32 = 1000;
/// Milliseconds between looks at idle connections when one look was not enough.
const SOON: u32 = 5;
/// Milliseconds between looks at records without a connection.
const SWEEP: u32 = 60_000;

/// The thread's state.
pub(crate) struct Worker {
    nic: Arc<dyn OffloadTarget>,
    engine: Engine<HostPolicy>,
    commands: Receiver<Command>,
    wake: Interrupt,
    exceptions: Box<dyn PacketSource>,
    events: Box<dyn EventSource>,
    /// Where the provider addresses are the kernel's.
    kernel: Option<KernelUplinks>,
    /// The policy that was wanted last.
    snapshot: Option<Arc<Snapshot>>,
    plan: Plan,
    host: u16,
    /// Whether a policy has been written.
    applied: bool,
    /// The NIC has lost its tables and has not got them back.
    recover: bool,
    lost: u64,
    base: Instant,
    aged: u32,
    /// Milliseconds from then until idle connections are looked at again.
    next_look: u32,
    /// When the kernel's addresses were last looked at.
    followed: u32,
    swept: u32,
}

impl Worker {
    pub(crate) fn new(
        nic: Arc<dyn OffloadTarget>,
        policy: HostPolicy,
        commands: Receiver<Command>,
        wake: Interrupt,
        settings: Settings,
    ) -> Result<Self> {
        let exceptions = nic.exceptions().ok_or(Error::InUse { what: "exception queue" })?;
        let events = nic.events().ok_or(Error::InUse { what: "event queue" })?;
        let engine = Engine::new(policy, nic.uplinks(), nic.links()?);
        let kernel = settings.kernel.map(KernelUplinks::new);
        let engine = if kernel.is_some() { engine.on_kernel_addresses() } else { engine };
        Ok(Worker {
            nic,
            engine,
            commands,
            wake,
            exceptions,
            events,
            kernel,
            snapshot: None,
            plan: Plan::default(),
            host: 0,
            applied: false,
            recover: false,
            lost: 0,
            base: Instant::now(),
            aged: 0,
            next_look: SECOND,
            followed: 0,
            swept: 0,
        })
    }

    fn now(&self) -> u32 {
        self.base.elapsed().as_millis() as u32
    }

    /// Runs until it is told to stop or nobody can tell it anything any more.
    pub(crate) fn run(mut self) {
        while let Some(told) = self.command() {
            let mut busy = told;
            busy |= self.nic_events();
            busy |= self.packets();
            busy |= self.next_hops();
            self.time();
            self.hand_over();
            if !busy {
                self.sleep();
            }
        }
        self.engine.policy().keep_alive(kept::clock());
        for punted in self.engine.hops.take_held() {
            self.engine.drop(&punted.exception.back(), Reason::HostRestart);
        }
        self.hand_over();
    }

    /// One command. `None`: the end.
    fn command(&mut self) -> Option<bool> {
        match self.commands.try_recv() {
            Err(TryRecvError::Empty) => return Some(false),
            Err(TryRecvError::Disconnected) => return None,
            Ok(Command::Stop(done)) => {
                // Whoever asked may have gone.
                let _ = done.send(());
                return None;
            }
            Ok(Command::Apply(snapshot, done)) => {
                let result = self.apply(&snapshot);
                let _ = done.send(result);
            }
            Ok(Command::Status(done)) => {
                let _ = done.send(self.status());
            }
            Ok(Command::Trace(port, frame, done)) => {
                let now = self.now();
                let _ = done.send(self.engine.trace(port, &frame, now));
            }
        }
        Some(true)
    }

    fn status(&mut self) -> Status {
        Status {
            next_hops: self.engine.next_hops(),
            addresses: self.engine.addresses(),
            links: self.engine.uplinks.up(),
            connections: self.engine.policy().connections(),
            tally: self.engine.tally(),
            lost: self.lost,
            recovering: self.recover,
        }
    }

    fn apply(&mut self, snapshot: &Arc<Snapshot>) -> Result<()> {
        let now = self.now();
        self.snapshot = Some(snapshot.clone());
        let mut plan = Plan::new(snapshot, self.nic.share());
        if let Some(kernel) = &mut self.kernel {
            kernel.take(&mut plan.locals)?;
        }
        self.host = snapshot.host;
        let gone = self.engine.policy().set(snapshot);
        if !gone.is_empty() {
            self.engine.steps.push(Step::Delete(gone));
        }
        self.engine.policy().restore(now, kept::clock());
        if !self.applied && self.nic.adopted() {
            let records = self.nic.read_all(self.nic.flows() as usize)?;
            tracing::info!(records = records.len(), "flows of the NIC taken over");
            self.plan.cells = cells_of(&records);
            self.engine.policy().adopt(&records, now);
        }
        self.engine.apply(&*self.nic, self.host, &plan, &self.plan, now)?;
        self.plan = plan;
        if !self.applied {
            self.nic.start()?;
            self.applied = true;
        }
        Ok(())
    }

    fn nic_events(&mut self) -> bool {
        let mut any = false;
        while let Some(event) = self.events.next() {
            any = true;
            match event {
                Event::FirmwareDied { epoch, panic, log } => {
                    tracing::error!(epoch, panic, log, "firmware died");
                    self.lost += self.engine.lose_held() as u64;
                    self.engine.take_steps();
                }
                Event::FirmwareReady { epoch } => {
                    tracing::info!(epoch, "firmware is back");
                    self.recover = true;
                    self.recover_now();
                }
                Event::Link(up) => {
                    let now = self.now();
                    tracing::info!(?up, "links changed");
                    self.engine.links(up, now);
                }
                Event::Vf => tracing::debug!("a VF's driver came or went"),
                Event::QueueStopped { queue } => tracing::error!(queue, "queue stopped at a fault"),
                Event::Lost(why) => tracing::error!(why, "the NIC is lost"),
            }
        }
        any
    }

    /// Gives a NIC that has lost its tables all of them back.
    fn recover_now(&mut self) {
        if !self.recover || !self.nic.alive() {
            return;
        }
        // Tickets of the firmware that died name nothing now; nothing new comes before the NIC is started.
        self.lost += self.engine.lose_held() as u64;
        while let Ok(Some((entry, frame))) = self.exceptions.pop() {
            let copy = Punted::new(&entry, frame).filter(|p| p.exception.copy);
            match copy {
                Some(punted) => {
                    let now = self.now();
                    self.engine.exception(punted, now);
                }
                None => self.lost += 1,
            }
        }
        self.engine.take_steps();
        let done = self.exceptions.repost().and_then(|()| {
            if self.applied { self.engine.recover(&*self.nic, self.host, &self.plan) } else { Ok(()) }
        });
        match done {
            Ok(()) => self.recover = false,
            Err(error) => tracing::warn!(%error, "the NIC has not got its tables back; trying again"),
        }
    }

    fn packets(&mut self) -> bool {
        let now = self.now();
        let mut n = 0;
        while n < BURST {
            match self.exceptions.pop() {
                Ok(Some((entry, frame))) => {
                    n += 1;
                    if let Some(punted) = Punted::new(&entry, frame) {
                        self.engine.exception(punted, now);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "exception queue");
                    return false;
                }
            }
        }
        if n > 0 {
            self.hand_over();
            log(self.exceptions.repost());
        }
        n > 0
    }

    /// Asks the kernel for next hops, where they are its business, and hears what it says.
    fn next_hops(&mut self) -> bool {
        let now = self.now();
        let Some(kernel) = &mut self.kernel else { return false };
        kernel.ask(&self.engine.take_questions(), now);
        let events = kernel.poll(now);
        for (pa, event) in &events {
            self.engine.kernel(*pa, event, now);
        }
        !events.is_empty()
    }

    /// Carries the policy out anew if the kernel's addresses are not what they were.
    fn follow_kernel(&mut self, now: u32) {
        if now.wrapping_sub(self.followed) < SECOND {
            return;
        }
        self.followed = now;
        if !self.kernel.as_ref().is_some_and(KernelUplinks::is_stale) {
            return;
        }
        if let Some(snapshot) = self.snapshot.clone()
            && let Err(error) = self.apply(&snapshot)
        {
            tracing::warn!(%error, "the uplinks are not what the policy needs; trying again");
        }
    }

    fn time(&mut self) {
        let now = self.now();
        self.engine.tick(now);
        self.follow_kernel(now);
        if now.wrapping_sub(self.aged) >= self.next_look {
            self.aged = now;
            self.engine.policy().keep_alive(kept::clock());
            self.recover_now();
            if self.nic.alive() && !self.recover {
                self.age(now);
                if now.wrapping_sub(self.swept) >= SWEEP {
                    self.swept = now;
                    log(self.engine.sweep_orphans(&*self.nic));
                }
            }
        }
    }

    /// Looks at idle connections. Where there are more than fit one look, the next one comes soon, but packets have most of
    /// the time.
    fn age(&mut self, now: u32) {
        let more = self.engine.age(&*self.nic, now);
        let took = self.now().wrapping_sub(now);
        self.next_look = match more {
            Ok(true) => (took * 4).clamp(SOON, SECOND),
            _ => SECOND,
        };
        log(more);
    }

    fn hand_over(&mut self) {
        let steps = self.engine.take_steps();
        if !steps.is_empty() {
            log(self.nic.send(steps));
        }
    }

    fn sleep(&mut self) {
        if self.exceptions.arm() {
            let now = self.now();
            let ms = self.engine.hops.next(now, self.next_look);
            let ms = self.kernel.as_ref().map_or(ms, |kernel| kernel.next(now, ms)).max(1);
            let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(ms.min(999)) * 1_000_000 };
            let mut fds: Vec<PollFd<'_>> =
                self.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
            // An interrupted sleep is a short one.
            let _ = rustix::event::poll(&mut fds, Some(&limit));
        }
        log(self.wake.try_clear());
        self.exceptions.disarm();
    }

    fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let kernel = self.kernel.iter().flat_map(KernelUplinks::fds);
        [self.wake.as_fd(), self.exceptions.fd(), self.events.fd()].into_iter().chain(kernel)
    }
}

/// Generations that records were made of: those of mappings that the policy no longer has must go.
fn cells_of(records: &[FlowRecord]) -> Vec<CellWrite> {
    let cells = records.iter().map(|r| (u32::from(r.hot.map_cell), r.hot.gen_map));
    let cells: BTreeMap<u32, u32> = cells.filter(|(cell, _)| *cell != 0).collect();
    cells.into_iter().map(|(cell, value)| CellWrite { cell, value }).collect()
}

/// A NIC that does not answer is reported by its events, with more to say; here it is only noted.
fn log<T, E: std::fmt::Display>(result: std::result::Result<T, E>) {
    if let Err(error) = result {
        tracing::debug!(%error, "the NIC did not take it");
    }
}
