//! `culvertd` as a process: exit codes, what it says when it cannot start, and its log.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::{LIMIT, directory, send};

/// A running one, which is killed when this is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// One with the interface `culvert-none` as uplink, which is not there.
fn culvertd(directory: &Path, state: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_culvertd"));
    command.args(["--host", "host1", "--uplink", "culvert-none", "--flows", "64", "--port", "vhost-user"]);
    command.arg("--state").arg(directory.join(state)).arg("--socket").arg(directory.join("api.sock"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn start(directory: &Path, command: &mut Command) -> Process {
    let process = Process(command.spawn().unwrap());
    let end = Instant::now() + LIMIT;
    while std::os::unix::net::UnixStream::connect(directory.join("api.sock")).is_err() {
        assert!(Instant::now() < end, "it does not serve");
        std::thread::sleep(Duration::from_millis(10));
    }
    process
}

/// Stops it; returns its exit code and its log.
fn stop(mut process: Process) -> (Option<i32>, String) {
    let stopped = Command::new("kill").arg(process.0.id().to_string()).status().unwrap();
    assert!(stopped.success());
    let mut log = String::new();
    std::io::Read::read_to_string(&mut process.0.stderr.take().unwrap(), &mut log).unwrap();
    (process.0.wait().unwrap().code(), log)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn exit_codes_are_those_that_the_help_lists_and_errors_name_thing_and_remedy() {
    let directory = directory();
    let first = start(directory.path(), &mut culvertd(directory.path(), "state"));
    let second = culvertd(directory.path(), "state").output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(said(&second).contains("--state"), "{}", said(&second));
    let third = culvertd(directory.path(), "other").output().unwrap();
    let text = said(&third);
    assert_eq!(third.status.code(), Some(1), "{text}");
    assert!(text.contains("api.sock") && text.contains("another") && text.contains("-> "), "{text}");
    let unknown =
        culvertd(directory.path(), "state").args(["--socket-group", "culvert-none"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    assert!(said(&unknown).contains("addgroup --system culvert-none"), "{}", said(&unknown));
    let (code, log) = stop(first);
    assert_eq!(code, Some(0), "{log}");
    let missing = log.lines().find(|line| line.contains("culvert-none cannot be found")).expect(&log);
    assert!(missing.contains("No such device") && missing.contains("--uplink"), "{missing}");
}

#[test]
fn a_missing_capability_is_named() {
    if !rustix::process::getuid().is_root() {
        // An ordinary user has none.
        return;
    }
    let directory = directory();
    let plain = culvertd(directory.path(), "state");
    let mut without = Command::new("setpriv");
    without.args(["--bounding-set=-net_raw", "--inh-caps=-net_raw"]).arg(plain.get_program());
    without.args(plain.get_args()).stdout(Stdio::null()).stderr(Stdio::piped());
    let (code, log) = stop(start(directory.path(), &mut without));
    assert!(code == Some(0) && log.contains("culvertd has no CAP_NET_RAW"), "{log}");
    assert!(!log.contains("no CAP_NET_ADMIN"), "{log}");
}

#[tokio::test]
async fn the_log_level_changes_while_it_runs() {
    let directory = directory();
    let process = start(directory.path(), culvertd(directory.path(), "state").env("CULVERT_LOG", "warn"));
    let socket = directory.path().join("api.sock");
    let path = "/culvert/v1/log-level";
    assert_eq!(send(&socket, "GET", path, &[], "").await.json["filter"], "warn");
    let set = async |filter: &str| {
        let body = serde_json::json!({ "filter": filter }).to_string();
        send(&socket, "PUT", path, &[("content-type", "application/json")], &body).await
    };
    assert_eq!(set("culvert_agent=debug").await.json["filter"], "info,culvert_agent=debug");
    let refused = set("dbug\u{1b}[2J").await;
    assert_eq!(refused.status, 400);
    assert!(refused.json["error"]["remedy"].as_str().unwrap().contains("MODULE=LEVEL"), "{}", refused.text);
    assert_eq!(send(&socket, "GET", path, &[], "").await.json["filter"], "info,culvert_agent=debug");
    let (code, log) = stop(process);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("log level changed") && log.contains("stopping"), "{log}");
    assert!(!log.contains("serving the API"), "it came before: {log}");
}

#[test]
fn it_writes_its_man_page_and_completions() {
    let directory = directory();
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_culvertd")).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    run(&["--man-pages", directory.path().to_str().unwrap()]);
    let page = std::fs::read_to_string(directory.path().join("culvertd.8")).unwrap();
    assert!(page.contains("CULVERT_LOG") && page.contains("vm\\-socket\\-group"), "{page}");
    assert!(run(&["--completions", "zsh"]).contains("--vm-socket-group"));
}
