//! Opening the NIC that the command line names.

use std::path::Path;
use std::sync::{Arc, Mutex};

use culvert_model::Fabric;
use culvert_nic::{Config, Nic};
use culvert_pci::FunctionAddress;
use culvert_softpath::{Settings, SlowPath};
use tracing::info;

use super::SoftDatapath;
use crate::{Args, DatapathError, Error};

impl SoftDatapath {
    /// Opens the NIC, loads its firmware where none runs, makes its VFs, and starts the slow path. Packets flow when the
    /// first policy was applied; on a NIC that ran already they never stopped.
    ///
    /// # Errors
    /// There is no such NIC, or it does not come up.
    pub fn open(args: &Args) -> Result<Self, Error> {
        let unavailable = |e: &dyn std::fmt::Display| DatapathError::Unavailable { detail: e.to_string() };
        let image = match &args.firmware {
            None => Vec::new(),
            Some(path) => std::fs::read(path)
                .map_err(|e| unavailable(&format_args!("the firmware {}: {e}", path.display())))?,
        };
        let location =
            ["vfio-user:", "vfio:"].iter().find_map(|kind| args.nic.strip_prefix(kind)).unwrap_or(&args.nic);
        let address: FunctionAddress = location.parse().map_err(|e: culvert_pci::Error| unavailable(&e))?;
        let device = address.open().map_err(|e| unavailable(&e))?;
        // The policy sets the router's MAC; this is what it is without one.
        let config =
            Config::new(image, Fabric::default().settings.router_mac).map_err(|e| unavailable(&e))?;
        let nic = Arc::new(Nic::open(device, &config).map_err(|e| unavailable(&e))?);
        let wanted = args.vfs.min(nic.identity().total_vfs);
        let vfs = nic.enable_vfs(wanted, &[]).map_err(|e| unavailable(&e))?;
        let run_dir = args.socket.parent().unwrap_or(Path::new(".")).to_owned();
        std::fs::create_dir_all(&run_dir)
            .map_err(|e| unavailable(&format_args!("{}: {e}", run_dir.display())))?;
        let settings = Settings { run_dir: Some(run_dir.clone()), ..Settings::default() };
        let slow = SlowPath::start(nic.clone(), settings).map_err(|e| unavailable(&e))?;
        info!(nic = nic.identity().location, adopted = nic.adopted(), vfs = vfs.len(), "the NIC is there");
        Ok(Self { nic, slow, vfs, run_dir, part: Mutex::new(None) })
    }
}
