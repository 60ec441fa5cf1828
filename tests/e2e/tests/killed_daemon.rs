//! Software hosts with deny-by-default lists: the connections of a killed daemon continue with the next one.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use culvert_e2e::address;
use culvert_e2e::deployment::Deployment;
use culvert_e2e::kernel_vm::KernelVm;
use culvert_e2e::netns;
use culvert_e2e::policies::{figure8, one_uplink};
use culvert_e2e::process::Service;
use culvert_e2e::programs::Programs;
use culvert_e2e::wait::until;
use culvert_packet::Encap;
use serde_json::{Value, json};

const SQL: &str = "10.1.1.11/24";
const WEB: &str = "10.1.1.12/24";
const LIMIT: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
/// Bytes of the stream, which is sent slowly.
const STREAM: u64 = 24 * MIB;

/// Both VMs may open connections to these TCP and UDP ports, and nothing else.
fn policy(ports: &[u16]) -> Value {
    let mut policy = figure8(Encap::Vxlan).unwrap();
    one_uplink(&mut policy);
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
                },
            }));
        }
    }
    list["aclRules"] = rules.into();
    policy
}

/// Two hosts with a VM each on a TAP: Contoso's SQL server on host 1, its web server on host 2.
struct Pair {
    d: Deployment,
    sql: KernelVm,
    web: KernelVm,
    tap: String,
}

impl Pair {
    fn start(ports: &[u16]) -> Self {
        netns::enter().unwrap();
        let d = Deployment::builder(policy(ports)).software([0, 1]).kernel_addresses().start().unwrap();
        let sql = d.kernel_vm(0, "contoso-sql", SQL).unwrap();
        let web = d.kernel_vm(1, "contoso-web", WEB).unwrap();
        let tap = d.vport(0, "contoso-sql").unwrap().tap.unwrap();
        Pair { d, sql, web, tap }
    }

    /// Kills host 1's daemon, calls `meanwhile`, and starts the daemon again.
    fn kill_and_start(&mut self, meanwhile: impl FnOnce(&Deployment)) {
        self.d.kill_daemon(0);
        self.d.unplug(0, &self.tap, &self.sql).unwrap();
        meanwhile(&self.d);
        self.d.start_daemon(0).unwrap();
        self.d.plug(0, "contoso-sql", &self.sql, SQL).unwrap();
    }

    fn denied(&self) -> u64 {
        self.d.drops(0).unwrap().get("acl_deny").copied().unwrap_or(0)
    }
}

fn at(prefix: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address::host(prefix).unwrap(), port)
}

#[test]
fn a_stream_that_a_vm_only_receives_continues() {
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
    until(LIMIT, "2 MiB received", || count.load(SeqCst) > 2 * MIB);
    pair.kill_and_start(|_| {});
    let at_start = count.load(SeqCst);
    assert!(at_start < STREAM, "the stream ended before the daemon was killed");
    sender.join().unwrap().unwrap();
    receiver.join().unwrap().unwrap();
    assert_eq!(count.load(SeqCst), STREAM);
    // No packet of the stream was decided again.
    assert_eq!(pair.denied(), 0, "{:?}", pair.d.drops(0));
    // Another connection is not allowed because of it.
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

/// A socket of the SQL server that has sent one datagram. The web server answers it forty times a second, as long as `running`
/// exists.
fn answers(pair: &Pair, port: u16, running: &Arc<()>) -> UdpSocket {
    let web = pair.web.within(move || UdpSocket::bind(at(WEB, port))).unwrap();
    let sql = pair.sql.within(|| UdpSocket::bind(at(SQL, 0))).unwrap();
    sql.set_read_timeout(Some(LIMIT)).unwrap();
    sql.send_to(b"question", at(WEB, port)).unwrap();
    web.set_read_timeout(Some(LIMIT)).unwrap();
    let (_, to) = web.recv_from(&mut [0; 16]).unwrap();
    let running = Arc::downgrade(running);
    std::thread::spawn(move || {
        while running.upgrade().is_some() {
            // May fail with an ICMP error while the daemon is down.
            let _refused = web.send_to(b"answer", to);
            std::thread::sleep(Duration::from_millis(25));
        }
    });
    sql.recv(&mut [0; 16]).unwrap();
    sql
}

/// Receives all datagrams that wait in a socket; their number.
fn drain(socket: &UdpSocket) -> usize {
    socket.set_nonblocking(true).unwrap();
    let n = std::iter::from_fn(|| socket.recv(&mut [0; 16]).ok()).count();
    socket.set_nonblocking(false).unwrap();
    n
}

/// Changes the stored policy of host 1 while its daemon is down: by another daemon with the same store, in a namespace of its
/// own.
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
    apply.arg("--host-socket").arg(&socket).args(["policy", "apply", "--no-wait"]).arg(&file);
    let said = apply.output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    daemon.stop(LIMIT).unwrap();
}

#[test]
fn a_flow_that_the_policy_no_longer_allows_does_not_continue() {
    let mut pair = Pair::start(&[7001, 7002]);
    let running = Arc::new(());
    let (kept, removed) = (answers(&pair, 7001, &running), answers(&pair, 7002, &running));
    assert_eq!(pair.denied(), 0);
    pair.kill_and_start(|d| change_the_stored_policy(d, &policy(&[7001])));
    drain(&kept);
    drain(&removed);
    // The SQL server sends nothing; only the answers of the allowed flow arrive.
    for _ in 0..20 {
        kept.recv(&mut [0; 16]).unwrap();
    }
    until(LIMIT, "denied", || pair.denied() >= 20);
    assert_eq!(drain(&removed), 0);
}
