//! Opens the NIC, or the uplink interfaces, named on the command line.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use culvert_model::Fabric;
use culvert_offload::DeviceInfo as _;
use culvert_pci::FunctionAddress;
use culvert_pf::{AttachedNic, Config};
use culvert_slowpath::{Limits, Settings, SlowPath};
use culvert_switch::{Switch, SwitchSettings};
use tracing::info;

use super::backend::Backend;
use super::host::HostDatapath;
use super::interface::DatapathError;
use super::switch::SwitchBackend;
use super::uplink_lock;
use super::vmq_ports::VmqPorts;
use crate::args::ProviderAddress;
use crate::{Args, Error, secret};

impl HostDatapath {
    /// Opens the backend that the command line names and starts the slow path. Packets flow once the first policy is
    /// applied; a NIC that was already running never stops.
    ///
    /// # Errors
    /// The NIC or an interface does not exist, or does not come up.
    pub fn open(args: &Args) -> Result<Self, Error> {
        let (backend, slow_path) = match &args.nic {
            Some(location) => open_nic(location, args)?,
            None => open_switch(args)?,
        };
        Ok(Self::new(backend, slow_path))
    }
}

fn unavailable(error: &impl ToString) -> DatapathError {
    DatapathError::unavailable(error)
}

/// Opens the NIC, loads its firmware where none runs, and enables its VFs: now, or when it is there. A NIC that is lost is
/// opened again.
fn open_nic(location: &str, args: &Args) -> Result<(Backend, SlowPath), Error> {
    let image = match &args.firmware {
        None => Vec::new(),
        Some(path) => std::fs::read(path)
            .map_err(|e| unavailable(&format_args!("firmware image {}: {e}", path.display())))?,
    };
    let location =
        ["vfio-user:", "vfio:"].iter().find_map(|kind| location.strip_prefix(kind)).unwrap_or(location);
    let address: FunctionAddress = location.parse().map_err(|e: culvert_pci::Error| unavailable(&e))?;
    // The default, until a policy sets the router's MAC address.
    let config = Config::new(image, Fabric::default().settings.router_mac).map_err(|e| unavailable(&e))?;
    let name = address.to_string();
    let nic = AttachedNic::start(&name, Box::new(move || address.open()), config, args.vfs);
    let nic = Arc::new(nic.map_err(|e| unavailable(&e))?);
    let vmqs = VmqPorts::start(&nic, args, run_dir(&args.socket)?).map_err(|e| unavailable(&e))?;
    let slow_path = SlowPath::start(nic.clone(), Settings::default()).map_err(|e| unavailable(&e))?;
    let (status, adopted) = (nic.status(), nic.is_adopted());
    if status.alive {
        info!(nic = name, adopted, vfs = status.vfs.len(), "NIC ready");
    }
    Ok((Backend::Nic { nic, vmqs }, slow_path))
}

/// Starts the switch and its workers.
fn open_switch(args: &Args) -> Result<(Backend, SlowPath), Error> {
    let max = usize::from(culvert_flow::Port::UPLINKS);
    if args.uplink.len() > max {
        let all = args.uplink.join(", ");
        let detail =
            format!("--uplink names {} interfaces ({all}): a host has at most {max}", args.uplink.len());
        return Err(DatapathError::Invalid { detail }.into());
    }
    // Before anything on the interfaces is touched.
    for interface in &args.uplink {
        uplink_lock::take(interface)?;
    }
    let secret = secret::from_bytes(&secret::random().map_err(|e| unavailable(&e))?);
    let flows = args.flows.clamp(64, SwitchSettings::MAX_FLOWS).next_power_of_two();
    let settings = SwitchSettings { workers: workers(args)?, ..SwitchSettings::new(flows, secret) };
    let switch = Arc::new(Switch::start(&settings).map_err(|e| unavailable(&e))?);
    // Fanout groups of packet sockets have numbers that each process chooses for itself.
    let mut fanout = [0; 2];
    getrandom::fill(&mut fanout).map_err(|e| unavailable(&e))?;
    let run_dir = run_dir(&args.socket)?;
    let kernel_interfaces = (args.provider_address == ProviderAddress::Kernel).then(|| args.uplink.clone());
    // The switch's flows end with the process; connections outlive it, in a file named after the socket.
    let mut file = args.socket.clone().into_os_string();
    file.push(".connections");
    let connection_file = Some(file.into());
    let limits = Limits::for_switch(flows, switch.workers());
    let settings = Settings { limits, kernel_interfaces, connection_file };
    let slow_path = SlowPath::start(switch.clone(), settings).map_err(|e| unavailable(&e))?;
    info!(uplinks = args.uplink.join(", "), flows, workers = switch.workers(), "software datapath ready");
    let backend = SwitchBackend::new(switch, args, run_dir, u16::from_ne_bytes(fanout));
    Ok((Backend::Switch(backend), slow_path))
}

/// The switch's workers, each with the processor that it is pinned to.
fn workers(args: &Args) -> Result<Vec<Option<usize>>, DatapathError> {
    let invalid = |detail| Err(DatapathError::Invalid { detail });
    let (cores, max) = (args.core.len(), SwitchSettings::MAX_WORKERS);
    match args.workers.unwrap_or(cores.max(1)) {
        n if n == 0 || n > max => invalid(format!("--workers {n}: choose 1 to {max}")),
        n if cores > 0 && n != cores => invalid(format!(
            "--workers {n}, but --core names {cores} processors: name one for each worker, or leave --workers out"
        )),
        _ if cores > 0 => Ok(args.core.iter().map(|core| Some(*core)).collect()),
        n => Ok(vec![None; n]),
    }
}

/// The directory of the API's socket, where those of VMs are too.
fn run_dir(socket: &Path) -> Result<PathBuf, DatapathError> {
    let dir = socket.parent().unwrap_or(Path::new(".")).to_owned();
    std::fs::create_dir_all(&dir).map_err(|e| unavailable(&format_args!("{}: {e}", dir.display())))?;
    Ok(dir)
}
