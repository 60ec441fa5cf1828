//! Opening the NIC, or the interfaces, that the command line names.

use std::sync::{Arc, Mutex};

use culvert_flow::HashSecret;
use culvert_model::Fabric;
use culvert_pci::FunctionAddress;
use culvert_pf::{Config, Nic};
use culvert_softpath::switch::{Switch, SwitchSettings};
use culvert_softpath::{Limits, Settings, SlowPath};
use tracing::info;

use super::SoftDatapath;
use super::hardware::{Hardware, run_dir};
use super::software::SoftwareNic;
use super::vmqs::Vmqs;
use crate::args::ProviderAddress;
use crate::{Args, DatapathError, Error};

/// Connections that one vport can have, however many records there are.
const MOST_PER_VPORT: usize = 500_000;
/// Flow records that the software path can have: the design's two million, and as many again.
const MOST_FLOWS: u32 = 1 << 22;

impl SoftDatapath {
    /// Opens what the command line names and starts the slow path. Packets flow when the first policy was applied; on a
    /// NIC that ran already they never stopped.
    ///
    /// # Errors
    /// There is no such NIC, or it does not come up.
    pub fn open(args: &Args) -> Result<Self, Error> {
        let (hardware, slow) = match &args.nic {
            Some(location) => nic(location, args)?,
            None => software(args)?,
        };
        Ok(Self { hardware, slow, part: Mutex::new(None) })
    }
}

fn unavailable(error: &dyn std::fmt::Display) -> DatapathError {
    DatapathError::Unavailable { detail: error.to_string() }
}

/// The NIC's firmware is loaded where none runs, and its VFs are made.
fn nic(location: &str, args: &Args) -> Result<(Hardware, SlowPath), Error> {
    let image = match &args.firmware {
        None => Vec::new(),
        Some(path) => std::fs::read(path)
            .map_err(|e| unavailable(&format_args!("the firmware {}: {e}", path.display())))?,
    };
    let location =
        ["vfio-user:", "vfio:"].iter().find_map(|kind| location.strip_prefix(kind)).unwrap_or(location);
    let address: FunctionAddress = location.parse().map_err(|e: culvert_pci::Error| unavailable(&e))?;
    let device = address.open().map_err(|e| unavailable(&e))?;
    // The policy sets the router's MAC; this is what it is without one.
    let config = Config::new(image, Fabric::default().settings.router_mac).map_err(|e| unavailable(&e))?;
    let nic = Arc::new(Nic::open(device, &config).map_err(|e| unavailable(&e))?);
    let wanted = args.vfs.min(nic.identity().total_vfs);
    let vfs = nic.enable_vfs(wanted, &[]).map_err(|e| unavailable(&e))?;
    let vmqs = Vmqs::start(&nic, args, run_dir(&args.socket)?).map_err(|e| unavailable(&e))?;
    let slow = SlowPath::start(nic.clone(), Settings::default()).map_err(|e| unavailable(&e))?;
    info!(nic = nic.identity().location, adopted = nic.adopted(), vfs = vfs.len(), "the NIC is there");
    Ok((Hardware::Nic { nic, vfs, vmqs }, slow))
}

fn software(args: &Args) -> Result<(Hardware, SlowPath), Error> {
    let most = usize::from(culvert_flow::Port::UPLINKS);
    if args.uplink.len() > most {
        let all = args.uplink.join(", ");
        let detail =
            format!("{} uplinks ({all}) are more than the {most} that a host can have", args.uplink.len());
        return Err(DatapathError::Invalid { detail }.into());
    }
    let mut secret = [0; 72];
    getrandom::fill(&mut secret).map_err(|e| unavailable(&e))?;
    let words: &[[u8; 8]] = secret.as_chunks().0;
    let secret = HashSecret(std::array::from_fn(|n| u64::from_ne_bytes(words[n])));
    let flows = args.flows.clamp(64, MOST_FLOWS).next_power_of_two();
    let settings = SwitchSettings { workers: workers(args)?, ..SwitchSettings::new(flows, secret) };
    let switch = Arc::new(Switch::start(&settings).map_err(|e| unavailable(&e))?);
    // Groups of packet sockets are named by numbers that nobody gives out.
    let mut fanout = [0; 2];
    getrandom::fill(&mut fanout).map_err(|e| unavailable(&e))?;
    let run_dir = run_dir(&args.socket)?;
    let kernel = (args.provider_address == ProviderAddress::Kernel).then(|| args.uplink.clone());
    // The software path's flows end with the process; their connections are there for the next one, named as its socket is.
    let mut connections = args.socket.clone().into_os_string();
    connections.push(".connections");
    let connections = Some(connections.into());
    let limits = limits(flows, switch.workers());
    let settings = Settings { limits, kernel, connections };
    let slow = SlowPath::start(switch.clone(), settings).map_err(|e| unavailable(&e))?;
    info!(uplinks = args.uplink.join(", "), flows, workers = switch.workers(), "the software path is there");
    Ok((Hardware::Software(SoftwareNic::new(switch, args, run_dir, u16::from_ne_bytes(fanout))), slow))
}

/// The software path's threads, with the processor that each stays on.
fn workers(args: &Args) -> Result<Vec<Option<usize>>, DatapathError> {
    let invalid = |detail| Err(DatapathError::Invalid { detail });
    let (cores, most) = (args.core.len(), SwitchSettings::MAX_WORKERS);
    match args.workers.unwrap_or(cores.max(1)) {
        n if n == 0 || n > most => {
            invalid(format!("--workers {n}: the software path has 1 to {most} threads"))
        }
        n if cores > 0 && n != cores => invalid(format!(
            "--workers {n}, but {cores} processors behind --core: name one for each thread, or leave --workers out"
        )),
        _ if cores > 0 => Ok(args.core.iter().map(|core| Some(*core)).collect()),
        n => Ok(vec![None; n]),
    }
}

/// Bounds of the connection table beside so many records at each of the workers: a connection has two of them.
fn limits(flows: u32, workers: usize) -> Limits {
    let flows = flows as usize;
    let per_vport = (flows / 4).min(MOST_PER_VPORT);
    Limits { connections: flows / 2 * workers, per_vport, ..Limits::default() }
}
