//! `culvert replay`: a capture through one host's policy and the core.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use culvert_api::{ErrorBody, Unknown};
use culvert_capture::{CaptureError, Captured, Reader, Writer};
use culvert_flow::{HashSecret, Port};
use culvert_model::{Fabric, HostConfig, Indices, Site, host_config};
use culvert_packet::VportId;
use serde::Serialize;

use super::policy;
use crate::args::{EngineKind, Replay};
use crate::error::Error;
use crate::output::show;
use crate::replay::{Host, NEXT_HOP, Replayed, Verdict};
use crate::table::{Table, layers, or_dash};

/// Secret of what outer headers show of inner flows. Always the same, so that a replay can be repeated.
const ENTROPY: HashSecret = HashSecret([0x0123_4567_89ab_cdef; 9]);

/// A capture that was replayed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    engine: &'static str,
    host: String,
    /// Where the frames came in.
    port: String,
    /// What stands for the MAC of every next hop.
    next_hop_mac: String,
    packets: Vec<Packet>,
    /// Where the capture ends in the middle of a frame; all whole frames before it were replayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_off: Option<String>,
}

/// A packet of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Packet {
    /// From 1 on, as in the capture.
    number: u64,
    /// Its length.
    bytes: usize,
    /// Its length before the capture cut it short.
    #[serde(skip_serializing_if = "Option::is_none")]
    original_bytes: Option<usize>,
    verdict: Verdict,
    reason: String,
    outputs: Vec<Output>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    trace: Vec<Hop>,
}

/// A frame that left.
#[derive(Serialize)]
struct Output {
    port: String,
    bytes: usize,
}

/// What one layer did.
#[derive(Serialize)]
struct Hop {
    layer: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    vport: Option<String>,
    rule: String,
    action: String,
}

/// The host's ports by their names, in the order of the output's interfaces.
struct Ports(Vec<(Port, String)>);

impl Ports {
    fn of(config: &HostConfig) -> Self {
        let uplinks = (0..Port::UPLINKS).map(|n| (Port::Uplink(n), format!("uplink{n}")));
        let vports = config.snapshot.vports.iter().map(|(id, v)| (Port::Vport(*id), v.name.clone()));
        Self(uplinks.chain(vports).collect())
    }

    /// Interface of the output and name.
    fn find(&self, port: Port) -> Option<(usize, &str)> {
        self.0.iter().position(|(p, _)| *p == port).map(|n| (n, self.0[n].1.as_str()))
    }
}

pub(super) fn run(replay: &Replay, json: bool) -> Result<String, Error> {
    let EngineKind::Core = replay.engine;
    let (fabric, ..) = policy::check(&policy::read(&replay.policy)?, Unknown::Refused)?;
    let config = config(fabric, &replay.host)?;
    let ports = Ports::of(&config);
    let input = match replay.uplink {
        Some(n) => Port::Uplink(n),
        None => vport(&config, &replay.host, replay.vport.as_deref().unwrap_or_default())?,
    };
    let mut host = Host::new(&config.snapshot).map_err(|e| {
        refused("TooLarge", format!("the NIC cannot take this policy: {e}"), "/", "make the policy smaller")
    })?;
    let (packets, cut_off) = packets(replay, &ports, input, &mut host)?;
    let report = Report {
        engine: "core",
        host: replay.host.clone(),
        port: ports.find(input).map(|(_, name)| name.to_owned()).unwrap_or_default(),
        next_hop_mac: NEXT_HOP.to_string(),
        packets,
        cut_off: cut_off.map(|error| error.to_string()),
    };
    Ok(show(&report, json, |report| render(report, replay)))
}

/// Replays the capture and writes what leaves. A capture whose last frame is cut off is replayed up to there, and the error
/// that says so is returned beside the packets.
fn packets(
    replay: &Replay,
    ports: &Ports,
    input: Port,
    host: &mut Host,
) -> Result<(Vec<Packet>, Option<CaptureError>), Error> {
    let unreadable = |source| Error::File { path: replay.input.clone(), source };
    let unwritable = |source| Error::File { path: replay.output.clone(), source };
    let broken = |problem| Error::Capture { path: replay.input.clone(), problem };
    let file = File::open(&replay.input).map_err(unreadable)?;
    let same = |there: std::fs::Metadata| {
        file.metadata().is_ok_and(|here| (here.dev(), here.ino()) == (there.dev(), there.ino()))
    };
    if std::fs::metadata(&replay.output).is_ok_and(same) {
        let (path, message) = (replay.output.display().to_string(), "--in and --out name the same file");
        return Err(refused("SameFile", message.to_owned(), &path, "write to another file"));
    }
    let mut reader = Reader::new(BufReader::new(file)).map_err(broken)?;
    let output = BufWriter::new(File::create(&replay.output).map_err(unwritable)?);
    let names = ports.0.iter().map(|(_, name)| name.as_str());
    let mut writer = Writer::new(output, names).map_err(unwritable)?;
    let (mut packets, mut first) = (Vec::new(), None);
    let cut_off = loop {
        let captured = match reader.next() {
            Ok(Some(captured)) => captured,
            Ok(None) => break None,
            Err(error) if error.is_cut_off() => break Some(error),
            Err(error) => return Err(broken(error)),
        };
        let first = *first.get_or_insert(captured.time);
        let ms = captured.time.saturating_sub(first) / 1_000_000;
        let replayed = host.replay(input, &captured.frame, ms, replay.trace);
        let packet = describe(packets.len() as u64 + 1, &captured, &replayed, ports);
        let comment = format!("packet {}: {} {}", packet.number, packet.verdict.as_str(), packet.reason);
        for (port, frame) in &replayed.outputs {
            if let Some((interface, _)) = ports.find(*port) {
                writer.frame(interface, captured.time, frame, comment.trim_end()).map_err(unwritable)?;
            }
        }
        packets.push(packet);
    };
    writer.flush().map_err(unwritable)?;
    Ok((packets, cut_off))
}

fn describe(number: u64, captured: &Captured, replayed: &Replayed, ports: &Ports) -> Packet {
    let name = |port: Port| ports.find(port).map(|(_, name)| name.to_owned()).unwrap_or_default();
    let outputs =
        replayed.outputs.iter().map(|(port, frame)| Output { port: name(*port), bytes: frame.len() });
    let trace = replayed.layers.iter().map(|step| Hop {
        layer: step.layer.as_str(),
        vport: step.vport.map(|id| name(Port::Vport(id))),
        rule: step.rule.clone(),
        action: step.action.clone(),
    });
    let bytes = captured.frame.len();
    Packet {
        number,
        bytes,
        original_bytes: Some(captured.original).filter(|original| *original != bytes),
        verdict: replayed.verdict,
        reason: replayed.reason.map(|r| r.as_str().to_owned()).unwrap_or_default(),
        outputs: outputs.collect(),
        trace: trace.collect(),
    }
}

/// The configuration of one host without a NIC.
fn config(fabric: Fabric, host: &str) -> Result<HostConfig, Error> {
    let site = Site { host: host.to_owned(), entropy: ENTROPY, vfs: 0, vmqs: 0 };
    let config = host_config(Arc::new(fabric), &site, &mut Indices::default())
        .map_err(|e| refused("TooLarge", e.to_string(), &format!("/servers/{host}"), e.remedy()))?;
    if config.host.is_none() {
        let known: Vec<&str> = config.fabric.hosts.iter().map(|h| h.name.as_str()).collect();
        let message = format!("the policy has no server \"{host}\"");
        return Err(refused("UnknownHost", message, host, one_of(&known)));
    }
    Ok(config)
}

/// The vport of a network interface.
fn vport(config: &HostConfig, host: &str, name: &str) -> Result<Port, Error> {
    let here = config.snapshot.vports.iter().find(|(_, v)| v.name.eq_ignore_ascii_case(name));
    if let Some((id, _)) = here {
        return Ok(Port::Vport(VportId(id.0)));
    }
    let known: Vec<&str> = config.snapshot.vports.values().map(|v| v.name.as_str()).collect();
    let elsewhere = config.fabric.interfaces.iter().find(|i| i.name.eq_ignore_ascii_case(name));
    let message = match elsewhere.map(|i| i.host.and_then(|n| config.fabric.hosts.get(n))) {
        None => format!("the policy has no network interface \"{name}\""),
        Some(None) => format!("the network interface \"{name}\" is on no server"),
        Some(Some(server)) => {
            format!("the network interface \"{name}\" is on {}, not on {host}", server.name)
        }
    };
    Err(refused("UnknownPort", message, name, one_of(&known)))
}

fn one_of(known: &[&str]) -> String {
    if known.is_empty() { "there are none".to_owned() } else { format!("use one of {}", known.join(", ")) }
}

fn refused(code: &str, message: String, target: &str, remedy: impl Into<String>) -> Error {
    Error::Refused(Box::new(ErrorBody::new(code, message, target, remedy)))
}

/// Writing to a string cannot fail; its results are dropped for that reason.
fn render(report: &Report, replay: &Replay) -> String {
    let mut table = Table::new(["packet", "bytes", "verdict", "reason", "out"]);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut out = String::new();
    for p in &report.packets {
        *counts.entry(p.verdict.as_str()).or_default() += 1;
        let outputs: Vec<String> = p.outputs.iter().map(|o| format!("{} ({})", o.port, o.bytes)).collect();
        let bytes = match p.original_bytes {
            Some(original) => format!("{} of {original}", p.bytes),
            None => p.bytes.to_string(),
        };
        table.row([
            p.number.to_string(),
            bytes,
            p.verdict.as_str().to_owned(),
            or_dash(&p.reason),
            or_dash(&outputs.join(", ")),
        ]);
        if !p.trace.is_empty() {
            let _ = writeln!(out, "\npacket {}", p.number);
            let rows = p.trace.iter().map(|hop| {
                let vport = hop.vport.clone().unwrap_or_default();
                [hop.layer.to_owned(), vport, hop.rule.clone(), hop.action.clone()]
            });
            out.push_str(&layers(rows).render(""));
        }
    }
    let counts: Vec<String> = counts.iter().map(|(verdict, n)| format!("{n} {verdict}")).collect();
    let _ = writeln!(
        out,
        "\n{} packets into {} of {}: {}; what left is in {}",
        report.packets.len(),
        report.port,
        report.host,
        or_dash(&counts.join(", ")),
        replay.output.display()
    );
    if let Some(cut_off) = &report.cut_off {
        let _ = writeln!(
            out,
            "the capture ends in the middle of a frame, which is left out: {cut_off}\n-> capture again, or copy the file again: \
             its end is missing"
        );
    }
    table.render("the capture has no frames") + &out
}
