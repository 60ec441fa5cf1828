//! What breaks on a host without a NIC: health, the states of ports and the exit codes say so, with the remedy, and the way back
//! needs no restart.
#![forbid(unsafe_code)]

use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::{Duration, Instant};

use culvert_device::wire::Tap;
use culvert_e2e::address;
use culvert_e2e::deployment::{Builder, Deployment};
use culvert_e2e::netns;
use culvert_e2e::policies::{figure8, one_uplink, set_software_port};
use culvert_e2e::process::output_within;
use culvert_e2e::programs::Programs;
use culvert_packet::Encap;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(10);
const UPLINK: &str = "h1u0";

fn policy() -> Value {
    let mut policy = figure8(Encap::Vxlan).unwrap();
    one_uplink(&mut policy);
    policy
}

/// One software host with the kernel's address.
fn host(policy: Value) -> Builder {
    netns::enter().unwrap();
    Deployment::builder(policy).hosts(1).software([0]).kernel_addresses()
}

fn ip(d: &Deployment, line: &str) {
    let words: Vec<&str> = std::iter::once("ip").chain(line.split(' ')).collect();
    d.network().host(1, &words).unwrap();
}

/// Waits until health says all these words, and checks that it fails then.
fn broken(d: &Deployment, words: &[&str]) {
    let mut last = String::new();
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        let (code, said) = d.run(0, &["health"]).unwrap();
        if code == Some(1) && said.starts_with("not ok") && words.iter().all(|word| said.contains(word)) {
            return;
        }
        last = said;
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("health does not say {words:?}, but {last}");
}

/// Waits until nothing is wrong.
fn mended(d: &Deployment) {
    let mut last = String::new();
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        let (code, said) = d.run(0, &["health"]).unwrap();
        if code == Some(0) && said.starts_with("ok") {
            return;
        }
        last = said;
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("not mended: {last}");
}

/// State and reason of the uplink.
fn uplink(d: &Deployment) -> (String, String) {
    let nic = d.cli(0, &["nic", "show"]).unwrap();
    let text = |field: &str| nic["uplinks"][0][field].as_str().unwrap_or_default().to_owned();
    (text("state"), text("stateReason"))
}

/// State and reason of a vport.
fn vport(d: &Deployment, name: &str) -> (String, String) {
    let json = d.vport(0, name).unwrap().json;
    let text = |field: &str| json[field].as_str().unwrap_or_default().to_owned();
    (text("state"), text("stateReason"))
}

/// `configurationState` of a resource.
fn configuration(d: &Deployment, path: &str) -> String {
    let resource = d.cli(0, &["policy", "show", path]).unwrap();
    resource["properties"]["configurationState"]["status"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn an_uplink_that_fails_is_told_and_comes_back_by_itself() {
    let d = host(policy()).start().unwrap();
    mended(&d);
    let (code, said) = d.run(0, &["health"]).unwrap();
    assert_eq!((code, said.contains("firmware")), (Some(0), false), "a switch has no firmware: {said}");
    assert_eq!(uplink(&d), ("up".into(), String::new()));
    let file = d.dir().join("policy.json").display().to_string();
    let (code, said) = d.run(0, &["policy", "apply", &file]).unwrap();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(configuration(&d, "/servers/host1"), "Success");

    // Set down. A route that ends with it is not Culvert's to restore.
    let route = || ip(&d, "route add default via 192.168.1.1");
    ip(&d, "link set h1u0 down");
    broken(&d, &["uplink 0", UPLINK, "is down", "ip link set h1u0 up"]);
    assert_eq!(uplink(&d).0, "down");
    assert_eq!(configuration(&d, "/servers/host1"), "Failure");
    assert_eq!(configuration(&d, "/networkInterfaces/contoso-sql"), "Warning");
    let began = Instant::now();
    let (code, said) = d.run(0, &["policy", "apply", "--timeout", "1", &file]).unwrap();
    assert_eq!(code, Some(1), "{said}");
    for word in ["not all of it is carried out", "uplink 0 (h1u0) is down", "waiting: 2 of 2 vports"] {
        assert!(said.contains(word), "no {word} in {said}");
    }
    assert!(began.elapsed() < LIMIT, "the wait has a limit");
    assert_eq!(d.run(0, &["policy", "apply", "--no-wait", &file]).unwrap().0, Some(0));
    ip(&d, "link set h1u0 up");
    route();
    mended(&d);
    assert_eq!(configuration(&d, "/servers/host1"), "Success");

    // No carrier.
    d.network().set_link(1, 0, false).unwrap();
    broken(&d, &["uplink 0", UPLINK, "no link"]);
    d.network().set_link(1, 0, true).unwrap();
    mended(&d);

    // The provider address.
    ip(&d, "addr del 192.168.1.10/24 dev h1u0");
    broken(&d, &[UPLINK, "192.168.1.10", "ip addr add", "--provider-address own"]);
    assert_eq!(uplink(&d).0, "failed");
    ip(&d, "addr add 192.168.1.10/24 dev h1u0");
    route();
    mended(&d);

    // Renamed.
    ip(&d, "link set h1u0 down");
    ip(&d, "link set h1u0 name other0");
    ip(&d, "link set other0 up");
    broken(&d, &["h1u0 is now called other0", "--uplink other0"]);
    assert_eq!(uplink(&d).0, "failed");
    ip(&d, "link set other0 down");
    ip(&d, "link set other0 name h1u0");
    ip(&d, "link set h1u0 up");
    route();
    mended(&d);

    // Gone from the daemon's namespace, as after a deletion.
    let router = d.network().router_namespace().id().to_string();
    ip(&d, &format!("link set h1u0 netns {router}"));
    broken(&d, &["h1u0 was deleted or moved"]);
    let own = d.network().host_namespace(1).unwrap().id().to_string();
    d.network().router(&["ip", "link", "set", UPLINK, "netns", &own]).unwrap();
    ip(&d, "link set h1u0 up");
    ip(&d, "addr add 192.168.1.10/24 dev h1u0");
    route();
    mended(&d);
    let log = std::fs::read_to_string(d.daemon(0).unwrap().log()).unwrap();
    assert!(log.contains("not ok") && log.contains("no longer"), "{log}");
}

#[test]
fn an_mtu_that_is_too_small_is_told_with_both_numbers() {
    let d = host(policy()).start().unwrap();
    mended(&d);
    let vm = d.kernel_vm(0, "contoso-sql", "10.1.1.11/24").unwrap();
    // The next hop becomes known; the other host does not exist.
    let to = address::host("10.1.1.12/24").unwrap().to_string();
    let ping = |size: &str| {
        let _unanswered = vm.run(&["ping", "-c", "1", "-W", "0.3", "-s", size, "-M", "do", &to]);
    };
    let trace = |size: &str| {
        let args = ["trace", "--port", "contoso-sql", "--to", &to, "--protocol", "icmp", "--size", size];
        d.cli(0, &args).unwrap()
    };
    d.until(LIMIT, "resolved", |_| {
        ping("56");
        Ok(trace("1500")["reason"] == "")
    })
    .unwrap();
    assert_eq!(trace("1500")["verdict"], "forward");
    let long = trace("1551");
    assert_eq!(long["verdict"], "drop");
    let why = long["reason"].as_str().unwrap();
    assert!(why.starts_with("mtu_exceeded") && why.contains("at most 1550") && why.contains("1600"), "{why}");
    assert!(d.cli(0, &["trace", "--port", "0", "--to", &to, "--protocol", "icmp", "--size", "20"]).is_err());

    ip(&d, "link set h1u0 mtu 1500");
    broken(&d, &["h1u0 has an MTU of 1500", "need 1550", "ip link set h1u0 mtu 1600"]);
    assert_eq!(uplink(&d).0, "degraded");
    let shown = d.run(0, &["nic", "show"]).unwrap().1;
    assert!(shown.contains("MTU 1500 of 1550 needed"), "{shown}");
    let file = d.dir().join("policy.json").display().to_string();
    let (code, said) = d.run(0, &["policy", "apply", "--timeout", "1", &file]).unwrap();
    assert!(code == Some(1) && said.contains("1500") && said.contains("1550"), "{said}");
    let log = std::fs::read_to_string(d.daemon(0).unwrap().log()).unwrap();
    assert!(log.contains("MTU of 1500"), "{log}");
    let refused = trace("1500");
    let why = refused["reason"].as_str().unwrap();
    assert_eq!(refused["verdict"], "drop");
    assert!(why.contains("1550 bytes") && why.contains("h1u0 of uplink 0 sends at most 1500"), "{why}");
    // A packet that does not fit is a drop of this port, with its limit.
    d.until(LIMIT, "counted", |d| {
        ping("1472");
        let drops = d.cli(0, &["drops"])?;
        let all = drops["drops"].as_array().cloned().unwrap_or_default();
        Ok(all.iter().any(|drop| {
            let port = &drop["ports"][0];
            drop["reason"] == "too_long" && port["port"] == "uplink 0" && port["mtu"] == 1500
        }))
    })
    .unwrap();
    ip(&d, "link set h1u0 mtu 1550");
    mended(&d);
    assert_eq!(uplink(&d).0, "up");
}

#[test]
fn a_vport_that_cannot_be_opened_is_told_and_opens_when_it_can() {
    let mut policy = policy();
    set_software_port(&mut policy, "fabrikam-sql", "vhostUser").unwrap();
    let mut d = host(policy).start().unwrap();
    mended(&d);
    let (sql, fabrikam) = (d.vport(0, "contoso-sql").unwrap(), d.vport(0, "fabrikam-sql").unwrap());
    let (tap, socket) = (sql.tap.unwrap(), fabrikam.vhost_user.unwrap());
    assert_eq!(vport(&d, "fabrikam-sql").0, "down");
    assert!(vport(&d, "fabrikam-sql").1.contains("no virtual machine"), "a reason");

    d.stop_daemon(0).unwrap();
    let name = tap.clone();
    let busy = d.network().host_namespace(1).unwrap().within(move || Tap::open(&name)).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    d.start_daemon(0).unwrap();
    broken(&d, &["contoso-sql", &tap, "busy", "fabrikam-sql", "vport1.vhost", "address already in use"]);
    let (state, why) = vport(&d, "contoso-sql");
    assert!(state == "failed" && why.contains("end the other program"), "{state}: {why}");
    assert_eq!(vport(&d, "fabrikam-sql").0, "failed");
    assert_eq!(configuration(&d, "/networkInterfaces/fabrikam-sql"), "Failure");
    assert_eq!(configuration(&d, "/virtualNetworks/contoso"), "Success");
    let list = d.run(0, &["vport", "list"]).unwrap().1;
    assert!(list.contains("failed") && list.contains("end the other program"), "{list}");
    drop((busy, listener));
    mended(&d);
    assert_eq!(vport(&d, "contoso-sql").0, "up");

    // A TAP in another namespace is down until it is set up there.
    let vm = d.kernel_vm(0, "contoso-sql", "10.1.1.11/24").unwrap();
    d.until_vport(0, "contoso-sql", "up", LIMIT).unwrap();
    vm.run(&["ip", "link", "set", &tap, "down"]).unwrap();
    d.until_vport(0, "contoso-sql", "down", LIMIT).unwrap();
    assert!(vport(&d, "contoso-sql").1.contains("is down in its network namespace"));
    vm.run(&["ip", "link", "set", &tap, "up"]).unwrap();
    d.until_vport(0, "contoso-sql", "up", LIMIT).unwrap();
    mended(&d);
}

/// Lets a process open only so many more files.
fn limit_files(process: u32, more: usize) {
    let dir = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let open: Vec<usize> =
        dir.map(|file| file.unwrap().file_name().into_string().unwrap().parse().unwrap()).collect();
    let limit = (0..).filter(|fd| !open.contains(fd)).nth(more).unwrap();
    let limit = format!("--nofile={limit}:");
    let set = Command::new("prlimit").args(["--pid", &process.to_string(), &limit]).status();
    assert!(set.unwrap().success());
}

#[test]
fn a_host_without_file_descriptors_says_so() {
    let mut fewer = policy();
    let interfaces = fewer["networkInterfaces"].as_array_mut().unwrap();
    interfaces.retain(|interface| interface["resourceId"] != "fabrikam-sql");
    let d = host(fewer).start().unwrap();
    mended(&d);
    let daemon = d.daemon(0).unwrap().id();
    // Enough for a client of the API and a look at the uplink, but not for a TAP.
    limit_files(daemon, 2);
    d.change_policy(&policy()).unwrap();
    broken(&d, &["fabrikam-sql", "too many open files", "LimitNOFILE"]);
    assert_eq!(vport(&d, "fabrikam-sql").0, "failed");
    limit_files(daemon, 100);
    mended(&d);
}

#[test]
fn a_missing_capability_is_named() {
    let caps = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let d = host(policy()).capabilities(caps(&["net_bind_service"])).start().unwrap();
    broken(&d, &["packet socket on h1u0", "operation not permitted", "CAP_NET_RAW"]);
    let vports = d.vports(0).unwrap();
    assert_eq!(vports.len(), 2, "vports that are not there yet are listed, too");
    assert!(vports.iter().all(|vport| vport.state != "up"), "{vports:?}");
    drop(d);
    if !rustix::process::getuid().is_root() {
        return culvert_skip::skip("XDP programs need root");
    }
    let d = host(policy()).driver("af-xdp").capabilities(caps(&["net_admin", "net_raw"])).start().unwrap();
    broken(&d, &["XDP socket on h1u0", "CAP_BPF"]);
}

#[test]
fn a_second_daemon_is_refused_with_the_reason() {
    let d = host(policy()).start().unwrap();
    let programs = Programs::find().unwrap();
    let (run, other) = (d.run_dir(0), d.dir().join("other"));
    let api = run.join("api.sock");
    let tried = |interface: &str, state: &std::path::Path, socket: &std::path::Path| {
        let mut command = Command::new(programs.path("culvertd"));
        command.args(["--host", "host1", "--flows", "1024", "--uplink", interface]);
        command.arg("--state").arg(state).arg("--socket").arg(socket);
        let output = output_within(&mut d.network().on_host(1, &command), LIMIT).unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let same_socket = tried("lo", &other, &api);
    assert!(same_socket.contains("another culvertd answers on it"), "{same_socket}");
    let same_state = tried("lo", &run.join("state"), &other.join("api.sock"));
    assert!(same_state.contains("no other culvertd uses the same --state"), "{same_state}");
    let same_uplink = tried(UPLINK, &other, &other.join("api.sock"));
    assert!(
        same_uplink.contains("uses the interface h1u0") && same_uplink.contains("stop the other one"),
        "{same_uplink}"
    );
    mended(&d);
}
