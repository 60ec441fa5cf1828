//! `culvert flows`: shows flows and those who send most, and deletes flow records.

use std::collections::HashMap;
use std::fmt::Write;

use culvert_api::view::{FlowView, FlushReply, TalkerView};

use super::watch::{self, Before, rate};
use crate::args::{Filter, FlowCommand, Flows, Order, State};
use crate::client::Client;
use crate::error::Error;
use crate::output::show;
use crate::table::{Table, number_or_dash};

pub(super) fn run(flows: &Flows, client: &Client, json: bool) -> Result<String, Error> {
    if let Some(FlowCommand::Flush { filter, all }) = &flows.command {
        let mut query = query(filter);
        if *all {
            query.push(("all", "true".to_owned()));
        }
        let reply: FlushReply = client.delete(&path("flows", &query))?;
        return Ok(show(&reply, json, |reply| format!("{} flow records deleted\n", reply.flushed)));
    }
    let mut query = query(&flows.filter);
    if let Some(order) = flows.sort {
        let order = match order {
            Order::Bytes => "bytes",
            Order::Packets => "packets",
            Order::Idle => "idle",
        };
        query.push(("sort", order.to_owned()));
    }
    if let Some(most) = flows.top {
        query.push(("limit", most.to_string()));
        return watch::view(&path("talkers", &query), flows.watch, client, json, |talkers, before| {
            talker_table(talkers, before.as_ref())
        });
    }
    query.push(("limit", flows.limit.to_string()));
    watch::view(&path("flows", &query), flows.watch, client, json, |view: &Vec<FlowView>, before| {
        flow_table(view, flows.limit, before.as_ref())
    })
}

fn query(filter: &Filter) -> Vec<(&'static str, String)> {
    let state = filter.state.map(|state| match state {
        State::Pending => "pending",
        State::Offloaded => "offloaded",
        State::Software => "software",
    });
    let all = [
        ("vport", filter.vport.map(|n| n.to_string())),
        ("vsid", filter.vsid.map(|n| n.to_string())),
        ("address", filter.address.clone()),
        ("port", filter.port.map(|n| n.to_string())),
        ("protocol", filter.protocol.clone()),
        ("state", state.map(str::to_owned)),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// A path with its query; what is not allowed in one is escaped (RFC 3986 section 2.1).
fn path(view: &str, query: &[(&str, String)]) -> String {
    let mut path = format!("/culvert/v1/{view}");
    for (n, (name, value)) in query.iter().enumerate() {
        let _ = write!(path, "{}{name}=", if n == 0 { '?' } else { '&' });
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b':' | b'/' => {
                    path.push(byte.into());
                }
                byte => drop(write!(path, "%{byte:02X}")),
            }
        }
    }
    path
}

/// What tells a flow from others.
type Ends<'f> = (&'f str, Option<u16>, u32, [&'f str; 5], [u16; 2]);

fn ends(f: &FlowView) -> Ends<'_> {
    let names =
        [&f.source_mac, &f.destination_mac, &f.source, &f.destination, &f.protocol].map(String::as_str);
    (&f.direction, f.vport, f.vsid, names, [f.source_port, f.destination_port])
}

fn flow_table(flows: &[FlowView], most: usize, before: Option<&Before<'_, Vec<FlowView>>>) -> String {
    let [packets, bytes] = if before.is_some() { ["packets/s", "bit/s"] } else { ["packets", "bytes"] };
    let mut table = Table::new([
        "dir",
        "vport",
        "VSID",
        "proto",
        "source",
        "destination",
        "state",
        packets,
        bytes,
        "idle s",
        "action",
    ]);
    let old: HashMap<Ends<'_>, &FlowView> =
        before.iter().flat_map(|b| b.view).map(|flow| (ends(flow), flow)).collect();
    for f in flows {
        let [packets, bytes] = match before {
            None => [f.packets.to_string(), f.bytes.to_string()],
            Some(before) => {
                let old = old.get(&ends(f));
                let of = |now: u64, then: Option<u64>| {
                    then.map_or_else(|| "-".to_owned(), |then| rate(now, then, before.seconds))
                };
                let bits = |bytes: u64| bytes.wrapping_mul(8);
                [of(f.packets, old.map(|o| o.packets)), of(bits(f.bytes), old.map(|o| bits(o.bytes)))]
            }
        };
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
            packets,
            bytes,
            format!("{}.{}", f.idle_ms / 1000, f.idle_ms % 1000 / 100),
            f.action.clone(),
        ]);
    }
    let mut out = table.render("no flows");
    if flows.len() >= most {
        let _ = writeln!(out, "the first {most}; more with --limit");
    }
    out
}

fn talker_table(talkers: &Vec<TalkerView>, before: Option<&Before<'_, Vec<TalkerView>>>) -> String {
    let Some(before) = before else {
        let mut table = Table::new(["VSID", "source", "flows", "packets", "bytes"]);
        for t in talkers {
            let numbers = [t.flows, t.packets, t.bytes].map(|n| n.to_string());
            let [flows, packets, bytes] = numbers;
            table.row([t.vsid.to_string(), t.source.clone(), flows, packets, bytes]);
        }
        return table.render("no flows");
    };
    let mut table = Table::new(["VSID", "source", "flows", "packets", "bytes", "packets/s", "bit/s"]);
    for t in talkers {
        let old = before.view.iter().find(|o| (o.vsid, &o.source) == (t.vsid, &t.source));
        let of = |now: u64, then: Option<u64>| {
            then.map_or_else(|| "-".to_owned(), |then| rate(now, then, before.seconds))
        };
        let bits = |bytes: u64| bytes.wrapping_mul(8);
        table.row([
            t.vsid.to_string(),
            t.source.clone(),
            t.flows.to_string(),
            t.packets.to_string(),
            t.bytes.to_string(),
            of(t.packets, old.map(|o| o.packets)),
            of(bits(t.bytes), old.map(|o| bits(o.bytes))),
        ]);
    }
    table.render("no flows")
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
        let text = flow_table(&[flow("ICMP", 8, 77), flow("TCP", 40_000, 80)], 2, None);
        assert!(text.contains("ICMP 8 id 77  10.1.1.11        10.1.1.12 "), "{text}");
        assert!(text.contains("TCP           10.1.1.11:40000  10.1.1.12:80 "), "{text}");
        assert!(text.ends_with("the first 2; more with --limit\n"), "{text}");
        assert!(!flow_table(&[flow("ICMP", 3, 1)], 2, None).contains("the first"));
    }

    #[test]
    fn filters_become_a_query() {
        let filter = Filter {
            address: Some("10.1.1.0/24".into()),
            protocol: Some("t&p".into()),
            state: Some(State::Software),
            ..Filter::default()
        };
        assert_eq!(
            path("flows", &query(&filter)),
            "/culvert/v1/flows?address=10.1.1.0/24&protocol=t%26p&state=software"
        );
        assert_eq!(path("flows", &query(&Filter::default())), "/culvert/v1/flows");
    }

    #[test]
    fn a_second_look_shows_rates_of_the_same_flow() {
        let flow = |source: &str, packets, bytes| FlowView {
            source: source.into(),
            protocol: "UDP".into(),
            packets,
            bytes,
            idle_ms: 2345,
            ..FlowView::default()
        };
        let old = vec![flow("10.1.1.11", 10, 1000)];
        let before = Before { view: &old, seconds: 2.0 };
        let text = flow_table(&[flow("10.1.1.12", 9, 900), flow("10.1.1.11", 30, 3000)], 9, Some(&before));
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1][5..], ["-", "-", "2.3"], "{text}");
        assert_eq!(lines[2][5..], ["10", "8000", "2.3"], "{text}");
    }
}
