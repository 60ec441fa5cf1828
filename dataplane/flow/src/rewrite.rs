//! Edits the inner frame as a record's actions say.

use culvert_packet::{Headers, MacAddr, Reason, edit};

use crate::frame::Frame;
use crate::record::{Actions, FlowCold, FlowHot};

/// Applies the inner edits of `hot` to a frame whose headers are `h`.
///
/// # Errors
/// The frame cannot take the edit: the reason to drop it.
pub(crate) fn inner(
    frame: &mut Frame<'_>,
    h: &Headers,
    hot: &FlowHot,
    cold: &FlowCold,
    router: MacAddr,
) -> Result<(), Reason> {
    let actions = hot.actions();
    let bytes = frame.bytes_mut();
    if actions.contains(Actions::SET_DST_MAC) {
        edit::set_dst_mac(bytes, MacAddr(hot.dst_mac));
    }
    if actions.contains(Actions::ROUTE) {
        edit::set_src_mac(bytes, router);
        edit::decrement_ttl(bytes, h);
    }
    let v6 = h.family == culvert_packet::Family::V6;
    let addr: &[u8] = if v6 { &cold.nat_addr6 } else { &hot.nat_addr };
    if actions.contains(Actions::SET_SRC_ADDR) {
        edit::set_src_addr(bytes, h, addr);
    }
    if actions.contains(Actions::SET_DST_ADDR) {
        edit::set_dst_addr(bytes, h, addr);
    }
    if actions.contains(Actions::SET_SRC_PORT) {
        edit::set_src_port(bytes, h, hot.nat_port);
    }
    if actions.contains(Actions::SET_DST_PORT) {
        edit::set_dst_port(bytes, h, hot.nat_port);
    }
    if actions.contains(Actions::POP_VLAN) && h.tagged && !frame.close_gap(12, 4) {
        return Err(Reason::Truncated);
    }
    if actions.contains(Actions::PUSH_VLAN) {
        if !frame.open_gap(12, 4) {
            return Err(Reason::NoBuffer);
        }
        edit::write_vlan(frame.bytes_mut(), hot.vlan);
    }
    Ok(())
}
