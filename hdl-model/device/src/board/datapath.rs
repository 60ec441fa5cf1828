//! The board's data path: what frames and commands pass between VFs, uplinks, the host's queues and the firmware.

use std::sync::Arc;

use culvert_abi::pci::TOTAL_VFS;
use culvert_abi::regs::QUEUE_COUNT;
use culvert_flow::Port;

use super::firmware_link::FirmwareLink;
use super::host_queues::HostQueues;
use super::registers::{Queue, State};
use super::upcall_share::UpcallShares;
use crate::function::PfPort;
use crate::soc::Soc;
use crate::virtio::{NetDevice, TxBudget};
use crate::wire::{Capture, Wire};

/// Frames or commands taken from one port before the next one has its turn.
pub(super) const BURST: usize = 32;
/// What a VF may send in a turn of the engine: a burst of full frames, each in a header's and a page's descriptors and some
/// to spare. A guest that splits a frame into hundreds of descriptors sends fewer frames instead of taking its neighbours'
/// time.
const TURN: TxBudget = TxBudget { frames: BURST, descriptors: 8 * BURST as i64, bytes: BURST as i64 * 2048 };

/// A MAC port.
pub struct Uplink {
    /// The medium.
    pub wire: Box<dyn Wire>,
    /// Where its packets are written.
    pub capture: Option<Capture>,
}

/// Everything that frames pass. Its work is in `ingress` (frames to the firmware), `commands` (the host's commands to the
/// firmware) and `egress` (the firmware's descriptors).
pub(super) struct Datapath {
    pub(super) link: FirmwareLink,
    pub(super) host: HostQueues,
    pub(super) registers: Arc<State>,
    pub(super) uplinks: Vec<Uplink>,
    pub(super) vfs: Vec<Arc<NetDevice>>,
    pub(super) shares: UpcallShares,
    /// The vport that each VF was last sent a frame for.
    pub(super) vf_vport: [u16; TOTAL_VFS as usize],
    /// What each VF may still send in this turn.
    pub(super) budgets: Vec<TxBudget>,
}

impl Datapath {
    pub(super) fn new(soc: Soc, registers: Arc<State>, port: Arc<PfPort>, uplinks: Vec<Uplink>) -> Self {
        Datapath {
            link: FirmwareLink::new(soc),
            host: HostQueues::new(Arc::clone(&registers), port),
            registers,
            uplinks,
            vfs: Vec::new(),
            shares: UpcallShares::new(),
            vf_vport: [Port::None.bits(); TOTAL_VFS as usize],
            budgets: Vec::new(),
        }
    }

    /// Replaces the VFs.
    pub(super) fn set_vfs(&mut self, vfs: Vec<Arc<NetDevice>>) {
        self.vf_vport.fill(Port::None.bits());
        self.budgets = vec![TxBudget::default(); vfs.len()];
        self.vfs = vfs;
        self.shares.clear();
    }

    /// What a VF may send in the turn that begins now.
    pub(super) fn renew_budget(&mut self, vf: usize) -> TxBudget {
        let mut budget = self.budgets.get(vf).copied().unwrap_or_default();
        budget.renew(TURN);
        budget
    }

    /// Keeps what a VF has left, or owes.
    pub(super) fn keep_budget(&mut self, vf: usize, budget: TxBudget) {
        if let Some(kept) = self.budgets.get_mut(vf) {
            *kept = budget;
        }
    }

    /// Brings the PF queues into the state that the driver wants.
    pub(super) fn set_queues(&mut self, queues: &[Queue; QUEUE_COUNT]) {
        if self.host.set_up(queues) {
            // Upcalls at the host are lost with its queue; the firmware counts them when the next host reports its restart.
            self.shares.clear();
        }
    }

    /// Publishes the rings of host and guests, and interrupts those that wait.
    pub(super) fn flush(&mut self) {
        self.host.flush();
        for vf in &self.vfs {
            vf.flush_interrupts();
        }
    }
}
