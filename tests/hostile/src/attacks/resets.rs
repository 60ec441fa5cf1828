//! Attacks by resets and by settings that change under traffic.

use std::io;

use super::frames::datagram;
use crate::guest::{Guest, Setup, Vmm};
use crate::memory::GUEST;
use crate::place::Place;
use crate::ring::{NEXT, WRITE};
use crate::vfio_user::command;
use crate::vhost_user::{request, state};

/// Resets the function, or stops the rings, with frames in flight, and starts them again.
pub fn reset_in_traffic(place: &Place) -> io::Result<String> {
    let mut resets = 0;
    while !place.is_over() {
        let mut guest = place.guest()?;
        for _ in 0..10 {
            guest.trickle(|| datagram(place, 7, 300))?;
            let which = place.random().below(3);
            match &mut guest.vmm {
                Vmm::Vfio(client) if which == 0 => client.call(command::RESET, &[], &[]).map(drop)?,
                // Function-level reset by the PCI Express capability, wherever it is, and by the device's status.
                Vmm::Vfio(_) => guest.register(0x14, &[0])?,
                Vmm::Vhost(client) => {
                    for ring in 0..2 {
                        client.ask(request::GET_VRING_BASE, &state(ring, 0))?;
                    }
                }
            }
            resets += 1;
            if which == 2 {
                break;
            }
            guest.start()?;
        }
    }
    Ok(format!("{resets} resets"))
}

/// Enables and disables queues as fast as it goes, while frames are offered.
pub fn on_and_off(place: &Place) -> io::Result<String> {
    let mut guest = place.guest()?;
    let mut changes = 0;
    while !place.is_over() {
        guest.trickle(|| datagram(place, 7, 300))?;
        if let Vmm::Vhost(client) = &mut guest.vmm {
            for ring in [0, 1, 0, 1] {
                client.call(request::SET_VRING_ENABLE, &state(ring, 0), &[])?;
                client.call(request::SET_VRING_ENABLE, &state(ring, 1), &[])?;
                changes += 1;
            }
        } else {
            for queue in 0..3_u16 {
                guest.register(0x16, &queue.to_le_bytes())?;
                guest.register(0x1c, &0_u16.to_le_bytes())?;
                guest.register(0x1c, &1_u16.to_le_bytes())?;
                changes += 1;
            }
            // Drops DRIVER_OK and sets it again.
            guest.register(0x14, &[0x0b])?;
            guest.register(0x14, &[0x0f])?;
        }
        guest.recycle()?;
    }
    Ok(format!("{changes} changes"))
}

/// Takes other features while the rings run, and comes back with others.
pub fn other_features(place: &Place) -> io::Result<String> {
    let mut changes = 0;
    drop(place.guest()?);
    while !place.is_over() {
        let features = place.random().next_u64() | 1 << 32 | 1 << 30;
        let Ok(mut guest) = place.guest_with(&Setup { features, ..Setup::default() }) else { continue };
        for _ in 0..5 {
            guest.trickle(|| datagram(place, 7, 300))?;
            let bits = place.random().next_u64();
            if let Vmm::Vhost(client) = &mut guest.vmm {
                let offered = client.ask(request::GET_FEATURES, &[])?;
                if client.call(request::SET_FEATURES, &(bits & offered).to_le_bytes(), &[]).is_err() {
                    break;
                }
            } else {
                guest.register(8, &(bits as u32 & 1).to_le_bytes())?;
                guest.register(12, &((bits >> 32) as u32).to_le_bytes())?;
                guest.register(0x14, &[(bits as u8) & 0x4f])?;
            }
            changes += 1;
        }
    }
    Ok(format!("{changes} changes"))
}

/// Sends a control command: bytes in one descriptor, and a byte for the answer.
fn control(guest: &mut Guest, body: &[u8], len: u64) -> io::Result<()> {
    let ring = &mut guest.rings[2];
    let at = ring.buffer(0);
    guest.memory.write(at, body)?;
    ring.describe(&guest.memory, 0, [GUEST + at, len], NEXT, 1)?;
    ring.describe(&guest.memory, 1, [GUEST + ring.buffer(255), 1], WRITE, 0)?;
    ring.offer(&guest.memory, [0])?;
    guest.kick(2)
}

/// Fills MAC and VLAN tables, with as many entries as fit and with many more, and sends commands that are far too long.
pub fn control_flood(place: &Place) -> io::Result<String> {
    let mut commands = 0_u64;
    while !place.is_over() {
        // A device that has stopped over a command gets a new guest.
        let mut guest = place.guest()?;
        for _ in 0..64 {
            let (body, len) = random_command(place);
            control(&mut guest, &body, len)?;
            commands += 1;
        }
        guest.trickle(|| datagram(place, 7, 100))?;
    }
    Ok(format!("{commands} commands"))
}

/// A command, and the length that its descriptor says.
fn random_command(place: &Place) -> (Vec<u8>, u64) {
    let mut random = place.random();
    let count = random.one_of(&[0, 1, 64, 65, 10_000, u32::MAX]);
    let filled = (count as usize).min(10_000);
    let body = match random.below(5) {
        0 => [&[1, 0][..], &count.to_le_bytes(), &[2; 6].repeat(filled), &[0; 4]].concat(),
        1 => [&[2, 0][..], &(random.below(4096) as u16).to_le_bytes()].concat(),
        2 => [&[1, 1][..], &random.bytes(6)].concat(),
        3 => vec![0, random.below(8) as u8, 1],
        _ => random.bytes(64),
    };
    let len = random.one_of(&[body.len() as u64, body.len() as u64, 0, 1 << 20, 0xffff_ffff]);
    (body, len)
}
