//! Our switch as the daemon runs it, for guests in this process: its thread, its slow path, a policy of the control plane.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use culvert_api::Bundle;
use culvert_flow::Port;
use culvert_model::{Fabric, HostConfig, Indices, Site, host_config};
use culvert_softpath::next_hop::State;
use culvert_softpath::switch::ports::VhostUser;
use culvert_softpath::switch::{Switch, SwitchSettings};
use culvert_softpath::{Handle, OffloadTarget as _, Settings, SlowPath};
use serde_json::{Value, json};

use super::Way;
use super::wire::{Told, Wire};
use crate::peers::machine::Watch;
use crate::work;

/// The example whose policy is carried out, with two of its VMs where the case has them.
const EXAMPLE: &str = include_str!("../../../docs/examples/pair.json");
/// Flow records.
const FLOWS: u32 = 1 << 16;
/// Time until something that was told is done.
const LIMIT: Duration = Duration::from_secs(10);

/// The switch, with the ports of a case.
pub struct Ours {
    // Goes first: it asks the switch until its end.
    slow: SlowPath,
    switch: Arc<Switch>,
    /// What the wire is told.
    pub wire: Arc<Told>,
    /// The switch's thread, in proc.
    pub thread: PathBuf,
}

impl Ours {
    /// Starts it with its thread on core `core`, and with sockets in `dir` for the guests that are on this host, which may have
    /// so many pairs of rings.
    ///
    /// # Errors
    /// What could not be had.
    pub fn start(dir: &Path, way: Way, core: usize, pairs: usize) -> Result<Self, String> {
        fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let config = policy(way)?;
        let settings =
            SwitchSettings { workers: vec![Some(core)], ..SwitchSettings::new(FLOWS, work::secret()) };
        let switch = Arc::new(Switch::start(&settings).map_err(|e| e.to_string())?);
        let slow = SlowPath::start(switch.clone(), Settings::default()).map_err(|e| e.to_string())?;
        let wire = Arc::new(Told::default());
        let told = Arc::clone(&wire);
        let open = move || Ok(Box::new(Wire::new(told.clone())?) as _);
        switch.attach(Port::Uplink(0), Box::new(open)).map_err(|e| e.to_string())?;
        slow.handle().apply(config.snapshot.clone()).map_err(|e| e.to_string())?;
        for (id, vport) in &config.snapshot.vports {
            let path = dir.join(&vport.name);
            let open = move || Ok(Box::new(VhostUser::open(&path, pairs)?) as _);
            switch.attach(Port::Vport(*id), Box::new(open)).map_err(|e| e.to_string())?;
        }
        if way != Way::Guests {
            wait_for_next_hops(&slow.handle())?;
        }
        let thread = thread()?;
        Ok(Ours { slow, switch, wire, thread })
    }

    /// How many connections it knows.
    ///
    /// # Errors
    /// It has ended.
    pub fn connections(&self) -> Result<usize, String> {
        Ok(self.slow.handle().status().map_err(|e| e.to_string())?.connections)
    }

    /// Looks at the clocks of the switch's thread.
    ///
    /// # Errors
    /// There is no such thread.
    pub fn watch(&self) -> Result<Watch<'_>, String> {
        Watch::of(&self.thread)
    }

    /// What was dropped so far, by reason.
    ///
    /// # Errors
    /// The switch has ended.
    pub fn drops(&self) -> Result<Vec<(String, u64)>, String> {
        let all = self.switch.drops().map_err(|e| e.to_string())?;
        Ok(all.into_iter().map(|(reason, n)| (reason.as_str().to_owned(), n)).collect())
    }
}

/// The example's policy with its first network's two VMs as the frames have them, `a` and `b`.
fn policy(way: Way) -> Result<HostConfig, String> {
    let mut documents: Value = serde_json::from_str(EXAMPLE).map_err(|e| e.to_string())?;
    documents["logicalNetworks"][0]["properties"]["subnets"][0]["properties"]["addressPrefix"] =
        json!("192.168.0.0/16");
    let uplink = "/properties/networkInterfaces/0/properties/providerAddress";
    for (n, address) in [work::LOCAL, work::REMOTE].into_iter().enumerate() {
        let place =
            documents["servers"][n].pointer_mut(uplink).ok_or("a server without a provider address")?;
        *place = json!(std::net::Ipv4Addr::from(address).to_string());
    }
    let interfaces = documents["networkInterfaces"].as_array_mut().ok_or("a policy without interfaces")?;
    interfaces.truncate(2);
    for (n, (interface, here)) in interfaces.iter_mut().zip([way.sends(), way.receives()]).enumerate() {
        interface["resourceId"] = json!(["a", "b"][n]);
        let properties = &mut interface["properties"];
        let mac: String = work::MACS[n].iter().map(|byte| format!("{byte:02X}")).collect();
        properties["privateMacAddress"] = json!(mac);
        properties["server"]["resourceRef"] = json!(if here { "/servers/host1" } else { "/servers/host2" });
        let address = std::net::Ipv4Addr::from(work::PAIR[n]).to_string();
        properties["ipConfigurations"][0]["properties"]["privateIPAddress"] = json!(address);
    }
    let bundle = Bundle::from_value(&documents).map_err(|e| format!("{e:?}"))?.bundle;
    let fabric = Fabric::check(&bundle).map_err(|e| format!("{e:?}"))?.fabric;
    let site = Site { host: "host1".to_owned(), entropy: work::secret(), vfs: 0, vmqs: 0 };
    host_config(Arc::new(fabric), &site, &mut Indices::default()).map_err(|e| format!("{e:?}"))
}

fn wait_for_next_hops(handle: &Handle) -> Result<(), String> {
    let end = Instant::now() + LIMIT;
    loop {
        let hops = handle.status().map_err(|e| e.to_string())?.next_hops;
        if !hops.is_empty() && hops.iter().all(|(_, state, _)| matches!(state, State::Resolved(_))) {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(format!("the next hop does not answer: {hops:?}"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The switch's thread: its name says so.
fn thread() -> Result<PathBuf, String> {
    let tasks = fs::read_dir("/proc/self/task").map_err(|e| e.to_string())?;
    let named = |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|t| t.starts_with("switch"));
    tasks.flatten().map(|task| task.path()).find(named).ok_or_else(|| "no thread of the switch".to_owned())
}
