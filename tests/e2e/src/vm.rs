//! A VM of the deployment: a `culvert-guest` process on a VF or a TAP, controlled by JSON lines.

use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command as Program, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use culvert_guest::{Command, Counters, Event, PingReport, ProbeReport, Transfer};

use crate::address;
use crate::wait::poll;

/// A running guest. It is stopped when this is dropped.
pub struct Vm {
    name: String,
    address: IpAddr,
    child: Child,
    input: ChildStdin,
    events: Receiver<Event>,
    /// Events that arrived during the wait for another one.
    kept: Vec<Event>,
}

/// What a guest is started with.
pub struct VmConfig<'a> {
    /// Its name, for messages.
    pub name: &'a str,
    /// Its address and prefix.
    pub ip: &'a str,
    /// The router to other subnets.
    pub gateway: Option<IpAddr>,
    /// Frames that its logs hold.
    pub log_frames: usize,
}

impl Vm {
    /// Starts a guest and waits until its driver is up. The command names the program and the guest's device.
    ///
    /// # Errors
    /// It does not start, or not within 20 s.
    pub fn start(mut command: Program, config: &VmConfig<'_>, log: &Path) -> Result<Self, String> {
        command.args(["--ip", config.ip, "--name", config.name]);
        if let Some(gateway) = config.gateway {
            command.args(["--gateway", &gateway.to_string()]);
        }
        if config.log_frames > 0 {
            command.args(["--log-frames", &config.log_frames.to_string()]);
        }
        command.args(["--timeout", "900", "control"]);
        let log = std::fs::File::create(log).map_err(|e| format!("{}: {e}", log.display()))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().map_err(|e| format!("{command:?}: {e}"))?;
        let input = child.stdin.take().ok_or("the guest has no standard input")?;
        let output = child.stdout.take().ok_or("the guest has no standard output")?;
        let (sender, events) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Ok(event) = serde_json::from_str(&line)
                    && sender.send(event).is_err()
                {
                    break;
                }
            }
        });
        let address = address::host(config.ip)?;
        let mut vm = Vm { name: config.name.to_owned(), address, child, input, events, kept: Vec::new() };
        vm.wait(Duration::from_secs(20), |e| matches!(e, Event::Up { .. }).then_some(()))?;
        Ok(vm)
    }

    /// Kills the guest without warning.
    pub fn kill(mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }

    /// The guest's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The guest's address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Sends a command; [`wait`](Self::wait) gets the answer.
    ///
    /// # Errors
    /// The guest has ended.
    pub fn tell(&mut self, command: &Command) -> Result<(), String> {
        let line = serde_json::to_string(command).map_err(|e| e.to_string())?;
        writeln!(self.input, "{line}")
            .and_then(|()| self.input.flush())
            .map_err(|e| format!("{}: {e}", self.name))
    }

    /// Waits for an event.
    ///
    /// # Errors
    /// It does not come in time, or the guest reports an error or ends.
    pub fn wait<T>(
        &mut self,
        limit: Duration,
        mut want: impl FnMut(&Event) -> Option<T>,
    ) -> Result<T, String> {
        if let Some((i, found)) = self.kept.iter().enumerate().find_map(|(i, e)| want(e).map(|t| (i, t))) {
            self.kept.remove(i);
            return Ok(found);
        }
        let until = Instant::now() + limit;
        loop {
            match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Event::Error { message }) => return Err(format!("{}: {message}", self.name)),
                Ok(event) => match want(&event) {
                    Some(found) => return Ok(found),
                    None => self.kept.push(event),
                },
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("{}: no answer within {} s", self.name, limit.as_secs()));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(format!("{} has ended", self.name)),
            }
        }
    }

    /// Pings. Unanswered pings are in the report.
    ///
    /// # Errors
    /// The guest does not report.
    pub fn ping(&mut self, dst: IpAddr, count: u16, interval_ms: u64) -> Result<PingReport, String> {
        self.tell(&Command::Ping { dst, count, interval_ms, timeout_ms: 3000 })?;
        let limit = Duration::from_millis(u64::from(count) * interval_ms + 10_000);
        self.wait(limit, |e| match e {
            Event::Ping(report) if report.dst == dst => Some(report.clone()),
            _ => None,
        })
    }

    /// Listens for a transfer on a port.
    ///
    /// # Errors
    /// The guest does not listen.
    pub fn listen(&mut self, port: u16) -> Result<(), String> {
        self.tell(&Command::Receive { port, timeout_ms: 180_000 })?;
        self.wait(Duration::from_secs(10), |e| {
            matches!(e, Event::Listening { port: p } if *p == port).then_some(())
        })
    }

    /// Starts to send `bytes`.
    ///
    /// # Errors
    /// The guest has ended.
    pub fn send(&mut self, dst: IpAddr, port: u16, bytes: u64, seed: u64) -> Result<(), String> {
        self.tell(&Command::Send { dst, port, bytes, seed, timeout_ms: 180_000 })
    }

    /// The result of a transfer on a port.
    ///
    /// # Errors
    /// It fails or takes too long.
    pub fn transfer(&mut self, port: u16, limit: Duration) -> Result<Transfer, String> {
        self.wait(limit, |e| match e {
            Event::Transfer(t) if t.port == port => Some(t.clone()),
            _ => None,
        })
    }

    /// Bytes of a transfer so far, in the guest's next report.
    ///
    /// # Errors
    /// The guest reports no progress within `limit`.
    pub fn progress(&mut self, limit: Duration) -> Result<u64, String> {
        self.kept.retain(|e| !matches!(e, Event::Progress { .. }));
        self.wait(limit, |e| match e {
            Event::Progress { bytes } => Some(*bytes),
            _ => None,
        })
    }

    /// Lets the guest echo UDP datagrams to port 7, for probes.
    ///
    /// # Errors
    /// The port is in use.
    pub fn echo(&mut self) -> Result<(), String> {
        self.tell(&Command::Echo { port: 7 })?;
        self.wait(Duration::from_secs(10), |e| matches!(e, Event::Done).then_some(()))
    }

    /// Starts a probe of a guest that [echoes](Self::echo).
    ///
    /// # Errors
    /// The guest has ended.
    pub fn start_probe(&mut self, dst: IpAddr, duration: Duration) -> Result<(), String> {
        let duration_ms = duration.as_millis() as u64;
        self.tell(&Command::Probe { dst, port: 7, interval_ms: 10, duration_ms })
    }

    /// The result of a probe.
    ///
    /// # Errors
    /// It takes longer than `limit`.
    pub fn probe(&mut self, limit: Duration) -> Result<ProbeReport, String> {
        self.wait(limit, |e| match e {
            Event::Probe(report) => Some(report.clone()),
            _ => None,
        })
    }

    /// Counters of the guest's driver.
    ///
    /// # Errors
    /// The guest does not answer.
    pub fn counters(&mut self) -> Result<Counters, String> {
        self.tell(&Command::Counters)?;
        self.wait(Duration::from_secs(5), |e| match e {
            Event::Counters(counters) => Some(*counters),
            _ => None,
        })
    }

    /// Sends a frame unchanged.
    ///
    /// # Errors
    /// The guest does not confirm it.
    pub fn frame(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.tell(&Command::Frame { hex: hex(bytes) })?;
        self.wait(Duration::from_secs(5), |e| matches!(e, Event::Done).then_some(()))
    }

    /// Stops the guest's process, as a VMM may be stopped.
    ///
    /// # Errors
    /// It has ended.
    pub fn pause(&self) -> Result<(), String> {
        self.signal("STOP")
    }

    /// Lets it run again.
    ///
    /// # Errors
    /// It has ended.
    pub fn resume(&self) -> Result<(), String> {
        self.signal("CONT")
    }

    fn signal(&self, name: &str) -> Result<(), String> {
        let status = Program::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        if status.is_ok_and(|s| s.success()) { Ok(()) } else { Err(format!("{} has ended", self.name)) }
    }

    /// Lets the guest wait for a frame that contains these bytes; [`awaited`](Self::awaited) returns it.
    ///
    /// # Errors
    /// The guest has ended.
    pub fn await_frame(&mut self, part: &[u8]) -> Result<(), String> {
        self.tell(&Command::AwaitFrame { hex: hex(part), timeout_ms: 10_000 })
    }

    /// The awaited frame, in hexadecimal.
    ///
    /// # Errors
    /// It did not arrive.
    pub fn awaited(&mut self) -> Result<String, String> {
        self.wait(Duration::from_secs(12), |e| match e {
            Event::Frame { hex } => Some(hex.clone()),
            _ => None,
        })
    }

    /// Lets the guest write its frame logs. Returns the files of sent and of received frames.
    ///
    /// # Errors
    /// The guest does not confirm it.
    pub fn frame_log(&mut self, dir: &Path) -> Result<(PathBuf, PathBuf), String> {
        let path = dir.join(format!("{}.frames", self.name));
        self.tell(&Command::FrameLog { path: path.display().to_string() })?;
        self.wait(Duration::from_secs(10), |e| matches!(e, Event::Done).then_some(()))?;
        Ok((path.with_extension("frames.tx"), path.with_extension("frames.rx")))
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ended_already = self.tell(&Command::Quit);
        let ended = || Ok::<_, String>(matches!(self.child.try_wait(), Ok(Some(_))));
        if poll(Duration::from_secs(2), Duration::from_millis(10), ended) == Ok(true) {
            return;
        }
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
