//! `culvert replay` as a user runs it: captures made byte by byte, results read as JSON and decoded by tshark.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

const FIGURE8: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/figure8.json");
const SQL: [u8; 6] = [0x00, 0x1d, 0xd8, 0x07, 0x00, 0x11];
const WEB: [u8; 6] = [0x00, 0x1d, 0xd8, 0x07, 0x00, 0x12];

/// UDP from 10.1.1.11 port 40000 to 10.1.1.12 port 40001, `source` being the MAC that it claims. The checksum of IP is
/// the right one, UDP has none.
fn question(source: [u8; 6]) -> Vec<u8> {
    let mut frame = [WEB, source].concat();
    frame.extend([0x08, 0x00]);
    frame.extend([0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0x24, 0xb5, 10, 1, 1, 11, 10, 1, 1, 12]);
    frame.extend([0x9c, 0x40, 0x9c, 0x41, 0, 12, 0, 0]);
    frame.extend(*b"who?");
    frame
}

/// A pcap of frames that came one second apart.
fn pcap(frames: &[Vec<u8>], link: u32, big: bool) -> Vec<u8> {
    let word = |v: u32| if big { v.to_be_bytes() } else { v.to_le_bytes() };
    let mut file = word(0xa1b2_c3d4).to_vec();
    file.extend(if big { [0, 2, 0, 4] } else { [2, 0, 4, 0] });
    file.extend([0, 0, 65_535, link].map(word).concat());
    for (n, frame) in frames.iter().enumerate() {
        let len = frame.len() as u32;
        file.extend([1_700_000_000 + n as u32, 0, len, len].map(word).concat());
        file.extend(frame);
    }
    file
}

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    /// Exit code, standard output, standard error.
    fn run(&self, host: &str, port: &[&str], from: &Path, to: &str, more: &[&str]) -> (i32, String, String) {
        let mut arguments = port.to_vec();
        arguments.extend(more);
        self.run_policy(Path::new(FIGURE8), host, &arguments, from, to)
    }

    fn run_policy(
        &self,
        policy: &Path,
        host: &str,
        arguments: &[&str],
        from: &Path,
        to: &str,
    ) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_culvert"));
        command.arg("replay").arg("--policy").arg(policy).args(["--host", host]).args(arguments);
        command.arg("--in").arg(from).arg("--out").arg(self.path(to));
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    fn replay(&self, host: &str, port: &[&str], from: &Path, to: &str) -> Value {
        let (code, out, err) = self.run(host, port, from, to, &["--json"]);
        assert_eq!(code, 0, "{out}{err}");
        serde_json::from_str(&out).unwrap()
    }
}

/// What tshark reads in a capture, all checksums looked at: of each frame these fields, outermost layer first.
fn tshark(file: &Path, filter: &str, fields: &[&str]) -> Vec<String> {
    let mut command = Command::new("tshark");
    command.arg("-n").arg("-r").arg(file).args([
        "-o",
        "ip.check_checksum:TRUE",
        "-o",
        "udp.check_checksum:TRUE",
    ]);
    command.args(["-T", "fields", "-E", "separator=|", "-E", "aggregator=,", "-Y", filter]);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output().expect("tshark: `cargo xtask setup` installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn packets_of_a_vport_leave_encapsulated_and_a_forged_one_does_not() {
    let bench = Bench::new();
    let frames = [question(SQL), question(SQL), question([2, 0, 0, 0, 0, 0x66])];
    let from = bench.write("in.pcap", &pcap(&frames, 1, false));
    let report = bench.replay("host1", &["--vport", "contoso-sql"], &from, "out.pcapng");
    let sent = json!([{"port": "uplink0", "bytes": 96}]);
    assert_eq!(
        report["packets"],
        json!([
            {"number": 1, "bytes": 46, "verdict": "forward", "reason": "miss", "outputs": sent},
            {"number": 2, "bytes": 46, "verdict": "forward", "reason": "", "outputs": sent},
            {"number": 3, "bytes": 46, "verdict": "drop", "reason": "spoofed_mac", "outputs": []},
        ])
    );
    assert_eq!((&report["engine"], &report["port"]), (&json!("core"), &json!("contoso-sql")));

    let out = bench.path("out.pcapng");
    let fields =
        ["frame.interface_name", "frame.comment", "eth.dst", "ip.src", "ip.dst", "vxlan.vni", "data.data"];
    let line = |comment: &str| {
        format!(
            "uplink0|{comment}|00:00:5e:00:53:01,00:1d:d8:07:00:12|192.168.1.10,10.1.1.11|192.168.2.20,10.1.1.12|\
             5001|77686f3f"
        )
    };
    assert_eq!(tshark(&out, "", &fields), [line("packet 1: forward miss"), line("packet 2: forward")]);
    assert_eq!(tshark(&out, "_ws.malformed || ip.checksum.status == 0", &["frame.number"]), [""; 0]);
    assert_eq!(tshark(&out, "", &["frame.time_epoch"]), ["1700000000.000000000", "1700000001.000000000"]);
}

#[test]
fn what_one_host_sends_the_other_delivers_unchanged() {
    let bench = Bench::new();
    let from = bench.write("in.pcap", &pcap(&[question(SQL), question(SQL)], 1, true));
    bench.replay("host1", &["--vport", "contoso-sql"], &from, "wire.pcapng");
    let wire = bench.path("wire.pcapng");
    let report = bench.replay("host2", &["--uplink", "0"], &wire, "vm.pcapng");
    let reasons: Vec<&Value> = report["packets"].as_array().unwrap().iter().map(|p| &p["reason"]).collect();
    assert_eq!(reasons, [&json!("miss"), &json!("")]);
    let fields = ["frame.interface_name", "eth.src", "frame.len", "ip.dst", "udp.dstport"];
    let line = "contoso-web|00:1d:d8:07:00:11|46|10.1.1.12|40001";
    assert_eq!(tshark(&bench.path("vm.pcapng"), "", &fields), [line, line]);
}

#[test]
fn the_same_for_people() {
    let bench = Bench::new();
    let from = bench.write("in.pcap", &pcap(&[question(SQL)], 1, false));
    let (code, out, _) = bench.run("host1", &["--vport", "CONTOSO-SQL"], &from, "out.pcapng", &["--trace"]);
    assert_eq!(code, 0);
    assert!(out.contains("     1     46  forward  miss    uplink0 (96)\n"), "{out}");
    assert!(out.contains("\npacket 1\nlayer"), "{out}");
    assert!(out.contains("1 packets into contoso-sql of host1: 1 forward; what left is in "), "{out}");
}

#[test]
fn what_cannot_be_replayed_is_said() {
    let bench = Bench::new();
    let good = bench.write("in.pcap", &pcap(&[question(SQL)], 1, false));
    let sql = ["--vport", "contoso-sql"];
    let fails = |host: &str, port: &[&str], from: &Path, to: &str, words: [&str; 2]| {
        let (code, _, err) = bench.run(host, port, from, to, &[]);
        assert!(code == 1 && words.iter().all(|w| err.contains(w)), "{words:?}: {code} {err}");
    };
    let text = bench.write("x.txt", b"not a capture at all");
    fails("host1", &sql, &text, "out", ["x.txt is not a capture", "neither pcap nor pcapng"]);
    let cooked = bench.write("cooked.pcap", &pcap(&[question(SQL)], 113, false));
    fails("host1", &sql, &cooked, "out", ["link type 113, not Ethernet (1)", "-> capture on an Ethernet"]);
    let whole = pcap(&[question(SQL)], 1, false);
    fails("host1", &sql, &bench.path("none"), "out", ["none: ", "-> check the path"]);
    fails("host1", &sql, &good, "in.pcap", ["the same file", "-> write to another file"]);
    fails("host9", &sql, &good, "out", ["no server \"host9\"", "-> use one of host1, host2"]);
    let nobody = ["--vport", "nobody"];
    fails("host1", &nobody, &good, "out", ["no network interface \"nobody\"", "-> use one of contoso-sql"]);
    let web = ["--vport", "contoso-web"];
    fails("host1", &web, &good, "out", ["is on host2, not on host1", "-> use one of contoso-sql"]);
    assert_eq!(std::fs::read(&good).unwrap(), whole);
}

/// A capture of a host that crashed ends so: its other frames are whole.
#[test]
fn a_capture_that_is_cut_off_is_replayed_up_to_its_last_whole_frame() {
    let bench = Bench::new();
    let whole = pcap(&[question(SQL), question(SQL)], 1, false);
    let cut = bench.write("cut.pcap", &whole[..whole.len() - 1]);
    let port = ["--vport", "contoso-sql"];
    let report = bench.replay("host1", &port, &cut, "out.pcapng");
    assert_eq!(report["packets"].as_array().unwrap().len(), 1);
    assert_eq!(report["packets"][0]["verdict"], "forward");
    let at = 24 + 16 + question(SQL).len() + 16;
    assert_eq!(report["cutOff"], format!("it ends within a frame at byte {at}"));
    assert_eq!(tshark(&bench.path("out.pcapng"), "vxlan", &["vxlan.vni"]).len(), 1);
    let (code, text, errors) = bench.run("host1", &port, &cut, "again.pcapng", &[]);
    assert_eq!((code, errors.as_str()), (0, ""));
    for part in ["1 packets into", "ends in the middle of a frame", "it ends within a frame at byte", "-> "] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let report = bench.replay("host1", &port, &bench.write("whole.pcap", &whole), "whole.pcapng");
    assert_eq!((report["packets"].as_array().unwrap().len(), &report["cutOff"]), (2, &Value::Null));

    let one = pcap(&[question(SQL)], 1, false);
    let cut = bench.write("one.pcap", &one[..one.len() - 1]);
    let (code, text, _) = bench.run("host1", &port, &cut, "one.pcapng", &[]);
    assert!(
        code == 0 && text.contains("it ends within a frame at byte 40") && text.contains("-> "),
        "{text}"
    );
}

/// Figure 8 with a hundred more interfaces of contoso on host 1.
fn crowded() -> Value {
    let mut policy: Value = serde_json::from_str(&std::fs::read_to_string(FIGURE8).unwrap()).unwrap();
    let interfaces = policy["networkInterfaces"].as_array_mut().unwrap();
    for n in 0..100 {
        let mut interface = interfaces[0].clone();
        assert_eq!(interface["resourceId"], "contoso-sql");
        interface["resourceId"] = json!(format!("contoso-{n}"));
        let properties = &mut interface["properties"];
        properties["privateMacAddress"] = json!(format!("0200000001{n:02X}"));
        properties["ipConfigurations"][0]["properties"]["privateIPAddress"] =
            json!(format!("10.1.1.{}", 100 + n));
        interfaces.push(interface);
    }
    policy
}

#[test]
fn a_host_may_have_as_many_machines_as_a_live_one() {
    let bench = Bench::new();
    let policy = bench.write("crowded.json", crowded().to_string().as_bytes());
    let from = bench.write("in.pcap", &pcap(&[question(SQL)], 1, false));
    let arguments = ["--vport", "contoso-sql", "--json"];
    let (code, out, err) = bench.run_policy(&policy, "host1", &arguments, &from, "out.pcapng");
    assert_eq!(code, 0, "{out}{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["packets"][0]["verdict"], "forward");
    let (code, out, err) =
        bench.run_policy(&policy, "host1", &["--vport", "contoso-99"], &from, "out.pcapng");
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("spoofed_mac"), "{out}");
}
