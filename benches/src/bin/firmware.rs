//! Guest instructions per packet of the firmware, counted by the emulator (`-icount`): the same on every machine.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use culvert_abi::command::Op;
use culvert_abi::pf::OffloadBits;
use culvert_abi::regs::{MBOX_WORDS, mailbox};
use culvert_abi::soc::{BoardPort, Descriptor, ctrl};
use culvert_benches::work::{self, Kind};
use culvert_device::soc::Options;
use culvert_lockstep::firmware::Link;
use culvert_lockstep::soc::SocLink;
use zerocopy::IntoBytes;

/// Counts the firmware's instructions for each packet.
#[derive(Parser)]
struct Args {
    /// Print data instead of a table.
    #[arg(long)]
    json: bool,
    /// Packets in each measurement.
    #[arg(long, default_value_t = 20_000)]
    packets: u32,
    /// Flows in the table; packets belong to random ones.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 65_536])]
    flows: Vec<u32>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    let mut rows = Vec::new();
    if !args.json {
        println!("{:14} {:>6} {:>8} {:>20}", "work", "bytes", "flows", "instructions/packet");
    }
    for kind in Kind::ALL {
        for &flows in &args.flows {
            let mut link = prepare(kind, flows)?;
            for len in [64, 1500] {
                let instructions = measure(&mut link, kind, flows, len, args.packets)?;
                if args.json {
                    rows.push(serde_json::json!({
                        "work": kind.name(), "bytes": len, "flows": flows, "instructions": instructions }));
                } else {
                    println!("{:14} {len:6} {flows:8} {instructions:20.1}", kind.name());
                }
            }
        }
    }
    if args.json {
        println!("{}", serde_json::Value::Array(rows));
    }
    Ok(())
}

/// A firmware with its tables configured and `flows` flows installed.
fn prepare(kind: Kind, flows: u32) -> Result<SocLink, String> {
    let log2 = work::sizes(flows).flows.ilog2();
    let options = Options { flows_log2: log2, count_instructions: true, ..Options::default() };
    let mut link = SocLink::start(options)?;
    let mut request = [0; MBOX_WORDS];
    request[0] = mailbox::CONFIGURE;
    for (i, word) in work::secret().0.iter().enumerate() {
        request[1 + 2 * i] = *word as u32;
        request[2 + 2 * i] = (*word >> 32) as u32;
    }
    link.mailbox(&request)?;
    let (local, peer) = work::addresses();
    command(&mut link, Op::LocalSet, local.as_bytes())?;
    command(&mut link, Op::PeersSet, peer.as_bytes())?;
    command(&mut link, Op::VportSet, work::vport().as_bytes())?;
    command(&mut link, Op::TunnelSet, work::tunnel(kind.encap).as_bytes())?;
    let records: Vec<_> = (0..flows).map(|n| work::record(kind, n)).collect();
    for batch in records.chunks(9) {
        command(&mut link, Op::FlowInsert, batch.as_bytes())?;
    }
    Ok(link)
}

fn command(link: &mut SocLink, op: Op, payload: &[u8]) -> Result<(), String> {
    let descriptor = Descriptor { op: op as u8, cookie: 1, ..Descriptor::default() };
    link.send(descriptor, Some(payload))?;
    let answer = link.receive().ok_or("the firmware does not answer")?;
    match answer.descriptor.reason {
        0 => Ok(()),
        reason => Err(format!("{op:?} is refused: {reason}")),
    }
}

/// Instructions per packet, from reading a burst of descriptors to publishing the answers.
fn measure(link: &mut SocLink, kind: Kind, flows: u32, len: usize, packets: u32) -> Result<f64, String> {
    let port = if kind.decap { BoardPort::Uplink(0) } else { BoardPort::Vf(0) };
    let offload = OffloadBits {
        checksum: if kind.decap { OffloadBits::NONE } else { OffloadBits::VERIFIED },
        ..OffloadBits::default()
    };
    let before = (link.soc().word64(ctrl::BENCH_INSTRET), link.soc().word64(ctrl::BENCH_PACKETS));
    let (mut sent, mut done, mut order) = (0, 0, 1u32);
    while done < packets {
        // Full bursts, as under load.
        for _ in 0..512.min(packets - sent) {
            order = order.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let frame = work::frame(kind, (order >> 8) % flows, len);
            let descriptor = Descriptor {
                op: Op::Frame as u8,
                port: port.bits(),
                offload,
                now: 1,
                ..Descriptor::default()
            };
            link.push(&descriptor, Some(&frame)).ok_or("the ring is full")?;
            sent += 1;
        }
        link.soc().publish();
        while done < sent {
            let answer = link.receive().ok_or("the firmware does not answer")?;
            if answer.descriptor.op != Op::Transmit as u8 {
                return Err(format!("a packet was not forwarded: {:?}", answer.descriptor));
            }
            done += 1;
        }
    }
    let counted = |at: u64, before: u64, link: &mut SocLink| (link.soc().word64(at) - before) as f64;
    let instructions = counted(ctrl::BENCH_INSTRET, before.0, link);
    Ok(instructions / counted(ctrl::BENCH_PACKETS, before.1, link))
}
