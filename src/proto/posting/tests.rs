//! What a client says and does, line by line.

use super::{one::MAX_UNREACHED, *};

const T0: Timestamp = Timestamp(1_795_361_280_000);

fn offer(worker: &str, future: &str, rest: &str, now: Timestamp) -> Event {
    let until = now.unix_seconds() + 15;
    let text = format!("when=x,expires={until},type=offer,from={worker},to=c@h:1,future={future},{rest}");
    Event::Line(text.into_bytes())
}

const OURS: &str = "protocols=libp2p,peer=12D3KooWw";
const OTHER: &str = "protocols=libp2p,peer=12D3KooWv";

fn failed(came: bool) -> Event {
    Event::Failed { future: future(), came }
}

fn post(future: &str) -> Event {
    Event::Post { future: future.parse().unwrap(), size: 5, deadline: None }
}

fn requests(actions: &[Action]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::Say(Message::Request { .. }, _))).count()
}

fn posted() -> Postings {
    let mut client = Postings::new("c@h:1".parse().unwrap(), 2);
    assert!(client.handle(post("f-1"), T0).is_empty(), "nothing is said before the topic is joined");
    let said = client.handle(Event::Joined, T0);
    assert!(matches!(
        said.as_slice(),
        [Action::Say(Message::Hello { .. }, _), Action::Say(Message::Request { size: 5, .. }, _)]
    ));
    client
}

fn future() -> FutureId {
    "f-1".parse().unwrap()
}

fn granted(actions: &[Action]) -> Option<&str> {
    actions.iter().find_map(|action| match action {
        Action::Grant { worker, .. } => Some(worker.as_str()),
        _ => None,
    })
}

#[test]
fn the_first_offer_that_speaks_libp2p_wins() {
    let mut client = posted();
    assert_eq!(granted(&client.handle(offer("r@w:1", "f-1", "protocols=wormhole", T0), T0)), None);
    assert_eq!(granted(&client.handle(offer("w@w:1", "f-2", OURS, T0), T0)), None, "never posted");
    assert_eq!(granted(&client.handle(offer("w@w:1", "f-1", OURS, T0), T0)), Some("w@w:1"));
    assert_eq!(granted(&client.handle(offer("v@w:1", "f-1", OURS, T0), T0)), None, "too late");
    assert_eq!(client.counters().len(), 3);
}

#[test]
fn a_request_is_posted_again_until_somebody_takes_it() {
    let mut client = posted();
    let due = client.next_wakeup().unwrap();
    assert_eq!(due, T0 + REQUEST_VALIDITY);
    assert_eq!(client.handle(Event::Tick, due).len(), 1);
    client.handle(offer("w@w:1", "f-1", OURS, due), due);
    client.handle(Event::Came(future()), due);
    assert_eq!(client.handle(Event::Tick, due + REQUEST_VALIDITY), []);
}

#[test]
fn requests_are_posted_in_the_order_in_which_they_came_whatever_their_names() {
    let mut client = Postings::new("c@h:1".parse().unwrap(), 2);
    for name in ["f-9", "f-1", "f-5"] {
        client.handle(post(name), T0);
    }
    let names = |said: Vec<Action>| -> Vec<String> {
        let name = |action| match action {
            Action::Say(Message::Request { future, .. }, _) => Some(future.to_string()),
            _ => None,
        };
        said.into_iter().filter_map(name).collect()
    };
    assert_eq!(names(client.handle(Event::Joined, T0)), ["f-9", "f-1", "f-5"]);
    assert_eq!(names(client.handle(Event::Tick, T0 + REQUEST_VALIDITY)), ["f-9", "f-1", "f-5"]);
}

#[test]
fn only_so_many_requests_are_on_the_board_at_a_time() {
    let mut client = Postings::new("c@h:1".parse().unwrap(), 2);
    client.handle(Event::Joined, T0);
    let said: usize = (0..100).map(|i| requests(&client.handle(post(&format!("f-{i}")), T0))).sum();
    assert_eq!(said, WINDOW);
    assert_eq!(requests(&client.handle(Event::Tick, T0 + REQUEST_VALIDITY)), WINDOW, "the same ones");
    let now = T0 + REQUEST_VALIDITY;
    let said = client.handle(offer("w@w:1", "f-3", OURS, now), now);
    assert_eq!(granted(&said), Some("w@w:1"));
    assert_eq!(requests(&said), 1, "the next one");
    assert_eq!(client.handle(Event::Withdraw("f-99".parse().unwrap()), now), [], "it was never there");
    assert_eq!(requests(&client.handle(Event::Withdraw("f-1".parse().unwrap()), now)), 1);
}

#[test]
fn a_worker_that_does_not_come_is_reminded_and_then_the_faster_one_has_it() {
    let mut client = posted();
    client.handle(offer("w@w:1", "f-1", OURS, T0), T0);
    assert_eq!(granted(&client.handle(offer("v@w:1", "f-1", OTHER, T0), T0)), None, "it has a worker");
    let now = client.next_wakeup().unwrap();
    assert_eq!(now, T0 + DOUBT);
    let said = client.handle(Event::Tick, now);
    let again = Action::Confirm { future: future(), worker: "w@w:1".parse().unwrap() };
    assert_eq!(said[..2], [Action::Doubted(future()), again]);
    assert_eq!((said.len(), requests(&said)), (3, 1));
    assert_eq!(granted(&client.handle(offer("w@w:1", "f-1", OURS, now), now)), Some("w@w:1"), "here it is");
    client.handle(Event::Tick, now + DOUBT);
    assert_eq!(granted(&client.handle(offer("v@w:1", "f-1", OTHER, now + DOUBT), now + DOUBT)), Some("v@w:1"));
    assert_eq!(client.postings[&future()].unreached, 2);
}

#[test]
fn a_silent_worker_that_comes_back_keeps_its_future() {
    let mut client = posted();
    client.handle(offer("w@w:1", "f-1", OURS, T0), T0);
    client.handle(Event::Came(future()), T0);
    client.handle(Event::Silent(future()), T0);
    let now = T0 + ABSENCE;
    let said = client.handle(Event::Tick, now);
    assert_eq!((said.len(), requests(&said)), (2, 1), "no reminder: it has the ticket {said:?}");
    let back = client.handle(Event::Came(future()), now);
    assert_eq!(back, [Action::Confirm { future: future(), worker: "w@w:1".parse().unwrap() }]);
    assert_eq!(granted(&client.handle(offer("v@w:1", "f-1", OTHER, now), now)), None);
    client.handle(Event::Silent(future()), now);
    client.handle(Event::Tick, now + ABSENCE);
    assert_eq!(granted(&client.handle(offer("v@w:1", "f-1", OTHER, now + ABSENCE), now + ABSENCE)), Some("v@w:1"));
    let end = client.handle(failed(true), now + ABSENCE);
    assert_eq!(end, [Action::GaveUp { future: future(), attempts: 2 }], "both came and failed");
}

#[test]
fn the_last_attempt_is_not_taken_from_a_silent_worker() {
    let mut client = posted();
    client.handle(offer("w@w:1", "f-1", OURS, T0), T0);
    client.handle(failed(true), T0);
    client.handle(offer("v@w:1", "f-1", OTHER, T0), T0);
    client.handle(Event::Came(future()), T0);
    client.handle(Event::Silent(future()), T0);
    let now = T0 + ABSENCE;
    client.handle(Event::Tick, now);
    let third = offer("u@w:1", "f-1", "protocols=libp2p,peer=12D3KooWu", now);
    assert_eq!(granted(&client.handle(third, now)), None);
}

#[test]
fn what_is_late_is_withdrawn() {
    let mut client = posted();
    let deadline = T0 + Duration::from_secs(30);
    let late: FutureId = "f-2".parse().unwrap();
    client.handle(Event::Post { future: late.clone(), size: 1, deadline: Some(deadline) }, T0);
    client.handle(Event::Lost, T0);
    assert_eq!(client.next_wakeup(), Some(deadline), "even when the board is away");
    let said = client.handle(Event::Tick, deadline);
    assert!(matches!(&said[..], [Action::Say(Message::Withdraw { .. }, _), Action::TimedOut(_)]), "{said:?}");
    assert_eq!(client.next_wakeup(), None);
}

#[test]
fn a_failed_worker_is_passed_over_and_in_the_end_the_client_gives_up() {
    let mut client = posted();
    client.handle(offer("w@w:1", "f-1", OURS, T0), T0);
    assert_eq!(client.handle(failed(true), T0).len(), 1, "posted again at once");
    assert_eq!(granted(&client.handle(offer("w@w:1", "f-1", OTHER, T0), T0)), None, "the same name");
    assert_eq!(granted(&client.handle(offer("v@w:1", "f-1", OURS, T0), T0)), None, "the same node");
    assert_eq!(granted(&client.handle(offer("v@w:1", "f-1", OTHER, T0), T0)), Some("v@w:1"));
    let end = client.handle(failed(true), T0);
    assert_eq!(end, [Action::GaveUp { future: future(), attempts: 2 }]);
}

#[test]
fn forged_offers_burn_no_attempts_and_are_forgotten() {
    let mut client = posted();
    for number in 0..MAX_UNREACHED - 1 {
        let now = T0 + Duration::from_secs(30) * number;
        let offer = offer(&format!("x@w:{number}"), "f-1", &format!("protocols=libp2p,peer=12D3KooW{number}"), now);
        assert!(granted(&client.handle(offer, now)).is_some());
        let said = client.handle(failed(false), now + Duration::from_secs(29));
        assert!(said.iter().any(|action| matches!(action, Action::Say(Message::Request { .. }, _))), "{said:?}");
        assert!(client.postings[&future()].distrusted.len() <= 2);
    }
    assert_eq!(client.postings[&future()].attempts, 0);
    let now = T0 + Duration::from_secs(30) * MAX_UNREACHED;
    client.handle(offer("x@w:99", "f-1", "protocols=libp2p,peer=12D3KooW99", now), now);
    let end = client.handle(failed(false), now);
    assert_eq!(end, [Action::GaveUp { future: future(), attempts: MAX_UNREACHED }], "perhaps nobody can reach us");
}

#[test]
fn what_is_withdrawn_or_done_is_forgotten() {
    let mut client = posted();
    let said = client.handle(Event::Withdraw(future()), T0);
    assert!(matches!(said.as_slice(), [Action::Say(Message::Withdraw { to: None, .. }, _)]));
    assert_eq!(client.handle(Event::Tick, T0 + REQUEST_VALIDITY), []);
    assert_eq!(client.handle(Event::Withdraw(future()), T0), []);
}

fn confirms(actions: &[Action]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::Confirm { .. })).count()
}

#[test]
fn a_client_that_moved_tells_who_has_its_futures_and_gives_them_time() {
    let mut client = posted();
    client.handle(offer("w@w:1", "f-1", OURS, T0), T0);
    client.handle(Event::Came(future()), T0);
    let said = client.handle(Event::Moved, T0);
    assert_eq!((confirms(&said), requests(&said)), (1, 0), "if the board is still there, it is heard at once");
    client.handle(Event::Lost, T0);
    let late = T0 + DOUBT * 2;
    assert_eq!(client.handle(Event::Silent(future()), late), []);
    let said = client.handle(Event::Joined, late + ABSENCE * 2);
    assert_eq!((confirms(&said), requests(&said)), (1, 0), "it may not have been heard: {said:?}");
    let said = client.handle(Event::Tick, late + ABSENCE * 2 + DOUBT);
    assert_eq!(requests(&said), 1, "it does not come: {said:?}");
    let said = client.handle(Event::Joined, late + DOUBT * 3);
    assert_eq!((confirms(&said), requests(&said)), (0, 1), "nothing moved since: {said:?}");
}

#[test]
fn who_falls_silent_just_after_a_move_may_be_on_its_way() {
    let mut client = posted();
    client.handle(offer("w@w:1", "f-1", OURS, T0), T0);
    client.handle(Event::Came(future()), T0);
    client.handle(Event::Moved, T0);
    client.handle(Event::Silent(future()), T0);
    assert_eq!(client.next_wakeup(), Some(T0 + DOUBT));
    client.handle(Event::Came(future()), T0 + ABSENCE);
    assert_eq!(client.handle(Event::Tick, T0 + DOUBT), [], "it came");
    client.handle(Event::Silent(future()), T0 + DOUBT);
    assert_eq!(client.next_wakeup(), Some(T0 + DOUBT + ABSENCE), "as ever");
}

const BOTH: Protocols = Protocols { libp2p: true, wormhole: true };
const WORMHOLE: &str = "protocols=wormhole";

fn speaking(speaks: Protocols) -> Postings {
    let mut client = Postings::new("c@h:1".parse().unwrap(), 2).speaking(speaks);
    client.handle(Event::Joined, T0);
    client.handle(post("f-1"), T0);
    client
}

fn result(worker: &str, now: Timestamp) -> Event {
    let until = now.unix_seconds() + 60;
    let text = format!("when=x,expires={until},type=result,from={worker},to=c@h:1,future=f-1,via=wormhole://0000-a");
    Event::Line(text.into_bytes())
}

fn fetch(said: bool) -> Action {
    Action::Fetch { future: future(), said }
}

fn by_wormhole(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Grant { route: Route::Wormhole, .. }))
}

/// A client whose future is with `r@w:1`, which came.
fn running() -> Postings {
    let mut client = speaking(Protocols { libp2p: false, wormhole: true });
    assert!(by_wormhole(&client.handle(offer("r@w:1", "f-1", WORMHOLE, T0), T0)), "at once, where nobody is better");
    client.handle(Event::Came(future()), T0);
    client
}

#[test]
fn an_offer_by_wormhole_waits_a_moment_for_a_better_one() {
    let mut client = speaking(BOTH);
    assert_eq!(client.handle(offer("r@w:1", "f-1", WORMHOLE, T0), T0), []);
    assert_eq!(client.next_wakeup(), Some(T0 + PREFERENCE));
    assert_eq!(client.handle(offer("r@w:2", "f-1", WORMHOLE, T0), T0), [], "the first is kept");
    let said = client.handle(Event::Tick, T0 + PREFERENCE);
    assert_eq!((granted(&said), by_wormhole(&said)), (Some("r@w:1"), true));

    let mut client = speaking(BOTH);
    client.handle(offer("r@w:1", "f-1", WORMHOLE, T0), T0);
    let said = client.handle(offer("w@w:1", "f-1", "protocols=libp2p;wormhole,peer=12D3KooWw", T0), T0);
    assert_eq!((granted(&said), by_wormhole(&said)), (Some("w@w:1"), false));
    assert_eq!(client.handle(Event::Tick, T0 + PREFERENCE), [], "nobody else gets it");

    let mut client = speaking(BOTH);
    client.handle(offer("r@w:1", "f-1", WORMHOLE, T0), T0);
    client.handle(Event::Lost, T0);
    assert_eq!(client.handle(Event::Tick, T0 + PREFERENCE), [], "nobody would hear it");
    client.handle(offer("r@w:1", "f-1", WORMHOLE, T0), T0);
    client.handle(Event::Withdraw(future()), T0);
    assert_eq!(granted(&client.handle(Event::Tick, T0 + PREFERENCE)), None);
}

#[test]
fn a_client_takes_only_what_it_speaks() {
    let mut client = speaking(Protocols { libp2p: true, wormhole: false });
    assert_eq!(client.handle(offer("r@w:1", "f-1", WORMHOLE, T0), T0), []);
    let mut client = speaking(Protocols { libp2p: false, wormhole: true });
    assert_eq!(client.handle(offer("w@w:1", "f-1", OURS, T0), T0), []);
    let said = client.handle(offer("w@w:1", "f-1", "protocols=libp2p;wormhole,peer=12D3KooWw", T0), T0);
    assert!(by_wormhole(&said), "{said:?}");
    let again = client.handle(Event::Lost, T0);
    assert_eq!(again, []);
    let said = client.handle(Event::Joined, T0 + REQUEST_VALIDITY * 2);
    let spoken = said.iter().find_map(|action| match action {
        Action::Say(Message::Request { protocols, .. }, _) => Some(*protocols),
        _ => None,
    });
    assert_eq!(spoken, Some(Protocols { libp2p: false, wormhole: true }), "{said:?}");
}

#[test]
fn a_result_is_fetched_when_the_worker_that_has_the_future_says_so() {
    let mut client = running();
    assert_eq!(client.handle(result("m@w:1", T0), T0), [], "a stranger");
    assert_eq!(client.handle(result("r@w:1", T0), T0), [fetch(true)]);
    assert_eq!(
        client.next_wakeup(),
        Some(T0 + HELLO_VALIDITY / 2),
        "nothing else is waited for, however long it takes"
    );
    let mut client = posted();
    client.handle(offer("w@w:1", "f-1", OURS, T0), T0);
    assert_eq!(client.handle(result("w@w:1", T0), T0), [], "ours brings it through its stream");
}

#[test]
fn what_was_said_while_nobody_listened_is_asked_for() {
    let mut client = running();
    client.handle(Event::Lost, T0);
    assert!(client.handle(Event::Joined, T0).contains(&fetch(false)));
    assert_eq!(client.handle(Event::Skipped(3), T0), [fetch(false)]);
    let mut client = speaking(Protocols { libp2p: false, wormhole: true });
    client.handle(offer("r@w:1", "f-1", WORMHOLE, T0), T0);
    assert_eq!(client.handle(Event::Skipped(3), T0), [], "it has not even come");
}

#[test]
fn a_worker_that_does_not_come_by_wormhole_is_told_once_and_replaced() {
    let mut client = speaking(BOTH);
    client.handle(offer("r@w:1", "f-1", WORMHOLE, T0), T0);
    let now = T0 + PREFERENCE;
    client.handle(Event::Tick, now);
    let due = client.next_wakeup().unwrap();
    assert!(due - now >= Duration::from_secs(10), "it needs longer than ours");
    let said = client.handle(Event::Tick, due);
    assert_eq!((said.len(), requests(&said)), (2, 1), "{said:?}");
    assert_eq!(client.handle(Event::Came(future()), due), [], "nothing that could disturb it");
    client.handle(Event::Silent(future()), due);
    client.handle(Event::Tick, due + ABSENCE);
    let said = client.handle(offer("w@w:1", "f-1", OURS, due + ABSENCE), due + ABSENCE);
    assert_eq!(granted(&said), Some("w@w:1"), "whoever is faster");
    assert_eq!(client.handle(result("r@w:1", due + ABSENCE), due + ABSENCE), [], "too late");
}

#[test]
fn a_code_that_somebody_else_used_is_nobodys_fault() {
    let mut client = running();
    let said = client.handle(Event::CodeSpoilt(future()), T0);
    assert_eq!(requests(&said), 1, "posted again at once");
    assert!(by_wormhole(&client.handle(offer("r@w:1", "f-1", WORMHOLE, T0), T0)), "the same worker may have it");
    for _ in 2..MAX_UNREACHED {
        client.handle(Event::CodeSpoilt(future()), T0);
        client.handle(offer("r@w:1", "f-1", WORMHOLE, T0), T0);
    }
    let end = client.handle(Event::CodeSpoilt(future()), T0);
    assert_eq!(end, [Action::GaveUp { future: future(), attempts: MAX_UNREACHED }], "but not for ever");
}

#[test]
fn a_failed_worker_is_passed_over_by_wormhole_too() {
    let mut client = running();
    client.handle(failed(true), T0);
    assert_eq!(granted(&client.handle(offer("r@w:1", "f-1", WORMHOLE, T0), T0)), None);
    assert!(by_wormhole(&client.handle(offer("r@w:2", "f-1", WORMHOLE, T0), T0)));
    let end = client.handle(failed(true), T0);
    assert_eq!(end, [Action::GaveUp { future: future(), attempts: 2 }]);
}
