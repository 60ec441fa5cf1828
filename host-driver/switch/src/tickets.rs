//! Tickets of several workers: each worker numbers its pending flows from 0, the slow path sees one numbering for all.

use culvert_flow::pending::Ticket;

/// Pending slots that tickets can tell apart.
const SLOTS: u32 = 1 << 16;

/// The pending slots that the slow path knows one worker's flows by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TicketRange {
    first: u16,
    count: u16,
}

impl TicketRange {
    /// One range for each worker. A worker wants `wanted` slots and gets fewer if there are too many workers.
    pub(super) fn split(workers: usize, wanted: u32) -> Vec<TicketRange> {
        let count = wanted.min(SLOTS / workers as u32).min(SLOTS - 1) as u16;
        (0..workers).map(|n| TicketRange { first: n as u16 * count, count }).collect()
    }

    /// How many slots the range has.
    pub(super) fn count(self) -> u32 {
        u32::from(self.count)
    }

    /// A worker's ticket as the slow path sees it.
    pub(super) fn export(self, ticket: Ticket) -> Ticket {
        Ticket { slot: ticket.slot + self.first, ..ticket }
    }

    /// A ticket of the slow path as the worker numbers it. `None`: it is another worker's.
    pub(super) fn import(self, ticket: Ticket) -> Option<Ticket> {
        let slot = ticket.slot.checked_sub(self.first).filter(|slot| *slot < self.count)?;
        Some(Ticket { slot, ..ticket })
    }

    /// Whether a ticket of the slow path lies in the range.
    pub(super) fn contains(self, ticket: Ticket) -> bool {
        self.import(ticket).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_exported_ticket_is_imported_by_its_worker_alone() {
        for workers in [1, 2, 3, 64] {
            let ranges = TicketRange::split(workers, 8192);
            for (n, range) in ranges.iter().enumerate() {
                for slot in [0, range.count - 1] {
                    let ticket = Ticket { slot, sequence: 7 };
                    let exported = range.export(ticket);
                    let imported: Vec<_> = ranges.iter().map(|r| r.import(exported)).collect();
                    assert_eq!(imported[n], Some(ticket));
                    assert_eq!(imported.iter().flatten().count(), 1);
                }
            }
        }
    }
}
