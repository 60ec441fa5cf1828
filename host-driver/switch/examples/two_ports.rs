//! A switch on two ports in memory: installs the record of a flow, sends a frame into one port and takes it from the other.
//!
//! `cargo run -p culvert-switch --example two_ports`

use std::error::Error;
use std::time::{Duration, Instant};

use culvert_flow::record::{FlowHot, FlowRecord};
use culvert_flow::tables::Vport;
use culvert_flow::{HashSecret, Port, key};
use culvert_offload::{FlowTables as _, TableWrite};
use culvert_packet::craft::{self, Ends};
use culvert_packet::{MacAddr, VportId, parse};
use culvert_switch::{MemPort, Switch, SwitchSettings};

fn main() -> Result<(), Box<dyn Error>> {
    let frame = example()?;
    println!("port 1 sent a frame of {} bytes", frame.len());
    Ok(())
}

/// The frame that leaves by port 1.
pub(crate) fn example() -> Result<Vec<u8>, Box<dyn Error>> {
    // A switch with one worker, which is a thread, and two ports.
    let settings = SwitchSettings { buffers: 512, ..SwitchSettings::new(1 << 10, HashSecret([7; 9])) };
    let switch = Switch::start(&settings)?;
    let (first, second) = (MemPort::new()?, MemPort::new()?);
    switch.attach(Port::Vport(VportId(0)), first.opener())?;
    switch.attach(Port::Vport(VportId(1)), second.opener())?;

    // Two vports of one virtual subnet, and the record of a flow from the one to the other.
    let vport = |number| Vport {
        flags: Vport::PRESENT | Vport::UP,
        number,
        vsid: 5001,
        quota: 100,
        ..Vport::default()
    };
    switch.write(TableWrite::Vports(&[(0, vport(0)), (1, vport(1))]))?;
    let frame = datagram()?;
    let headers = parse(&frame).map_err(|reason| reason.as_str())?;
    let hot = FlowHot { out: Port::Vport(VportId(1)).bits(), ..FlowHot::default() };
    let key = key::outbound(VportId(0), &frame, &headers);
    switch.insert(&[FlowRecord { key, hot, ..FlowRecord::default() }])?;

    // A frame for a port that is not open yet is dropped.
    switch.wait_opened(Duration::from_secs(10))?;
    first.push(frame);
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        if let Some(frame) = second.pop() {
            return Ok(frame);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err("no frame left within 10 s".into())
}

/// A UDP datagram from the first VM to the second.
pub(crate) fn datagram() -> Result<Vec<u8>, Box<dyn Error>> {
    let ends = Ends {
        src_mac: MacAddr([0x00, 0x1d, 0xd8, 0x07, 0x00, 0x11]),
        dst_mac: MacAddr([0x00, 0x1d, 0xd8, 0x07, 0x00, 0x12]),
        src: [10, 1, 1, 11].into(),
        dst: [10, 1, 1, 12].into(),
    };
    let mut frame = vec![0; 128];
    let len = craft::udp(&mut frame, &ends, 40_000, 53, b"hello").map_err(|reason| reason.as_str())?;
    frame.truncate(len);
    Ok(frame)
}
