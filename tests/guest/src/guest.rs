//! `Guest`: a VF brought up, raw or with a stack.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use culvert_pci::{Device, vfio_user};

use crate::virtio::{NetOptions, VirtioNet};
use crate::{Counters, Error, FramePort, Interface, NetStack, Result, StackConfig};

/// Who a guest is. Its MAC address and MTU come from the VF.
#[derive(Clone, Debug)]
pub struct GuestConfig {
    /// For messages.
    pub name: String,
    /// Its address.
    pub ip: IpAddr,
    /// The length of its subnet's prefix.
    pub prefix: u8,
    /// Where other subnets are.
    pub gateway: Option<IpAddr>,
    /// What the driver uses.
    pub net: NetOptions,
    /// Room for so many frames in the log of each direction; none: no log.
    pub log_frames: Option<usize>,
    /// The TCP window in bytes; none: a quarter of what the receive ring holds.
    pub tcp_window: Option<usize>,
    /// The MAC address that the VF must have, if it matters.
    pub expect_mac: Option<[u8; 6]>,
}

impl GuestConfig {
    /// A guest with this name and address, without gateway and log.
    #[must_use]
    pub fn new(name: &str, ip: IpAddr, prefix: u8) -> Self {
        let net = NetOptions::default();
        Self {
            name: name.into(),
            ip,
            prefix,
            gateway: None,
            net,
            log_frames: None,
            tcp_window: None,
            expect_mac: None,
        }
    }
}

/// A VF in the hands of a guest's driver.
pub struct Guest {
    net: VirtioNet,
    config: GuestConfig,
}

impl Guest {
    /// Connects to a VF's vfio-user socket and brings the VF up.
    ///
    /// # Errors
    /// Nobody listening there; a function that is no virtio network device; another MAC address than expected.
    pub fn connect(vf: &Path, config: GuestConfig) -> Result<Self> {
        Self::on(Arc::new(vfio_user::Client::connect(vf)?), config)
    }

    /// Brings up a VF that is open already.
    ///
    /// # Errors
    /// As [`Guest::connect`].
    pub fn on(device: Arc<dyn Device>, config: GuestConfig) -> Result<Self> {
        let net = VirtioNet::new(device, config.net)?;
        match config.expect_mac {
            Some(mac) if mac != net.mac() => {
                Err(Error::WrongMac { found: mac_text(net.mac()), expected: mac_text(mac) })
            }
            _ => Ok(Self { net, config }),
        }
    }

    /// The VF's MAC address.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.net.mac()
    }

    /// The VF's MTU.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        self.net.mtu()
    }

    /// The driver, for what only a test wants: control commands, link state.
    pub fn driver(&mut self) -> &mut VirtioNet {
        &mut self.net
    }

    /// Sends a frame as it is.
    ///
    /// # Errors
    /// A frame of impossible length; a ring that stays full for a second; a lost device.
    pub fn send_frame(&mut self, frame: &[u8]) -> Result<()> {
        let limit = Duration::from_secs(1);
        let deadline = Instant::now() + limit;
        while !self.net.can_send() {
            let left = deadline.checked_duration_since(Instant::now()).ok_or(Error::RingFull(limit))?;
            self.net.flush()?;
            if !self.net.arm(true) {
                sleep(&self.net, left)?;
            }
            self.net.disarm()?;
        }
        self.net.send(frame, None)?;
        self.net.flush()
    }

    /// Waits for a frame. `None` if none comes in time.
    ///
    /// # Errors
    /// A lost or broken device.
    pub fn recv_frame(&mut self, timeout: Duration) -> Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(frame) = self.net.receive()? {
                return Ok(Some(frame));
            }
            self.net.flush()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            if !self.net.arm(false) {
                sleep(&self.net, left)?;
            }
            self.net.disarm()?;
        }
    }

    /// What has passed so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.net.counters()
    }

    /// Starts the TCP/IP stack on the VF, in a thread of its own.
    ///
    /// # Errors
    /// An address with an impossible prefix; no thread to be had.
    pub fn start(self) -> Result<NetStack> {
        let Self { net, config } = self;
        let frames = net.rx_size();
        start(net, config, frames)
    }
}

impl GuestConfig {
    /// Starts the TCP/IP stack on an interface of the kernel's in place of a VF.
    ///
    /// # Errors
    /// As [`Guest::start`].
    pub fn start_on(self, interface: Interface) -> Result<NetStack> {
        start(interface, self, 1024)
    }
}

/// A stack on a device that has room for so many frames.
fn start(port: impl FramePort + 'static, config: GuestConfig, frames: u16) -> Result<NetStack> {
    let GuestConfig { name, ip, prefix, gateway, log_frames, tcp_window, .. } = config;
    // What a few connections together may have under way fits the receive ring: a frame without a buffer is lost.
    let fitting = (usize::from(frames) * usize::from(port.mtu()) / 4).clamp(16 << 10, 256 << 10);
    let window = tcp_window.unwrap_or(fitting);
    NetStack::start(port, StackConfig { name, ip, prefix, gateway, window, log_frames })
}

/// Sleeps until the port has an event, at most `limit`.
pub(crate) fn sleep(port: &impl FramePort, limit: Duration) -> Result<()> {
    sleep_on(&port.events(), limit)
}

/// Sleeps until one of the descriptors is readable, at most `limit`.
pub(crate) fn sleep_on(fds: &[std::os::fd::BorrowedFd<'_>], limit: Duration) -> Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds: Vec<_> = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let limit = Timespec::try_from(limit).ok();
    match poll(&mut fds, limit.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(Error::Io { what: "sleeping".into(), source: e.into() }),
    }
}

/// A MAC address with colons.
pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
