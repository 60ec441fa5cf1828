//! The views of the running host as tables.

use std::fmt::Write;

use culvert_api::view::{HealthView, MappingView, NicInfo, RuleView};

use crate::args::Nic;
use crate::client::Client;
use crate::error::Error;
use crate::output::show;
use crate::table::{Table, number_or_dash, or_dash};

pub(super) fn nic(command: Nic, client: &Client, json: bool) -> Result<String, Error> {
    let nic: NicInfo = client.get("/culvert/v1/nic")?;
    Ok(match command {
        Nic::List => show(&vec![nic], json, |nics| nic_list(nics)),
        Nic::Show => show(&nic, json, nic_details),
    })
}

/// Says that a view is not of now.
pub(super) fn stale(age: Option<u64>) -> String {
    age.map_or_else(String::new, |s| {
        format!("as of {s} s ago: the NIC does not answer now; see `culvert health`\n")
    })
}

fn nic_list(nics: &[NicInfo]) -> String {
    let mut table = Table::new(["location", "id", "device", "driver", "firmware", "links", "VFs", "flows"]);
    for nic in nics {
        let links: Vec<&str> = nic.uplinks.iter().map(|u| if u.link { "up" } else { "down" }).collect();
        table.row([
            nic.location.clone(),
            nic_id(nic),
            nic_name(nic),
            nic.driver.clone(),
            match nic.firmware.alive {
                true => or_dash(&nic.firmware.version),
                false => "dead".to_owned(),
            },
            links.join(","),
            format!("{}/{}", nic.num_vfs, nic.total_vfs),
            format!("{}/{}", nic.flows, nic.flow_capacity),
        ]);
    }
    table.render("no NIC")
}

fn nic_name(nic: &NicInfo) -> String {
    format!("{} {}", nic.vendor, nic.device).trim().to_owned()
}

fn nic_id(nic: &NicInfo) -> String {
    format!("{:04x}:{:04x}", nic.vendor_id, nic.device_id)
}

/// Writing to a string cannot fail; its results are dropped for that reason.
fn nic_details(nic: &NicInfo) -> String {
    let mut out = stale(nic.stale_s);
    if !nic.problem.is_empty() {
        let _ = writeln!(out, "problem   {}", nic.problem);
    }
    // The switch is not a PCI device.
    let hardware = nic.vendor_id != 0;
    if hardware {
        let _ = writeln!(out, "{} ({}) at {}", nic_name(nic), nic_id(nic), nic.location);
        let _ = writeln!(out, "driver    {}", nic.driver);
        let firmware = &nic.firmware;
        let alive = if firmware.alive { "answers" } else { "does not answer" };
        let _ = writeln!(
            out,
            "firmware  {}, interface {}, {alive}, boot {}, heartbeat {}",
            firmware.version, firmware.abi, firmware.boot_epoch, firmware.heartbeat
        );
    } else {
        let _ = writeln!(out, "{} on {}", nic_name(nic), nic.location);
    }
    for uplink in &nic.uplinks {
        let link = if uplink.link { "up" } else { "down" };
        let mtu = uplink.mtu.map_or_else(String::new, |mtu| format!(", MTU {mtu}"));
        let needed = uplink.needed_mtu.map_or_else(String::new, |needed| format!(" of {needed} needed"));
        let _ = writeln!(
            out,
            "uplink {}  {}, link {link}, provider address {}, {}{mtu}{needed}",
            uplink.uplink,
            or_dash(&uplink.mac),
            or_dash(&uplink.provider_address),
            uplink.state.as_str()
        );
        if !uplink.state_reason.is_empty() {
            let _ = writeln!(out, "          {}", uplink.state_reason);
        }
    }
    if hardware {
        let _ = writeln!(out, "VFs       {} of {}", nic.num_vfs, nic.total_vfs);
        let _ = writeln!(out, "VMQs      {}", nic.vmqs);
    }
    let _ = writeln!(out, "flows     {} of {}", nic.flows, nic.flow_capacity);
    let mut table = Table::new(["offload", "by the NIC", "why not, or what limits it"]);
    for offload in &nic.offloads {
        let by = if offload.offloaded { "yes" } else { "no" };
        table.row([offload.feature.clone(), by.to_owned(), or_dash(&offload.reason)]);
    }
    out + &table.render("nothing is offloaded")
}

pub(super) fn rules(client: &Client, json: bool) -> Result<String, Error> {
    let rules: Vec<RuleView> = client.get("/culvert/v1/rules")?;
    Ok(show(&rules, json, |rules| {
        let mut table = Table::new(["list", "direction", "priority", "rule", "action", "hits"]);
        for r in rules {
            table.row([
                r.list.clone(),
                r.direction.clone(),
                number_or_dash(r.priority),
                r.rule.clone(),
                r.action.clone(),
                r.hits.to_string(),
            ]);
        }
        table.render("no access control lists")
    }))
}

pub(super) fn mappings(client: &Client, json: bool) -> Result<String, Error> {
    let mappings: Vec<MappingView> = client.get("/culvert/v1/mappings")?;
    Ok(show(&mappings, json, |mappings| {
        let mut table =
            Table::new(["network", "VSID", "address", "MAC", "server", "provider addresses", "vport"]);
        for m in mappings {
            table.row([
                m.virtual_network.clone(),
                m.vsid.to_string(),
                m.ca.clone(),
                m.mac.clone(),
                or_dash(&m.server),
                or_dash(&m.pas.join(",")),
                number_or_dash(m.vport),
            ]);
        }
        table.render("no mappings")
    }))
}

pub(super) fn health(client: &Client, json: bool) -> Result<String, Error> {
    let health = client.health()?;
    let text = show(&health, json, health_text);
    if health.ok { Ok(text) } else { Err(Error::Shown { text }) }
}

fn health_text(h: &HealthView) -> String {
    let firmware = match h.firmware_alive {
        None => "",
        Some(true) => ", firmware answers",
        Some(false) => ", firmware does not answer",
    };
    let mut out = format!(
        "{}: culvertd {} on {}, up {} s, policy {} applied, {} desired{firmware}\n",
        if h.ok { "ok" } else { "not ok" },
        h.version,
        h.host,
        h.uptime_s,
        h.applied_version,
        h.desired_version,
    );
    h.problems.iter().for_each(|p| out.push_str(&format!("  * {p}\n")));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nic_whose_vendor_is_in_its_name() {
        let (vendor_id, device) = (0x1b36, "Red Hat, Inc. device 10f0".into());
        let nic = NicInfo { vendor_id, device, ..NicInfo::default() };
        assert!(nic_details(&nic).starts_with("Red Hat, Inc. device 10f0 (1b36:0000) at "));
    }

    #[test]
    fn software_has_no_firmware_and_no_functions() {
        let nic = NicInfo { device: "software switch".into(), location: "eth0".into(), ..NicInfo::default() };
        let text = nic_details(&nic);
        assert!(text.starts_with("software switch on eth0\nflows "), "{text}");
    }
}
