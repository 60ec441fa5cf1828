//! Configuration of the stack.

use std::net::IpAddr;

/// Configuration of a stack.
#[derive(Clone, Debug)]
pub struct StackConfig {
    /// For messages and the thread's name.
    pub name: String,
    /// Its address.
    pub ip: IpAddr,
    /// The length of its subnet's prefix.
    pub prefix: u8,
    /// The router to other subnets.
    pub gateway: Option<IpAddr>,
    /// The TCP window in bytes.
    pub window: usize,
    /// Frames that the log of each direction holds; none: no log.
    pub log_frames: Option<usize>,
}
