//! What the daemon tells its service manager.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use clap::Parser as _;
use culvert_agent::{Args, Datapath, Error, ServiceManager};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::{FIGURE8, LIMIT, Memory, directory, send};

/// How often the service manager wants to hear from the daemon.
const WATCHDOG: Duration = Duration::from_secs(2);

/// A daemon with a service manager: this test.
struct Run {
    memory: Arc<Memory>,
    received: UnixDatagram,
    stop: oneshot::Sender<()>,
    daemon: JoinHandle<Result<(), Error>>,
}

impl Run {
    fn start(directory: &Path) -> Self {
        let path = directory.join("notify");
        let received = UnixDatagram::bind(&path).unwrap();
        let args = Args::parse_from(
            ["culvertd", "--host", "host1", "--nic", "test", "--port", "vhost-user", "--state"]
                .map(Into::into)
                .into_iter()
                .chain([
                    directory.join("state").into_os_string(),
                    "--socket".into(),
                    directory.join("api").into(),
                ]),
        );
        let memory = Arc::new(Memory::default());
        memory.broken.store(true, Ordering::Relaxed);
        let (stop, stopped) = oneshot::channel::<()>();
        let (datapath, manager) = (memory.clone(), ServiceManager::at(path.as_os_str(), Some(WATCHDOG)));
        let open = move |_: &Args| Ok(datapath as Arc<dyn Datapath>);
        let daemon = tokio::spawn(culvert_agent::run(args, open, manager, async {
            let _ = stopped.await;
        }));
        Run { memory, received, stop, daemon }
    }

    /// Waits for a message that holds `word`; returns all messages up to it.
    async fn wait_for(&self, word: &'static str) -> String {
        let received = self.received.try_clone().unwrap();
        let listen = move || {
            let (end, mut all) = (Instant::now() + LIMIT, String::new());
            received.set_read_timeout(Some(LIMIT)).unwrap();
            let mut buffer = [0; 4096];
            while Instant::now() < end && !all.contains(word) {
                let n = received.recv(&mut buffer).expect("a message in time");
                all += std::str::from_utf8(&buffer[..n]).unwrap();
            }
            assert!(all.contains(word), "{word} is not in: {all}");
            all
        };
        tokio::task::spawn_blocking(listen).await.unwrap()
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        timeout(LIMIT, self.daemon).await.expect("it stops").unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_ready_when_it_forwards_and_says_what_it_lacks_until_then() {
    let directory = directory();
    let run = Run::start(directory.path());
    let before = run.wait_for("EXTEND_TIMEOUT_USEC=").await;
    assert!(before.contains("STATUS=not forwarding: the datapath is not available: unplugged\n"), "{before}");
    let reply = send(&directory.path().join("api"), "POST", "/culvert/v1/bundle", &[], FIGURE8).await;
    assert_eq!(reply.json["applied"], false, "{}", reply.text);
    assert!(!before.contains("READY=1"));
    run.memory.broken.store(false, Ordering::Relaxed);
    let after = run.wait_for("STATUS=forwarding by policy version 1\n").await;
    assert!(after.contains("READY=1\n"), "{after}");
    // What goes later is told, too.
    run.memory.broken.store(true, Ordering::Relaxed);
    let lost = run.wait_for("STATUS=not forwarding: NIC").await;
    assert!(!lost.contains("READY=1"), "{lost}");
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_is_fed_only_while_all_threads_live() {
    let directory = directory();
    let run = Run::start(directory.path());
    run.memory.broken.store(false, Ordering::Relaxed);
    run.wait_for("WATCHDOG=1").await;
    // A packet thread that hangs after its first turn.
    let (release, hang) = channel::<()>();
    let (begun, turn) = channel();
    let thread = culvert_threads::spawn("packet-7", move || {
        culvert_threads::beat();
        begun.send(()).unwrap();
        let _ = hang.recv();
    });
    turn.recv().unwrap();
    // Until it is missed, which takes half the time, the watchdog is fed; then the silence is longer than systemd waits.
    let received = run.received.try_clone().unwrap();
    let silence = move || {
        let (begun, mut last) = (Instant::now(), Instant::now());
        received.set_read_timeout(Some(WATCHDOG + Duration::from_millis(200))).unwrap();
        let mut buffer = [0; 4096];
        while received.recv(&mut buffer).is_ok() {
            last = Instant::now();
            assert!(last - begun < LIMIT, "the watchdog is fed although a thread hangs");
        }
        last - begun
    };
    tokio::task::spawn_blocking(silence).await.unwrap();
    drop(release);
    thread.unwrap().join().unwrap();
    run.wait_for("WATCHDOG=1").await;
    run.stop().await;
}
