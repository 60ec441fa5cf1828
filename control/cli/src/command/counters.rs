//! Counters and drops.

use std::fmt::Write;

use culvert_api::view::{CountersView, DropEntry, DropsView, PortCounters, Usage};

use super::views::stale;
use super::watch::{self, Before, rate};
use crate::args::Watch;
use crate::client::Client;
use crate::error::Error;
use crate::table::{Table, or_dash};

pub(super) fn counters(watch: Watch, client: &Client, json: bool) -> Result<String, Error> {
    watch::view("/culvert/v1/counters", watch, client, json, |now: &CountersView, before| {
        let age = stale(now.stale_s);
        let ports = match before {
            None => port_table(now),
            Some(before) => port_rates(now, &before),
        };
        format!("{age}{}\n{}{}", ports.render("no ports"), worker_table(now), other_table(now))
    })
}

/// All ports by their names in the table.
fn ports(view: &CountersView) -> impl Iterator<Item = (String, &PortCounters)> {
    let vports = view.vports.iter().map(|(name, c)| (format!("vport {name}"), c));
    vports.chain(view.uplinks.iter().map(|(name, c)| (name.clone(), c)))
}

fn port_table(view: &CountersView) -> Table {
    let mut table = Table::new(["port", "in packets", "in bytes", "out packets", "out bytes", "drops"]);
    for (name, c) in ports(view) {
        let numbers = [c.in_packets, c.in_bytes, c.out_packets, c.out_bytes, c.drops];
        let [a, b, c, d, e] = numbers.map(|n| n.to_string());
        table.row([name, a, b, c, d, e]);
    }
    table
}

fn port_rates(view: &CountersView, before: &Before<'_, CountersView>) -> Table {
    let mut table = Table::new(["port", "in packets/s", "in bit/s", "out packets/s", "out bit/s", "drops/s"]);
    let old: std::collections::HashMap<String, &PortCounters> = ports(before.view).collect();
    let none = PortCounters::default();
    for (name, c) in ports(view) {
        let o = old.get(&name).copied().unwrap_or(&none);
        let of = |now, then| rate(now, then, before.seconds);
        table.row([
            name,
            of(c.in_packets, o.in_packets),
            of(c.in_bytes.wrapping_mul(8), o.in_bytes.wrapping_mul(8)),
            of(c.out_packets, o.out_packets),
            of(c.out_bytes.wrapping_mul(8), o.out_bytes.wrapping_mul(8)),
            of(c.drops, o.drops),
        ]);
    }
    table
}

fn worker_table(view: &CountersView) -> String {
    if view.workers.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["worker", "vports", "busy s", "flows", "buffers"]);
    for (worker, c) in &view.workers {
        let busy = format!("{}.{:03}", c.busy_ms / 1000, c.busy_ms % 1000);
        table.row([worker.to_string(), c.vports.to_string(), busy, of(c.flows), of(c.buffers)]);
    }
    format!("{}\n", table.render(""))
}

fn of(usage: Usage) -> String {
    format!("{} of {}", usage.used, usage.capacity)
}

fn other_table(view: &CountersView) -> String {
    let mut table = Table::new(["counter", "value"]);
    for (name, usage) in [("flows", view.flows), ("connections", view.connections)] {
        table.row([name.to_owned(), of(usage)]);
    }
    for (part, values) in [("nic", &view.nic), ("host", &view.host)] {
        values.iter().for_each(|(name, value)| table.row([format!("{part} {name}"), value.to_string()]));
    }
    table.render("")
}

pub(super) fn drops(watch: Watch, client: &Client, json: bool) -> Result<String, Error> {
    watch::view("/culvert/v1/drops", watch, client, json, |now: &DropsView, before| {
        stale(now.stale_s) + &drop_table(now, before.as_ref()).render("no drops")
    })
}

fn drop_table(view: &DropsView, before: Option<&Before<'_, DropsView>>) -> Table {
    let Some(before) = before else {
        let mut table = Table::new(["reason", "packets", "by", "meaning"]);
        for d in &view.drops {
            table.row([d.reason.clone(), d.packets.to_string(), d.by.clone(), or_dash(&meaning(d))]);
        }
        return table;
    };
    let mut table = Table::new(["reason", "packets", "per s", "by", "meaning"]);
    for d in &view.drops {
        let old = before.view.drops.iter().find(|o| (&o.reason, &o.by) == (&d.reason, &d.by));
        let per_s = rate(d.packets, old.map_or(0, |o| o.packets), before.seconds);
        table.row([d.reason.clone(), d.packets.to_string(), per_s, d.by.clone(), or_dash(&meaning(d))]);
    }
    table
}

/// The reason in a sentence, with the ports that frames were too long for.
fn meaning(drop: &DropEntry) -> String {
    let mut meaning = drop.meaning.clone();
    for port in &drop.ports {
        let limit = port.mtu.map_or_else(String::new, |mtu| format!(" (MTU {mtu})"));
        let _ = write!(meaning, " {}{limit}: {}.", port.port, port.packets);
    }
    meaning
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn a_second_look_shows_rates() {
        let port = |in_packets, in_bytes| PortCounters { in_packets, in_bytes, ..PortCounters::default() };
        let view = |counters| CountersView {
            vports: [("0 web".to_owned(), counters)].into(),
            ..CountersView::default()
        };
        let (old, new) = (view(port(100, 6000)), view(port(300, 18_000)));
        let text = port_rates(&new, &Before { view: &old, seconds: 2.0 }).render("");
        let last: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(last, ["vport", "0", "web", "100", "48000", "0", "0", "0"], "{text}");

        let entry = |packets| DropEntry {
            reason: "acl_deny".into(),
            packets,
            by: "nic".into(),
            ..DropEntry::default()
        };
        let drops = |packets| DropsView { drops: vec![entry(packets)], total: packets, stale_s: None };
        let text = drop_table(&drops(30), Some(&Before { view: &drops(10), seconds: 4.0 })).render("");
        assert_eq!(text, "reason    packets  per s  by   meaning\nacl_deny       30      5  nic  -\n");
    }
}
