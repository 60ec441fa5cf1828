//! The thread of a VF that serves its queues by messages to the client, whose memory is not shared. Each access takes as
//! long as the client takes to answer; only this VF waits for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use culvert_virtio::{Chain, IovaParts, ReceiveBuffers, RingFault};

use super::config::RxError;
use super::device::NetDevice;
use super::features::{CONTROL, QUEUES, RX, TX};
use super::messaged::{Phase, Received, Run, Shared};
use super::slot::{Queue, lock};
use crate::dma::ByMessage;
use crate::vfio_user::RemoteDma;

/// Longest frame that is taken from the guest; the engine's buffers are shorter.
const FRAME: usize = 9216;
/// Chains of one queue before the next one has its turn.
const BURST: usize = 16;

/// A fault, and the queue that has it.
type Fault = (usize, RingFault);

impl NetDevice {
    /// A client has connected, whose memory `remote` reaches.
    pub(crate) fn set_remote(self: Arc<Self>, remote: Arc<RemoteDma>) {
        let (device, way) = (Arc::downgrade(&self), Arc::clone(&remote));
        self.messaged.connect(
            remote,
            Box::new(move |shared| {
                let device = device.upgrade().ok_or(std::io::ErrorKind::NotFound)?;
                let (way, shared) = (Arc::clone(&way), Arc::clone(shared));
                let thread = std::thread::Builder::new().name("vf messages".to_owned());
                thread.spawn(move || run(&device, &way, &shared))
            }),
        );
    }

    /// The way to the client's memory, while there is a client.
    pub fn remote(&self) -> Option<Arc<RemoteDma>> {
        self.messaged.remote()
    }
}

/// The thread: serves the queues that it is assigned until the session ends.
fn run(device: &Arc<NetDevice>, remote: &RemoteDma, shared: &Shared) {
    while !shared.ended.load(Ordering::Acquire) {
        let assigned = {
            let mut phase = lock(&shared.phase);
            match std::mem::take(&mut *phase) {
                Phase::Assigned(run) => {
                    *phase = Phase::Serving;
                    Some(run)
                }
                other => {
                    *phase = other;
                    None
                }
            }
        };
        let Some(run) = assigned else {
            std::thread::park();
            continue;
        };
        let mut work = Work { run, held: None, chain: Chain::default(), buffers: ReceiveBuffers::default() };
        device.warn_of_messages();
        work.serve(device, remote, shared);
        work.let_go(device);
        *lock(&shared.phase) = Phase::Finished(work.run);
        shared.changed.notify_all();
    }
}

struct Work {
    run: Box<Run>,
    /// A frame that is being given to the guest.
    held: Option<Received>,
    chain: Chain,
    buffers: ReceiveBuffers,
}

/// The client has unmapped what was being accessed, and nothing has happened yet: if it maps it anew, the queue goes on. A
/// kick says that the guest wants it to go on anyway.
fn wait_for_mapping(remote: &RemoteDma, shared: &Shared) {
    shared.kicked.store(false, Ordering::Release);
    let awaited = [&shared.withdrawn, &shared.mapped, &shared.kicked];
    while !remote.is_closed() && !awaited.iter().any(|flag| flag.load(Ordering::Acquire)) {
        std::thread::park();
    }
}

impl Work {
    /// Serves the queues until they are withdrawn, one has a fault, or the client is gone.
    fn serve(&mut self, device: &NetDevice, remote: &RemoteDma, shared: &Shared) {
        let memory = ByMessage::new(&device.memory, remote);
        let mut frame = vec![0; FRAME];
        while !shared.withdrawn.load(Ordering::Acquire) && !remote.is_closed() {
            if !device.is_running() {
                std::thread::park();
                continue;
            }
            shared.mapped.store(false, Ordering::Release);
            match self.turn(device, &memory, &mut frame) {
                Ok(true) => {}
                Ok(false) => std::thread::park(),
                Err(_) if memory.take_given_up() => wait_for_mapping(remote, shared),
                Err(_) if remote.is_closed() => return,
                Err((index, fault)) => return device.fault(index, fault),
            }
        }
    }

    /// Frames that the guest will not get.
    fn let_go(&mut self, device: &NetDevice) {
        while let Some((frame, _)) = self.held.take().or_else(|| self.run.to_guest.pop().ok()) {
            device.counters.late(Err(RxError::Stopped), frame.len());
        }
    }

    /// A burst of each queue. Returns whether there was anything to do.
    fn turn(&mut self, device: &NetDevice, memory: &ByMessage<'_>, frame: &mut [u8]) -> Result<bool, Fault> {
        for index in 0..QUEUES {
            if let Some(Queue { ring, layout, fresh }) = &mut self.run.queues[index] {
                let parts = IovaParts::new(memory, layout);
                if *fresh {
                    // A kick is a message as well, but polling would be one for each look.
                    ring.set_notify(&parts, index != RX).map_err(|fault| (index, fault))?;
                    *fresh = false;
                }
                // What an access that was given up has left.
                ring.publish(&parts).map_err(|fault| (index, fault))?;
            }
        }
        let mut busy = self.control(device, memory).map_err(|fault| (CONTROL, fault))?;
        busy |= self.transmit(device, memory, frame).map_err(|fault| (TX, fault))?;
        busy |= self.receive(device, memory).map_err(|fault| (RX, fault))?;
        for index in 0..QUEUES {
            let Some(Queue { ring, layout, .. }) = &mut self.run.queues[index] else { continue };
            let parts = IovaParts::new(memory, layout);
            // Where the guest cannot be asked, an interrupt too many does no harm.
            if ring.take_interrupt(&parts).unwrap_or(true) {
                device.interrupt_queue(index);
            }
        }
        Ok(busy)
    }

    fn control(&mut self, device: &NetDevice, memory: &ByMessage<'_>) -> Result<bool, RingFault> {
        let Some(Queue { ring, layout, .. }) = &mut self.run.queues[CONTROL] else { return Ok(false) };
        if !device.control_kicked.swap(false, Ordering::AcqRel) {
            return Ok(false);
        }
        let parts = IovaParts::new(memory, layout);
        for _ in 0..BURST {
            match device.execute_command(ring, &parts, &mut self.chain) {
                Ok(true) => {}
                Ok(false) => return Ok(true),
                Err(fault) => {
                    device.control_kicked.store(true, Ordering::Release);
                    return Err(fault);
                }
            }
        }
        device.control_kicked.store(true, Ordering::Release);
        Ok(true)
    }

    fn transmit(
        &mut self,
        device: &NetDevice,
        memory: &ByMessage<'_>,
        frame: &mut [u8],
    ) -> Result<bool, RingFault> {
        let Some(Queue { ring, layout, .. }) = &mut self.run.queues[TX] else { return Ok(false) };
        let parts = IovaParts::new(memory, layout);
        let mut busy = false;
        for _ in 0..BURST {
            // What the engine does not take stays in the guest's ring.
            if self.run.from_guest.is_full() {
                break;
            }
            let Some(taken) = device.take_chain(ring, &parts, &mut self.chain, frame)? else { break };
            busy = true;
            match taken {
                Ok(taken) => {
                    device.counters.carried();
                    // There is room, as was looked above.
                    let _ = self.run.from_guest.push((frame[..taken.len].into(), taken));
                    device.wake_engine();
                }
                Err(discard) => device.counters.discarded(discard),
            }
            ring.publish(&parts)?;
        }
        Ok(busy)
    }

    fn receive(&mut self, device: &NetDevice, memory: &ByMessage<'_>) -> Result<bool, RingFault> {
        let mut busy = false;
        for _ in 0..BURST {
            if self.held.is_none() {
                self.held = self.run.to_guest.pop().ok();
            }
            let Some((bytes, verified)) = &self.held else { break };
            busy = true;
            let (len, done) = (
                bytes.len(),
                match &mut self.run.queues[RX] {
                    None => Err(RxError::Stopped),
                    Some(Queue { ring, layout, .. }) => {
                        let parts = IovaParts::new(memory, layout);
                        device.fill_buffers(ring, &parts, &mut self.buffers, &[bytes], *verified)?
                    }
                },
            );
            self.held = None;
            if done.is_ok() {
                device.counters.carried();
            }
            device.counters.late(done, len);
            if let Some(Queue { ring, layout, .. }) = &mut self.run.queues[RX] {
                ring.publish(&IovaParts::new(memory, layout))?;
            }
        }
        Ok(busy)
    }
}
