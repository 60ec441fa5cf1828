//! The daemon's life cycle: start, serve, retry, stop.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::{error, info};

use crate::listen::ensure_unused;
use crate::{
    Agent, Args, Datapath, Error, ServiceManager, Store, TcpApi, Tls, bind_tcp, bind_unix, rest, serve,
    start_checks,
};

/// Interval between attempts to apply a policy that is not applied yet.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Interval in which the states of ports are looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);
/// Every how many attempts the datapath's views are read, for times in which it does not answer.
const REFRESH_TICKS: u64 = 5;

/// Runs until `stop` is done. The store is opened first, so that a second daemon of the same state never touches the
/// NIC; the policy is applied before the first request is answered.
///
/// When it returns, a NIC keeps forwarding its flows: stopping the daemon does not stop tenants. The software datapath
/// stops with the daemon.
///
/// # Errors
/// The store or a socket cannot be used, or the datapath cannot be opened.
pub async fn run(
    args: Args,
    open: impl FnOnce(&Args) -> Result<Arc<dyn Datapath>, Error> + Send + 'static,
    service_manager: ServiceManager,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    for (problem, remedy) in start_checks::missing(&args) {
        error!(remedy, "{problem}");
    }
    let tcp = match args.listen {
        Some(address) => {
            let missing = |what: &str| Error::Tls { detail: format!("--listen needs {what}") };
            let cert = args.tls_cert.as_deref().ok_or_else(|| missing("--tls-cert"))?;
            let key = args.tls_key.as_deref().ok_or_else(|| missing("--tls-key"))?;
            let tls = Tls::new(cert, key, args.tls_client_ca.as_deref(), args.tls_reader_ca.as_deref())?;
            let names = args.listen_name.iter().chain([&args.host]).cloned().collect();
            Some(TcpApi { listener: bind_tcp(address).await?, tls, names })
        }
        None => None,
    };
    let started = args.clone();
    let start = tokio::task::spawn_blocking(move || {
        let store = Store::open(&started.state)?;
        ensure_unused(&started.socket)?;
        let datapath = open(&started)?;
        Agent::start(&started.host, store, datapath)
    });
    let agent =
        start.await.map_err(|e| Error::Listen { address: "start".into(), detail: e.to_string() })??;
    let unix = bind_unix(&args.socket).await?;
    if let Some(group) = &args.socket_group {
        let address = args.socket.display().to_string();
        group.admit(&args.socket).map_err(|e| Error::Listen { address, detail: e.to_string() })?;
    }
    info!(host = args.host, socket = %args.socket.display(), "serving the API");

    let (stopping, stopped) = watch::channel(false);
    let retry = tokio::spawn(retry(agent.clone(), stopped.clone()));
    let inform = tokio::spawn(service_manager.inform(agent.clone(), stopped.clone()));
    let watch = tokio::spawn(watch(agent.clone(), stopped.clone()));
    let stopped_agent = agent.clone();
    let stop = tokio::spawn(async move {
        stop.await;
        info!("stopping");
        stopped_agent.stop();
        // There is no receiver when the server has already ended.
        let _ = stopping.send(true);
    });
    let result = serve(rest::router(agent), unix, tcp, stopped).await;
    stop.abort();
    retry.abort();
    inform.abort();
    watch.abort();
    // The path is ours: bind_unix refuses a second daemon.
    let _ = std::fs::remove_file(&args.socket);
    if let Err(e) = &result {
        error!(error = %e, "the API server failed");
    }
    result
}

async fn watch(agent: Arc<Agent>, mut stop: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(WATCH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|s| *s) => return,
        }
        let agent = agent.clone();
        if tokio::task::spawn_blocking(move || agent.watch()).await.is_err() {
            error!("looking at the ports panicked");
        }
    }
}

async fn retry(agent: Arc<Agent>, mut stop: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(RETRY_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for tick in 0_u64.. {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|s| *s) => return,
        }
        let agent = agent.clone();
        let work = move || {
            agent.reconcile();
            if tick % REFRESH_TICKS == 0 {
                agent.datapath().refresh();
            }
        };
        if tokio::task::spawn_blocking(work).await.is_err() {
            error!("applying the policy again panicked");
        }
    }
}
