//! The tool as a process: exit codes, and an answer from a socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::Command;

fn culvert(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_culvert")).args(arguments).output().unwrap();
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
    assert_eq!(code, 1);
    assert!(err.contains("does not answer") && err.contains("--host-socket"), "{err}");
    let (code, out, _) = culvert(&["drops", "--json", "--host-socket", socket.to_str().unwrap()]);
    assert_eq!((code, out.contains("\"code\": \"NoDaemon\"")), (1, true), "{out}");
    assert_eq!(culvert(&["policy", "frobnicate"]).0, 2);
}

#[test]
fn an_answer_becomes_a_table() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("api.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut byte = [0u8; 1];
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
            request.push(byte[0]);
        }
        let body = r#"{"drops":[{"reason":"acl_deny","packets":5,"by":"nic","meaning":""}],"total":5}"#;
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        String::from_utf8(request).unwrap()
    });
    let (code, out, err) = culvert(&["drops", "--timeout", "5", "--host-socket", socket.to_str().unwrap()]);
    assert_eq!(
        (code, out.as_str()),
        (0, "reason    packets  by   meaning\nacl_deny        5  nic  -\n"),
        "{err}"
    );
    assert!(server.join().unwrap().starts_with("GET /culvert/v1/drops HTTP/1.1"));
}
