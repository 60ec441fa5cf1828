//! Reads flow records: filters and sorts them, and deletes them. The NIC gives its table in parts, of which this keeps only what
//! the reply has room for.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::ControlFlow;
use std::sync::Arc;

use culvert_api::view::{FlowFilter, FlowOrder, FlowQuery, FlowView, FlushReply, TalkerView};
use culvert_flow::FlowRecord;
use culvert_flow::record::FlowKey;
use culvert_packet::{MacAddr, Reason};
use culvert_policy::Snapshot;
use culvert_slowpath::Handle;

use super::flow_view::{self, Names};
use super::interface::DatapathError;

/// Flow records in a reply whose query names no limit.
const DEFAULT_LIMIT: usize = 1000;
/// Talkers in a reply whose query names no limit.
const DEFAULT_TALKERS: usize = 10;

/// Reads the flow records of a host.
pub(super) struct FlowReader {
    pub(super) handle: Handle,
    pub(super) snapshot: Option<Arc<Snapshot>>,
    /// Why its flows are not offloaded.
    pub(super) not_offloaded: Option<Reason>,
}

/// Who sends: the VSID, and the address or else the MAC.
type Talker = (u32, Result<IpAddr, [u8; 6]>);

/// A record with its idle milliseconds, ordered by a rank and then by when it was found.
struct Ranked {
    rank: u64,
    found: usize,
    record: FlowRecord,
    idle_ms: u32,
}

impl Ranked {
    fn key(&self) -> (u64, Reverse<usize>) {
        (self.rank, Reverse(self.found))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

fn filter(query: &FlowQuery) -> Result<FlowFilter, DatapathError> {
    query.filter().map_err(|detail| DatapathError::Invalid { detail })
}

/// Source and destination address of the packets of a key.
fn addresses(key: &FlowKey) -> Option<(IpAddr, IpAddr)> {
    let v4 = |bytes: &[u8; 16]| {
        let [a, b, c, d, ..] = *bytes;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match key.family {
        4 => Some((v4(&key.src), v4(&key.dst))),
        6 => Some((IpAddr::V6(Ipv6Addr::from(key.src)), IpAddr::V6(Ipv6Addr::from(key.dst)))),
        _ => None,
    }
}

impl FlowReader {
    fn matches(&self, names: &Names<'_>, filter: &FlowFilter, record: &FlowRecord) -> bool {
        let key = &record.key;
        let ports = matches!(key.protocol, 6 | 17 | 132) && key.family != 0;
        filter.vport.is_none_or(|vport| names.vport(record) == Some(vport))
            && filter.vsid.is_none_or(|vsid| names.vsid(record) == vsid)
            && filter.protocol.is_none_or(|protocol| key.family != 0 && key.protocol == protocol)
            && filter.port.is_none_or(|port| ports && (key.src_port == port || key.dst_port == port))
            && filter.address.is_none_or(|prefix| {
                addresses(key).is_some_and(|(src, dst)| prefix.contains(src) || prefix.contains(dst))
            })
            && filter.state.is_none_or(|state| flow_view::state(record, self.not_offloaded) == state)
    }

    /// Shows the records that match to `each`, until it breaks off.
    fn visit(
        &self,
        filter: &FlowFilter,
        mut each: impl FnMut(&FlowRecord, u32) -> ControlFlow<()>,
    ) -> Result<(), DatapathError> {
        let names = Names::new(self.snapshot.as_deref());
        Ok(self.handle.visit_flows(|record, idle| match self.matches(&names, filter, record) {
            true => each(record, idle),
            false => ControlFlow::Continue(()),
        })?)
    }

    /// The flows that a query asks for.
    pub(super) fn list(&self, query: &FlowQuery) -> Result<Vec<FlowView>, DatapathError> {
        let (filter, limit) = (filter(query)?, query.limit.unwrap_or(DEFAULT_LIMIT));
        if limit == 0 {
            return Ok(Vec::new());
        }
        // The lowest rank is on top, and leaves when there is one too many.
        let mut best: BinaryHeap<Reverse<Ranked>> = BinaryHeap::new();
        let mut found = 0;
        self.visit(&filter, |record, idle_ms| {
            let rank = match query.sort {
                None => 0,
                Some(FlowOrder::Bytes) => record.hot.bytes,
                Some(FlowOrder::Packets) => record.hot.packets,
                Some(FlowOrder::Idle) => u64::from(u32::MAX - idle_ms),
            };
            best.push(Reverse(Ranked { rank, found, record: *record, idle_ms }));
            found += 1;
            if best.len() > limit {
                best.pop();
            }
            // In the order of the table, the first ones are it.
            if query.sort.is_none() && found == limit {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        let names = Names::new(self.snapshot.as_deref());
        // Descending rank: the order of `Reverse`.
        let sorted = best.into_sorted_vec().into_iter().enumerate();
        let view = |(n, Reverse(r)): (usize, Reverse<Ranked>)| {
            names.view(n as u64, (&r.record, r.idle_ms), self.not_offloaded)
        };
        Ok(sorted.map(view).collect())
    }

    /// Those who send most.
    pub(super) fn talkers(&self, query: &FlowQuery) -> Result<Vec<TalkerView>, DatapathError> {
        let filter = filter(query)?;
        let names = Names::new(self.snapshot.as_deref());
        let mut all: HashMap<Talker, [u64; 3]> = HashMap::new();
        self.visit(&filter, |record, _| {
            let source = addresses(&record.key).map(|(src, _)| src).ok_or(record.key.src_mac);
            let sums = all.entry((names.vsid(record), source)).or_default();
            let more = [1, record.hot.packets, record.hot.bytes];
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
            ControlFlow::Continue(())
        })?;
        let view = |((vsid, source), [flows, packets, bytes]): (Talker, [u64; 3])| {
            let source = source.map_or_else(|mac| MacAddr(mac).to_string(), |address| address.to_string());
            TalkerView { vsid, source, flows, packets, bytes }
        };
        let mut talkers: Vec<TalkerView> = all.into_iter().map(view).collect();
        let by_packets = query.sort == Some(FlowOrder::Packets);
        let rank = |talker: &TalkerView| if by_packets { talker.packets } else { talker.bytes };
        talkers.sort_by(|a, b| rank(b).cmp(&rank(a)).then_with(|| a.source.cmp(&b.source)));
        talkers.truncate(query.limit.unwrap_or(DEFAULT_TALKERS));
        Ok(talkers)
    }

    /// Deletes the records that a query names.
    pub(super) fn flush(&self, query: &FlowQuery) -> Result<FlushReply, DatapathError> {
        let filter = filter(query)?;
        if filter == FlowFilter::default() && !query.all {
            return Err(DatapathError::Invalid {
                detail: "this would delete all flow records: name a filter, or all".to_owned(),
            });
        }
        let mut records = Vec::new();
        self.visit(&filter, |record, _| {
            // A pending one is being decided anyway.
            if record.hot.pending == 0 {
                records.push((record.key, record.cold.connection));
            }
            ControlFlow::Continue(())
        })?;
        self.handle.flush_flows(&records)?;
        Ok(FlushReply { flushed: records.len() as u64 })
    }
}
