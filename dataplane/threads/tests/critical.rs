//! What becomes of a process whose thread panics. Each case runs in a process of its own: this program, started again.
#![forbid(unsafe_code)]

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use culvert_threads::{EXIT_CODE, spawn};

/// Names the case that a started process runs.
const CASE: &str = "CULVERT_THREADS_CASE";
/// No case takes this long unless its process never ends.
const LIMIT: Duration = Duration::from_secs(30);

/// Runs a case of [`the_process`] and returns how its process ended.
fn run(case: &str) -> Output {
    let program = std::env::current_exe().expect("this program has a path");
    let arguments = ["--exact", "the_process", "--nocapture"];
    let mut child = Command::new(program)
        .args(arguments)
        .env(CASE, case)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("it can be started");
    let end = Instant::now() + LIMIT;
    while child.try_wait().expect("a child").is_none() {
        if Instant::now() > end {
            child.kill().expect("a child");
            panic!("{case}: the process goes on");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("it has ended")
}

/// Serves for ever, as a process does whose other threads are alive.
fn serve() -> ! {
    loop {
        std::thread::sleep(LIMIT);
    }
}

/// Not a test: the process that the tests start.
#[test]
fn the_process() {
    match std::env::var(CASE).as_deref() {
        Ok("panic") => {
            let thread = spawn("packet-7", || panic!("burst {} is corrupt", 3)).expect("a thread");
            let _ = thread.join();
            serve();
        }
        Ok("unwind") => {
            // What waits for ever while the stack unwinds.
            struct Waits;
            impl Drop for Waits {
                fn drop(&mut self) {
                    serve();
                }
            }
            let thread = spawn("packet-7", || {
                let _waits = Waits;
                panic!("corrupt");
            });
            let _ = thread.expect("a thread").join();
        }
        Ok("other hook") => {
            let thread = spawn("packet-7", || {
                std::panic::set_hook(Box::new(|_| {}));
                panic!("corrupt");
            });
            let _ = thread.expect("a thread").join();
            serve();
        }
        Ok("fail") => {
            let thread = spawn("engine", || culvert_threads::fail("the device is lost")).expect("a thread");
            let _ = thread.join();
            serve();
        }
        Ok("others") => {
            assert_eq!(spawn("worker", || 5).expect("a thread").join().expect("it returns"), 5);
            let panics = std::thread::spawn(|| panic!("a thread that nobody needs"));
            assert!(panics.join().is_err());
        }
        _ => {}
    }
}

fn assert_ended(case: &str, words: &[&str]) {
    let output = run(case);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(EXIT_CODE.into()), "{case}: {text}");
    let last = text.trim_end().rsplit("\nthread ").next().unwrap_or_default();
    assert!(words.iter().all(|word| last.contains(word)), "{case}: {text}");
}

#[test]
fn a_critical_thread_that_panics_ends_the_process_and_says_where() {
    assert_ended("panic", &["packet-7", "burst 3 is corrupt", "critical.rs:"]);
}

#[test]
fn a_destructor_that_waits_does_not_keep_the_process() {
    assert_ended("unwind", &["packet-7", "corrupt"]);
}

#[test]
fn a_replaced_panic_hook_does_not_keep_the_process() {
    assert_ended("other hook", &["packet-7", "corrupt"]);
}

#[test]
fn a_thread_that_gives_up_ends_the_process() {
    assert_ended("fail", &["engine", "the device is lost"]);
}

#[test]
fn other_threads_end_alone() {
    let output = run("others");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
