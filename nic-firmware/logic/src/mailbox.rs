//! The mailbox: what happens at bring-up, before packets flow.

use culvert_abi::regs::{MBOX_WORDS, mailbox};
use culvert_flow::HashSecret;
use culvert_packet::{MacAddr, Reason};

use crate::firmware::Firmware;

impl Firmware<'_> {
    /// Answers a request of the mailbox.
    pub fn mailbox(&mut self, request: &[u32; MBOX_WORDS]) -> [u32; MBOX_WORDS] {
        let mut reply = [0; MBOX_WORDS];
        match request[0] {
            mailbox::HELLO => {
                reply[1] = culvert_abi::VERSION;
                reply[2] = self.datapath.table.capacity();
                reply[3] = self.datapath.tunnels.len() as u32;
                reply[4] = self.datapath.groups.len() as u32;
                reply[5] = self.datapath.vports.len() as u32;
                reply[6] = self.datapath.peers.capacity() as u32;
                reply[7] = self.datapath.pending.capacity() as u32;
                reply[8] = self.epoch;
                let [a, b, c, d, e, f] = self.datapath.router_mac.0;
                reply[9] = u32::from_le_bytes([a, b, c, d]);
                reply[10] = u32::from_le_bytes([e, f, 0, 0]);
                if request[1] != culvert_abi::VERSION {
                    reply[0] = Reason::BadVersion as u32;
                }
            }
            mailbox::CONFIGURE => {
                let word = |i: usize| u64::from(request[i]) | u64::from(request[i + 1]) << 32;
                let secret = core::array::from_fn(|i| word(1 + 2 * i));
                let mac = word(19).to_le_bytes();
                self.datapath.table.set_secret(HashSecret(secret));
                self.datapath.router_mac = MacAddr([mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]]);
            }
            mailbox::START => {}
            mailbox::ECHO => reply[1..].copy_from_slice(&request[1..]),
            _ => reply[0] = Reason::Unsupported as u32,
        }
        reply
    }
}
