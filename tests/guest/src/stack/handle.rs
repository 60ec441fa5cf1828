//! `NetStack`: the handle to a TCP/IP stack in a thread of its own.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use culvert_pci::Interrupt;

use super::config::StackConfig;
use super::run::{Request, Runner};
use super::running::{Fate, Running, stopped, unexpected};
use crate::hex::{hex, mac_text};
use crate::{Command, Counters, Error, Event, FrameLog, FramePort, PingReport, Result};

/// Limit for the answer to a command other than a transfer or a probe.
const REPLY_LIMIT: Duration = Duration::from_secs(10);

/// A running guest with its stack. Dropping it ends the guest and resets its VF.
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
    /// The prefix length is invalid, or the thread cannot be started.
    pub fn start(port: impl FramePort + 'static, config: StackConfig) -> Result<Self> {
        let (mac, mtu) = (port.mac(), port.mtu());
        let wake = Interrupt::new()?;
        let (requests, receiver) = channel();
        let fate = Fate::default();
        let end = Arc::clone(&fate);
        let runner = Runner::new(port, &config, receiver, wake.clone())?;
        let thread = std::thread::Builder::new()
            .name(config.name.chars().take(15).collect())
            .spawn(move || runner.run(&end))
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

    /// The event that reports the guest's start.
    #[must_use]
    pub fn up(&self) -> Event {
        let ip = format!("{}/{}", self.config.ip, self.config.prefix);
        Event::Up { name: self.config.name.clone(), mac: mac_text(self.mac), ip, mtu: self.mtu }
    }

    fn request(&self, request: Request) -> Result<()> {
        self.requests.send(request).map_err(|_| stopped(&self.fate))?;
        Ok(self.wake.signal()?)
    }

    /// Submits a command. Several commands may run at the same time.
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
    /// The guest has stopped. Lost answers are a result, not an error.
    pub fn ping(&self, dst: IpAddr, count: u16, interval: Duration, timeout: Duration) -> Result<PingReport> {
        let (interval_ms, timeout_ms) = (interval.as_millis() as u64, timeout.as_millis() as u64);
        let command = Command::Ping { dst, count, interval_ms, timeout_ms };
        match self.submit(command)?.finish(interval * u32::from(count) + timeout + REPLY_LIMIT)? {
            Event::Ping(report) => Ok(report),
            other => Err(unexpected(&other)),
        }
    }

    /// Starts to send the first bytes of the stream with this seed; [`Running::transfer`] returns the result.
    ///
    /// # Errors
    /// The guest has stopped.
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

    /// Listens for one connection; [`Running::transfer`] returns the result.
    ///
    /// # Errors
    /// The guest has stopped, or cannot listen on the port.
    pub fn tcp_receive(&self, port: u16, timeout: Duration) -> Result<Running> {
        let running = self.submit(Command::Receive { port, timeout_ms: timeout.as_millis() as u64 })?;
        match running.next(REPLY_LIMIT)? {
            Event::Listening { .. } => Ok(running),
            other => Err(unexpected(&other)),
        }
    }

    /// Starts to probe an echo with datagrams; [`Running::probe`] returns the result.
    ///
    /// # Errors
    /// The guest has stopped.
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

    /// Echoes datagrams to this port from now on.
    ///
    /// # Errors
    /// The guest has stopped, or the port is in use.
    pub fn udp_echo(&self, port: u16) -> Result<()> {
        match self.submit(Command::Echo { port })?.next(REPLY_LIMIT)? {
            Event::Listening { .. } => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends a frame unchanged.
    ///
    /// # Errors
    /// The guest has stopped, the frame's length is invalid, or the ring is full.
    pub fn send_frame(&self, frame: &[u8]) -> Result<()> {
        self.submit(Command::Frame { hex: hex(frame) })?.finish(REPLY_LIMIT).map(drop)
    }

    /// Waits for a frame that contains these bytes; [`Running::finish`] returns it.
    ///
    /// # Errors
    /// The guest has stopped.
    pub fn await_frame(&self, pattern: &[u8], timeout: Duration) -> Result<Running> {
        let timeout_ms = timeout.as_millis() as u64;
        self.submit(Command::AwaitFrame { hex: hex(pattern), timeout_ms })
    }

    /// Counters of the driver.
    ///
    /// # Errors
    /// The guest has stopped.
    pub fn counters(&self) -> Result<Counters> {
        match self.submit(Command::Counters)?.finish(REPLY_LIMIT)? {
            Event::Counters(counters) => Ok(counters),
            other => Err(unexpected(&other)),
        }
    }

    /// Copies of the frame logs: of sent and of received frames.
    ///
    /// # Errors
    /// The guest has stopped, or has no logs.
    pub fn frame_logs(&self) -> Result<(FrameLog, FrameLog)> {
        let (reply, answer) = channel();
        self.request(Request::Logs { reply })?;
        let logs = answer.recv_timeout(REPLY_LIMIT).map_err(|_| stopped(&self.fate))?;
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
