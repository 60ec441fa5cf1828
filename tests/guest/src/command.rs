//! `Command` and `Event`: requests to a guest and its answers, as types and as JSON lines.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Counters;

/// A command to the guest. As JSON: `{"cmd":"ping","dst":"10.1.1.12","count":5}`. Several may run at the same time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case")]
pub enum Command {
    /// ICMP echo requests. Ends with [`Event::Ping`].
    Ping {
        /// The destination.
        dst: IpAddr,
        /// Number of requests.
        #[serde(default = "default::count")]
        count: u16,
        /// Time between two, in milliseconds.
        #[serde(default = "default::ping_interval")]
        interval_ms: u64,
        /// How long after the last one to wait for answers, in milliseconds.
        #[serde(default = "default::ping_timeout")]
        timeout_ms: u64,
    },
    /// Sends a pseudo-random stream over TCP. Ends with [`Event::Transfer`] when the other side has received all of it.
    Send {
        /// The destination.
        dst: IpAddr,
        /// The port.
        #[serde(default = "default::port")]
        port: u16,
        /// Number of bytes.
        bytes: u64,
        /// Seed of the stream.
        #[serde(default)]
        seed: u64,
        /// Time limit in milliseconds.
        #[serde(default = "default::transfer_timeout")]
        timeout_ms: u64,
    },
    /// Accepts one TCP connection and receives its data. [`Event::Listening`], then [`Event::Transfer`].
    Receive {
        /// The port.
        #[serde(default = "default::port")]
        port: u16,
        /// Time limit in milliseconds.
        #[serde(default = "default::transfer_timeout")]
        timeout_ms: u64,
    },
    /// Sends numbered UDP datagrams to an echo at a fixed pace. Ends with [`Event::Probe`].
    Probe {
        /// The destination.
        dst: IpAddr,
        /// The port.
        #[serde(default = "default::echo_port")]
        port: u16,
        /// Time between two, in milliseconds.
        #[serde(default = "default::probe_interval")]
        interval_ms: u64,
        /// Duration in milliseconds.
        duration_ms: u64,
    },
    /// Echoes UDP datagrams until the guest ends. [`Event::Listening`], then
    /// [`Event::Done`].
    Echo {
        /// The port.
        #[serde(default = "default::echo_port")]
        port: u16,
    },
    /// Sends a frame unchanged, also a forged one. Answers [`Event::Done`] once it is in the ring.
    Frame {
        /// The frame in hexadecimal, starting with the destination MAC address.
        hex: String,
    },
    /// Waits for a frame that contains these bytes. Ends with [`Event::Frame`].
    AwaitFrame {
        /// Bytes in hexadecimal.
        hex: String,
        /// Time limit in milliseconds.
        #[serde(default = "default::ping_timeout")]
        timeout_ms: u64,
    },
    /// Answers [`Event::Counters`].
    Counters,
    /// Writes the frame logs to `<path>.tx` and `<path>.rx`. Answers [`Event::Done`].
    FrameLog {
        /// The path without the extension.
        path: String,
    },
    /// Ends the guest.
    Quit,
}

/// Defaults of commands.
mod default {
    pub(super) fn count() -> u16 {
        3
    }
    pub(super) fn ping_interval() -> u64 {
        200
    }
    pub(super) fn ping_timeout() -> u64 {
        3_000
    }
    pub(super) fn port() -> u16 {
        5001
    }
    pub(super) fn echo_port() -> u16 {
        7
    }
    pub(super) fn probe_interval() -> u64 {
        10
    }
    pub(super) fn transfer_timeout() -> u64 {
        120_000
    }
}

/// An event of the guest. As JSON: `{"event":"ping","dst":"10.1.1.12","sent":5,...}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The guest is up.
    Up {
        /// Its name.
        name: String,
        /// Its MAC address, with colons.
        mac: String,
        /// Its address, with the length of the prefix.
        ip: String,
        /// The VF's MTU.
        mtu: u16,
    },
    /// A ping has ended.
    Ping(PingReport),
    /// The guest listens on this port.
    Listening {
        /// The port.
        port: u16,
    },
    /// Progress of a transfer.
    Progress {
        /// Bytes so far.
        bytes: u64,
    },
    /// A transfer has ended.
    Transfer(Transfer),
    /// A probe has ended.
    Probe(ProbeReport),
    /// Counters of the port.
    Counters(Counters),
    /// The awaited frame.
    Frame {
        /// Bytes in hexadecimal.
        hex: String,
    },
    /// A command without another result has ended.
    Done,
    /// A command failed.
    Error {
        /// The reason.
        message: String,
    },
}

impl Event {
    /// Whether this is the last event of its command.
    #[must_use]
    pub fn is_last(&self) -> bool {
        !matches!(self, Self::Up { .. } | Self::Listening { .. } | Self::Progress { .. })
    }
}

/// The result of a ping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingReport {
    /// The destination.
    pub dst: IpAddr,
    /// Requests sent.
    pub sent: u16,
    /// Requests answered.
    pub received: u16,
    /// The first request's round trip in microseconds, with address resolution and flow set-up, if it was answered.
    pub first_us: Option<u64>,
    /// The shortest round trip in microseconds.
    pub min_us: u64,
    /// The mean round trip in microseconds.
    pub avg_us: u64,
    /// The longest round trip in microseconds.
    pub max_us: u64,
}

/// The result of a transfer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// Whether this side sent.
    pub sent: bool,
    /// The other side.
    pub peer: IpAddr,
    /// The port listened on.
    pub port: u16,
    /// Number of bytes.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: String,
    /// Seconds from the first byte to the last; for the sender, until the other side had received all.
    pub seconds: f64,
    /// Megabits a second.
    pub mbit_per_s: f64,
}

/// The result of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// The destination.
    pub dst: IpAddr,
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that came back.
    pub received: u64,
    /// Datagrams that came back after one sent later.
    pub reordered: u64,
    /// The longest time without an answer, beyond the time between two datagrams, in milliseconds.
    pub longest_outage_ms: u64,
}
