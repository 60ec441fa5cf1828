//! What the daemon tells its service manager: that it forwards, what is wrong, and that it is alive (sd_notify(3)).

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::{Duration, Instant};

use culvert_program::escaped;
use culvert_threads::Watch;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, info};

use crate::Agent;

/// Interval of looks until the daemon forwards.
const STARTING: Duration = Duration::from_millis(200);
/// Longest interval of looks from then on.
const RUNNING: Duration = Duration::from_secs(5);
/// How much longer the start may take, from each look on.
const EXTENSION: Duration = Duration::from_secs(30);

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// As the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub fn from_environment() -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let ours = number("WATCHDOG_PID").is_none_or(|process| process == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| ours && *usec > 0).map(Duration::from_micros);
        let socket = std::env::var_os("NOTIFY_SOCKET");
        socket.map_or_else(ServiceManager::default, |socket| ServiceManager::at(&socket, watchdog))
    }

    /// Listens at `socket`, a path or an abstract name behind an `@`; ends the daemon if it does not hear from it for
    /// `watchdog`.
    pub fn at(socket: &OsStr, watchdog: Option<Duration>) -> Self {
        let address = match socket.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            path => SocketAddr::from_pathname(OsStr::from_bytes(path)),
        };
        let socket = address.and_then(|address| {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok((socket, address))
        });
        match socket {
            Ok(socket) => ServiceManager { socket: Some(socket), watchdog },
            Err(error) => {
                error!(%error, "cannot tell the service manager anything");
                ServiceManager::default()
            }
        }
    }

    fn tell(&self, words: &str) {
        if let Some((socket, address)) = &self.socket {
            // A service manager that is busy now hears the next word.
            let _ = socket.send_to_addr(words.as_bytes(), address);
        }
    }

    /// Tells it the daemon's state until `stop`. It hears nothing while a thread that the daemon needs hangs, or the agent
    /// does not answer.
    pub(crate) async fn inform(self, agent: Arc<Agent>, mut stop: watch::Receiver<bool>) {
        if self.socket.is_none() {
            return;
        }
        let limit = self.watchdog.map_or(Duration::MAX, |watchdog| watchdog / 2);
        let running = self.watchdog.map_or(RUNNING, |watchdog| RUNNING.min(watchdog / 8));
        let mut threads = Watch::new(limit);
        let (mut ready, mut told, mut silent) = (false, String::new(), Vec::new());
        let mut look: Option<JoinHandle<Result<String, String>>> = None;
        loop {
            let interval = if ready { running } else { STARTING.min(running) };
            // One that takes long is waited for, not begun again.
            let mut asked = look.take().unwrap_or_else(|| {
                let agent = agent.clone();
                tokio::task::spawn_blocking(move || agent.forwards())
            });
            let state = match tokio::time::timeout(interval, &mut asked).await {
                Ok(Ok(state)) => Some(state),
                Ok(Err(_)) => None,
                Err(_) => {
                    look = Some(asked);
                    None
                }
            };
            let hanging = threads.silent(Instant::now());
            if hanging != silent && !hanging.is_empty() {
                error!(
                    threads = hanging.join(", "),
                    "threads hang; the service manager ends this process if they stay so"
                );
            }
            silent = hanging;
            if let Some(state) = state.filter(|_| silent.is_empty()) {
                let mut words = String::new();
                if state.is_ok() && !ready {
                    ready = true;
                    info!(state = state.as_deref().unwrap_or_default(), "ready");
                    words.push_str("READY=1\n");
                } else if !ready {
                    words.push_str(&format!("EXTEND_TIMEOUT_USEC={}\n", EXTENSION.as_micros()));
                }
                let status = state.unwrap_or_else(|problem| format!("not forwarding: {problem}"));
                if status != told {
                    words.push_str(&format!("STATUS={}\n", escaped(&status)));
                    told = status;
                }
                if self.watchdog.is_some() {
                    words.push_str("WATCHDOG=1\n");
                }
                if !words.is_empty() {
                    self.tell(&words);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }
}
