//! The slow path's thread: waits for upcalls, events, commands and timers, and handles them with the engine.

mod publish;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex};

use culvert_offload::{Event, EventFd, EventQueue, FlowCommand, OffloadNic, Scan, UpcallQueue};
use culvert_packet::Reason;
use culvert_policy::Snapshot;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::aging::{AGING_INTERVAL_MS, SWEEP_INTERVAL_MS};
use crate::command::Command;
use crate::connection_store::monotonic_ms;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::host_policy::HostPolicy;
use crate::kernel_uplinks::KernelUplinks;
use crate::nic_state::NicState;
use crate::nic_tables::{NicTables, mapping_generations_of};
use crate::policy::Policy as _;
use crate::problems::Problems;
use crate::published::{Place, Published, Views};
use crate::timer::{Clock, Timers, elapsed_ms};

/// Upcalls handled in one round.
const BURST: usize = 128;
/// Milliseconds to the next round of aging when one was not enough, at least.
const MIN_AGING_INTERVAL_MS: u32 = 5;

/// Milliseconds between two checks of the kernel's addresses.
const KERNEL_CHECK_INTERVAL_MS: u32 = 1000;

/// Whether the thread runs on after a command.
enum Progress {
    /// No command was waiting.
    Idle,
    /// A command was executed.
    Busy,
    /// The thread has to stop.
    Stop,
}

/// The slow path's thread.
pub(crate) struct SlowPathThread {
    nic: Arc<dyn OffloadNic>,
    nic_state: NicState,
    engine: Engine<HostPolicy>,
    commands: Receiver<Command>,
    wake: EventFd,
    upcalls: Box<dyn UpcallQueue>,
    events: Box<dyn EventQueue>,
    /// If the kernel has the provider addresses.
    kernel: Option<KernelUplinks>,
    /// The policy to apply, also if that failed.
    snapshot: Option<Arc<Snapshot>>,
    /// The tables that were written last.
    tables: NicTables,
    lost_in_restarts: u64,
    /// What is wrong, for the handles.
    problems: Problems,
    published: Place<Published>,
    clock: Clock,
    timers: Timers,
}

impl SlowPathThread {
    pub(crate) fn new(
        nic: Arc<dyn OffloadNic>,
        policy: HostPolicy,
        commands: Receiver<Command>,
        wake: EventFd,
        kernel_interfaces: Option<Vec<String>>,
    ) -> Result<Self> {
        let upcalls = nic.upcalls().ok_or(Error::InUse { what: "upcall queue" })?;
        let events = nic.events().ok_or(Error::InUse { what: "event queue" })?;
        // A NIC that is absent has no links yet.
        let links = nic.links().unwrap_or_default();
        let engine = Engine::new(policy, nic.capabilities().uplinks, links);
        let kernel = kernel_interfaces.map(KernelUplinks::new);
        let engine = if kernel.is_some() { engine.on_kernel_addresses() } else { engine };
        let clock = Clock::new();
        let now = clock.now();
        Ok(SlowPathThread {
            nic,
            nic_state: NicState::Unconfigured,
            engine,
            commands,
            wake,
            upcalls,
            events,
            kernel,
            snapshot: None,
            tables: NicTables::default(),
            lost_in_restarts: 0,
            problems: Problems::default(),
            published: Place::default(),
            clock,
            timers: Timers::new(now, AGING_INTERVAL_MS, SWEEP_INTERVAL_MS, KERNEL_CHECK_INTERVAL_MS),
        })
    }

    /// What is wrong, as the thread notes it.
    pub(crate) fn problems(&self) -> Arc<Mutex<Vec<String>>> {
        self.problems.shared()
    }

    /// What is published for views.
    pub(crate) fn views(&mut self) -> Views {
        let (published, drops) = (self.published.clone(), self.engine.vport_drops.clone());
        Views { published, drops, hits: self.engine.policy().hits() }
    }

    /// Runs until a command stops it or all handles are gone.
    pub(crate) fn run(mut self) {
        loop {
            culvert_threads::beat();
            let mut busy = match self.execute_command() {
                Progress::Idle => false,
                Progress::Busy => true,
                Progress::Stop => break,
            };
            busy |= self.handle_events();
            busy |= self.handle_upcalls();
            busy |= self.handle_kernel();
            self.handle_timers();
            self.flush_commands();
            publish::publish(&self.published, &mut self.engine, self.lost_in_restarts);
            if !busy {
                self.sleep();
            }
        }
        let now = self.clock.now();
        self.engine.policy().keep_alive(now, monotonic_ms());
        self.engine.drop_held(Reason::HostRestart);
        self.flush_commands();
    }

    fn execute_command(&mut self) -> Progress {
        // A caller that has given up no longer receives its reply.
        match self.commands.try_recv() {
            Err(TryRecvError::Empty) => return Progress::Idle,
            Err(TryRecvError::Disconnected) => return Progress::Stop,
            Ok(Command::Stop(reply)) => {
                let _ = reply.send(());
                return Progress::Stop;
            }
            Ok(Command::Apply(snapshot, reply)) => {
                let result = self.apply(&snapshot);
                publish::publish_addresses(&self.published, &self.engine);
                let _ = reply.send(result);
            }
            Ok(Command::Status(reply)) => {
                let recovering = self.nic_state.is_recovering();
                let _ = reply.send(publish::status(&mut self.engine, recovering, self.lost_in_restarts));
            }
            Ok(Command::Trace(port, frame, reply)) => {
                let now = self.clock.now();
                let _ = reply.send(self.engine.trace(port, &frame, now));
            }
            Ok(Command::Flush(records, reply)) => {
                let now = self.clock.now();
                self.engine.flush(records, now);
                self.flush_commands();
                let _ = reply.send(());
            }
        }
        Progress::Busy
    }

    /// The tables of a policy for the NIC that is there now.
    fn tables_of(&mut self, snapshot: &Snapshot) -> Result<NicTables> {
        let mut tables = NicTables::new(snapshot, self.nic.capabilities().flow_records_per_vport);
        if let Some(kernel) = &mut self.kernel {
            kernel.configure(&mut tables.local_pas)?;
        }
        Ok(tables)
    }

    fn apply(&mut self, snapshot: &Arc<Snapshot>) -> Result<()> {
        let now = self.clock.now();
        self.snapshot = Some(snapshot.clone());
        let tables = self.tables_of(snapshot)?;
        let stale = self.engine.policy().set(snapshot);
        if !stale.is_empty() {
            self.engine.commands.push(FlowCommand::Delete(stale));
        }
        self.engine.policy().restore(now, monotonic_ms());
        if self.nic_state.is_configured() && !self.nic.is_alive() {
            // The recovery writes this policy.
            self.nic_state = self.nic_state.restarted();
        }
        if !self.nic_state.is_configured() && self.nic.is_adopted() {
            let records = self.nic.scan(Scan::All, self.nic.capabilities().flow_records as usize)?;
            tracing::info!(records = records.len(), "flow records of the running NIC adopted");
            self.tables.mapping_generations = mapping_generations_of(&records);
            self.engine.policy().adopt(&records, now);
        }
        self.engine.apply(&*self.nic, &tables, &self.tables, now)?;
        self.tables = tables;
        self.problems.note_kernel(&Ok::<_, Error>(()));
        if !self.nic_state.is_configured() {
            self.nic.start()?;
            self.nic_state = self.nic_state.configured();
        }
        Ok(())
    }

    fn handle_events(&mut self) -> bool {
        let mut any = false;
        while let Some(event) = self.events.next() {
            any = true;
            match event {
                Event::FirmwareDied { epoch, panic, log } => {
                    tracing::error!(epoch, panic, log, "firmware died");
                    self.lost_in_restarts += self.engine.discard_held() as u64;
                    self.engine.take_commands();
                }
                Event::Silent(why) => {
                    tracing::error!(why, "the NIC does not answer; it is used again when it does");
                }
                Event::FirmwareReady { epoch } => {
                    tracing::info!(epoch, "firmware ready");
                    self.nic_state = self.nic_state.restarted();
                    self.try_recover();
                }
                Event::Link(links) => {
                    let now = self.clock.now();
                    tracing::info!(?links, "links changed");
                    self.engine.set_links(links, now);
                    publish::publish_addresses(&self.published, &self.engine);
                }
                Event::Vf => tracing::debug!("a VF driver attached or detached"),
                Event::QueueStopped { queue } => tracing::error!(queue, "queue stopped by a fault"),
                Event::Lost(why) => {
                    tracing::error!(why, "NIC lost; it is taken again when it returns");
                    self.lost_in_restarts += self.engine.discard_held() as u64;
                    self.engine.take_commands();
                }
            }
        }
        any
    }

    /// Gives a NIC that has restarted its tables back, if it needs them and is alive.
    fn try_recover(&mut self) {
        if !self.nic_state.is_recovering() || !self.nic.is_alive() {
            return;
        }
        // The new firmware does not know the old tickets; it sends no upcalls before it is started.
        self.lost_in_restarts += self.engine.discard_held() as u64;
        while let Ok(Some(upcall)) = self.upcalls.pop() {
            if upcall.meta.copy.is_some() {
                let now = self.clock.now();
                self.engine.upcall(upcall, now);
            } else {
                self.lost_in_restarts += 1;
            }
        }
        self.engine.take_commands();
        match self.recover() {
            Ok(()) => self.nic_state = self.nic_state.recovered(),
            Err(error) => tracing::warn!(%error, "recovery of the NIC failed; trying again"),
        }
    }

    /// Writes the newest policy and the connections' flow records into a NIC that has lost its tables, which may be another
    /// NIC.
    fn recover(&mut self) -> Result<()> {
        self.upcalls.repost()?;
        let Some(snapshot) = self.snapshot.clone().filter(|_| self.nic_state.is_configured()) else {
            return Ok(());
        };
        let now = self.clock.now();
        let tables = self.tables_of(&snapshot)?;
        self.engine.apply(&*self.nic, &tables, &self.tables, now)?;
        self.engine.refill(&*self.nic)?;
        self.tables = tables;
        Ok(())
    }

    fn handle_upcalls(&mut self) -> bool {
        let now = self.clock.now();
        let mut n = 0;
        while n < BURST {
            match self.upcalls.pop() {
                Ok(Some(upcall)) => {
                    n += 1;
                    self.engine.upcall(upcall, now);
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "upcall queue failed");
                    return false;
                }
            }
        }
        if n > 0 {
            self.flush_commands();
            log(self.upcalls.repost());
        }
        n > 0
    }

    /// Sends requests for next hops to the kernel, and handles its events.
    fn handle_kernel(&mut self) -> bool {
        let now = self.clock.now();
        let Some(kernel) = &mut self.kernel else { return false };
        kernel.resolve(&self.engine.take_kernel_requests(), now);
        let events = kernel.poll(now);
        for (pa, event) in &events {
            self.engine.kernel_event(*pa, event, now);
        }
        !events.is_empty()
    }

    /// Applies the policy again if the kernel's addresses have changed.
    fn follow_kernel(&mut self, now: u32) {
        if !self.timers.kernel_check.fires(now) || !self.kernel.as_ref().is_some_and(KernelUplinks::is_stale)
        {
            return;
        }
        let Some(snapshot) = self.snapshot.clone() else { return };
        let applied = self.apply(&snapshot);
        self.problems.note_kernel(&applied);
        self.problems.publish(self.engine.policy().problem());
    }

    fn handle_timers(&mut self) {
        let now = self.clock.now();
        self.engine.tick(now);
        self.follow_kernel(now);
        if self.timers.aging.fires(now) {
            self.engine.policy().keep_alive(now, monotonic_ms());
            self.problems.publish(self.engine.policy().problem());
            publish::publish_addresses(&self.published, &self.engine);
            self.try_recover();
            if self.nic.is_alive() && !self.nic_state.is_recovering() {
                self.age(now);
                if self.timers.sweep.fires(now) {
                    log(self.engine.sweep_orphans(&*self.nic));
                }
            }
        }
    }

    /// Ages connections. If more are due than fit one round, the next one comes soon, but leaves most of the time to
    /// packets.
    fn age(&mut self, now: u32) {
        let more = self.engine.age(&*self.nic, now);
        let took = elapsed_ms(now, self.clock.now());
        self.timers.aging.set_period_ms(match more {
            Ok(true) => (took * 4).clamp(MIN_AGING_INTERVAL_MS, AGING_INTERVAL_MS),
            _ => AGING_INTERVAL_MS,
        });
        log(more);
    }

    fn flush_commands(&mut self) {
        self.engine.policy().save();
        let commands = self.engine.take_commands();
        if !commands.is_empty() {
            // Whoever sees a packet that leaves now finds it counted.
            publish::publish(&self.published, &mut self.engine, self.lost_in_restarts);
            log(self.nic.execute(commands));
        }
    }

    fn sleep(&mut self) {
        if self.upcalls.arm() {
            let now = self.clock.now();
            let ms = self.engine.next_tick_ms(now, self.timers.aging.period_ms());
            let ms = self.kernel.as_ref().map_or(ms, |kernel| kernel.next_poll_ms(now, ms)).max(1);
            let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(ms.min(999)) * 1_000_000 };
            let mut fds: Vec<PollFd<'_>> =
                self.fds(now).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
            // An interrupted sleep only ends early.
            let _ = rustix::event::poll(&mut fds, Some(&limit));
        }
        log(self.wake.try_clear());
        self.upcalls.disarm();
    }

    fn fds(&self, now: u32) -> impl Iterator<Item = BorrowedFd<'_>> {
        let kernel = self.kernel.iter().flat_map(move |kernel| kernel.fds(now));
        [self.wake.as_fd(), self.upcalls.fd(), self.events.fd()].into_iter().chain(kernel)
    }
}

/// Logs an error for debugging: the NIC's events report its cause at a higher level.
fn log<T, E: std::fmt::Display>(result: std::result::Result<T, E>) {
    if let Err(error) = result {
        tracing::debug!(%error, "the NIC did not execute an operation");
    }
}
