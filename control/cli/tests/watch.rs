//! Views that look again and again, and what they ask the daemon for.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

/// Answers each request with the body that `body` makes for its number, from 0. Returns the first lines of the requests.
fn serve(socket: &Path, body: impl Fn(usize) -> String + Send + 'static) -> Receiver<String> {
    let listener = UnixListener::bind(socket).unwrap();
    let (sender, requests) = channel();
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut byte = [0u8; 1];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                request.push(byte[0]);
            }
            let body = body(n);
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
            let text = String::from_utf8(request).unwrap();
            if sender.send(text.lines().next().unwrap().to_owned()).is_err() {
                return;
            }
        }
    });
    requests
}

fn culvert(socket: &Path, arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_culvert"));
    command.arg("--host-socket").arg(socket).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_watch_shows_rates_until_it_is_interrupted() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("api.sock");
    let requests = serve(&socket, |n| {
        let packets = 100 * n;
        format!(
            r#"{{"drops":[{{"reason":"acl_deny","packets":{packets},"by":"software","meaning":""}}],"total":{packets}}}"#
        )
    });
    let mut child = culvert(&socket, &["drops", "--watch", "0.1"]);
    for _ in 0..3 {
        let request = requests.recv_timeout(LIMIT).expect("it looks again");
        assert_eq!(request, "GET /culvert/v1/drops HTTP/1.1");
    }
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "reason    packets  by        meaning");
    assert_eq!(lines.next().unwrap(), "acl_deny        0  software  -");
    assert_eq!(lines.next().unwrap(), "reason    packets  per s  by        meaning");
    let row = lines.next().unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    let rate: u64 = cells[2].parse().unwrap();
    assert!(cells[1] == "100" && (1..=1000).contains(&rate), "100 packets in at least 0.1 s: {row}");
    // As Ctrl-C does.
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    child.wait().unwrap();
}

#[test]
fn a_watch_in_json_has_a_line_for_each_look_and_ends_with_its_reader() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("api.sock");
    let _requests = serve(&socket, |n| format!(r#"[{{"vsid":5001,"source":"10.1.1.11","flows":{n}}}]"#));
    let mut child = culvert(&socket, &["--json", "flows", "--top", "5", "--watch", "0.1"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for n in 0..2 {
        let line: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(line[0]["flows"], n);
    }
    drop(lines);
    child.wait().unwrap();
}

#[test]
fn filters_and_orders_are_the_daemons() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("api.sock");
    let requests = serve(&socket, |_| r"[]".to_owned());
    let all = [
        (
            "flows --address 10.1.1.0/24 --port 80 --protocol tcp --state software --sort bytes --limit 7",
            "GET /culvert/v1/flows?address=10.1.1.0/24&port=80&protocol=tcp&state=software&sort=bytes&limit=7",
        ),
        ("flows --top 3 --vport 5", "GET /culvert/v1/talkers?vport=5&limit=3"),
        ("policy rules", "GET /culvert/v1/rules"),
    ];
    for (command, request) in all {
        let child = culvert(&socket, &command.split(' ').collect::<Vec<_>>());
        assert!(child.wait_with_output().unwrap().status.success(), "{command}");
        assert_eq!(requests.recv_timeout(LIMIT).unwrap(), format!("{request} HTTP/1.1"));
    }
}

#[test]
fn a_flush_deletes_and_says_how_many() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("api.sock");
    let requests = serve(&socket, |_| r#"{"flushed":12}"#.to_owned());
    let output = culvert(&socket, &["flows", "flush", "--all"]).wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "12 flow records deleted\n");
    assert_eq!(requests.recv_timeout(LIMIT).unwrap(), "DELETE /culvert/v1/flows?all=true HTTP/1.1");
}
