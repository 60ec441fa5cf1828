//! Order of a flow's packets while the host decides.

use culvert_flow::RecordId;
use culvert_flow::pending::{Completion, Pending, PendingFlow};

#[test]
fn packets_wait_behind_those_at_the_host() {
    let (mut slots, mut links) = (vec![PendingFlow::default(); 4], vec![0; 16]);
    let mut pending = Pending::new(&mut slots, &mut links, 2);
    let first = pending.open(RecordId(7)).expect("a free slot");
    assert_eq!(pending.ticket(first.slot), Some(first), "undecided: the second goes to the host too");
    assert!(!pending.wait(first.slot, 3), "nothing waits before there is a verdict");
    pending.decide(first.slot);
    assert_eq!(pending.ticket(first.slot), None, "decided: the third waits");
    assert!(pending.wait(first.slot, 5) && pending.wait(first.slot, 9));
    assert!(!pending.wait(first.slot, 11), "the list is bounded");
    assert_eq!(pending.complete_upcall(first, 1), Completion::Outstanding);
    assert_eq!(pending.complete_upcall(first, 1), Completion::Live(RecordId(7)));
    assert_eq!(pending.next_waiting(first.slot), Some(5), "in the order in which they came");
    assert_eq!(pending.next_waiting(first.slot), Some(9));
    assert_eq!(pending.next_waiting(first.slot), None);
    pending.close(first.slot);
    assert!(pending.is_empty());
    assert_eq!(pending.complete_upcall(first, 1), Completion::Stale, "an old ticket names nothing");
}

#[test]
fn without_a_verdict_the_record_goes() {
    let (mut slots, mut links) = (vec![PendingFlow::default(); 1], vec![0; 4]);
    let mut pending = Pending::new(&mut slots, &mut links, 2);
    let ticket = pending.open(RecordId(1)).expect("a free slot");
    assert_eq!(pending.open(RecordId(2)), None, "bounded");
    assert_eq!(pending.complete_upcall(ticket, 1), Completion::Undecided(RecordId(1)));
    pending.close(ticket.slot);
    let next = pending.open(RecordId(2)).expect("free again");
    assert_ne!(next.sequence, ticket.sequence);
    assert_eq!(pending.complete_upcall(ticket, 1), Completion::Stale);
    assert_eq!(
        pending.complete_upcall(next, 9),
        Completion::Undecided(RecordId(2)),
        "a lying host cannot underflow it"
    );
}
