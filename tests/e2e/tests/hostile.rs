//! A guest with a malicious driver, beside another tenant's guest at full speed on the same board: the fault is counted, the
//! device stops and asks for a reset, the other guest loses nothing, and the device works after the reset.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use culvert_e2e::accounting::{account, faults};
use culvert_e2e::deployment::Deployment;
use culvert_e2e::netns;
use culvert_e2e::policies::figure8;
use culvert_e2e::vm::Vm;
use culvert_guest::virtio::{Notify, SplitQueue, Transport, feature};
use culvert_guest::{Guest, GuestConfig};
use culvert_packet::craft::{self, Ends};
use culvert_packet::{Encap, MacAddr};
use culvert_pci::{Device, DmaBuffer, Interrupt, vfio_user};

const LIMIT: Duration = Duration::from_secs(20);
/// Frames of the other tenant's logs; more than it sends.
const LOG: usize = 1 << 20;
/// Bytes that the other tenant sends each way during each attack.
const BULK: u64 = 16 << 20;
const SIZE: u16 = 64;
/// Size of one buffer, and an address that is not mapped.
const STRIDE: u64 = 2048;
const UNMAPPED: u64 = 0x7000_0000_0000;
/// A virtio header and the frame behind it.
const LEN: u32 = 12 + 98;

/// From the rogue guest, contoso-sql, to contoso-web.
fn ends() -> Ends {
    Ends {
        src_mac: MacAddr([0x00, 0x1d, 0xd8, 0x07, 0x00, 0x11]),
        dst_mac: MacAddr([0x00, 0x1d, 0xd8, 0x07, 0x00, 0x12]),
        src: "10.1.1.11".parse().unwrap(),
        dst: "10.1.1.12".parse().unwrap(),
    }
}

fn ping(ends: &Ends) -> Vec<u8> {
    let mut frame = vec![0; 98];
    let len = craft::ping(&mut frame, ends, 7, 1, &[0x5a; 56]).unwrap();
    frame.truncate(len);
    frame
}

/// A driver that has initialised its device correctly, and writes its rings directly.
struct Rogue {
    transport: Transport,
    changed: Interrupt,
    rx: (SplitQueue, Notify),
    tx: (SplitQueue, Notify),
    buffers: DmaBuffer,
}

impl Rogue {
    fn start(device: &Arc<dyn Device>) -> Self {
        let transport = Transport::new(Arc::clone(device)).unwrap();
        transport.negotiate(feature::MAC | feature::MRG_RXBUF | feature::ACCESS_PLATFORM).unwrap();
        let changed = device.interrupt(0).unwrap();
        transport.set_config_vector(0).unwrap();
        let rx = transport.queue("receive", 0, 1, SIZE, false).unwrap();
        let tx = transport.queue("transmit", 1, 2, SIZE, false).unwrap();
        let buffers = device.alloc_dma(usize::from(SIZE) * STRIDE as usize).unwrap();
        for n in 0..usize::from(SIZE) {
            buffers.write_at(n * STRIDE as usize + 12, &ping(&ends())).unwrap();
        }
        changed.try_clear().unwrap();
        transport.start().unwrap();
        Rogue { transport, changed, rx, tx, buffers }
    }

    fn at(&self, n: u16) -> u64 {
        self.buffers.iova() + u64::from(n) * STRIDE
    }

    /// Makes a chain of the transmit ring available.
    fn send(&mut self, head: u16) {
        self.tx.0.offer(head);
        self.tx.0.publish();
        self.tx.1.kick().unwrap();
    }

    /// Makes a buffer of the receive ring available, and lets contoso-web send a frame for it.
    fn receive(&mut self, iova: u64, web: &mut Vm) {
        self.rx.0.describe(0, iova, STRIDE as u32, true, None);
        self.rx.0.offer(0);
        self.rx.0.publish();
        web.frame(&ping(&ends().reversed())).unwrap();
    }

    /// Waits until the device has stopped and asks for a reset.
    #[track_caller]
    fn has_stopped(&self, what: &str) {
        assert!(self.changed.wait(LIMIT).unwrap(), "{what}: no interrupt of a changed configuration");
        assert!(self.transport.needs_reset().unwrap(), "{what}: DEVICE_NEEDS_RESET is not set");
    }
}

/// An attack, and the drop reason that it must cause; none if either of two may come.
struct Attack {
    what: &'static str,
    reason: &'static str,
    act: fn(&mut Rogue, &mut Vm),
}

const ATTACKS: [Attack; 10] = [
    Attack {
        what: "a descriptor to unmapped memory",
        reason: "dma_fault",
        act: |rogue, _| {
            rogue.tx.0.describe(0, UNMAPPED, LEN, false, None);
            rogue.send(0);
        },
    },
    Attack {
        what: "a descriptor that reaches beyond the mapping",
        reason: "dma_fault",
        act: |rogue, _| {
            let end = rogue.at(SIZE);
            rogue.tx.0.describe(0, end - 64, LEN, false, None);
            rogue.send(0);
        },
    },
    Attack {
        what: "a frame in a memory file that shrank",
        reason: "dma_fault",
        act: |rogue, _| {
            rogue.tx.0.describe(0, rogue.at(3), LEN, false, None);
            rogue.buffers.file().set_len(4096).unwrap();
            rogue.send(0);
        },
    },
    Attack {
        what: "rings in a memory file that shrank",
        reason: "dma_fault",
        act: |rogue, _| {
            rogue.tx.0.memory().file().set_len(0).unwrap();
            rogue.tx.1.kick().unwrap();
        },
    },
    Attack {
        what: "a chain that loops",
        reason: "bad_descriptor",
        act: |rogue, _| {
            rogue.tx.0.describe(0, rogue.at(0), 40, false, Some(1));
            rogue.tx.0.describe(1, rogue.at(1), 40, false, Some(0));
            rogue.send(0);
        },
    },
    Attack {
        what: "a descriptor index beyond the table",
        reason: "bad_descriptor",
        act: |rogue, _| {
            rogue.tx.0.describe(0, rogue.at(0), 40, false, Some(SIZE));
            rogue.send(0);
        },
    },
    Attack {
        what: "an available index that jumps",
        reason: "bad_descriptor",
        act: |rogue, _| {
            let index = 16 * usize::from(SIZE) + 2;
            rogue.tx.0.memory().atomic_u16(index).store(SIZE + 1, Ordering::Release);
            rogue.tx.1.kick().unwrap();
        },
    },
    Attack {
        what: "a receive buffer in unmapped memory",
        reason: "dma_fault",
        act: |rogue, web| rogue.receive(UNMAPPED, web),
    },
    Attack {
        what: "a receive buffer in a memory file that shrank",
        reason: "dma_fault",
        act: |rogue, web| {
            rogue.buffers.file().set_len(0).unwrap();
            rogue.receive(rogue.at(0), web);
        },
    },
    Attack {
        what: "descriptors that change while the device reads them",
        reason: "",
        act: |rogue, _| change(rogue),
    },
];

/// Offers valid chains of two as fast as it can, while another thread corrupts and restores their descriptors.
fn change(rogue: &mut Rogue) {
    let over = AtomicBool::new(false);
    let table = rogue.tx.0.memory().clone();
    let (good, end) = (rogue.at(0), Instant::now() + LIMIT);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let corrupt = [(0, UNMAPPED), (0, u64::MAX - 8), (8, 0), (8, 0xffff_ffff), (8, 0x3_0001_ffff)];
            for n in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let at = 16 * (n % usize::from(SIZE));
                let (word, value) = corrupt[n % corrupt.len()];
                let was = table.atomic_u64(at + word).swap(value, Ordering::Relaxed);
                // Some stay corrupt, for a device that rarely reads them.
                if n % 1009 != 0 {
                    table.atomic_u64(at + word).store(was, Ordering::Relaxed);
                }
            }
        });
        let mut head = 0;
        while !rogue.transport.needs_reset().unwrap() && Instant::now() < end {
            for _ in 0..8 {
                rogue.tx.0.describe(head, good, 12, false, Some(head + 1));
                rogue.tx.0.describe(head + 1, good + 12, LEN - 12, false, None);
                rogue.tx.0.offer(head);
                head = (head + 2) % SIZE;
            }
            rogue.tx.0.publish();
            rogue.tx.1.kick().unwrap();
            // A chain is reused only after the device has returned it.
            while Instant::now() < end && rogue.tx.0.in_flight() > SIZE / 4 {
                if rogue.tx.0.take().unwrap().is_none() && rogue.transport.needs_reset().unwrap() {
                    break;
                }
            }
        }
        over.store(true, Ordering::Relaxed);
    });
}

/// Drops since `before`.
fn grown(d: &Deployment, before: &BTreeMap<String, u64>) -> Result<BTreeMap<String, u64>, String> {
    let now = d.drops(0)?;
    let more = |(r, n): (String, u64)| (r.clone(), n - before.get(&r).copied().unwrap_or(0));
    Ok(now.into_iter().map(more).filter(|(_, n)| *n > 0).collect())
}

/// Resets the device and uses it with a correct driver.
fn recovers(device: &Arc<dyn Device>, what: &str) {
    let config = GuestConfig::new("contoso-sql", ends().src, 24);
    let guest = Guest::on(Arc::clone(device), config).unwrap().start().unwrap();
    let report = guest.ping(ends().dst, 3, Duration::from_millis(20), Duration::from_secs(5)).unwrap();
    assert_eq!(report.received, 3, "{what}: after the reset: {report:?}");
}

#[test]
fn a_malicious_driver_stops_only_its_own_device() {
    netns::enter().unwrap();
    let d = Deployment::builder(figure8(Encap::Vxlan).unwrap()).start().unwrap();
    let mut web = d.guest(1, "contoso-web", "10.1.1.12/24", 0).unwrap();
    let mut sql = d.guest(0, "fabrikam-sql", "10.1.1.11/24", LOG).unwrap();
    let mut other = d.guest(1, "fabrikam-web", "10.1.1.12/24", LOG).unwrap();
    let vf = d.vport(0, "contoso-sql").unwrap().socket.expect("contoso-sql has a VF");
    let device: Arc<dyn Device> = Arc::new(vfio_user::Client::connect(&vf).unwrap().with_unsealed_memory());
    recovers(&device, "at first");

    for (n, Attack { what, reason, act }) in (0..).zip(ATTACKS) {
        let port = 5001 + n;
        other.listen(port).unwrap();
        sql.listen(port + 100).unwrap();
        sql.send(other.address(), port, BULK, u64::from(n)).unwrap();
        other.send(sql.address(), port + 100, BULK, u64::from(n)).unwrap();

        let mut rogue = Rogue::start(&device);
        let before = d.drops(0).unwrap();
        let moved = sql.counters().unwrap().rx_frames;
        act(&mut rogue, &mut web);
        rogue.has_stopped(what);
        let mut counted = BTreeMap::new();
        d.until(LIMIT, what, |d| {
            counted = grown(d, &before)?;
            Ok(counted.contains_key("dma_fault") || counted.contains_key("bad_descriptor"))
        })
        .unwrap();
        // The frame that caused a fault of the receive queue is also dropped, since the queue has stopped.
        counted.retain(|r, _| r != "queue_stopped" || !what.contains("receive"));
        if reason.is_empty() {
            let faults: u64 = ["dma_fault", "bad_descriptor"].iter().filter_map(|r| counted.get(*r)).sum();
            assert_eq!(faults, 1, "{what}: {counted:?}");
        } else {
            assert_eq!(counted, BTreeMap::from([(reason.to_owned(), 1)]), "{what}");
        }
        drop(rogue);
        if n % 2 == 0 {
            // Every second time by a function-level reset, otherwise by the driver's reset alone.
            device.reset().unwrap();
        }
        assert!(sql.counters().unwrap().rx_frames > moved + 100, "{what}: there was no other traffic");
        recovers(&device, what);

        for port in [port, port + 100] {
            let (one, two) = (sql.transfer(port, LIMIT).unwrap(), other.transfer(port, LIMIT).unwrap());
            assert_eq!((one.bytes, &one.sha256), (BULK, &two.sha256), "{what}");
        }
    }
    // Frames in flight, such as the last acknowledgement.
    std::thread::sleep(Duration::from_millis(500));
    let flows = account(&mut sql, &mut other, d.dir()).unwrap();
    assert!(flows.len() >= 4 * ATTACKS.len(), "only {} flows", flows.len());
    assert!(faults(&flows).is_empty(), "{:#?}; drops {:?}", faults(&flows), d.drops(0));
}
