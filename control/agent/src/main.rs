//! Entry point of culvertd: arguments, log, signals.

#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use culvert_agent::{Args, Datapath, Error, HostDatapath, ServiceManager, run};
use culvert_ports::VhostUser;
use culvert_program::{escaped, log, manual};
use tokio::signal::unix::{SignalKind, signal};

/// How long the end waits until the sockets of vhost-user ports are removed.
const SOCKETS_LIMIT: Duration = Duration::from_secs(1);

/// How long the end waits for requests that are still worked on.
const STOP_LIMIT: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let args: Args = manual::parse("8");
    log::init("CULVERT_LOG", args.log_json);
    raise_file_limit();
    let ended = tokio::runtime::Runtime::new().map(|runtime| {
        let ended = runtime.block_on(start(args));
        // A change that is still checked sees that it is to stop; what hangs is not waited for.
        runtime.shutdown_timeout(STOP_LIMIT);
        ended
    });
    // Not longer: a client of one may have hung its thread.
    VhostUser::wait_removed(SOCKETS_LIMIT);
    match ended {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => fail(&error.to_string(), &error.body().remedy),
        Err(error) => fail(
            &format!("cannot start the runtime: {error}"),
            "raise the limits on threads and file descriptors",
        ),
    }
}

/// Raises the limit of open files to the most that the system allows: each VM's port and each client of the API has its own.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "the limit of open files stays {:?}", limit.current);
    }
}

fn fail(message: &str, remedy: &str) -> ExitCode {
    // If stderr is closed, the exit code is all that is left.
    let _ = writeln!(std::io::stderr(), "culvertd: {}\n       -> {remedy}", escaped(message));
    ExitCode::FAILURE
}

async fn start(args: Args) -> Result<(), Error> {
    let no_signals = |e: std::io::Error| Error::Listen { address: "signals".into(), detail: e.to_string() };
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    run(args, open, ServiceManager::from_environment(), async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
    .await
}

fn open(args: &Args) -> Result<Arc<dyn Datapath>, Error> {
    Ok(Arc::new(HostDatapath::open(args)?))
}
