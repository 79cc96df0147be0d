//! What a worker says and does, line by line. Sequences with R peers: `tests/data/transcripts`.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::ids::Ticket;

const T0: Timestamp = Timestamp(1_795_361_280_000);

fn claims(slots: usize) -> Claims {
    let me = "worker@w:1".parse().unwrap();
    let mut claims = Claims::new(Settings {
        me,
        node: "12D3KooWw".parse().ok(),
        wormhole: true,
        slots,
        max_future: 1000,
        about: About::default(),
    });
    let actions = claims.handle(Event::Joined, T0);
    assert!(matches!(actions.as_slice(), [Action::Say(Message::Hello { .. }, _)]));
    claims
}

fn request(client: &str, future: &str) -> Event {
    line(format!("type=request,from={client},future={future},size=10,protocols=libp2p"), 10)
}

fn accept(client: &str, worker: &str, future: &str) -> Event {
    let ticket = Ticket([1; 16]);
    line(format!("type=accept,from={client},to={worker},future={future},via=libp2p://12D3KooWc/{ticket}"), 10)
}

fn line(rest: String, seconds: u64) -> Event {
    Event::Line(format!("when=x,expires={},{rest}", T0.unix_seconds() + seconds).into_bytes())
}

fn offers(actions: &[Action]) -> Vec<String> {
    let offer = |action: &Action| match action {
        Action::Say(Message::Offer { to, future, .. }, _) => Some(format!("{to} {future}")),
        _ => None,
    };
    actions.iter().filter_map(offer).collect()
}

fn starts(actions: &[Action]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::Start(_))).count()
}

#[test]
fn clients_that_say_hello_are_answered_and_seldom() {
    let mut worker = claims(1);
    let hello = |n: u32| line(format!("type=client,from=c@h:{n},protocols=libp2p"), 600);
    let is_hello = |action: &Action| matches!(action, Action::Say(Message::Hello { role: Role::Worker, .. }, _));
    assert!(worker.handle(hello(1), T0).iter().all(is_hello), "at once, by who knows of no other");
    assert_eq!(worker.handle(hello(2), T0), []);
    let (pause, longest) = (*HELLO_PAUSE.start(), *HELLO_PAUSE.end());
    assert_eq!(worker.next_wakeup(T0), Some(T0 + pause), "a second later for those who came since");
    let said = |worker: &mut Claims, from: Timestamp| {
        let said = |n: u32| worker.handle(hello(n), from + Duration::from_millis(100) * n);
        (0..1000).flat_map(said).filter(is_hello).count()
    };
    let few = said(&mut worker, T0);
    assert!((90..=101).contains(&few), "{few} in a hundred seconds");
    for n in 0..200 {
        worker.handle(line(format!("type=worker,from=w@h:{n},protocols=libp2p"), 600), T0);
    }
    let many = said(&mut worker, T0 + longest * 10);
    assert!((1..=5).contains(&many), "{many} in a hundred seconds, where two hundred workers answer");
}

#[test]
fn the_same_accept_once_more_says_where_the_client_is() {
    let mut worker = claims(1);
    let told = |actions: &[Action]| matches!(actions, [Action::Moved(job)] if job.at.len() == 1);
    let again = |ticket: u8| {
        let via = format!("via=libp2p://12D3KooWc/{}", Ticket([ticket; 16]));
        let at = "at=/ip4/192.0.2.7/tcp/1";
        line(format!("type=accept,from=c@h:1,to=worker@w:1,future=f-1,{via},{at}"), 10)
    };
    assert!(!told(&worker.handle(again(1), T0)), "it has nothing of this client");
    worker.handle(request("c@h:1", "f-1"), T0);
    assert_eq!(starts(&worker.handle(accept("c@h:1", "worker@w:1", "f-1"), T0)), 1);
    assert!(told(&worker.handle(again(1), T0)));
    assert_eq!(worker.handle(again(2), T0), [], "not with a ticket of another run");
}

#[test]
fn a_request_is_offered_on_accepted_and_run_once() {
    let mut worker = claims(1);
    assert_eq!(offers(&worker.handle(request("c@h:1", "f-1"), T0)), ["c@h:1 f-1"]);
    assert_eq!(offers(&worker.handle(request("c@h:1", "f-1"), T0)), [""; 0], "not twice");
    assert_eq!(starts(&worker.handle(accept("c@h:1", "worker@w:1", "f-1"), T0)), 1);
    assert_eq!(starts(&worker.handle(accept("c@h:1", "worker@w:1", "f-1"), T0)), 0, "a repeated accept");
    assert_eq!(offers(&worker.handle(request("c@h:1", "f-2"), T0)), [""; 0], "the slot is taken");
    let ended = Key { client: "c@h:1".parse().unwrap(), future: "f-1".parse().unwrap() };
    assert_eq!(offers(&worker.handle(Event::Ended(ended), T0)), ["c@h:1 f-2"]);
}

#[test]
fn an_accept_without_an_offer_starts_nothing() {
    let mut worker = claims(1);
    assert_eq!(starts(&worker.handle(accept("c@h:1", "worker@w:1", "f-1"), T0)), 0);
    worker.handle(request("c@h:1", "f-1"), T0);
    assert_eq!(starts(&worker.handle(accept("d@h:1", "worker@w:1", "f-1"), T0)), 0, "another client");
    assert_eq!(starts(&worker.handle(accept("c@h:1", "other@w:1", "f-1"), T0)), 0, "another worker");
    assert_eq!(worker.counters()["accept without an offer"], 2);
    assert_eq!(offers(&worker.handle(request("c@h:1", "f-2"), T0)), ["c@h:1 f-2"], "the slot is free again");
}

#[test]
fn an_offer_that_nobody_takes_frees_its_slot_and_is_not_repeated_at_once() {
    let mut worker = claims(1);
    worker.handle(line("type=request,from=c@h:1,future=f-1,size=1,protocols=libp2p".into(), 100), T0);
    worker.handle(line("type=request,from=c@h:1,future=f-2,size=1,protocols=libp2p".into(), 100), T0);
    let later = worker.next_wakeup(T0).unwrap();
    assert_eq!(later, T0 + OFFER_VALIDITY + OFFER_GRACE);
    assert_eq!(offers(&worker.handle(Event::Tick, later)), ["c@h:1 f-2"]);
}

#[test]
fn a_draining_worker_offers_nothing_but_honours_what_it_offered() {
    let mut worker = claims(2);
    worker.handle(request("c@h:1", "f-1"), T0);
    worker.handle(Event::Drain, T0);
    assert_eq!(offers(&worker.handle(request("c@h:1", "f-2"), T0)), [""; 0]);
    assert_eq!(starts(&worker.handle(accept("c@h:1", "worker@w:1", "f-1"), T0)), 1);
}

#[test]
fn requests_that_cannot_be_served_are_counted() {
    let mut worker = claims(1);
    worker.handle(line("type=request,from=c@h:1,future=f,size=1001,protocols=libp2p".into(), 10), T0);
    worker.handle(line("type=request,from=c@h:1,future=f,size=1,protocols=pigeon".into(), 10), T0);
    worker.handle(Event::Line(b"hello".to_vec()), T0);
    let counted: Vec<_> = worker.counters().iter().collect();
    assert_eq!(
        counted,
        [(&"not a message", &1), (&"request for another transfer", &1), (&"request over --max-future", &1)]
    );
}

#[test]
fn a_request_counts_for_two_minutes_at_most_and_can_be_renewed() {
    let mut worker = claims(1);
    let long = |client: &str| line(format!("type=request,from={client},future=f,size=1,protocols=libp2p"), 86_000);
    for client in ["c@h:1", "d@h:1", "e@h:1"] {
        worker.handle(long(client), T0);
    }
    let later = T0 + REQUEST_VALIDITY / 2;
    worker.handle(long("e@h:1"), later);
    worker.handle(Event::Tick, T0 + REQUEST_VALIDITY);
    let left: Vec<_> = worker.requests.keys().map(|key| key.client.as_str()).collect();
    assert_eq!(left, ["e@h:1"]);
    worker.handle(Event::Tick, later + REQUEST_VALIDITY);
    assert_eq!(worker.open_requests(), 0);
}

#[test]
fn a_flood_of_requests_is_bounded() {
    let mut worker = claims(1);
    for i in 0..3000 {
        worker.handle(request(&format!("c@h:{}", i % 20), &format!("f-{i}")), T0);
    }
    assert!(worker.open_requests() <= table::MAX_REQUESTS);
}

fn heard_offer(from: &str, future: &str, rest: &str) -> Event {
    line(format!("type=offer,from={from},to=c@h:1,future={future},protocols={rest}"), 15)
}

/// When the worker would offer, if nothing more happens before.
fn offers_at(worker: &mut Claims, mut now: Timestamp) -> Timestamp {
    while offers(&worker.handle(Event::Tick, now)).is_empty() {
        now = worker.next_wakeup(now).unwrap();
    }
    now
}

#[test]
fn a_worker_that_knows_of_others_waits_and_makes_way_but_not_for_ever() {
    let mut worker = claims(1);
    worker.handle(line("type=worker,from=v@w:2,protocols=libp2p".into(), 600), T0);
    let long = |future: &str| line(format!("type=request,from=c@h:1,future={future},size=1,protocols=libp2p"), 100);
    assert_eq!(offers(&worker.handle(long("f-1"), T0)), [""; 0], "not at once");
    let due = worker.next_wakeup(T0).unwrap();
    assert!(due > T0 && due < T0 + Duration::from_secs(1), "{due:?}");
    worker.handle(heard_offer("v@w:2", "f-1", "libp2p,peer=12D3KooWv"), T0);
    assert_eq!(offers(&worker.handle(Event::Tick, due)), [""; 0], "the other one was faster");
    let at = offers_at(&mut worker, due);
    assert!(at >= T0 + YIELD && at < T0 + YIELD + Duration::from_secs(1), "{at:?}");
}

#[test]
fn offers_that_the_client_cannot_take_hold_nobody_back() {
    let mut worker = claims(1);
    worker.handle(line("type=worker,from=v@w:2,protocols=libp2p".into(), 600), T0);
    worker.handle(request("c@h:1", "f-1"), T0);
    worker.handle(heard_offer("r@w:3", "f-1", "wormhole"), T0);
    worker.handle(heard_offer("q@w:4", "f-1", "libp2p"), T0);
    let at = offers_at(&mut worker, T0);
    assert!(at < T0 + Duration::from_secs(1), "{at:?}");
    let mut worker = claims(1);
    worker.handle(line("type=worker,from=v@w:2,protocols=libp2p".into(), 600), T0);
    let asks =
        |future, protocols| line(format!("type=request,from=c@h:1,future={future},size=1,protocols={protocols}"), 10);
    worker.handle(asks("f-1", "libp2p;wormhole"), T0);
    worker.handle(heard_offer("r@w:3", "f-1", "wormhole"), T0);
    let at = offers_at(&mut worker, T0);
    assert!(at < T0 + Duration::from_secs(1), "its client would rather have ours: {at:?}");
    let mut worker = claims(1);
    worker.handle(line("type=worker,from=v@w:2,protocols=libp2p".into(), 600), T0);
    worker.handle(asks("f-1", "wormhole"), T0);
    worker.handle(heard_offer("r@w:3", "f-1", "wormhole"), T0);
    assert!(offers_at(&mut worker, T0) >= T0 + YIELD, "an R worker was faster");
}

#[test]
fn clients_take_turns() {
    let mut worker = claims(1);
    for future in ["f-1", "f-2", "f-3"] {
        worker.handle(request("c@h:1", future), T0);
    }
    worker.handle(request("d@h:1", "f-9"), T0 + Duration::from_secs(1));
    let mut served = Vec::new();
    for (client, future) in [("c@h:1", "f-1"), ("d@h:1", "f-9"), ("c@h:1", "f-2"), ("c@h:1", "f-3")] {
        let now = T0 + Duration::from_secs(2);
        worker.handle(accept(client, "worker@w:1", future), now);
        let ended = Key { client: client.parse().unwrap(), future: future.parse().unwrap() };
        served.extend(offers(&worker.handle(Event::Ended(ended), now)));
    }
    assert_eq!(served, ["d@h:1 f-9", "c@h:1 f-2", "c@h:1 f-3"]);
}

proptest! {
    /// Whatever comes in whatever order: never more promises than slots, never the same future twice at a time.
    #[test]
    fn promises_never_exceed_slots(steps in proptest::collection::vec((0u8..6, 0u8..4, 0u64..20), 0..200)) {
        let mut worker = claims(2);
        let mut now = T0;
        let mut running = HashSet::new();
        for (what, which, seconds) in steps {
            let key = Key { client: "c@h:1".parse().unwrap(), future: format!("f-{which}").parse().unwrap() };
            let until = now.unix_seconds() + 10;
            let text = |rest: String| Event::Line(format!("when=x,expires={until},{rest}").into_bytes());
            let event = match what {
                0 => text(format!("type=request,from=c@h:1,future=f-{which},size=1,protocols=libp2p")),
                1 => text(format!(
                    "type=accept,from=c@h:1,to=worker@w:1,future=f-{which},via=libp2p://12D3KooWc/{}", Ticket([1; 16]))),
                2 => text(format!("type=accept,from=c@h:1,to=other@w:1,future=f-{which},via=wormhole://1-a")),
                3 => { running.remove(&key); Event::Ended(key) }
                4 => Event::Line(format!("when=x,type=withdraw,from=c@h:1,future=f-{which}").into_bytes()),
                _ => { now = now + Duration::from_secs(seconds); Event::Tick }
            };
            for action in worker.handle(event, now) {
                if let Action::Start(job) = action {
                    prop_assert!(running.insert(job.key), "started twice");
                }
            }
            prop_assert!(worker.offers.len() + worker.running.len() <= 2);
            prop_assert_eq!(worker.running.len(), running.len());
        }
    }
}
