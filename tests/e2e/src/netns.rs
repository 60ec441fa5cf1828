//! Network namespaces of the tests, and commands in them.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::thread::LinkNameSpaceType;

use crate::process::die_with_parent;
use crate::wait::poll;

/// Moves this thread, and what it starts, into a new network namespace; for an ordinary user, also into a new user namespace,
/// as root there. An ordinary user must call it before the first other thread starts.
///
/// # Errors
/// The kernel refuses namespaces: the message says what to do about it.
pub fn enter() -> Result<(), String> {
    use rustix::thread::UnshareFlags;
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    let mut flags = UnshareFlags::NEWNET;
    if !uid.is_root() {
        flags |= UnshareFlags::NEWUSER;
    }
    // SAFETY: a network namespace belongs to a thread, and no memory is unshared.
    #[expect(unsafe_code, reason = "unsharing some things is unsafe with threads; these are not among them")]
    let entered = unsafe { rustix::thread::unshare_unsafe(flags) };
    entered.map_err(|e| {
        format!(
            "cannot make a network namespace ({e}): run as root, or allow unprivileged user namespaces \
             (sysctl kernel.unprivileged_userns_clone=1)"
        )
    })?;
    if !uid.is_root() {
        let write = |file: &str, text: String| {
            std::fs::write(format!("/proc/self/{file}"), text).map_err(|e| format!("/proc/self/{file}: {e}"))
        };
        write("setgroups", "deny".to_owned())?;
        write("uid_map", format!("0 {} 1", uid.as_raw()))?;
        write("gid_map", format!("0 {} 1", gid.as_raw()))?;
    }
    ip(&["link", "set", "lo", "up"])
}

/// Runs `ip` in this thread's namespace.
///
/// # Errors
/// What it printed.
pub fn ip(args: &[&str]) -> Result<(), String> {
    run(Command::new("ip").args(args)).map(|_| ())
}

/// Runs a command to its end. Returns what it printed.
///
/// # Errors
/// It cannot be started, or fails: what it printed.
pub fn run(command: &mut Command) -> Result<String, String> {
    // The PATH of an ordinary user lacks the folders of `ip`, `sysctl` and `bridge`.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// A network namespace, which ends when this is dropped. A process in it holds it open.
pub struct Namespace {
    holder: Child,
}

impl Namespace {
    /// An empty namespace.
    ///
    /// # Errors
    /// `unshare` does not start, or the kernel refuses the namespace.
    pub fn new() -> Result<Self, String> {
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", "infinity"]).stdin(Stdio::null());
        die_with_parent(&mut command);
        let holder = command.spawn().map_err(|e| format!("unshare: {e}"))?;
        let namespace = Namespace { holder };
        // It has entered its namespace when that differs from this thread's.
        let of = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
        let (own, id) = (of("thread-self"), namespace.id().to_string());
        let entered = || Ok::<_, String>(of(&id).is_some_and(|n| Some(n) != own));
        if poll(Duration::from_secs(5), Duration::from_millis(10), entered)? {
            Ok(namespace)
        } else {
            Err("a network namespace was not made within 5 s".to_owned())
        }
    }

    /// Process id of the holder, which names the namespace for `ip link set ... netns`.
    pub fn id(&self) -> u32 {
        self.holder.id()
    }

    /// A command, to be run in the namespace.
    pub fn command(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.args(["-t", &self.id().to_string(), "-n", "--"]).arg(command.get_program());
        inside.args(command.get_args());
        inside
    }

    /// Runs a command in the namespace. Returns what it printed.
    ///
    /// # Errors
    /// What it printed.
    pub fn run(&self, command: &[&str]) -> Result<String, String> {
        let [program, args @ ..] = command else { return Ok(String::new()) };
        run(&mut self.command(Command::new(program).args(args)))
    }

    /// Runs `work` on a thread in the namespace. Sockets that it opens stay there.
    ///
    /// # Errors
    /// The namespace cannot be entered, or `work` fails.
    pub fn within<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        let path = format!("/proc/{}/ns/net", self.id());
        let inside = move || {
            let namespace = File::open(path)?;
            rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        };
        let done = std::thread::spawn(inside).join().map_err(|_| "the thread panicked")?;
        done.map_err(|e| e.to_string())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _gone = self.holder.kill();
        let _reaped = self.holder.wait();
    }
}
