//! Where attacks are made: a deployment, the attacked port, another tenant beside it, and what must hold during each attack and
//! after it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use culvert_e2e::accounting::{account, faults};
use culvert_e2e::deployment::Deployment;
use culvert_e2e::policies::{figure8, routed, set_software_port};
use culvert_e2e::process::{Service, die_with_parent};
use culvert_e2e::vm::Vm;
use culvert_e2e::wait::poll;
use culvert_e2e::{netns, programs};
use culvert_guest::{Guest, GuestConfig, NetStack};
use culvert_packet::Encap;
use culvert_pci::{Device, vfio_user};

use crate::attacks::{Attack, Fate};
use crate::memory;
use crate::place::Place;
use crate::target::Target;
use crate::vhost_port::VhostPort;

/// Length of an attack.
const TIME: Duration = Duration::from_millis(800);
/// How long the neighbour probes: before, during and after an attack.
const PROBE: Duration = Duration::from_millis(1200);
/// Longest time without an answer to the neighbour's probe. The attacker, the neighbour and the deployment share two processors
/// with whatever else the machine does; a thread that waits for the attacker waits longer.
const STALL_MS: u64 = 600;
/// How long an attack's process may take beyond its time.
const OVERTIME: Duration = Duration::from_secs(15);
/// How long the attacked port may take to serve an honest guest again, and the process to give back what the attacker used.
const RECOVERY: Duration = Duration::from_secs(10);
/// How long the API may take.
const API: Duration = Duration::from_secs(5);
/// How long a process may take to end.
const END: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(30);
/// Threads of the daemon's runtime that come and go with the API's requests. What an attack leaves behind adds up to more.
const POOL: usize = 4;
/// Frames of the neighbours' logs; more than they send.
const LOG: usize = 1 << 18;

/// What a process has open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    descriptors: usize,
    /// Descriptors and mappings of the attacker's memory files.
    hostile: usize,
    threads: usize,
}

impl Held {
    fn of(id: u32) -> Result<Self, String> {
        let folder = |name: &str| {
            let path = format!("/proc/{id}/{name}");
            let entries = std::fs::read_dir(&path).map_err(|e| format!("{path}: {e}"))?;
            Ok::<_, String>(entries.flatten().map(|entry| entry.path()).collect::<Vec<PathBuf>>())
        };
        let files = folder("fd")?;
        let links = files.iter().filter_map(|path| std::fs::read_link(path).ok());
        let hostile = |text: &str| text.contains(memory::NAME);
        let open = links.filter(|link| link.to_str().is_some_and(hostile)).count();
        let maps = std::fs::read_to_string(format!("/proc/{id}/maps")).map_err(|e| e.to_string())?;
        let mapped = maps.lines().filter(|line| hostile(line)).count();
        Ok(Held { descriptors: files.len(), hostile: open + mapped, threads: folder("task")?.len() })
    }

    /// Whether no more is open than at first.
    fn is_back_at(&self, first: &Held) -> bool {
        let threads = first.threads + POOL;
        self.descriptors <= first.descriptors && self.hostile == 0 && self.threads <= threads
    }
}

/// A deployment with an attacked port and another tenant.
pub struct Range {
    target: Target,
    d: Deployment,
    socket: PathBuf,
    /// The other tenant: beside the attacked port, and on the other host.
    neighbours: [Vm; 2],
    /// The attacker's peer on the other host.
    peer: Vm,
    /// Processes that serve the port, and what they have open when nobody uses it.
    served_by: Vec<(String, u32, Held)>,
}

impl Range {
    /// Starts a deployment for attacks on this kind of port, in a network namespace of its own.
    ///
    /// # Errors
    /// It does not start, or an honest guest cannot use the port.
    pub fn start(target: Target) -> Result<Self, String> {
        netns::enter()?;
        let builder = match target {
            Target::Vf => Deployment::builder(figure8(Encap::Vxlan)?),
            Target::Vmq => {
                let mut policy = routed()?;
                set_software_port(&mut policy, target.vport(), "vhostUser")?;
                Deployment::builder(policy)
            }
            Target::Switch => {
                let mut policy = figure8(Encap::Vxlan)?;
                set_software_port(&mut policy, target.vport(), "vhostUser")?;
                Deployment::builder(policy).software([0, 1])
            }
        };
        let d = builder.start()?;
        let vport = d.vport(0, target.vport())?;
        let socket = vport.socket.or(vport.vhost_user).ok_or("the attacked vport has no socket")?;
        let sql = d.guest(0, "fabrikam-sql", "10.1.1.11/24", LOG)?;
        let mut web = d.guest(1, "fabrikam-web", "10.1.1.12/24", LOG)?;
        let mut peer = d.guest(1, "contoso-web", "10.1.1.12/24", 0)?;
        web.echo()?;
        peer.echo()?;
        let mut range = Range { target, d, socket, neighbours: [sql, web], peer, served_by: Vec::new() };
        range.honest()?;
        // What is set up once, on first use, is there now.
        std::thread::sleep(Duration::from_millis(500));
        let service = |name: &str, service: Option<&Service>| {
            service.map(|s| Ok((name.to_owned(), s.id(), Held::of(s.id())?)))
        };
        let both = [service("board", range.d.board(0)), service("daemon", range.d.daemon(0))];
        range.served_by = both.into_iter().flatten().collect::<Result<_, String>>()?;
        Ok(range)
    }

    /// Makes an attack. What did not hold, a line each; and what the attack saw.
    ///
    /// # Errors
    /// The deployment is no longer there, so that further attacks make no sense.
    pub fn attack(&mut self, attack: &Attack, seed: u64) -> Result<(String, Vec<String>), String> {
        let mut wrong = Vec::new();
        let far = self.neighbours[1].address();
        let drops = [self.d.drops(0)?, self.d.drops(1)?];
        self.neighbours[0].start_probe(far, PROBE)?;
        // Nobody answers this one, and nobody waits for its report; it keeps frames coming.
        self.peer.start_probe(self.target.ends().src, PROBE)?;
        std::thread::sleep(Duration::from_millis(100));
        let begin = Instant::now();
        let mut attacker = self.spawn(attack, seed)?;
        std::thread::sleep(TIME / 4);
        match attack.fate {
            Fate::Ends => {}
            Fate::Killed => drop(attacker.kill()),
            Fate::Stopped => signal(&attacker, rustix::process::Signal::STOP),
        }
        if let Err(e) = self.api_answers() {
            wrong.push(format!("API: {e}"));
        }
        match self.neighbours[0].ping(far, 3, 20) {
            Ok(ping) if ping.received == 3 => {}
            Ok(ping) => wrong.push(format!("new flow of the neighbour: {} of 3 pings", ping.received)),
            Err(e) => wrong.push(format!("new flow of the neighbour: {e}")),
        }
        std::thread::sleep(TIME.saturating_sub(begin.elapsed()));
        if attack.fate == Fate::Stopped {
            let _gone = attacker.kill();
        }
        let seen = match end_of(attacker, OVERTIME) {
            Ok(seen) => seen,
            Err(e) => {
                wrong.push(format!("attack: {e}"));
                String::new()
            }
        };
        match self.neighbours[0].probe(LIMIT) {
            Ok(probe) if (probe.received, probe.reordered) != (probe.sent, 0) => {
                wrong.push(format!("neighbour's probe: {probe:?}"));
            }
            Ok(probe) if probe.longest_outage_ms > STALL_MS => {
                wrong.push(format!("neighbour's probe stood still for {} ms", probe.longest_outage_ms));
            }
            Ok(_) => {}
            Err(e) => wrong.push(format!("neighbour's probe: {e}")),
        }
        if !wrong.is_empty() {
            wrong.push(format!(
                "drops before: {drops:?}; after: {:?}, {:?}",
                self.d.drops(0),
                self.d.drops(1)
            ));
        }
        if let Err(e) = self.honest() {
            wrong.push(format!("an honest guest afterwards: {e}"));
        }
        wrong.extend(self.leftovers()?);
        Ok((seen, wrong))
    }

    /// The attack's process, with mounts of its own.
    fn spawn(&self, attack: &Attack, seed: u64) -> Result<Child, String> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--"]);
        command.arg(programs::Programs::find()?.path("culvert-hostile"));
        let kind = match self.target {
            Target::Vf => "vf",
            Target::Vmq => "vmq",
            Target::Switch => "switch",
        };
        command.args(["--target", kind, "--socket"]).arg(&self.socket);
        command.args([
            "--milliseconds",
            &TIME.as_millis().to_string(),
            "--seed",
            &seed.to_string(),
            attack.name,
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        die_with_parent(&mut command);
        command.spawn().map_err(|e| format!("unshare: {e}"))
    }

    fn api_answers(&self) -> Result<(), String> {
        let begin = Instant::now();
        let health = self.d.cli(0, &["health"])?;
        self.d.vports(0)?;
        if health["ok"] != true {
            return Err(format!("not healthy: {health}"));
        }
        let took = begin.elapsed();
        if took > API { Err(format!("took {} ms", took.as_millis())) } else { Ok(()) }
    }

    /// Uses the attacked port as an honest guest: three pings to the peer, all answered.
    fn honest(&mut self) -> Result<(), String> {
        let mut last = String::new();
        let answered = poll(RECOVERY, Duration::from_millis(50), || {
            last = match self.honest_once() {
                Ok(()) => return Ok::<_, String>(true),
                Err(e) => e,
            };
            Ok(false)
        })?;
        if answered { Ok(()) } else { Err(last) }
    }

    fn honest_once(&self) -> Result<(), String> {
        let ends = self.target.ends();
        let stack: NetStack = if self.target == Target::Vf {
            let device: Arc<dyn Device> =
                Arc::new(vfio_user::Client::connect(&self.socket).map_err(|e| e.to_string())?);
            let config = GuestConfig::new(self.target.vport(), ends.src, 24);
            Guest::on(device, config).and_then(Guest::start).map_err(|e| e.to_string())?
        } else {
            VhostPort::start(&Place::new(self.target, &self.socket, TIME, 0)).map_err(|e| e.to_string())?
        };
        let report = stack.ping(ends.dst, 3, Duration::from_millis(10), Duration::from_secs(1));
        let report = report.map_err(|e| e.to_string())?;
        if report.received == 3 { Ok(()) } else { Err(format!("{report:?}")) }
    }

    /// What became of the neighbours' frames: a line for each flow that lost any, and for each vport that dropped any.
    fn neighbours_account(&mut self) -> Result<Vec<String>, String> {
        let [sql, web] = &mut self.neighbours;
        let flows = account(sql, web, self.d.dir())?;
        let mut wrong: Vec<String> =
            faults(&flows).into_iter().map(|fault| format!("the neighbours' frames: {fault}")).collect();
        for (host, name) in [(0, "fabrikam-sql"), (1, "fabrikam-web")] {
            let drops = self.d.vport(host, name)?.json["counters"]["drops"].clone();
            if drops != 0 {
                wrong.push(format!("drops of {name}: {drops}"));
            }
        }
        Ok(wrong)
    }

    /// What the processes still hold of the attacker, a line each.
    fn leftovers(&self) -> Result<Vec<String>, String> {
        let mut left = Vec::new();
        for (name, id, first) in &self.served_by {
            let mut now = *first;
            let back = poll(RECOVERY, Duration::from_millis(20), || {
                now = Held::of(*id)?;
                Ok::<_, String>(now.is_back_at(first))
            });
            match back {
                Ok(true) => {}
                Ok(false) => left.push(format!("{name} keeps {now:?}; at first {first:?}")),
                Err(e) => return Err(format!("{name} is gone: {e}; {}", self.tail(name))),
            }
        }
        Ok(left)
    }

    fn tail(&self, name: &str) -> String {
        let service = if name == "board" { self.d.board(0) } else { self.d.daemon(0) };
        service.map(Service::tail).unwrap_or_default()
    }

    /// Ends everything. What did not hold, a line each: the neighbours' frames are all accounted for, and the processes end when
    /// they are told to.
    ///
    /// # Errors
    /// A guest or a daemon does not answer.
    pub fn end(mut self) -> Result<Vec<String>, String> {
        let mut wrong = self.neighbours_account()?;
        let Range { d, neighbours, peer, .. } = self;
        drop((neighbours, peer));
        wrong.extend(d.stop(END).err());
        Ok(wrong)
    }
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let _sent = rustix::process::kill_process(rustix::process::Pid::from_child(child), signal);
}

/// What an attack's process said, if it ended by itself and did attack.
fn end_of(mut child: Child, limit: Duration) -> Result<String, String> {
    let ended = poll(limit, Duration::from_millis(10), || child.try_wait().map(|status| status.is_some()));
    if !ended.map_err(|e| e.to_string())? {
        let _gone = child.kill();
    }
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().replace('\n', "; ");
    let (said, complaint) = (text(&output.stdout), text(&output.stderr));
    let killed = std::os::unix::process::ExitStatusExt::signal(&output.status).is_some();
    match output.status.success() || (killed && said == "begun") {
        true => Ok(said),
        false => Err(format!("{} {said} {complaint}", output.status)),
    }
}
