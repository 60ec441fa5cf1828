//! Replication of a broadcast: one copy of the frame for each member of a group, with outer headers of its own.

use culvert_packet::Reason;
use culvert_packet::encap::Fill;

use crate::datapath::Datapath;
use crate::encap;
use crate::port::Port;
use crate::record::FlowHot;
use crate::table::RecordId;
use crate::tables::{Group, Member, Tunnel};

/// One copy of a replicated frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replica {
    /// The port that it leaves by.
    pub to: Port,
    /// Bytes of outer headers that go in front of the frame; 0 for a vport.
    pub outer_len: usize,
}

/// The copies of a frame that are still to be sent: a cursor over a group's members.
#[derive(Clone, Copy, Debug)]
pub struct Replication {
    group: Group,
    next: usize,
    input: Port,
    fill: Fill,
}

impl Replication {
    /// The copies of a frame of `inner_len` bytes, from `input`, for group `group` by a record. `None`: there is no such
    /// group.
    pub fn new(groups: &[Group], group: u16, hot: &FlowHot, input: Port, inner_len: usize) -> Option<Self> {
        let group = *groups.get(usize::from(group))?;
        let fill = Fill { inner_len, ecn: 0, entropy: hot.entropy, vsid: hot.vsid };
        Some(Replication { group, next: 0, input, fill })
    }

    /// The next copy; its outer headers are written to the front of `outer`. The port that the frame came in by gets
    /// none. `None`: there are no more.
    ///
    /// # Errors
    /// `NextHopUnresolved`: the member's tunnel is not in use, or too small for the frame.
    pub fn next_copy(&mut self, tunnels: &mut [Tunnel], outer: &mut [u8]) -> Option<Result<Replica, Reason>> {
        let members = self.group.members.iter().take(usize::from(self.group.len));
        for (i, &bits) in members.enumerate().skip(self.next) {
            self.next = i + 1;
            match Member::from_bits(bits) {
                Member::Port(port) if port == self.input => {}
                Member::Port(to) => return Some(Ok(Replica { to, outer_len: 0 })),
                Member::Tunnel(index) => {
                    let written = write_outer(tunnels, index, &self.fill, outer);
                    return Some(written.ok_or(Reason::NextHopUnresolved));
                }
            }
        }
        None
    }
}

/// Writes the outer headers of one copy, and counts it in its tunnel.
fn write_outer(tunnels: &mut [Tunnel], index: u16, fill: &Fill, outer: &mut [u8]) -> Option<Replica> {
    let tunnel = tunnels.get_mut(usize::from(index))?;
    if fill.inner_len > usize::from(tunnel.max_inner) {
        return None;
    }
    let outer_len = encap::write(tunnel, fill, outer)?;
    tunnel.count(fill.inner_len);
    Some(Replica { to: Port::Uplink(tunnel.uplink), outer_len })
}

impl Datapath<'_> {
    /// The copies of a frame of `inner_len` bytes that came in at `input`, for [`Verdict::Replicate`]. `None`: there is no
    /// such group.
    ///
    /// [`Verdict::Replicate`]: crate::Verdict::Replicate
    pub fn replication(
        &self,
        record: RecordId,
        group: u16,
        input: Port,
        inner_len: usize,
    ) -> Option<Replication> {
        Replication::new(self.groups, group, self.table.hot(record), input, inner_len)
    }
}
