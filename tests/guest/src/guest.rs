//! `Guest`: a VF brought up, raw or with a stack.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use culvert_pci::{Device, vfio_user};

use crate::hex::mac_text;
use crate::sleep::sleep;
use crate::virtio::{NetOptions, VirtioNet};
use crate::{Counters, Error, FramePort, NetStack, Result, StackConfig};

/// Configuration of a guest. Its MAC address and MTU come from the VF.
#[derive(Clone, Debug)]
pub struct GuestConfig {
    /// For messages.
    pub name: String,
    /// Its address.
    pub ip: IpAddr,
    /// The length of its subnet's prefix.
    pub prefix: u8,
    /// The router to other subnets.
    pub gateway: Option<IpAddr>,
    /// Options of the driver.
    pub net: NetOptions,
    /// Frames that the log of each direction holds; none: no log.
    pub log_frames: Option<usize>,
    /// The TCP window in bytes; none: a quarter of the receive ring's capacity.
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

/// A VF with a guest's driver.
pub struct Guest {
    net: VirtioNet,
    config: GuestConfig,
}

impl Guest {
    /// Connects to a VF's vfio-user socket and brings the VF up.
    ///
    /// # Errors
    /// The socket refuses the connection, the function is not a virtio network device, or its MAC address is not the expected one.
    pub fn connect(vf: &Path, config: GuestConfig) -> Result<Self> {
        Self::on(Arc::new(vfio_user::Client::connect(vf)?), config)
    }

    /// Brings up an open VF.
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

    /// The driver, for tests of control commands and link state.
    pub fn driver(&mut self) -> &mut VirtioNet {
        &mut self.net
    }

    /// Sends a frame unchanged.
    ///
    /// # Errors
    /// The frame's length is invalid, the ring stays full for a second, or the device is lost.
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

    /// Waits for a frame; `None` after the timeout.
    ///
    /// # Errors
    /// The device is lost or broken.
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

    /// Counters of the driver.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.net.counters()
    }

    /// Starts the TCP/IP stack on the VF, in a thread of its own.
    ///
    /// # Errors
    /// The prefix length is invalid, or the thread cannot be started.
    pub fn start(self) -> Result<NetStack> {
        let Self { net, config } = self;
        let frames = net.rx_size();
        start(net, config, frames)
    }
}

impl GuestConfig {
    /// Starts the TCP/IP stack on another device than a VF, such as an interface of the kernel.
    ///
    /// # Errors
    /// As [`Guest::start`].
    pub fn start_on(self, port: impl FramePort + 'static) -> Result<NetStack> {
        start(port, self, 1024)
    }
}

/// Starts a stack on a device whose receive ring holds `frames` frames.
fn start(port: impl FramePort + 'static, config: GuestConfig, frames: u16) -> Result<NetStack> {
    let GuestConfig { name, ip, prefix, gateway, log_frames, tcp_window, .. } = config;
    // The receive ring must hold the frames in flight of a few connections: a frame without a buffer is lost.
    let fitting = (usize::from(frames) * usize::from(port.mtu()) / 4).clamp(16 << 10, 256 << 10);
    let window = tcp_window.unwrap_or(fitting);
    NetStack::start(port, StackConfig { name, ip, prefix, gateway, window, log_frames })
}
