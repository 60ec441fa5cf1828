//! `NetStack`: a TCP/IP stack on a port, in a thread of its own, and the handle to it.

mod activity;
mod neighbour;
mod nic;
mod ping;
mod run;
mod tcp;
mod udp;

use std::net::IpAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use culvert_pci::Interrupt;

use crate::guest::mac_text;
use crate::stream::hex;
use crate::{
    Command, Counters, Error, Event, FrameLog, FramePort, PingReport, ProbeReport, Result, Transfer,
};
use run::{Request, Runner};

/// Longer than anything but a transfer or a probe takes.
const SOON: Duration = Duration::from_secs(10);

/// Who the stack is.
#[derive(Clone, Debug)]
pub struct StackConfig {
    /// For messages and the thread's name.
    pub name: String,
    /// Its address.
    pub ip: IpAddr,
    /// The length of its subnet's prefix.
    pub prefix: u8,
    /// Where other subnets are.
    pub gateway: Option<IpAddr>,
    /// The TCP window in bytes.
    pub window: usize,
    /// Room for so many frames in the log of each direction; none: no log.
    pub log_frames: Option<usize>,
}

/// A command under way: its events.
pub struct Running {
    events: Receiver<Event>,
    fate: Fate,
}

/// The error that ended the guest's thread, once it has ended.
type Fate = Arc<OnceLock<String>>;

fn stopped(fate: &Fate) -> Error {
    Error::Stopped(fate.get().map_or("it was told to", String::as_str).into())
}

impl Running {
    /// The next event, at most this late.
    ///
    /// # Errors
    /// [`Error::Timeout`], or [`Error::Stopped`] if the guest's thread has ended.
    pub fn next(&self, limit: Duration) -> Result<Event> {
        self.events.recv_timeout(limit).map_err(|e| match e {
            RecvTimeoutError::Timeout => Error::Timeout { what: "the command", limit },
            RecvTimeoutError::Disconnected => stopped(&self.fate),
        })
    }

    /// The last event, at most this late. Those before it are passed over.
    ///
    /// # Errors
    /// As [`Running::next`], and [`Error::Failed`] if the command failed.
    pub fn finish(&self, limit: Duration) -> Result<Event> {
        let deadline = Instant::now() + limit;
        loop {
            match self.next(deadline.saturating_duration_since(Instant::now()))? {
                Event::Error { message } => return Err(Error::Failed(message)),
                event if event.is_last() => return Ok(event),
                _ => {}
            }
        }
    }

    /// The transfer's result, at most this late.
    ///
    /// # Errors
    /// As [`Running::finish`].
    pub fn transfer(&self, limit: Duration) -> Result<Transfer> {
        match self.finish(limit)? {
            Event::Transfer(report) => Ok(report),
            other => Err(unexpected(&other)),
        }
    }

    /// The probe's result, at most this late.
    ///
    /// # Errors
    /// As [`Running::finish`].
    pub fn probe(&self, limit: Duration) -> Result<ProbeReport> {
        match self.finish(limit)? {
            Event::Probe(report) => Ok(report),
            other => Err(unexpected(&other)),
        }
    }
}

fn unexpected(event: &Event) -> Error {
    Error::Failed(format!("unexpected answer {event:?}"))
}

/// A guest with its stack running. Dropping it ends the guest and resets its VF.
pub struct NetStack {
    config: StackConfig,
    mac: [u8; 6],
    mtu: u16,
    requests: Sender<Request>,
    wake: Interrupt,
    fate: Fate,
    thread: Option<JoinHandle<()>>,
}

impl NetStack {
    /// Starts a stack on a port.
    ///
    /// # Errors
    /// An impossible address; no thread to be had.
    pub fn start(port: impl FramePort + 'static, config: StackConfig) -> Result<Self> {
        let (mac, mtu) = (port.mac(), port.mtu());
        let wake = Interrupt::new()?;
        let (requests, inbox) = channel();
        let fate = Fate::default();
        let last_words = Arc::clone(&fate);
        let runner = Runner::new(port, &config, inbox, wake.clone())?;
        let thread = std::thread::Builder::new()
            .name(config.name.chars().take(15).collect())
            .spawn(move || runner.run(&last_words))
            .map_err(|source| Error::Io { what: "starting a guest's thread".into(), source })?;
        Ok(Self { config, mac, mtu, requests, wake, fate, thread: Some(thread) })
    }

    /// The MAC address.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// The address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.config.ip
    }

    /// The event that says that the guest is up.
    #[must_use]
    pub fn up(&self) -> Event {
        let ip = format!("{}/{}", self.config.ip, self.config.prefix);
        Event::Up { name: self.config.name.clone(), mac: mac_text(self.mac), ip, mtu: self.mtu }
    }

    fn request(&self, request: Request) -> Result<()> {
        self.requests.send(request).map_err(|_| stopped(&self.fate))?;
        Ok(self.wake.signal()?)
    }

    /// Tells the guest to do something. Several commands may be under way.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the guest's thread has ended.
    pub fn submit(&self, command: Command) -> Result<Running> {
        let (reply, events) = channel();
        self.request(Request::Command { command, reply })?;
        Ok(Running { events, fate: Arc::clone(&self.fate) })
    }

    /// Pings and waits for the result.
    ///
    /// # Errors
    /// A stopped guest. Lost answers are a result, not an error.
    pub fn ping(&self, dst: IpAddr, count: u16, interval: Duration, timeout: Duration) -> Result<PingReport> {
        let (interval_ms, timeout_ms) = (interval.as_millis() as u64, timeout.as_millis() as u64);
        let command = Command::Ping { dst, count, interval_ms, timeout_ms };
        match self.submit(command)?.finish(interval * u32::from(count) + timeout + SOON)? {
            Event::Ping(report) => Ok(report),
            other => Err(unexpected(&other)),
        }
    }

    /// Starts to send the first bytes of the stream of this seed; [`Running::transfer`] has the result.
    ///
    /// # Errors
    /// A stopped guest.
    pub fn tcp_send(
        &self,
        dst: IpAddr,
        port: u16,
        bytes: u64,
        seed: u64,
        timeout: Duration,
    ) -> Result<Running> {
        let timeout_ms = timeout.as_millis() as u64;
        self.submit(Command::Send { dst, port, bytes, seed, timeout_ms })
    }

    /// Listens for one connection; [`Running::transfer`] has what it carried.
    ///
    /// # Errors
    /// A stopped guest, or one that cannot listen there.
    pub fn tcp_receive(&self, port: u16, timeout: Duration) -> Result<Running> {
        let running = self.submit(Command::Receive { port, timeout_ms: timeout.as_millis() as u64 })?;
        match running.next(SOON)? {
            Event::Listening { .. } => Ok(running),
            other => Err(unexpected(&other)),
        }
    }

    /// Starts to probe an echo with datagrams; [`Running::probe`] has the result.
    ///
    /// # Errors
    /// A stopped guest.
    pub fn udp_probe(
        &self,
        dst: IpAddr,
        port: u16,
        interval: Duration,
        duration: Duration,
    ) -> Result<Running> {
        let (interval_ms, duration_ms) = (interval.as_millis() as u64, duration.as_millis() as u64);
        self.submit(Command::Probe { dst, port, interval_ms, duration_ms })
    }

    /// Answers datagrams to this port with themselves from now on.
    ///
    /// # Errors
    /// A stopped guest, or a port that is taken.
    pub fn udp_echo(&self, port: u16) -> Result<()> {
        match self.submit(Command::Echo { port })?.next(SOON)? {
            Event::Listening { .. } => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends a frame as it is.
    ///
    /// # Errors
    /// A stopped guest, a frame of impossible length, a full ring.
    pub fn send_frame(&self, frame: &[u8]) -> Result<()> {
        self.submit(Command::Frame { hex: hex(frame) })?.finish(SOON).map(drop)
    }

    /// Watches for a frame that contains these bytes from now on; [`Running::finish`] has it.
    ///
    /// # Errors
    /// A stopped guest.
    pub fn await_frame(&self, pattern: &[u8], timeout: Duration) -> Result<Running> {
        let timeout_ms = timeout.as_millis() as u64;
        self.submit(Command::AwaitFrame { hex: hex(pattern), timeout_ms })
    }

    /// What has passed so far.
    ///
    /// # Errors
    /// A stopped guest.
    pub fn counters(&self) -> Result<Counters> {
        match self.submit(Command::Counters)?.finish(SOON)? {
            Event::Counters(counters) => Ok(counters),
            other => Err(unexpected(&other)),
        }
    }

    /// Copies of the frame logs: what went into the transmit ring, and what came out of the receive ring.
    ///
    /// # Errors
    /// A stopped guest, or one that keeps none.
    pub fn frame_logs(&self) -> Result<(FrameLog, FrameLog)> {
        let (reply, answer) = channel();
        self.request(Request::Logs { reply })?;
        let logs = answer.recv_timeout(SOON).map_err(|_| stopped(&self.fate))?;
        logs.ok_or_else(|| Error::Failed("this guest keeps no frame log".into()))
    }
}

impl Drop for NetStack {
    fn drop(&mut self) {
        let (reply, _) = channel();
        let _ = self.request(Request::Command { command: Command::Quit, reply });
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
