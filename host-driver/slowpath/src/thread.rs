//! The slow path's thread: sleeps until the NIC, a command or the time wants something.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use culvert_flow::FlowRecord;
use culvert_packet::Reason;
use culvert_policy::Snapshot;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::aging::{AGING_INTERVAL_MS, SWEEP_INTERVAL_MS};
use crate::connection_store;
use crate::decide::Policy as _;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::handle::{Command, Settings, Status};
use crate::kernel_uplinks::KernelUplinks;
use crate::plan::Plan;
use crate::policy::HostPolicy;
use culvert_offload::{
    Event, EventFd, EventQueue, FlowCommand, Generation, GenerationWrite, OffloadNic, Scan, UpcallQueue,
};

/// Packets taken from a queue in one go.
const BURST: usize = 128;
/// Milliseconds between two checks of the kernel's addresses.
const KERNEL_CHECK_INTERVAL_MS: u32 = 1000;
/// Least milliseconds between two agings when one was not enough.
const MIN_AGING_INTERVAL_MS: u32 = 5;

/// The thread's state.
pub(crate) struct Worker {
    nic: Arc<dyn OffloadNic>,
    engine: Engine<HostPolicy>,
    commands: Receiver<Command>,
    wake: EventFd,
    upcalls: Box<dyn UpcallQueue>,
    events: Box<dyn EventQueue>,
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
        nic: Arc<dyn OffloadNic>,
        policy: HostPolicy,
        commands: Receiver<Command>,
        wake: EventFd,
        settings: Settings,
    ) -> Result<Self> {
        let upcalls = nic.upcalls().ok_or(Error::InUse { what: "upcall queue" })?;
        let events = nic.events().ok_or(Error::InUse { what: "event queue" })?;
        let engine = Engine::new(policy, nic.capabilities().uplinks, nic.links()?);
        let kernel = settings.kernel.map(KernelUplinks::new);
        let engine = if kernel.is_some() { engine.on_kernel_addresses() } else { engine };
        Ok(Worker {
            nic,
            engine,
            commands,
            wake,
            upcalls,
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
            next_look: AGING_INTERVAL_MS,
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
            self.execute_commands();
            if !busy {
                self.sleep();
            }
        }
        self.engine.policy().keep_alive(connection_store::clock());
        for upcall in self.engine.hops.take_held() {
            self.engine.drop(&upcall.meta.reinject(), Reason::HostRestart);
        }
        self.execute_commands();
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
        let mut plan = Plan::new(snapshot, self.nic.capabilities().flow_records_per_vport);
        if let Some(kernel) = &mut self.kernel {
            kernel.take(&mut plan.locals)?;
        }
        self.host = snapshot.host;
        let gone = self.engine.policy().set(snapshot);
        if !gone.is_empty() {
            self.engine.commands.push(FlowCommand::Delete(gone));
        }
        self.engine.policy().restore(now, connection_store::clock());
        if !self.applied && self.nic.is_adopted() {
            let records = self.nic.scan(Scan::All, self.nic.capabilities().flow_records as usize)?;
            tracing::info!(records = records.len(), "flows of the NIC taken over");
            self.plan.generations = generations_of(&records);
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
                    self.engine.take_commands();
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
        if !self.recover || !self.nic.is_alive() {
            return;
        }
        // Tickets of the firmware that died name nothing now; nothing new comes before the NIC is started.
        self.lost += self.engine.lose_held() as u64;
        while let Ok(Some(upcall)) = self.upcalls.pop() {
            if upcall.meta.copy.is_some() {
                let now = self.now();
                self.engine.upcall(upcall, now);
            } else {
                self.lost += 1;
            }
        }
        self.engine.take_commands();
        let done = self.upcalls.repost().and_then(|()| {
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
            match self.upcalls.pop() {
                Ok(Some(upcall)) => {
                    n += 1;
                    self.engine.upcall(upcall, now);
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "upcall queue");
                    return false;
                }
            }
        }
        if n > 0 {
            self.execute_commands();
            log(self.upcalls.repost());
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
        if now.wrapping_sub(self.followed) < KERNEL_CHECK_INTERVAL_MS {
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
            self.engine.policy().keep_alive(connection_store::clock());
            self.recover_now();
            if self.nic.is_alive() && !self.recover {
                self.age(now);
                if now.wrapping_sub(self.swept) >= SWEEP_INTERVAL_MS {
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
            Ok(true) => (took * 4).clamp(MIN_AGING_INTERVAL_MS, AGING_INTERVAL_MS),
            _ => AGING_INTERVAL_MS,
        };
        log(more);
    }

    fn execute_commands(&mut self) {
        let commands = self.engine.take_commands();
        if !commands.is_empty() {
            log(self.nic.execute(commands));
        }
    }

    fn sleep(&mut self) {
        if self.upcalls.arm() {
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
        self.upcalls.disarm();
    }

    fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let kernel = self.kernel.iter().flat_map(KernelUplinks::fds);
        [self.wake.as_fd(), self.upcalls.fd(), self.events.fd()].into_iter().chain(kernel)
    }
}

/// Generations that records were made of: those of mappings that the policy no longer has must go.
fn generations_of(records: &[FlowRecord]) -> Vec<GenerationWrite> {
    let cells: BTreeMap<u16, u32> =
        records.iter().map(|r| (r.hot.map_cell, r.hot.gen_map)).filter(|(cell, _)| *cell != 0).collect();
    let write = |(cell, value)| GenerationWrite { of: Generation::Mapping(cell), value };
    cells.into_iter().map(write).collect()
}

/// A NIC that does not answer is reported by its events, with more to say; here it is only noted.
fn log<T, E: std::fmt::Display>(result: std::result::Result<T, E>) {
    if let Err(error) = result {
        tracing::debug!(%error, "the NIC did not take it");
    }
}
