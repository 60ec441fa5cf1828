//! A VM that is Linux's own TCP/IP stack: a network namespace with one interface, a TAP's or a VXLAN device's.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::thread::LinkNameSpaceType;

use crate::netns::{hold_namespace, run};

/// How long a transfer may stand still.
const LIMIT: Duration = Duration::from_secs(30);

/// The namespace. It goes when this is dropped, and its interface with it.
pub struct KernelVm {
    holder: Child,
}

impl KernelVm {
    /// One without interfaces, and without IPv6 unless `ipv6`.
    ///
    /// # Errors
    /// What a command printed.
    pub fn new(ipv6: bool) -> Result<Self, String> {
        let vm = KernelVm { holder: hold_namespace()? };
        for scope in ["all", "default"] {
            let off = u8::from(!ipv6);
            vm.run(&["sysctl", "-qw", &format!("net.ipv6.conf.{scope}.disable_ipv6={off}")])?;
            // Addresses are usable at once: nobody else has them.
            vm.run(&["sysctl", "-qw", &format!("net.ipv6.conf.{scope}.accept_dad=0")])?;
        }
        vm.run(&["ip", "link", "set", "lo", "up"])?;
        Ok(vm)
    }

    /// Names the namespace for `ip link set ... netns`.
    pub fn id(&self) -> String {
        self.holder.id().to_string()
    }

    /// Gives the interface, which is in the namespace by now, its addresses.
    ///
    /// # Errors
    /// What a command printed.
    pub fn configure(&self, interface: &str, mtu: u16, addresses: &[&str]) -> Result<(), String> {
        self.run(&["ip", "link", "set", interface, "mtu", &mtu.to_string(), "up"])?;
        for address in addresses {
            self.run(&["ip", "addr", "add", address, "dev", interface])?;
        }
        Ok(())
    }

    /// Runs a command in it. Returns what it printed.
    ///
    /// # Errors
    /// What it printed.
    pub fn run(&self, command: &[&str]) -> Result<String, String> {
        run(Command::new("nsenter").args(["-t", &self.id(), "-n", "--"]).args(command))
    }

    /// Pings: so many times, with further arguments.
    ///
    /// # Errors
    /// An answer is missing: what `ping` printed.
    pub fn ping(&self, to: IpAddr, count: u32, more: &[&str]) -> Result<(), String> {
        let (to, n) = (to.to_string(), count.to_string());
        let all = [&["ping", "-c", &n, "-i", "0.05", "-W", "5"], more, &[&to]].concat();
        let said = self.run(&all)?;
        let whole = said.contains(&format!("{count} received"));
        if whole { Ok(()) } else { Err(said) }
    }

    /// Does something on a thread that is in the namespace. Sockets stay there.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn within<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        let path = format!("/proc/{}/ns/net", self.holder.id());
        let inside = move || {
            let namespace = File::open(path)?;
            rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        };
        let done = std::thread::spawn(inside).join().map_err(|_| "the thread panicked")?;
        done.map_err(|e| e.to_string())
    }

    /// Sends bytes to another VM over TCP, and sees that they arrive as they were.
    ///
    /// # Errors
    /// They do not.
    pub fn transfer(&self, to: &KernelVm, at: SocketAddr, bytes: usize) -> Result<(), String> {
        let listener = to.within(move || TcpListener::bind(at))?;
        let stream = self.within(move || TcpStream::connect_timeout(&at, LIMIT))?;
        let receiver = std::thread::spawn(move || receive(&listener));
        let sent = send(stream, bytes).map_err(|e| format!("sending to {at}: {e}"));
        let received = receiver.join().map_err(|_| "the receiver panicked")?;
        let received = received.map_err(|e| format!("receiving at {at}: {e}"))?;
        sent?;
        if received.len() != bytes {
            return Err(format!("{} of {bytes} bytes arrived at {at}", received.len()));
        }
        match received.iter().zip(pattern()).position(|(byte, expected)| *byte != expected) {
            Some(n) => Err(format!("byte {n} at {at} is not what was sent")),
            None => Ok(()),
        }
    }
}

impl Drop for KernelVm {
    fn drop(&mut self) {
        let _gone = self.holder.kill();
        let _reaped = self.holder.wait();
    }
}

/// Bytes of which no stretch is like another near it.
pub fn pattern() -> impl Iterator<Item = u8> {
    (0u64..).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
}

fn send(mut stream: TcpStream, bytes: usize) -> std::io::Result<()> {
    stream.set_write_timeout(Some(LIMIT))?;
    let all: Vec<u8> = pattern().take(bytes).collect();
    stream.write_all(&all)
}

fn receive(listener: &TcpListener) -> std::io::Result<Vec<u8>> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    Ok(all)
}
