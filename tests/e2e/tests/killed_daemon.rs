//! Hosts without a NIC whose lists deny what is not allowed: a killed daemon's connections go on with the next one.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use culvert_e2e::deployment::{Config, Deployment, Programs, figure8};
use culvert_e2e::kernel_vm::KernelVm;
use culvert_e2e::netns;
use culvert_e2e::process::{Service, until};
use culvert_packet::Encap;
use serde_json::{Value, json};

const SQL: &str = "10.1.1.11/24";
const WEB: &str = "10.1.1.12/24";
const LIMIT: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
/// Bytes of the stream, in pieces that take some time.
const STREAM: u64 = 24 * MIB;

/// Both VMs may open connections to these TCP and UDP ports, and nothing else.
fn policy(ports: &[u16]) -> Value {
    let mut policy = figure8(Encap::Vxlan).unwrap();
    for server in policy["servers"].as_array_mut().unwrap() {
        server["properties"]["networkInterfaces"].as_array_mut().unwrap().truncate(1);
    }
    let list = &mut policy["accessControlLists"][0]["properties"];
    list["inboundDefaultAction"] = "Deny".into();
    list["outboundDefaultAction"] = "Deny".into();
    let mut rules = Vec::new();
    for port in ports {
        for (protocol, kind) in
            [("TCP", "Inbound"), ("TCP", "Outbound"), ("UDP", "Inbound"), ("UDP", "Outbound")]
        {
            rules.push(json!({
                "resourceId": format!("{protocol}-{kind}-{port}"),
                "properties": {
                    "type": kind, "priority": 100 + rules.len(), "protocol": protocol, "action": "Allow",
                    "sourceAddressPrefix": "*", "sourcePortRange": "*",
                    "destinationAddressPrefix": "*", "destinationPortRange": port.to_string(),
                    "logging": "Disabled",
                },
            }));
        }
    }
    list["aclRules"] = rules.into();
    policy
}

/// Two hosts with one VM each on TAPs: Contoso's SQL server on the first, its web server on the other.
struct Pair {
    d: Deployment,
    sql: KernelVm,
    web: KernelVm,
    tap: String,
}

impl Pair {
    fn start(ports: &[u16]) -> Self {
        netns::enter().unwrap();
        let config =
            Config { software: vec![0, 1], kernel_addresses: true, ..Config::two_hosts(policy(ports)) };
        let d = Deployment::start(&config).unwrap();
        let (sql, web) = (KernelVm::new(false).unwrap(), KernelVm::new(false).unwrap());
        let tap = d.vport(0, "contoso-sql").unwrap().tap.unwrap();
        let other = d.vport(1, "contoso-web").unwrap().tap.unwrap();
        d.network().host(2, &["ip", "link", "set", &other, "netns", &web.id()]).unwrap();
        web.configure(&other, 1500, &[WEB]).unwrap();
        let pair = Pair { d, sql, web, tap };
        pair.plug();
        pair
    }

    /// Gives the first VM its interface.
    fn plug(&self) {
        self.d.network().host(1, &["ip", "link", "set", &self.tap, "netns", &self.sql.id()]).unwrap();
        self.sql.configure(&self.tap, 1500, &[SQL]).unwrap();
    }

    /// Kills the first host's daemon, lets something happen while it is away, and starts it.
    fn kill_and_start(&mut self, meanwhile: impl FnOnce(&Deployment)) {
        self.d.kill_daemon(0);
        // The TAP was taken into the VM's namespace: to be found again it goes back.
        let host = self.d.network().holder(Some(1)).to_string();
        self.sql.run(&["ip", "link", "set", &self.tap, "netns", &host]).unwrap();
        meanwhile(&self.d);
        self.d.start_daemon(0).unwrap();
        self.plug();
    }

    fn denied(&self) -> u64 {
        self.d.drops(0).unwrap().get("acl_deny").copied().unwrap_or(0)
    }
}

fn at(prefix: &str, port: u16) -> SocketAddr {
    SocketAddr::new(prefix.split('/').next().unwrap().parse().unwrap(), port)
}

#[test]
fn a_stream_that_a_vm_only_receives_goes_on() {
    let mut pair = Pair::start(&[7000]);
    let listener = pair.web.within(|| TcpListener::bind(at(WEB, 7000))).unwrap();
    let sender = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_write_timeout(Some(LIMIT))?;
        for _ in 0..STREAM / (MIB / 4) {
            stream.write_all(&[7; (MIB / 4) as usize])?;
            std::thread::sleep(Duration::from_millis(40));
        }
        Ok(())
    });
    let stream = pair.sql.within(|| TcpStream::connect_timeout(&at(WEB, 7000), LIMIT)).unwrap();
    let count = Arc::new(AtomicU64::new(0));
    let receiver = count_bytes(stream, Arc::clone(&count));
    until(LIMIT, "some of it there", || count.load(SeqCst) > 2 * MIB);
    pair.kill_and_start(|_| {});
    let at_start = count.load(SeqCst);
    assert!(at_start < STREAM, "it was over before the daemon was killed");
    sender.join().unwrap().unwrap();
    receiver.join().unwrap().unwrap();
    assert_eq!(count.load(SeqCst), STREAM);
    // Nothing of it was decided anew.
    assert_eq!(pair.denied(), 0, "{:?}", pair.d.drops(0));
    // Nothing else is let in for it.
    let stranger = pair.web.within(|| TcpStream::connect_timeout(&at(SQL, 7100), Duration::from_secs(1)));
    assert!(stranger.is_err());
}

fn count_bytes(mut stream: TcpStream, count: Arc<AtomicU64>) -> JoinHandle<std::io::Result<()>> {
    std::thread::spawn(move || {
        stream.set_read_timeout(Some(LIMIT))?;
        let mut some = vec![0; 1 << 16];
        loop {
            let n = stream.read(&mut some)?;
            assert!(some[..n].iter().all(|byte| *byte == 7), "not what was sent");
            if n == 0 {
                return Ok(());
            }
            count.fetch_add(n as u64, SeqCst);
        }
    })
}

/// A socket of the SQL server that has asked once, and one of the web server that answers forty times a second as long as
/// somebody holds the other end of this.
fn answers(pair: &Pair, port: u16, going: &Arc<()>) -> UdpSocket {
    let web = pair.web.within(move || UdpSocket::bind(at(WEB, port))).unwrap();
    let sql = pair.sql.within(|| UdpSocket::bind(at(SQL, 0))).unwrap();
    sql.set_read_timeout(Some(LIMIT)).unwrap();
    sql.send_to(b"question", at(WEB, port)).unwrap();
    web.set_read_timeout(Some(LIMIT)).unwrap();
    let (_, to) = web.recv_from(&mut [0; 16]).unwrap();
    let going = Arc::downgrade(going);
    std::thread::spawn(move || {
        while going.upgrade().is_some() {
            // The host's answers may say that nobody is there, while nobody is.
            let _refused = web.send_to(b"answer", to);
            std::thread::sleep(Duration::from_millis(25));
        }
    });
    sql.recv(&mut [0; 16]).unwrap();
    sql
}

/// Takes what has come for a socket.
fn drain(socket: &UdpSocket) -> usize {
    socket.set_nonblocking(true).unwrap();
    let n = std::iter::from_fn(|| socket.recv(&mut [0; 16]).ok()).count();
    socket.set_nonblocking(false).unwrap();
    n
}

/// Has the first host's store know another policy while no daemon serves the host: by one that has the store and nothing
/// else of it, in a namespace of its own.
fn change_the_stored_policy(d: &Deployment, policy: &Value) {
    let (programs, apart) = (Programs::find().unwrap(), KernelVm::new(false).unwrap());
    let file = d.dir().join("meanwhile.json");
    std::fs::write(&file, policy.to_string()).unwrap();
    let socket = d.dir().join("meanwhile.sock");
    let mut command = Command::new("nsenter");
    command.args(["-t", &apart.id(), "-n", "--"]).arg(programs.path("culvertd"));
    command.args(["--host", "host1", "--uplink", "lo", "--provider-address", "own", "--flows", "1024"]);
    command.arg("--state").arg(d.run_dir(0).join("state")).arg("--socket").arg(&socket);
    let mut daemon = Service::start("meanwhile", &mut command, d.dir()).unwrap();
    daemon.until(LIMIT, "it listens", || socket.exists()).unwrap();
    let mut apply = Command::new(programs.path("culvert"));
    apply.arg("--host-socket").arg(&socket).args(["policy", "apply"]).arg(&file);
    let said = apply.output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    daemon.stop(LIMIT).unwrap();
}

#[test]
fn what_the_policy_has_ceased_to_allow_meanwhile_does_not_go_on() {
    let mut pair = Pair::start(&[7001, 7002]);
    let going = Arc::new(());
    let (kept, removed) = (answers(&pair, 7001, &going), answers(&pair, 7002, &going));
    assert_eq!(pair.denied(), 0);
    pair.kill_and_start(|d| change_the_stored_policy(d, &policy(&[7001])));
    drain(&kept);
    drain(&removed);
    // Neither of them says anything; one goes on.
    for _ in 0..20 {
        kept.recv(&mut [0; 16]).unwrap();
    }
    until(LIMIT, "denied", || pair.denied() >= 20);
    assert_eq!(drain(&removed), 0);
}
