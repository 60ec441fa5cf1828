//! `Command` and `Event`: what a guest can be told and what it answers, as types and as JSON lines.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Counters;

/// Something for the guest to do. As JSON: `{"cmd":"ping","dst":"10.1.1.12","count":5}`. Several may be under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case")]
pub enum Command {
    /// ICMP echo requests. Ends with [`Event::Ping`].
    Ping {
        /// Whom.
        dst: IpAddr,
        /// How many.
        #[serde(default = "default::count")]
        count: u16,
        /// Time between two, in milliseconds.
        #[serde(default = "default::ping_interval")]
        interval_ms: u64,
        /// How long after the last one to wait for answers, in milliseconds.
        #[serde(default = "default::ping_timeout")]
        timeout_ms: u64,
    },
    /// Sends a pseudo-random stream over TCP. Ends with [`Event::Transfer`] when the other side has it all.
    Send {
        /// Where to.
        dst: IpAddr,
        /// Which port.
        #[serde(default = "default::port")]
        port: u16,
        /// How many bytes.
        bytes: u64,
        /// Of which stream.
        #[serde(default)]
        seed: u64,
        /// Give up after so many milliseconds.
        #[serde(default = "default::transfer_timeout")]
        timeout_ms: u64,
    },
    /// Takes one TCP connection and what it carries. [`Event::Listening`], then [`Event::Transfer`].
    Receive {
        /// Which port.
        #[serde(default = "default::port")]
        port: u16,
        /// Give up after so many milliseconds.
        #[serde(default = "default::transfer_timeout")]
        timeout_ms: u64,
    },
    /// Sends numbered UDP datagrams to an echo at a fixed pace. Ends with [`Event::Probe`].
    Probe {
        /// Whom.
        dst: IpAddr,
        /// Which port.
        #[serde(default = "default::echo_port")]
        port: u16,
        /// Time between two, in milliseconds.
        #[serde(default = "default::probe_interval")]
        interval_ms: u64,
        /// For how long, in milliseconds.
        duration_ms: u64,
    },
    /// Answers UDP datagrams with themselves, for as long as the guest lives. [`Event::Listening`], then
    /// [`Event::Done`].
    Echo {
        /// Which port.
        #[serde(default = "default::echo_port")]
        port: u16,
    },
    /// Sends a frame as it is, forged or not. Answers [`Event::Done`] once it is in the ring.
    Frame {
        /// From the destination MAC address on, in hexadecimal.
        hex: String,
    },
    /// Waits for a frame that contains these bytes. Ends with [`Event::Frame`].
    AwaitFrame {
        /// In hexadecimal.
        hex: String,
        /// Give up after so many milliseconds.
        #[serde(default = "default::ping_timeout")]
        timeout_ms: u64,
    },
    /// Answers [`Event::Counters`].
    Counters,
    /// Writes the frame logs to `<path>.tx` and `<path>.rx`. Answers [`Event::Done`].
    FrameLog {
        /// Where.
        path: String,
    },
    /// Ends the guest.
    Quit,
}

/// What the defaults of commands are.
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

/// Something that happened. As JSON: `{"event":"ping","dst":"10.1.1.12","sent":5,...}`.
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
    /// A ping is over.
    Ping(PingReport),
    /// The guest listens on this port.
    Listening {
        /// Which.
        port: u16,
    },
    /// A transfer goes on.
    Progress {
        /// Bytes so far.
        bytes: u64,
    },
    /// A transfer is over.
    Transfer(Transfer),
    /// A probe is over.
    Probe(ProbeReport),
    /// What passed the port.
    Counters(Counters),
    /// The awaited frame.
    Frame {
        /// In hexadecimal.
        hex: String,
    },
    /// A command without other result is carried out.
    Done,
    /// A command failed.
    Error {
        /// Why.
        message: String,
    },
}

impl Event {
    /// Whether nothing more follows for its command.
    #[must_use]
    pub fn is_last(&self) -> bool {
        !matches!(self, Self::Up { .. } | Self::Listening { .. } | Self::Progress { .. })
    }
}

/// The result of a ping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingReport {
    /// Whom.
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
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: String,
    /// From the first byte to the last, or, for the sender, until the other side had it all.
    pub seconds: f64,
    /// Megabits a second.
    pub mbit_per_s: f64,
}

/// The result of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// Whom.
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
