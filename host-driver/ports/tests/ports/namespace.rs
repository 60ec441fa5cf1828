//! Network namespaces, each with a thread that runs in it.

use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use culvert_ports::{AfXdp, AfXdpOptions};

/// Longest time that any step of a test takes.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

const UNPRIVILEGED: &str = "CULVERT_TEST_UNPRIVILEGED";

/// Whether this process is root only in a user namespace: then the limits of socket buffers apply.
pub(crate) fn is_unprivileged() -> bool {
    std::env::var_os(UNPRIVILEGED).is_some()
}

/// Whether this process may make network namespaces. If not, this function runs the current test in another process, which is
/// root of its own user namespace, and returns when that has passed.
pub(crate) fn can_make_namespaces() -> bool {
    if !rustix::process::getuid().is_root() {
        let thread = std::thread::current();
        let test = thread.name().filter(|name| *name != "main").expect("a test with a thread of its own");
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net"]).arg(std::env::current_exe().unwrap());
        command.env(UNPRIVILEGED, "1");
        let status = command.args(["--exact", test, "--nocapture"]).status().unwrap();
        assert!(status.success(), "{test} as root of a user namespace: {status}");
        return false;
    }
    true
}

/// The same for a test that makes TAPs. Skips it where /dev/net/tun is not accessible.
pub(crate) fn can_use_taps() -> bool {
    if !can_make_namespaces() {
        return false;
    }
    let tun = std::fs::File::options().read(true).write(true).open("/dev/net/tun");
    if let Err(error) = &tun {
        culvert_skip::skip(format_args!("/dev/net/tun: {error}"));
    }
    tun.is_ok()
}

/// The same for a test that attaches an XDP program. Skips it where the process lacks the capability in the host's user
/// namespace.
pub(crate) fn can_use_xdp() -> bool {
    if !can_make_namespaces() {
        return false;
    }
    let tried = Namespace::new().within(|| AfXdp::open("lo", &AfXdpOptions::default()).err());
    let refused = tried.filter(|error| error.kind() == std::io::ErrorKind::PermissionDenied);
    if let Some(error) = &refused {
        culvert_skip::skip(format_args!("an XDP program: {error}"));
    }
    refused.is_none()
}

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace.
pub(crate) struct Namespace {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    id: i32,
}

impl Namespace {
    /// Makes a namespace with nothing but its loopback interface.
    pub(crate) fn new() -> Self {
        let (jobs, next) = channel::<Job>();
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            // SAFETY: a network namespace belongs to a thread, and no memory is unshared.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
            tell.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            next.into_iter().for_each(|job| job());
        });
        let namespace = Namespace { jobs: Some(jobs), thread: Some(thread), id: told.recv().unwrap() };
        // Keeps the kernel's own packets off the links.
        namespace.run(
            "sysctl -qw net.ipv6.conf.default.router_solicitations=0 net.ipv6.conf.default.accept_dad=0",
        );
        namespace.run("ip link set lo up");
        namespace
    }

    /// Starts work in the namespace, after all that was started before.
    pub(crate) fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Pending<T> {
        let (answer, receiver) = channel();
        let job: Job = Box::new(move || drop(answer.send(work())));
        self.jobs.as_ref().unwrap().send(job).expect("earlier work has panicked");
        Pending(receiver)
    }

    /// Does work in the namespace, and waits for it.
    pub(crate) fn within<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.spawn(work).wait()
    }

    /// Runs a command line, without any quoting, in the namespace. Returns what it printed.
    pub(crate) fn run(&self, line: &str) -> String {
        let line = line.to_owned();
        let result = self.within(move || {
            let mut words = line.split(' ');
            let mut command = Command::new(words.next().unwrap_or_default());
            // An ordinary user's path does not lead to the system's programs.
            let path = std::env::var("PATH").unwrap_or_default();
            command.args(words).env("PATH", format!("{path}:/usr/sbin:/sbin")).stdin(Stdio::null());
            let output = command.output().map_err(|e| format!("{line}: {e}"))?;
            if output.status.success() {
                return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
            }
            Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr)))
        });
        result.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Moves an interface to another namespace.
    pub(crate) fn move_to(&self, interface: &str, other: &Namespace) {
        self.run(&format!("ip link set {interface} netns {}", other.id));
    }

    /// Makes a veth from `here` in this namespace to `there` in another.
    pub(crate) fn connect(&self, here: &str, other: &Namespace, there: &str) {
        self.connect_with_queues(here, other, there, 1);
    }

    /// The same, with `n` queues each way.
    pub(crate) fn connect_with_queues(&self, here: &str, other: &Namespace, there: &str, n: u32) {
        let queues = format!("numrxqueues {n} numtxqueues {n}");
        self.run(&format!("ip link add {here} {queues} type veth peer name {there} {queues}"));
        self.run(&format!("ip link set {there} netns {}", other.id));
        self.run(&format!("ip link set {here} up"));
        other.run(&format!("ip link set {there} up"));
    }

    /// Redirects all frames that the kernel receives on `interface` to `to`.
    pub(crate) fn redirect(&self, interface: &str, to: &str) {
        self.run(&format!("tc qdisc add dev {interface} clsact"));
        let all = format!("tc filter add dev {interface} ingress protocol all u32 match u32 0 0");
        self.run(&format!("{all} action mirred egress redirect dev {to}"));
    }

    /// As [`connect`](Self::connect), but `here` is a macvlan on the veth. No driver runs XDP programs on it, and the kernel
    /// has removed VLAN tags before.
    pub(crate) fn connect_macvlan(&self, here: &str, other: &Namespace, there: &str) {
        self.connect("port", other, there);
        self.run(&format!("ip link add link port name {here} type macvlan mode passthru"));
        self.run(&format!("ip link set {here} up"));
    }

    /// Packets for which the kernel has counted a checksum error.
    pub(crate) fn checksum_errors(&self) -> u64 {
        let read = |file| move || std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
        let (v4, v6) = (self.within(read("snmp")), self.within(read("snmp6")));
        let lines: Vec<Vec<&str>> = v4.lines().map(|line| line.split(' ').collect()).collect();
        let v4 = lines.chunks(2).flat_map(|pair| pair[0].iter().zip(&pair[1]));
        let v4 =
            v4.filter(|(name, _)| name.ends_with("InCsumErrors")).map(|(_, n)| n.parse::<u64>().unwrap());
        let v6 = v6.lines().filter(|line| line.contains("InCsumErrors"));
        let v6 = v6.map(|line| line.split_whitespace().last().unwrap().parse::<u64>().unwrap());
        v4.sum::<u64>() + v6.sum::<u64>()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.jobs.take());
        // After a failure the work may never end.
        if !std::thread::panicking() {
            self.thread.take().unwrap().join().expect("work in a namespace has panicked");
        }
    }
}

/// The result of work that is still running.
pub(crate) struct Pending<T>(Receiver<T>);

impl<T> Pending<T> {
    /// Waits for it.
    pub(crate) fn wait(self) -> T {
        self.0.recv_timeout(TIMEOUT).expect("the work ends, and does not panic")
    }
}

/// Waits until `holds` returns true.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + TIMEOUT;
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
