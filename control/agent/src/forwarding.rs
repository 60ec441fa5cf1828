//! Whether this host forwards.

use crate::Agent;

impl Agent {
    /// Whether packets pass as the policy says, in one sentence. Other vports pass packets also while one has a fault, which
    /// health names.
    ///
    /// # Errors
    /// Why no packet passes, or not by this policy.
    pub(crate) fn forwards(&self) -> Result<String, String> {
        let current = self.current();
        let config =
            current.config.as_ref().ok_or("this version cannot use the stored policy: apply a new one")?;
        if let Some(problem) = &current.applied.problem {
            return Err(problem.to_string());
        }
        let nic = self.datapath().nic().map_err(|error| error.to_string())?;
        if !nic.firmware.alive {
            let problem = if nic.problem.is_empty() { "its firmware does not answer" } else { &nic.problem };
            return Err(format!("NIC {}: {problem}", nic.location));
        }
        if config.host.is_none() {
            return Ok("no policy for this host yet".to_owned());
        }
        if !nic.uplinks.is_empty() && nic.uplinks.iter().all(|uplink| !uplink.link) {
            return Err(format!("no uplink of {} has a link", nic.location));
        }
        Ok(format!("forwarding by policy version {}", current.applied.version))
    }
}
