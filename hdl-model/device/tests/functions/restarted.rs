//! `culvert-emu` as a process: it starts again after SIGKILL, and twice at the same places it does not.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running one, which is killed when this is dropped.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Starts one with a cable on each port.
fn start(folder: &Path, socket: &str) -> Emulator {
    let mut command = Command::new(env!("CARGO_BIN_EXE_culvert-emu"));
    command.current_dir(folder).args(["--socket", socket, "--json"]);
    command.args(["--uplink0", "unix:own0,other0", "--uplink1", "unix:own1,other1"]);
    Emulator(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// Waits until it says that it is ready, or has ended.
fn is_ready(emulator: &mut Emulator) -> bool {
    let mut line = String::new();
    let read = BufReader::new(emulator.0.stdout.as_mut().unwrap()).read_line(&mut line);
    read.is_ok() && line.contains("ready")
}

#[test]
fn one_that_was_killed_starts_again_and_a_second_one_says_that_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = start(folder.path(), "nic");
    assert!(is_ready(&mut first));
    drop(first);
    assert!(folder.path().join("own0").exists(), "SIGKILL leaves its sockets");
    let mut again = start(folder.path(), "nic");
    assert!(is_ready(&mut again));
    for (socket, named) in [("nic", "own0"), ("other-nic", "own0")] {
        let mut second = start(folder.path(), socket);
        assert!(!is_ready(&mut second));
        let mut text = String::new();
        second.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(second.0.wait().unwrap().code(), Some(1), "{text}");
        assert!(text.contains(named) && text.contains("second culvert-emu"), "{text}");
    }
}
