//! The processor: a `qemu-system-riscv64` process on the SoC's memory.

use std::io::Read as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use culvert_abi::soc::RAM_LEN;

use super::doorbells::Doorbells;
use super::{Options, Ram, SocError};

/// How long the emulator may take to connect to its doorbell.
const CONNECT: Duration = Duration::from_secs(20);

/// A running processor. It stops when this is dropped.
pub(super) struct Processor {
    child: Child,
    /// The emulator wants the doorbell's server to stay.
    _server: UnixStream,
}

impl Processor {
    pub(super) fn start(options: &Options, ram: &Ram, doorbells: &Doorbells) -> Result<Self, SocError> {
        let failed = |what| move |source| SocError::System { what, source };
        let dir = tempfile::Builder::new().prefix("culvert-soc-").tempdir().map_err(failed("a directory"))?;
        let socket = dir.path().join("bell");
        let listener = UnixListener::bind(&socket).map_err(failed("the doorbell's socket"))?;
        listener.set_nonblocking(true).map_err(failed("the doorbell's socket"))?;
        let memory = format!("memory-backend-file,id=ram,mem-path={},size={RAM_LEN},share=on", ram.path());
        let mut command = Command::new(&options.qemu);
        command
            .args(["-M", "virt,aia=aplic-imsic,memory-backend=ram", "-object", &memory])
            .args(["-m", &format!("{}M", RAM_LEN >> 20)])
            // Two possible processors: with one the emulator leaves out atomics and fences, and the board is another.
            .args(["-smp", "1,maxcpus=2", "-cpu", "rv64,zba=on,zbb=on,zbc=on,zbs=on"])
            .args(["-bios", "none", "-nodefaults", "-display", "none", "-serial", "none", "-monitor", "none"])
            .args(["-chardev", &format!("socket,id=bell,path={}", socket.display())])
            .args(["-device", "ivshmem-doorbell,vectors=1,chardev=bell"]);
        if options.count_instructions {
            command.args(["-icount", "shift=0"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        die_with_board(&mut command);
        let emulator = |source| SocError::Emulator { program: options.qemu.clone(), source };
        let mut child = command.spawn().map_err(emulator)?;
        let end = Instant::now() + CONNECT;
        let server = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(failed("the doorbell's socket")(e)),
            }
            if let Ok(Some(_)) = child.try_wait() {
                return Err(emulator(std::io::Error::other(last_words(&mut child))));
            }
            if Instant::now() > end {
                let _gone = child.kill();
                let _reaped = child.wait();
                return Err(emulator(std::io::ErrorKind::TimedOut.into()));
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        doorbells.introduce(&server).map_err(failed("the doorbell"))?;
        Ok(Processor { child, _server: server })
    }

    pub(super) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }
}

fn last_words(child: &mut Child) -> String {
    let mut text = String::new();
    if let Some(errors) = &mut child.stderr {
        let _unreadable = errors.take(2000).read_to_string(&mut text);
    }
    text
}

/// The emulator is not left behind when the board is killed.
fn die_with_board(command: &mut Command) {
    let set = || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .map_err(Into::into)
    };
    // SAFETY: between fork and exec this makes one system call and touches no memory of the parent.
    #[expect(unsafe_code, reason = "code between fork and exec is only reached this way")]
    unsafe {
        command.pre_exec(set);
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
