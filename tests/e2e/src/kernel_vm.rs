//! A VM that is Linux's own TCP/IP stack: a network namespace with one interface, a TAP's or a VXLAN device's.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::netns::Namespace;

/// How long a transfer may stall.
const LIMIT: Duration = Duration::from_secs(30);

/// The VM. Its namespace ends when this is dropped, and its interface with it.
pub struct KernelVm {
    namespace: Namespace,
}

impl KernelVm {
    /// A VM without interfaces, and without IPv6 unless `ipv6`.
    ///
    /// # Errors
    /// What a command printed.
    pub fn new(ipv6: bool) -> Result<Self, String> {
        let vm = KernelVm { namespace: Namespace::new()? };
        for scope in ["all", "default"] {
            let off = u8::from(!ipv6);
            vm.run(&["sysctl", "-qw", &format!("net.ipv6.conf.{scope}.disable_ipv6={off}")])?;
            // Addresses are usable at once, without duplicate address detection.
            vm.run(&["sysctl", "-qw", &format!("net.ipv6.conf.{scope}.accept_dad=0")])?;
        }
        vm.run(&["ip", "link", "set", "lo", "up"])?;
        Ok(vm)
    }

    /// Names the namespace for `ip link set ... netns`.
    pub fn id(&self) -> String {
        self.namespace.id().to_string()
    }

    /// Brings up the interface, which must be in the namespace, with these addresses.
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
        self.namespace.run(command)
    }

    /// Sends `count` pings, with further arguments of `ping`.
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

    /// Runs `work` on a thread in the VM's namespace. Sockets that it opens stay there.
    ///
    /// # Errors
    /// The namespace cannot be entered, or `work` fails.
    pub fn within<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        self.namespace.within(work)
    }

    /// Sends `bytes` bytes to another VM over TCP, and checks that they arrive unchanged.
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

/// Bytes without repetition: misplaced ones are noticed.
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
