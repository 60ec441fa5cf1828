//! `culvert trace`: one packet through the policy.

use std::fmt::Write;

use culvert_api::view::{TraceReply, TraceRequest, TraceTuple};

use crate::args::Trace;
use crate::client::Client;
use crate::error::Error;
use crate::output::show;
use crate::table::{layers, number_or_dash};

pub(super) fn run(packet: &Trace, client: &Client, json: bool) -> Result<String, Error> {
    let body = serde_json::to_string(&request(packet)).unwrap_or_default();
    let reply: TraceReply = client.post("/culvert/v1/trace", body)?;
    Ok(show(&reply, json, render))
}

fn request(packet: &Trace) -> TraceRequest {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let tuple = packet.frame.is_none().then(|| TraceTuple {
        source: text(&packet.from),
        destination: text(&packet.to),
        protocol: packet.protocol.as_str().to_owned(),
        source_port: packet.sport,
        destination_port: packet.dport,
        size: packet.size,
        source_mac: text(&packet.src_mac),
        destination_mac: text(&packet.dst_mac),
    });
    TraceRequest { port: packet.port.clone(), frame: text(&packet.frame), tuple }
}

/// Writing to a string cannot fail; its results are dropped for that reason.
fn render(reply: &TraceReply) -> String {
    let rows = reply
        .layers
        .iter()
        .map(|hop| [hop.layer.clone(), number_or_dash(hop.vport), hop.rule.clone(), hop.action.clone()]);
    let mut out = layers(rows).render("no layer was asked");
    let _ = writeln!(out, "verdict: {}", reply.verdict.as_str());
    if !reply.reason.is_empty() {
        let _ = writeln!(out, "reason:  {}", reply.reason);
    }
    reply.outputs.iter().for_each(|o| {
        let _ = writeln!(out, "out:     {o}");
    });
    reply.actions.iter().for_each(|a| {
        let _ = writeln!(out, "does:    {a}");
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use culvert_api::view::{TraceHop, Verdict};

    #[test]
    fn every_layer_is_a_line() {
        let hop = |layer: &str, rule: &str, action: &str| TraceHop {
            layer: layer.into(),
            vport: Some(3),
            rule: rule.into(),
            action: action.into(),
        };
        let reply = TraceReply {
            verdict: Verdict::Drop,
            reason: "acl_deny".into(),
            layers: vec![hop("source", "", "accept"), hop("acl", "no-telnet/deny-telnet", "deny")],
            ..TraceReply::default()
        };
        let text = render(&reply);
        assert!(text.contains("acl         3  no-telnet/deny-telnet  deny"), "{text}");
        assert!(text.ends_with("verdict: drop\nreason:  acl_deny\n"), "{text}");
    }
}
