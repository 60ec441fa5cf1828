//! The software switch as the daemon runs it, for guests in this process: with its thread, its slow path and a policy.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use culvert_flow::Port;
use culvert_model::HostConfig;
use culvert_offload::DeviceInfo as _;
use culvert_ports::VhostUser;
use culvert_slowpath::{Settings, SlowPath};
use culvert_switch::{Switch, SwitchSettings};
use serde_json::{Value, json};

use super::traffic::Traffic;
use super::wire::{Wire, WireControl};
use crate::cpu::Watch;
use crate::policy::{EXAMPLE, config_of, wait_for_next_hops};
use crate::work;

/// Flow records.
const FLOWS: u32 = 1 << 16;

/// The software switch, with the ports of a case.
pub struct CulvertSwitch {
    // Dropped first: it uses the switch until its end.
    slow: SlowPath,
    switch: Arc<Switch>,
    /// Control of the wire.
    pub wire: Arc<WireControl>,
    /// The switch's thread, in proc.
    pub thread: PathBuf,
}

impl CulvertSwitch {
    /// Starts it with its thread on core `core`, and with sockets in `dir` for this host's guests, each with up to `pairs` pairs of
    /// rings.
    ///
    /// # Errors
    /// What cannot be started.
    pub fn start(dir: &Path, traffic: Traffic, core: usize, pairs: usize) -> Result<Self, String> {
        fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let config = policy(traffic)?;
        let settings =
            SwitchSettings { workers: vec![Some(core)], ..SwitchSettings::new(FLOWS, work::secret()) };
        let switch = Arc::new(Switch::start(&settings).map_err(|e| e.to_string())?);
        let slow = SlowPath::start(switch.clone(), Settings::default()).map_err(|e| e.to_string())?;
        let wire = Arc::new(WireControl::default());
        let control = Arc::clone(&wire);
        let open = move || Ok(Box::new(Wire::new(control.clone())?) as _);
        switch.attach(Port::Uplink(0), Box::new(open)).map_err(|e| e.to_string())?;
        slow.handle().apply(config.snapshot.clone()).map_err(|e| e.to_string())?;
        for (id, vport) in &config.snapshot.vports {
            let path = dir.join(&vport.name);
            let open = move || Ok(Box::new(VhostUser::open(&path, pairs)?) as _);
            switch.attach(Port::Vport(*id), Box::new(open)).map_err(|e| e.to_string())?;
        }
        if traffic != Traffic::GuestToGuest {
            wait_for_next_hops(&slow.handle())?;
        }
        let thread = thread()?;
        Ok(CulvertSwitch { slow, switch, wire, thread })
    }

    /// Number of its connections.
    ///
    /// # Errors
    /// It has ended.
    pub fn connections(&self) -> Result<usize, String> {
        Ok(self.slow.handle().status().map_err(|e| e.to_string())?.connections)
    }

    /// Starts to measure the time of the switch's thread.
    ///
    /// # Errors
    /// There is no such thread.
    pub fn watch(&self) -> Result<Watch<'_>, String> {
        Watch::of(&self.thread)
    }

    /// Packets dropped so far, by reason.
    ///
    /// # Errors
    /// The switch has ended.
    pub fn drops(&self) -> Result<Vec<(String, u64)>, String> {
        let all = self.switch.drops().map_err(|e| e.to_string())?;
        Ok(all.into_iter().map(|(reason, n)| (reason.as_str().to_owned(), n)).collect())
    }
}

/// The example's policy with the addresses of the generated frames for the first network's two VMs, `a` and `b`.
fn policy(traffic: Traffic) -> Result<HostConfig, String> {
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
    for (n, (interface, here)) in interfaces.iter_mut().zip([traffic.sends(), traffic.receives()]).enumerate()
    {
        interface["resourceId"] = json!(["a", "b"][n]);
        let properties = &mut interface["properties"];
        let mac: String = work::MACS[n].iter().map(|byte| format!("{byte:02X}")).collect();
        properties["privateMacAddress"] = json!(mac);
        properties["server"]["resourceRef"] = json!(if here { "/servers/host1" } else { "/servers/host2" });
        let address = std::net::Ipv4Addr::from(work::PAIR[n]).to_string();
        properties["ipConfigurations"][0]["properties"]["privateIPAddress"] = json!(address);
    }
    config_of(&documents)
}

/// The switch's thread, found by its name.
fn thread() -> Result<PathBuf, String> {
    let tasks = fs::read_dir("/proc/self/task").map_err(|e| e.to_string())?;
    let named = |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|t| t.starts_with("switch"));
    tasks.flatten().map(|task| task.path()).find(named).ok_or_else(|| "no thread of the switch".to_owned())
}
