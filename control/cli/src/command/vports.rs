//! `culvert vport`.

use std::collections::HashMap;
use std::fmt::Write;

use culvert_api::ErrorBody;
use culvert_api::view::{PortCounters, VportState, VportView};

use super::views::stale;
use super::watch::{self, Before, rate, short};
use crate::args::{Output, Vport};
use crate::client::Client;
use crate::error::Error;
use crate::output::show;
use crate::table::{Table, or_dash};

/// Where the daemon has them.
const PATH: &str = "/culvert/v1/vports";
/// Columns of the list, unless it is a wide one.
const WIDTH: usize = 100;

pub(super) fn run(command: &Vport, client: &Client, json: bool) -> Result<String, Error> {
    match command {
        Vport::List { output, watch } => {
            watch::view(PATH, *watch, client, json, |vports: &Vec<VportView>, before| match output {
                Output::Table => list(vports, before.as_ref()),
                Output::Wide => wide(vports, before.as_ref()),
            })
        }
        Vport::Show { vport } => {
            let vports: Vec<VportView> = client.get(PATH)?;
            Ok(show(find(&vports, vport)?, json, details))
        }
    }
}

/// The vport with this number, or of this network interface.
fn find<'v>(vports: &'v [VportView], wanted: &str) -> Result<&'v VportView, Error> {
    let by_number = vports.iter().find(|v| wanted.parse() == Ok(v.id));
    let by_name = || vports.iter().find(|v| v.name.eq_ignore_ascii_case(wanted));
    by_number.or_else(by_name).ok_or_else(|| {
        let message = format!("there is no vport \"{wanted}\" on this host");
        let remedy = "use a number or an interface that `culvert vport list` shows";
        Error::Refused(Box::new(ErrorBody::new("NotFound", message, wanted, remedy)))
    })
}

/// What serves a vport: `vf 3`.
fn served(v: &VportView) -> String {
    let mut served = v.served_by.as_str().to_owned();
    if let Some(n) = v.vf.or(v.vmq).or(v.worker) {
        let _ = write!(served, " {n}");
    }
    served
}

/// The cells for packets in, packets out and drops.
fn cells(v: &VportView, before: Option<&(HashMap<u16, &PortCounters>, f64)>) -> [String; 3] {
    let c = &v.counters;
    let Some((before, seconds)) = before else { return [c.in_packets, c.out_packets, c.drops].map(short) };
    let Some(o) = before.get(&v.id) else { return ["-"; 3].map(str::to_owned) };
    [(c.in_packets, o.in_packets), (c.out_packets, o.out_packets), (c.drops, o.drops)]
        .map(|(now, then)| rate(now, then, *seconds))
}

fn counters_before<'v>(
    before: Option<&Before<'v, Vec<VportView>>>,
) -> Option<(HashMap<u16, &'v PortCounters>, f64)> {
    before.map(|b| (b.view.iter().map(|v| (v.id, &v.counters)).collect(), b.seconds))
}

fn heads(rates: bool) -> [&'static str; 3] {
    if rates { ["in/s", "out/s", "drops/s"] } else { ["in", "out", "drops"] }
}

/// Vports whose reasons the list has.
const REASONS: usize = 10;
const NONE: &str = "no vports: the policy places no network interface on this host";

fn list(vports: &[VportView], before: Option<&Before<'_, Vec<VportView>>>) -> String {
    let before = counters_before(before);
    let [input, output, drops] = heads(before.is_some());
    let mut table =
        Table::new(["vport", "interface", "VSID", "addresses", "served by", "state", input, output, drops]);
    let mut other = false;
    for v in vports {
        let [input, output, drops] = cells(v, before.as_ref());
        let differs = v.served_by != v.requested;
        other |= differs;
        table.row([
            v.id.to_string(),
            v.name.clone(),
            v.vsid.to_string(),
            v.addresses.join(","),
            served(v) + if differs { " *" } else { "" },
            v.state.as_str().to_owned(),
            input,
            output,
            drops,
        ]);
    }
    let note = if other { "* not what the policy asks for: see -o wide\n" } else { "" };
    let mut out =
        stale(vports.iter().find_map(|v| v.stale_s)) + &table.render_within(WIDTH, &[1, 3], NONE) + note;
    let broken = |v: &&VportView| matches!(v.state, VportState::Opening | VportState::Failed);
    let mut broken = vports.iter().filter(broken);
    for v in broken.by_ref().take(REASONS) {
        let _ = writeln!(out, "vport {} is {}: {}", v.id, v.state.as_str(), v.state_reason);
    }
    if broken.next().is_some() {
        out += "and more: see -o wide\n";
    }
    out
}

fn wide(vports: &[VportView], before: Option<&Before<'_, Vec<VportView>>>) -> String {
    let before = counters_before(before);
    let [input, output, drops] = heads(before.is_some());
    let mut table = Table::new([
        "vport",
        "interface",
        "network",
        "VSID",
        "MAC",
        "addresses",
        "served by",
        "state",
        input,
        output,
        drops,
        "MTU",
        "uplink",
        "attach",
        "why not up",
    ]);
    for v in vports {
        let mut cells = cells(v, before.as_ref());
        if before.is_none() {
            let c = &v.counters;
            cells = [c.in_packets, c.out_packets, c.drops].map(|n| n.to_string());
        }
        let [input, output, drops] = cells;
        let mut served = served(v);
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
            input,
            output,
            drops,
            v.mtu.to_string(),
            v.uplink.to_string(),
            or_dash(&v.attachment),
            or_dash(&v.state_reason),
        ]);
    }
    stale(vports.iter().find_map(|v| v.stale_s)) + &table.render(NONE)
}

/// Writing to a string cannot fail; its results are dropped for that reason.
fn details(v: &VportView) -> String {
    let mut out = stale(v.stale_s);
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:<12}{}", or_dash(value));
    };
    line("vport", &v.id.to_string());
    line("interface", &v.name);
    line("network", &v.virtual_network);
    line("VSID", &v.vsid.to_string());
    line("RDID", &v.rdid);
    line("MAC", &v.mac);
    line("addresses", &v.addresses.join(", "));
    line("served by", &served(v));
    if v.served_by != v.requested {
        line("asked for", &format!("{}: {}", v.requested.as_str(), v.reason));
    }
    line("state", v.state.as_str());
    if !v.state_reason.is_empty() {
        line("because", &v.state_reason);
    }
    line("attach", &v.attachment);
    line("MTU", &v.mtu.to_string());
    line("uplink", &v.uplink.to_string());
    line("generation", &v.generation.to_string());
    let c = &v.counters;
    line("in", &format!("{} packets, {} bytes", c.in_packets, c.in_bytes));
    line("out", &format!("{} packets, {} bytes", c.out_packets, c.out_bytes));
    line("drops", &c.drops.to_string());
    for (reason, count) in &v.drop_reasons {
        line("", &format!("{count} {reason}"));
    }
    let known: u64 = v.drop_reasons.values().sum();
    if known < c.drops && v.vf.or(v.vmq).is_some() {
        line(
            "",
            &format!(
                "{} counted by the NIC, which knows the reasons of all vports together: see `culvert drops`",
                c.drops - known
            ),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use culvert_api::Offload;

    use super::*;

    fn vport(id: u16, name: &str) -> VportView {
        VportView {
            id,
            name: name.into(),
            vsid: 16_777_214,
            addresses: vec!["10.1.1.11".into(), "2001:db8:1234:5678:9abc:def0:1234:5678".into()],
            requested: Offload::Vf,
            served_by: Offload::Software,
            worker: Some(63),
            counters: PortCounters {
                in_packets: u64::MAX,
                out_packets: 123_456,
                drops: 9,
                ..PortCounters::default()
            },
            drop_reasons: [("acl_deny".to_owned(), 9)].into(),
            ..VportView::default()
        }
    }

    #[test]
    fn the_list_has_at_most_100_columns() {
        let long = "a-network-interface-with-a-name-that-is-longer-than-a-line-of-a-terminal-has-columns";
        let text = list(&[vport(1023, long), vport(0, "web")], None);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.contains("a-net") && text.contains('…') && text.contains("software 63 *"), "{text}");
        assert!(text.contains(" 123k ") && text.ends_with("see -o wide\n"), "{text}");
        let all = wide(&[vport(1023, long)], None);
        assert!(all.contains(long) && all.contains("18446744073709551615"), "{all}");
    }

    #[test]
    fn a_vport_is_found_by_number_and_by_name() {
        let vports = [vport(3, "web"), vport(5, "7"), vport(7, "sql")];
        assert_eq!(find(&vports, "3").unwrap().name, "web");
        assert_eq!(find(&vports, "SQL").unwrap().id, 7);
        assert_eq!(find(&vports, "7").unwrap().id, 7, "a number is a number");
        let error = find(&vports, "db").unwrap_err().text();
        assert!(error.contains("\"db\"") && error.contains("vport list"), "{error}");
        let text = details(&vports[0]);
        assert!(text.contains("drops       9\n") && text.contains("9 acl_deny\n"), "{text}");
    }

    #[test]
    fn a_second_look_shows_packets_per_second() {
        let mut later = vport(0, "web");
        later.counters.out_packets += 500;
        let before = vec![vport(0, "web")];
        let text = list(&[later], Some(&Before { view: &before, seconds: 5.0 }));
        let last: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(last[last.len() - 3..], ["0", "100", "0"], "{text}");
    }
}
