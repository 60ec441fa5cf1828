//! The tool as a process: exit codes, answers from a socket, pipes, completions and man pages.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

fn culvert(arguments: &[&str]) -> (i32, String, String) {
    run(Command::new(env!("CARGO_BIN_EXE_culvert")).args(arguments))
}

fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn exit_codes() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/figure8.json");
    let (code, out, _) = culvert(&["policy", "validate", example]);
    assert_eq!(code, 0);
    assert!(out.starts_with("valid: 2 virtual networks"), "{out}");

    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("none.sock");
    let (code, _, err) = culvert(&["drops", "--host-socket", socket.to_str().unwrap()]);
    assert_eq!(code, 3);
    assert!(err.contains("does not answer") && err.contains("--host-socket"), "{err}");
    let (code, out, _) = culvert(&["drops", "--json", "--host-socket", socket.to_str().unwrap()]);
    assert_eq!((code, out.contains("\"code\": \"NoDaemon\"")), (3, true), "{out}");
    assert_eq!(culvert(&["policy", "frobnicate"]).0, 2);
}

#[test]
fn an_answer_becomes_a_table() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("api.sock");
    let body = r#"{"drops":[{"reason":"acl_deny","packets":5,"by":"nic","meaning":""}],"total":5}"#;
    let server = answer(&socket, "200 OK", body.to_owned());
    let (code, out, err) = culvert(&["drops", "--timeout", "5", "--host-socket", socket.to_str().unwrap()]);
    assert_eq!(
        (code, out.as_str()),
        (0, "reason    packets  by   meaning\nacl_deny        5  nic  -\n"),
        "{err}"
    );
    assert!(server.join().unwrap().starts_with("GET /culvert/v1/drops HTTP/1.1"));
}

/// Answers one request, and returns what it was up to its body.
fn answer(socket: &Path, status: &'static str, body: String) -> JoinHandle<String> {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut byte = [0u8; 1];
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
            request.push(byte[0]);
        }
        // The tool may have ended.
        let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        String::from_utf8(request).unwrap()
    })
}

#[test]
fn exit_codes_are_those_that_the_help_lists() {
    let (code, help, _) = culvert(&["--help"]);
    assert_eq!(code, 0);
    for line in ["0  done", "1  refused", "2  the command line", "3  culvertd cannot be reached"] {
        assert!(help.contains(line), "{help}");
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("api.sock");
    let body = r#"{"error":{"code":"BadRequest","message":"\"dbug\" is no log level","remedy":"use debug"}}"#;
    let server = answer(&socket, "400 Bad Request", body.to_owned());
    let (code, _, err) = culvert(&["log-level", "dbug", "--host-socket", socket.to_str().unwrap()]);
    assert_eq!((code, err.as_str()), (1, "error: \"dbug\" is no log level\n       -> use debug\n"));
    assert!(server.join().unwrap().starts_with("PUT /culvert/v1/log-level HTTP/1.1"));
    let missing = directory.path().join("none.json");
    assert_eq!(culvert(&["policy", "validate", missing.to_str().unwrap()]).0, 1);
    // A socket without a daemon behind it, and a daemon that does not answer.
    assert_eq!(culvert(&["health", "--host-socket", socket.to_str().unwrap()]).0, 3);
    let silent = directory.path().join("silent.sock");
    let _listener = UnixListener::bind(&silent).unwrap();
    assert_eq!(culvert(&["health", "--timeout", "1", "--host-socket", silent.to_str().unwrap()]).0, 3);
}

#[test]
fn the_environment_names_the_socket_and_the_command_line_overrides_it() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("api.sock");
    let server = answer(&socket, "200 OK", r#"{"filter":"info"}"#.to_owned());
    let mut command = Command::new(env!("CARGO_BIN_EXE_culvert"));
    command.arg("log-level").env("CULVERT_SOCKET", &socket);
    assert_eq!(run(&mut command), (0, "info\n".to_owned(), String::new()));
    server.join().unwrap();
    let (code, _, err) = run(command.args(["--host-socket", "/nowhere/other.sock"]));
    assert!(code == 3 && err.contains("/nowhere/other.sock"), "{code} {err}");
}

#[test]
fn a_reader_that_closes_the_pipe_is_no_error_and_a_full_disk_is() {
    let directory = tempfile::tempdir().unwrap();
    let drops = r#"{"reason":"acl_deny","packets":5,"by":"nic","meaning":"an access list forbids it"}"#;
    let body = format!(r#"{{"drops":[{}],"total":5}}"#, vec![drops; 10_000].join(","));
    let start = |name: &str, stdout: Stdio| {
        let socket = directory.path().join(name);
        let server = answer(&socket, "200 OK", body.clone());
        let mut command = Command::new(env!("CARGO_BIN_EXE_culvert"));
        command.arg("drops").env("CULVERT_SOCKET", &socket).stdout(stdout).stderr(Stdio::piped());
        (command.spawn().unwrap(), server)
    };
    let (mut child, server) = start("piped", Stdio::piped());
    let mut first = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!((&first, output.status.code(), &*err), (b"reason", Some(0), ""));
    server.join().unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (child, server) = start("full", full.into());
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && err.contains("No space left on device"), "{err}");
    server.join().unwrap();
}

#[test]
fn names_forge_no_lines_on_the_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("api.sock");
    let body = r#"{"error":{"code":"X","message":"port a\u001b[2J\n is gone","remedy":"","details":[]}}"#;
    let server = answer(&socket, "404 Not Found", body.to_owned());
    let (_, _, err) = culvert(&["drops", "--host-socket", socket.to_str().unwrap()]);
    assert_eq!(err, "error: port a\\u001b[2J\\n is gone\n");
    server.join().unwrap();
}

#[test]
fn shells_have_completions_and_each_command_a_man_page() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = culvert(&["completions", shell]);
        assert!(code == 0 && out.contains("log-level") && out.contains("host-socket"), "{shell}: {out}");
    }
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(culvert(&["man-pages", directory.path().to_str().unwrap()]).0, 0);
    let page = |name: &str| std::fs::read_to_string(directory.path().join(name)).expect(name);
    let main = page("culvert.1");
    assert!(main.contains("CULVERT_SOCKET") && main.contains("culvertd cannot be reached"), "{main}");
    assert!(page("culvert-policy-apply.1").contains("merge"));
    assert!(!directory.path().join("culvert-man-pages.1").exists());
}
