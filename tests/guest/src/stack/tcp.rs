//! `Sending` and `Receiving`: a stream over one TCP connection, with its digest.

use std::net::IpAddr;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};

use super::activity::{Activity, Context, Next, fail, tell};
use crate::{Digest, Event, Stream, Transfer};

/// Bytes between two progress events.
const PROGRESS: u64 = 8 << 20;
/// How long a closed connection is kept, so that the last acknowledgement can be repeated.
const LINGER: Duration = Duration::from_secs(1);

fn socket(window: usize) -> Socket<'static> {
    Socket::new(SocketBuffer::new(vec![0; window]), SocketBuffer::new(vec![0; window]))
}

fn report(sent: bool, peer: IpAddr, port: u16, digest: &Digest, time: Duration) -> Event {
    let bytes = digest.bytes();
    let seconds = time.as_secs_f64();
    let mbit_per_s = if seconds > 0.0 { bytes as f64 * 8e-6 / seconds } else { 0.0 };
    Event::Transfer(Transfer { sent, peer, port, bytes, sha256: digest.hex(), seconds, mbit_per_s })
}

/// Tells of progress when a step was completed.
fn progress(reply: &Sender<Event>, before: u64, now: u64) {
    if before / PROGRESS != now / PROGRESS {
        tell(reply, Event::Progress { bytes: now });
    }
}

/// The end of a connection.
enum Phase {
    Running,
    /// Reported; kept until this time.
    Lingering(Instant),
}

pub(super) struct Sending {
    target: (IpAddr, u16),
    own_port: u16,
    bytes: u64,
    stream: Stream,
    digest: Digest,
    window: usize,
    deadline: Instant,
    reply: Sender<Event>,
    socket: Option<SocketHandle>,
    started: Option<Instant>,
    phase: Phase,
    /// Whether the other side has ended the connection before us.
    answering: bool,
}

impl Sending {
    pub(super) fn new(
        target: (IpAddr, u16),
        own_port: u16,
        (bytes, seed): (u64, u64),
        window: usize,
        deadline: Instant,
        reply: Sender<Event>,
    ) -> Self {
        let (stream, digest) = (Stream::new(seed), Digest::default());
        let (socket, started, phase) = (None, None, Phase::Running);
        let answering = false;
        Self {
            target,
            own_port,
            bytes,
            stream,
            digest,
            window,
            deadline,
            reply,
            socket,
            started,
            phase,
            answering,
        }
    }

    fn give_up(&self, cx: &mut Context<'_>, handle: SocketHandle, why: &str) -> Next {
        cx.sockets.get_mut::<Socket<'_>>(handle).abort();
        cx.sockets.remove(handle);
        cx.moved = true;
        let (dst, port) = self.target;
        fail(
            &self.reply,
            format!("{dst}:{port}: {why} after {} of {} bytes", self.digest.bytes(), self.bytes),
        )
    }
}

impl Activity for Sending {
    fn turn(&mut self, cx: &mut Context<'_>) -> Next {
        let handle = *self.socket.get_or_insert_with(|| cx.sockets.add(socket(self.window)));
        if let Phase::Lingering(until) = self.phase {
            if cx.now < until {
                return Next::At(Some(until));
            }
            cx.sockets.remove(handle);
            return Next::Over;
        }
        let socket = cx.sockets.get_mut::<Socket<'_>>(handle);
        let Some(started) = self.started else {
            self.started = Some(cx.now);
            if let Err(e) = socket.connect(cx.iface.context(), self.target, self.own_port) {
                return self.give_up(cx, handle, &e.to_string());
            }
            cx.moved = true;
            return Next::At(Some(self.deadline));
        };
        let before = self.digest.bytes();
        while socket.can_send() && self.digest.bytes() < self.bytes {
            let left = self.bytes - self.digest.bytes();
            let (stream, digest) = (&mut self.stream, &mut self.digest);
            let written = socket.send(|room| {
                let part = usize::try_from(left).unwrap_or(usize::MAX).min(room.len());
                stream.fill(&mut room[..part]);
                digest.update(&room[..part]);
                (part, part)
            });
            if !written.is_ok_and(|n| n > 0) {
                break;
            }
            cx.moved = true;
        }
        progress(&self.reply, before, self.digest.bytes());
        match socket.state() {
            State::Established | State::CloseWait if self.digest.bytes() >= self.bytes => {
                socket.close();
                cx.moved = true;
            }
            // The other side has acknowledged everything including our end.
            State::TimeWait | State::FinWait2 => {
                let (peer, port) = self.target;
                tell(&self.reply, report(true, peer, port, &self.digest, cx.now - started));
                let until = cx.now + LINGER;
                self.phase = Phase::Lingering(until);
                return Next::At(Some(until));
            }
            // The other side has ended first; our end is what it has still to acknowledge.
            State::LastAck => self.answering = true,
            State::Closed if self.answering && socket.send_queue() == 0 => {
                let (peer, port) = self.target;
                tell(&self.reply, report(true, peer, port, &self.digest, cx.now - started));
                cx.sockets.remove(handle);
                return Next::Over;
            }
            State::Closed => return self.give_up(cx, handle, "connection refused or reset"),
            _ => {}
        }
        if cx.now >= self.deadline {
            return self.give_up(cx, handle, "time is over");
        }
        Next::At(Some(self.deadline))
    }
}

pub(super) struct Receiving {
    port: u16,
    digest: Digest,
    window: usize,
    deadline: Instant,
    reply: Sender<Event>,
    socket: Option<SocketHandle>,
    /// Who connected and when the first byte came.
    peer: Option<(IpAddr, Instant)>,
    phase: Phase,
}

impl Receiving {
    pub(super) fn new(port: u16, window: usize, deadline: Instant, reply: Sender<Event>) -> Self {
        let (digest, socket, peer, phase) = (Digest::default(), None, None, Phase::Running);
        Self { port, digest, window, deadline, reply, socket, peer, phase }
    }

    fn give_up(&self, cx: &mut Context<'_>, handle: SocketHandle, why: &str) -> Next {
        cx.sockets.get_mut::<Socket<'_>>(handle).abort();
        cx.sockets.remove(handle);
        cx.moved = true;
        fail(&self.reply, format!("port {}: {why} after {} bytes", self.port, self.digest.bytes()))
    }
}

impl Activity for Receiving {
    fn turn(&mut self, cx: &mut Context<'_>) -> Next {
        let Some(handle) = self.socket else {
            let mut socket = socket(self.window);
            if let Err(e) = socket.listen(self.port) {
                return fail(&self.reply, format!("port {}: {e}", self.port));
            }
            self.socket = Some(cx.sockets.add(socket));
            tell(&self.reply, Event::Listening { port: self.port });
            return Next::At(Some(self.deadline));
        };
        let socket = cx.sockets.get_mut::<Socket<'_>>(handle);
        if let Phase::Lingering(until) = self.phase {
            if socket.state() != State::Closed && cx.now < until {
                return Next::At(Some(until));
            }
            cx.sockets.remove(handle);
            return Next::Over;
        }
        if let (None, Some(remote)) = (self.peer, socket.remote_endpoint()) {
            self.peer = Some((remote.addr.into(), cx.now));
        }
        let before = self.digest.bytes();
        while socket.can_recv() {
            let digest = &mut self.digest;
            let read = socket.recv(|data| {
                digest.update(data);
                (data.len(), data.len())
            });
            if !read.is_ok_and(|n| n > 0) {
                break;
            }
            cx.moved = true;
        }
        progress(&self.reply, before, self.digest.bytes());
        match (socket.state(), self.peer) {
            // The other side has ended and all its bytes are read.
            (State::CloseWait, Some((peer, started))) if !socket.can_recv() => {
                socket.close();
                cx.moved = true;
                tell(&self.reply, report(false, peer, self.port, &self.digest, cx.now - started));
                let until = cx.now + LINGER;
                self.phase = Phase::Lingering(until);
                return Next::At(Some(until));
            }
            (State::Closed, _) => return self.give_up(cx, handle, "connection reset"),
            _ => {}
        }
        if cx.now >= self.deadline {
            return self.give_up(cx, handle, "time is over");
        }
        Next::At(Some(self.deadline))
    }
}
