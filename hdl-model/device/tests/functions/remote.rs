//! Memory without a file descriptor: the device asks the client, in the layout that the client speaks.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use culvert_device::dma::Fault;
use culvert_device::function::Vf;
use culvert_device::virtio::{Notifier, VfConfig};

use crate::client::{DMA_MAP, DMA_READ, DMA_WRITE, RawClient, dma_map};
use crate::driver::MAC;
use crate::memory::IOVA;

fn serve(path: &Path) -> Vf {
    Vf::start(path, VfConfig::new(MAC, 1500), Notifier::new().expect("eventfd")).expect("server")
}

/// Answers DMA messages from `memory` until told to stop. `packed`: as QEMU, with a 32-bit count.
fn answer(client: &mut RawClient, memory: &mut [u8], packed: bool, stop: &AtomicBool) {
    client.stream.set_read_timeout(Some(Duration::from_millis(20))).expect("time-out");
    while !stop.load(Ordering::Acquire) {
        let Ok(request) = client.receive() else { continue };
        let number =
            |at: usize| u64::from_le_bytes(request.body[at..at + 8].try_into().expect("eight bytes"));
        let count = if packed { number(8) & 0xffff_ffff } else { number(8) };
        let data_at = if packed { 12 } else { 16 };
        let end = number(0).wrapping_sub(IOVA).saturating_add(count);
        let (flags, error, body) = if packed && count == 0 {
            (1, 0, [&request.body[..16], &[]].concat())
        } else if end > memory.len() as u64 {
            (0x21, 14, Vec::new())
        } else {
            let range = (end - count) as usize..end as usize;
            match request.command {
                DMA_READ => {
                    let pad: &[u8] = if packed { &[0; 4] } else { &[] };
                    (1, 0, [&request.body[..data_at], &memory[range], pad].concat())
                }
                DMA_WRITE => {
                    memory[range].copy_from_slice(&request.body[data_at..data_at + count as usize]);
                    (1, 0, request.body[..16.min(request.body.len())].to_vec())
                }
                other => panic!("unexpected command {other}"),
            }
        };
        let header = RawClient::header(request.id, request.command, 16 + body.len() as u32, flags, error);
        client.send_raw(header, &body, &[]);
    }
}

#[test]
fn both_layouts_of_dma_messages_are_understood() {
    for packed in [false, true] {
        let dir = tempfile::tempdir().expect("directory");
        let vf = serve(&dir.path().join("vf"));
        let mut client = RawClient::negotiated(&dir.path().join("vf"));
        client.call(DMA_MAP, &dma_map(3, 0, IOVA, 0x3000), &[]).expect("map without a file");
        let mut memory: Vec<u8> = (0..0x2000).map(|i| (i / 7) as u8).collect();
        let expected = memory.clone();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| answer(&mut client, &mut memory, packed, &stop));
            let view = vf.device().memory().view();
            let mut bytes = [0; 100];
            view.read(IOVA + 50, &mut bytes).expect("read");
            assert_eq!(bytes, expected[50..150]);
            view.write(IOVA + 0x1000, &[9; 33]).expect("write");
            view.store_u16(IOVA + 0x1800, 0xabcd).expect("store");
            assert_eq!(view.load_u16(IOVA + 0x1800), Ok(0xabcd));
            assert_eq!(view.read(IOVA + 0x2000, &mut bytes), Err(Fault::Remote), "refused by the client");
            stop.store(true, Ordering::Release);
        });
        assert_eq!(memory[0x1000..0x1021], [9; 33], "packed: {packed}");
    }
}

#[test]
fn a_client_that_does_not_answer_costs_a_second_at_most() {
    let dir = tempfile::tempdir().expect("directory");
    let vf = serve(&dir.path().join("vf"));
    let mut client = RawClient::negotiated(&dir.path().join("vf"));
    client.call(DMA_MAP, &dma_map(3, 0, IOVA, 0x1000), &[]).expect("map without a file");
    let begin = Instant::now();
    assert_eq!(vf.device().memory().view().read(IOVA, &mut [0; 4]), Err(Fault::Remote));
    assert!(begin.elapsed() < Duration::from_secs(3));
    drop(client);
    let begin = Instant::now();
    drop(vf);
    assert!(begin.elapsed() < Duration::from_secs(2));
}
