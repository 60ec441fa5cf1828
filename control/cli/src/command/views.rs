//! The views of the running host as tables.

use std::fmt::Write;

use culvert_api::view::{
    CountersView, DropsView, FlowView, HealthView, MappingView, NicInfo, PortCounters, VportView,
};

use crate::args::{Flows, Nic};
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
fn stale(age: Option<u64>) -> String {
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
        let _ = writeln!(
            out,
            "uplink {}  {}, link {link}, provider address {}",
            uplink.uplink,
            or_dash(&uplink.mac),
            or_dash(&uplink.provider_address)
        );
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

pub(super) fn vports(client: &Client, json: bool) -> Result<String, Error> {
    let vports: Vec<VportView> = client.get("/culvert/v1/vports")?;
    Ok(show(&vports, json, |vports| {
        let mut table = Table::new([
            "vport",
            "interface",
            "network",
            "VSID",
            "MAC",
            "addresses",
            "served by",
            "state",
            "in",
            "out",
            "drops",
            "attach",
        ]);
        for v in vports {
            let mut served = v.served_by.as_str().to_owned();
            if let Some(n) = v.vf.or(v.vmq).or(v.worker) {
                let _ = write!(served, " {n}");
            }
            if v.served_by != v.requested {
                let _ = write!(served, ", not {}: {}", v.requested.as_str(), v.reason);
            }
            table.row([
                v.id.to_string(),
                v.name.clone(),
                v.virtual_network.clone(),
                v.vsid.to_string(),
                v.mac.clone(),
                v.addresses.join(","),
                served,
                v.state.as_str().to_owned(),
                v.counters.in_packets.to_string(),
                v.counters.out_packets.to_string(),
                v.counters.drops.to_string(),
                or_dash(&v.attachment),
            ]);
        }
        let age = vports.iter().find_map(|v| v.stale_s);
        stale(age) + &table.render("no vports: the policy places no network interface on this host")
    }))
}

pub(super) fn flows(query: &Flows, client: &Client, json: bool) -> Result<String, Error> {
    let mut path = format!("/culvert/v1/flows?limit={}", query.limit);
    if let Some(vport) = query.vport {
        let _ = write!(path, "&vport={vport}");
    }
    if let Some(vsid) = query.vsid {
        let _ = write!(path, "&vsid={vsid}");
    }
    let flows: Vec<FlowView> = client.get(&path)?;
    let most = query.limit;
    Ok(show(&flows, json, |flows| flow_table(flows, most)))
}

fn flow_table(flows: &[FlowView], most: usize) -> String {
    let head =
        ["dir", "vport", "VSID", "proto", "source", "destination", "state", "packets", "bytes", "action"];
    let mut table = Table::new(head);
    for f in flows {
        let icmp = f.protocol.starts_with("ICMP");
        let end = |address: &str, mac: &str, port: u16| match (address, port) {
            ("", _) => mac.to_owned(),
            (address, _) if icmp => address.to_owned(),
            (address, 0) => address.to_owned(),
            (address, port) if address.contains(':') => format!("[{address}]:{port}"),
            (address, port) => format!("{address}:{port}"),
        };
        // ICMP has its type in place of the source port, and its code or an echo's identifier in place of the other.
        let protocol = match (f.protocol.as_str(), f.source_port) {
            ("ICMP", 0 | 8) | ("ICMPv6", 128 | 129) => {
                format!("{} {} id {}", f.protocol, f.source_port, f.destination_port)
            }
            (name, kind) if icmp => format!("{name} {kind} code {}", f.destination_port),
            (name, _) => name.to_owned(),
        };
        let state = if f.not_offloaded.is_empty() {
            f.state.as_str().to_owned()
        } else {
            format!("{} ({})", f.state.as_str(), f.not_offloaded)
        };
        table.row([
            f.direction.clone(),
            number_or_dash(f.vport),
            f.vsid.to_string(),
            protocol,
            end(&f.source, &f.source_mac, f.source_port),
            end(&f.destination, &f.destination_mac, f.destination_port),
            state,
            f.packets.to_string(),
            f.bytes.to_string(),
            f.action.clone(),
        ]);
    }
    let mut out = table.render("no flows");
    if flows.len() >= most {
        let _ = writeln!(out, "the first {most}; more with --limit");
    }
    out
}

pub(super) fn counters(client: &Client, json: bool) -> Result<String, Error> {
    let counters: CountersView = client.get("/culvert/v1/counters")?;
    Ok(show(&counters, json, |counters| {
        let mut ports = Table::new(["port", "in packets", "in bytes", "out packets", "out bytes", "drops"]);
        let mut add = |name: String, c: &PortCounters| {
            let numbers = [c.in_packets, c.in_bytes, c.out_packets, c.out_bytes, c.drops];
            let [a, b, c, d, e] = numbers.map(|n| n.to_string());
            ports.row([name, a, b, c, d, e]);
        };
        counters.vports.iter().for_each(|(name, c)| add(format!("vport {name}"), c));
        counters.uplinks.iter().for_each(|(name, c)| add(name.clone(), c));
        let mut workers = Table::new(["worker", "vports", "busy s"]);
        for (worker, c) in &counters.workers {
            let busy = format!("{}.{:03}", c.busy_ms / 1000, c.busy_ms % 1000);
            workers.row([worker.to_string(), c.vports.to_string(), busy]);
        }
        let workers =
            if counters.workers.is_empty() { String::new() } else { format!("{}\n", workers.render("")) };
        let mut others = Table::new(["counter", "value"]);
        for (part, values) in [("nic", &counters.nic), ("host", &counters.host)] {
            values.iter().for_each(|(name, value)| others.row([format!("{part} {name}"), value.to_string()]));
        }
        let age = stale(counters.stale_s);
        format!("{age}{}\n{workers}{}", ports.render("no ports"), others.render("no other counters"))
    }))
}

pub(super) fn drops(client: &Client, json: bool) -> Result<String, Error> {
    let drops: DropsView = client.get("/culvert/v1/drops")?;
    Ok(show(&drops, json, |drops| {
        let mut table = Table::new(["reason", "packets", "by", "meaning"]);
        for d in &drops.drops {
            table.row([d.reason.clone(), d.packets.to_string(), d.by.clone(), or_dash(&d.meaning)]);
        }
        stale(drops.stale_s) + &table.render("no drops")
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
    let health: HealthView = client.get("/culvert/v1/health")?;
    Ok(show(&health, json, |h| {
        let mut out = format!(
            "{}: culvertd {} on {}, up {} s, policy {} applied, {} desired, firmware {}\n",
            if h.ok { "ok" } else { "not ok" },
            h.version,
            h.host,
            h.uptime_s,
            h.applied_version,
            h.desired_version,
            if h.firmware_alive { "answers" } else { "does not answer" }
        );
        h.problems.iter().for_each(|p| out.push_str(&format!("  * {p}\n")));
        out
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_has_an_identifier_and_no_port() {
        let flow = |protocol: &str, source_port, destination_port| FlowView {
            protocol: protocol.into(),
            source: "10.1.1.11".into(),
            destination: "10.1.1.12".into(),
            source_port,
            destination_port,
            ..FlowView::default()
        };
        let text = flow_table(&[flow("ICMP", 8, 77), flow("TCP", 40_000, 80)], 2);
        assert!(text.contains("ICMP 8 id 77  10.1.1.11        10.1.1.12 "), "{text}");
        assert!(text.contains("TCP           10.1.1.11:40000  10.1.1.12:80 "), "{text}");
        assert!(text.ends_with("the first 2; more with --limit\n"), "{text}");
        assert!(!flow_table(&[flow("ICMP", 3, 1)], 2).contains("the first"));
    }

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
