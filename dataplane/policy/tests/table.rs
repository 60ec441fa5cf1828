//! The connection table against a simple one: what is found, what is refused, what is over.

use std::collections::BTreeMap;
use std::net::IpAddr;

use culvert_flow::HashSecret;
use culvert_packet::{Rdid, VportId};
use culvert_policy::connection::{Ends, Full, State};
use culvert_policy::{Connection, ConnectionId, Connections, Effect, Timeouts};
use proptest::prelude::*;

const LIMIT: usize = 12;
const PER_VPORT: usize = 7;

fn table(limit: usize, per_vport: usize) -> Connections {
    Connections::new(
        limit,
        per_vport,
        Timeouts::default(),
        HashSecret(std::array::from_fn(|n| (n as u64 + 3).wrapping_mul(0x9e37_79b9_7f4a_7c15))),
    )
}

/// The simple one: every question is a look at all connections.
#[derive(Default)]
struct Model {
    all: BTreeMap<u64, Connection>,
}

impl Model {
    fn find(&self, ends: &Ends) -> Option<(ConnectionId, bool)> {
        let found = |e: Ends| self.all.iter().find(|(_, c)| c.ends == e).map(|(id, _)| ConnectionId(*id));
        found(*ends).map(|id| (id, false)).or_else(|| found(ends.reversed()).map(|id| (id, true)))
    }

    fn room(&self, owner: VportId) -> Result<(), Full> {
        match self.all.values().filter(|c| c.owner == owner).count() {
            _ if self.all.len() >= LIMIT => Err(Full::Table),
            n if n >= PER_VPORT => Err(Full::Vport),
            _ => Ok(()),
        }
    }
}

fn connection(ends: Ends, owner: u16, state: State, now: u32) -> Connection {
    Connection { ends, owner: VportId(owner), state, last_seen: now, keys: [None, None] }
}

fn ends() -> impl Strategy<Value = Ends> {
    let address = prop_oneof![
        (0u8..4).prop_map(|n| IpAddr::from([10, 1, 1, n])),
        (0u16..3).prop_map(|n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n])),
    ];
    let end = (address, 0u16..3);
    let protocol = prop_oneof![Just(6u8), Just(17), Just(1), Just(99)];
    (0u8..2, protocol, end.clone(), end).prop_map(|(network, protocol, first, second)| Ends {
        rdid: Rdid([network; 16]),
        protocol,
        first,
        second,
    })
}

fn state() -> impl Strategy<Value = State> {
    prop_oneof![
        Just(State::Timed),
        Just(State::Opening),
        Just(State::Established),
        any::<bool>().prop_map(State::Closing),
        Just(State::Closed),
    ]
}

#[derive(Clone, Debug)]
enum Event {
    Open(Ends, u16, State),
    Update(usize, State),
    Control(usize, bool, u8),
    Touch(usize),
    Remove(usize),
    Adopt(u64, Ends, u16),
    Age(u32, bool),
}

fn event() -> impl Strategy<Value = Event> {
    let id = prop_oneof![
        1u64..30,
        any::<u64>().prop_map(|n| (n >> 1).max(1)),
        (1u64..4, 0u64..8).prop_map(|(s, n)| s << 32 | n)
    ];
    let ms = prop_oneof![0u32..2000, 0u32..200_000, 0u32..8_000_000];
    prop_oneof![
        8 => (ends(), 0u16..3, state()).prop_map(|(e, o, s)| Event::Open(e, o, s)),
        2 => (0usize..LIMIT, state()).prop_map(|(n, s)| Event::Update(n, s)),
        2 => (0usize..LIMIT, any::<bool>(), 0u8..32).prop_map(|(n, r, f)| Event::Control(n, r, f)),
        2 => (0usize..LIMIT).prop_map(Event::Touch),
        1 => (0usize..LIMIT).prop_map(Event::Remove),
        1 => (id, ends(), 0u16..3).prop_map(|(id, e, o)| Event::Adopt(id, e, o)),
        3 => (ms, any::<bool>()).prop_map(|(ms, forget)| Event::Age(ms, forget)),
    ]
}

proptest! {
    /// Whatever happens: both tables hold the same connections under the same names, refuse the same, and the same ones
    /// are over. No name is given
    /// twice.
    #[test]
    fn it_is_a_table(start in any::<u32>(), events in proptest::collection::vec(event(), 1..150)) {
        let (mut table, mut model, mut now) = (table(LIMIT, PER_VPORT), Model::default(), start);
        let mut names = std::collections::BTreeSet::new();
        let nth = |model: &Model, n: usize| model.all.keys().nth(n).copied();
        for event in events {
            match event {
                Event::Open(ends, owner, state) => {
                    prop_assert_eq!(table.find(&ends), model.find(&ends));
                    let room = table.room(VportId(owner));
                    prop_assert_eq!(room.map(|_| ()), model.room(VportId(owner)));
                    if let (None, Ok(id)) = (table.find(&ends), room) {
                        prop_assert!(id.0 != 0 && id.0 & ConnectionId::REVERSE == 0 && names.insert(id.0));
                        let made = connection(ends, owner, state, now);
                        table.apply(&Some(Effect::Create(id, made)), now);
                        model.all.insert(id.0, made);
                    }
                }
                Event::Update(n, state) => if let Some(id) = nth(&model, n) {
                    table.apply(&Some(Effect::Update(ConnectionId(id), state, [None, None])), now);
                    model.all.entry(id).and_modify(|c| (c.state, c.last_seen) = (state, now));
                }
                Event::Control(n, reverse, flags) => if let Some(id) = nth(&model, n) {
                    table.control(ConnectionId(id), reverse, flags, now);
                    let state = table.get(ConnectionId(id)).expect("it is there").state;
                    model.all.entry(id).and_modify(|c| (c.state, c.last_seen) = (state, now));
                }
                Event::Touch(n) => if let Some(id) = nth(&model, n) {
                    table.touch(ConnectionId(id), now);
                    model.all.entry(id).and_modify(|c| c.last_seen = now);
                }
                Event::Remove(n) => if let Some(id) = nth(&model, n) {
                    prop_assert_eq!(table.remove(ConnectionId(id)), model.all.remove(&id));
                    prop_assert_eq!(table.remove(ConnectionId(id)), None);
                }
                Event::Adopt(id, ends, owner) => {
                    let made = connection(ends, owner, State::Established, now);
                    let taken = model.all.contains_key(&id) || model.find(&ends).is_some();
                    table.adopt(ConnectionId(id), &made);
                    if !taken && model.all.len() < LIMIT {
                        model.all.insert(id, made);
                    }
                }
                Event::Age(ms, forget) => {
                    now = now.wrapping_add(ms);
                    let mut found: Vec<u64> = table.expired(now, LIMIT).map(|id| id.0).collect();
                    found.sort_unstable();
                    let over = |c: &Connection| now.wrapping_sub(c.last_seen) >= table.timeout(c);
                    let expected: Vec<u64> = model.all.iter().filter(|(_, c)| over(c)).map(|(id, _)| *id).collect();
                    prop_assert_eq!(&found, &expected);
                    for id in found.into_iter().filter(|_| forget) {
                        prop_assert_eq!(table.remove(ConnectionId(id)), model.all.remove(&id));
                    }
                }
            }
            let all: BTreeMap<u64, Connection> = table.iter().map(|(id, c)| (id.0, *c)).collect();
            prop_assert_eq!(&all, &model.all);
            prop_assert_eq!(table.len(), all.len());
            prop_assert!(all.iter().all(|(id, c)| table.get(ConnectionId(*id)) == Some(c)));
        }
    }
}

fn number(n: u32) -> Ends {
    let first = ([10, 1, 1, 11].into(), n as u16);
    Ends { rdid: Rdid([1; 16]), protocol: 17, first, second: ([10, 1, 1, 12].into(), (n >> 16) as u16) }
}

fn open(table: &mut Connections, n: u32, owner: u16, now: u32) -> Result<ConnectionId, Full> {
    let id = table.room(VportId(owner))?;
    table.apply(&Some(Effect::Create(id, connection(number(n), owner, State::Timed, now))), now);
    Ok(id)
}

#[test]
fn a_full_table_keeps_what_it_has_and_takes_new_ones_when_old_ones_go() {
    let mut table = table(100_000, 60_000);
    let first: Vec<ConnectionId> = (0..60_000).map(|n| open(&mut table, n, 1, 0).expect("room")).collect();
    assert_eq!(open(&mut table, 60_000, 1, 0), Err(Full::Vport));
    for n in 60_000..100_000 {
        open(&mut table, n, 2, 0).expect("room");
    }
    assert_eq!(open(&mut table, 100_000, 3, 0), Err(Full::Table));
    assert!((0..100_000).all(|n| table.find(&number(n).reversed()).is_some_and(|(_, reverse)| reverse)));
    assert_eq!(table.remove(first[7]).map(|c| c.ends), Some(number(7)));
    let again = open(&mut table, 100_000, 1, 0).expect("room");
    assert!(!first.contains(&again), "a name is not used again");
    assert_eq!((table.get(first[7]), table.len()), (None, 100_000));
}

#[test]
fn all_that_is_over_is_found_little_by_little() {
    let mut table = table(100_000, 100_000);
    for n in 0..50_000 {
        open(&mut table, n, 1, n / 10).expect("room");
    }
    let udp = Timeouts::default().udp;
    assert_eq!(table.expired(udp - 1, 1000).count(), 0);
    // One half is in use.
    let ids: Vec<ConnectionId> =
        (0..50_000).step_by(2).map(|n| table.find(&number(n)).expect("open").0).collect();
    ids.iter().for_each(|id| table.touch(*id, udp - 1));
    for _ in 0..100 {
        let some: Vec<ConnectionId> = table.expired(udp + 5000, 1000).collect();
        assert!(some.len() <= 1000);
        for id in some {
            table.remove(id);
        }
    }
    assert_eq!(table.len(), 25_000);
    assert!(ids.iter().all(|id| table.get(*id).is_some()));
}

#[test]
fn connections_that_turned_out_to_live_longer_do_not_hide_the_others() {
    let mut table = table(100_000, 100_000);
    let state = |n: u32| if n < 20_000 { State::Opening } else { State::Closed };
    let ids: Vec<ConnectionId> = (0..20_001)
        .map(|n| {
            let id = table.room(VportId(1)).expect("room");
            let made =
                connection(Ends { protocol: 6, ..number(n) }, 1, state(n), 21_000 * u32::from(n == 20_000));
            table.apply(&Some(Effect::Create(id, made)), 0);
            id
        })
        .collect();
    // All but the last are answered.
    ids[..20_000].iter().for_each(|id| table.control(*id, true, 0x12, 100));
    let mut asked = 0;
    while table.expired(31_000, 10).next().is_none() {
        asked += 1;
        assert!(table.is_behind() && asked <= 20_000 / 10, "{asked}");
    }
    assert_eq!(table.expired(31_000, 10).collect::<Vec<_>>(), ids[20_000..]);
}
