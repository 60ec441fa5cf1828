//! Classification: parses a packet, checks its outer headers and makes its flow key.

use culvert_packet::{Headers, Reason, VportId, parse, parse_outer};

use crate::datapath::Datapath;
use crate::key;
use crate::outer::{Checksum, OuterInfo, accept_outer};
use crate::port::Port;
use crate::record::FlowKey;
use crate::tables::Vport;
use crate::verdict::Verdict;

/// A parsed packet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Classified {
    /// Its flow key.
    pub key: FlowKey,
    /// Headers of the inner frame; offsets count from its start.
    pub headers: Headers,
    /// Its outer header.
    pub outer: OuterInfo,
}

impl Datapath<'_> {
    /// Classifies a frame that came in at `input`.
    ///
    /// # Errors
    /// The verdict on a packet without a flow key: malformed, not for this host, or control traffic.
    #[inline(always)]
    pub fn classify(&self, frame: &[u8], input: Port, checksum: Checksum) -> Result<Classified, Verdict> {
        match input {
            Port::Vport(id) => self.classify_outbound(frame, id),
            Port::Uplink(_) => self.classify_inbound(frame, checksum),
            Port::Host | Port::None => Err(Verdict::Drop { reason: Reason::NoVport }),
        }
    }

    #[inline(always)]
    fn classify_outbound(&self, frame: &[u8], id: VportId) -> Result<Classified, Verdict> {
        self.check_vport(id)?;
        let headers = parse(frame).map_err(|reason| Verdict::Drop { reason })?;
        Ok(Classified { key: key::outbound(id, frame, &headers), headers, outer: OuterInfo::default() })
    }

    #[inline(always)]
    fn classify_inbound(&self, frame: &[u8], checksum: Checksum) -> Result<Classified, Verdict> {
        let drop = |reason| Verdict::Drop { reason };
        let outer = match parse_outer(frame) {
            Ok(Some(outer)) => outer,
            Ok(None) => return Err(Verdict::Punt { reason: Reason::Control, ticket: None }),
            Err(reason) => return Err(drop(reason)),
        };
        let peer = accept_outer(&self.peers, &outer, checksum).map_err(drop)?;
        let (start, len) = (usize::from(outer.inner), usize::from(outer.inner_len));
        let inner = frame.get(start..start + len).unwrap_or_default();
        let headers = parse(inner).map_err(drop)?;
        let key = key::inbound(outer.encap, outer.vsid, peer, inner, &headers);
        let info = OuterInfo {
            inner: outer.inner,
            inner_len: outer.inner_len,
            peer,
            vsid: outer.vsid,
            ecn: outer.tos & 3,
        };
        Ok(Classified { key, headers, outer: info })
    }

    /// Whether a vport may send frames.
    #[inline(always)]
    fn check_vport(&self, id: VportId) -> Result<(), Verdict> {
        match self.vports.get(usize::from(id.0)) {
            Some(vport) if vport.is_up() => Ok(()),
            Some(vport) if vport.flags & Vport::PRESENT != 0 => {
                Err(Verdict::Drop { reason: Reason::VportDown })
            }
            _ => Err(Verdict::Drop { reason: Reason::NoVport }),
        }
    }

    /// The classification of a packet that was punted before. The vport may have gone down since.
    pub(crate) fn classify_again(&self, known: &Classified, input: Port) -> Result<Classified, Verdict> {
        match input {
            Port::Vport(id) => self.check_vport(id)?,
            Port::Uplink(_) => {}
            Port::Host | Port::None => return Err(Verdict::Drop { reason: Reason::NoVport }),
        }
        Ok(*known)
    }
}
