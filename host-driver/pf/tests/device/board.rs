//! A device model in this process, on sockets in its own temporary directory.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use culvert_device::board::{Engine, State, Uplink};
use culvert_device::function::{Pf, PfConfig, PfPort};
use culvert_device::soc::{Options, Soc};
use culvert_device::virtio::Notifier;
use culvert_device::wire::WireSpec;
use culvert_packet::MacAddr;
use culvert_pci::FunctionAddress;
use culvert_pf::{Config, Nic};
use rustix::process::{Pid, Signal, kill_process};

const LIMIT: Duration = Duration::from_secs(10);

/// A board with real firmware in an emulated SoC.
pub(crate) struct Board {
    pf: Option<Pf>,
    stop: Arc<AtomicBool>,
    notifier: Notifier,
    engine: Option<JoinHandle<()>>,
    /// The peer's socket of MAC port 0.
    peer: UnixDatagram,
    ram: String,
    dir: tempfile::TempDir,
}

/// The firmware image: the file that `CULVERT_FIRMWARE` names, or the one that `cargo xtask firmware` built.
fn image() -> Vec<u8> {
    let path = match std::env::var_os("CULVERT_FIRMWARE") {
        Some(path) => PathBuf::from(path),
        None => {
            let exe = std::env::current_exe().unwrap();
            let target = exe.ancestors().find(|p| p.join("firmware").is_dir());
            target.unwrap_or(&exe).join("firmware/culvert-fw.bin")
        }
    };
    std::fs::read(&path)
        .unwrap_or_else(|e| panic!("{}: {e}: run `cargo xtask firmware` first", path.display()))
}

impl Board {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let peer = UnixDatagram::bind(path("peer0")).unwrap();
        peer.set_read_timeout(Some(LIMIT)).unwrap();
        let uplink = |n: u8| {
            let wire = WireSpec::Unix { own: path(&format!("mac{n}")), other: path(&format!("peer{n}")) };
            Uplink { wire: wire.open().unwrap(), capture: None }
        };
        let soc = Soc::new(Options { flows_log2: 13, ..Options::default() }).unwrap();
        let ram = soc.memory_path();
        let notifier = Notifier::new().unwrap();
        let state = State::new(notifier.clone());
        let uplinks = vec![uplink(0), uplink(1)];
        let port = PfPort::new();
        let config = PfConfig { socket: dir.path().join("pf"), reset_on_disconnect: false };
        let pf = Pf::start(config, Arc::clone(&port), state.clone(), notifier.clone()).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let mut engine = Engine::new(soc, state, port, uplinks, Arc::clone(&stop));
        let engine = std::thread::spawn(move || engine.run());
        Board { pf: Some(pf), stop, notifier, engine: Some(engine), peer, ram, dir }
    }

    pub(crate) fn open(&self) -> Nic {
        let device = FunctionAddress::Socket(self.dir.path().join("pf")).open().unwrap();
        let config = Config::new(image(), MacAddr([2, 0, 0, 0, 0, 0xfe])).unwrap();
        Nic::open(device, &config).unwrap()
    }

    /// Sends a frame to MAC port 0.
    pub(crate) fn to_uplink(&self, frame: &[u8]) {
        let bytes = [frame, &crc32fast::hash(frame).to_le_bytes()].concat();
        self.peer.send_to(&bytes, self.dir.path().join("mac0")).unwrap();
    }

    /// Receives the next frame that MAC port 0 sends.
    pub(crate) fn sent_frame(&self) -> Vec<u8> {
        let mut frame = vec![0; 4096];
        let len = self.peer.recv(&mut frame).unwrap();
        frame.truncate(len - 4);
        frame
    }

    /// Kills the emulator that runs the firmware in this board's memory.
    pub(crate) fn kill_firmware(&self) {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let emulator = processes.filter_map(|p| p.file_name().to_str()?.parse::<i32>().ok()).find(|pid| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(&format!("mem-path={},", self.ram))
        });
        let pid = Pid::from_raw(emulator.expect("the emulator runs")).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.notifier.notify();
        if let Some(engine) = self.engine.take() {
            let ended = engine.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the board failed");
        }
        if let Some(pf) = self.pf.take() {
            pf.stop();
        }
    }
}

/// Waits until `look` finds something, within the time limit.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "time-out: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
