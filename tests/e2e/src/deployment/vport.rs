//! Vports as the daemon lists them.

use std::path::PathBuf;

use serde_json::Value;

/// A vport, as `culvert vport list` shows it.
#[derive(Clone, Debug)]
pub struct VportInfo {
    /// Its number on its host.
    pub id: u16,
    /// The network interface's resource id.
    pub name: String,
    /// `up` or `down`.
    pub state: String,
    /// The VF's socket.
    pub socket: Option<PathBuf>,
    /// The vhost-user socket of a vport without a VF.
    pub vhost_user: Option<PathBuf>,
    /// The TAP of a vport without a VF.
    pub tap: Option<String>,
    /// The VM's MAC.
    pub mac: String,
    /// Largest IP packet.
    pub mtu: u16,
    /// The whole entry, as the daemon printed it.
    pub json: Value,
}

impl VportInfo {
    /// Reads an entry of the list.
    pub(super) fn from_json(v: &Value) -> Self {
        let attachment = v["attachment"].as_str();
        let by = |kind: &str| attachment?.strip_prefix(kind).map(str::to_owned);
        let socket = attachment.filter(|a| v["vf"].is_u64() && !a.is_empty());
        let text = |field: &str| v[field].as_str().unwrap_or_default().to_owned();
        let number = |field: &str| v[field].as_u64().unwrap_or_default() as u16;
        VportInfo {
            id: number("id"),
            name: text("name"),
            state: text("state"),
            socket: socket.map(PathBuf::from),
            vhost_user: by("vhost-user:").map(PathBuf::from),
            tap: by("tap:"),
            mac: text("mac"),
            mtu: number("mtu"),
            json: v.clone(),
        }
    }
}
