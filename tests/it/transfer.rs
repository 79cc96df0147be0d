//! The contract of the transfer between peers that keep to it, over every network.

use std::time::Duration;

use p2p_worker::{
    proto::refusal::{Payload, Refusal},
    transfer::{
        CancelCause, DeliveryEvent, Network, NetworkError, TransferConfig, TransferError,
        libp2p::{Listen, Node, NodeConfig, NodeKey},
    },
};
use tokio::time::timeout;

use crate::transfer_support::{
    ANY, FETCH, LONG, Memory, Pair, Quic, Site, Tcp, all_events, bytes, event, failure, provenance, read, transfer,
    wait_for,
};

/// Runs each test over each network.
macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        contract!(@ memory Memory $($name)*);
        contract!(@ quic Quic $($name)*);
        contract!(@ tcp Tcp $($name)*);
    };
    (@ $module:ident $site:ident $($name:ident)*) => {
        mod $module {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&$crate::transfer_support::$site::default()).await;
            })*
        }
    };
}
pub(crate) use contract;

contract!(
    a_future_goes_there_and_its_result_comes_back,
    progress_comes_in_its_order,
    cancelled_before_the_worker_comes,
    cancelled_while_the_future_is_sent,
    cancelled_while_the_task_runs,
    a_dropped_delivery_cancels,
    a_future_over_the_limit_is_refused,
    a_result_over_the_limit_is_refused_and_another_one_is_taken,
    a_stream_that_breaks_while_the_future_is_sent,
    a_stream_that_breaks_while_the_task_runs,
    a_stream_that_breaks_while_the_result_is_sent,
    a_client_that_is_gone_stops_the_task,
    a_worker_that_is_gone,
    a_worker_that_never_comes,
    a_worker_that_gives_up,
    a_ticket_is_good_for_one_run,
    a_stranger_gets_no_stream,
    a_folder_that_cannot_be_written,
    many_at_once,
);

/// Short times for what is lost on purpose.
fn hasty() -> TransferConfig {
    TransferConfig { grace: Duration::from_millis(600), ..TransferConfig::default() }
}

async fn a_future_goes_there_and_its_result_comes_back<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    for length in [0, 1, 5000, 256 * 1024, 20 << 20] {
        let (payload, result) = (bytes(length), bytes(length / 2 + 1));
        let mut delivery = pair.grant(&payload);
        let (future, session) = pair.worker.fetch(pair.invitation(delivery.ticket)).await.unwrap();
        assert_eq!(future.size(), length as u64);
        assert_eq!(read(&future), payload);
        assert_eq!(session.max_result(), 64 << 20);
        session.begin(provenance()).await.unwrap();
        let spooled = pair.spool(&result);
        let delivered = session.deliver(&spooled, provenance());
        let (delivered, events) = tokio::join!(delivered, all_events(&mut delivery));
        delivered.unwrap();
        let once = |pick: fn(&DeliveryEvent) -> bool| events.iter().filter(|event| pick(event)).count() == 1;
        assert!(once(|event| matches!(event, DeliveryEvent::Connected)), "{events:?}");
        assert!(once(|event| matches!(event, DeliveryEvent::Sent)), "{events:?}");
        assert!(once(|event| matches!(event, DeliveryEvent::Begun(of) if *of == provenance())), "{events:?}");
        let Some(DeliveryEvent::Done { result: arrived, provenance: told }) = events.last() else {
            panic!("{events:?}");
        };
        assert_eq!((read(arrived), told), (result, &provenance()));
        if length > 1 << 20 {
            assert!(
                events
                    .iter()
                    .any(|event| matches!(event, DeliveryEvent::Sending { total, .. } if *total == length as u64))
            );
        }
    }
}

async fn progress_comes_in_its_order<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    let mut delivery = pair.grant(b"future");
    let (_, session) = pair.worker.fetch(pair.invitation(delivery.ticket)).await.unwrap();
    session.begin(provenance()).await.unwrap();
    wait_for(&mut delivery, |event| matches!(event, DeliveryEvent::Begun(_)).then_some(())).await;
    for step in 0..5u8 {
        assert!(session.progress(vec![step; 1000]));
        let told = wait_for(&mut delivery, |event| match event {
            DeliveryEvent::Progress(rds) => Some(rds.clone()),
            _ => None,
        });
        assert_eq!(told.await, vec![step; 1000]);
    }
    assert!(!session.progress(vec![0; (1 << 20) + 1]), "over the limit of a progress message");
    assert!(session.progress(vec![9; 1 << 20]));
    session.deliver(&pair.spool(b"result"), provenance()).await.unwrap();
    let events = all_events(&mut delivery).await;
    assert!(matches!(&events[0], DeliveryEvent::Progress(rds) if rds.len() == 1 << 20), "progress before the result");
    assert!(matches!(events.last(), Some(DeliveryEvent::Done { .. })), "{events:?}");
}

async fn cancelled_before_the_worker_comes<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    let mut delivery = pair.grant(b"future");
    delivery.cancel();
    assert!(matches!(failure(&mut delivery).await, TransferError::Cancelled));
    let refused = pair.worker.fetch(pair.invitation(delivery.ticket)).await.unwrap_err();
    assert!(matches!(refused, TransferError::Cancelled), "{refused:?}");
}

async fn cancelled_while_the_future_is_sent<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    let mut delivery = pair.grant(&bytes(64 << 20));
    let fetching = pair.worker.fetch(pair.invitation(delivery.ticket));
    let cancelling = async {
        wait_for(&mut delivery, |event| matches!(event, DeliveryEvent::Sending { .. }).then_some(())).await;
        delivery.cancel();
        failure(&mut delivery).await
    };
    let (fetched, failure) = tokio::join!(fetching, cancelling);
    assert!(matches!(fetched.unwrap_err(), TransferError::Cancelled));
    assert!(matches!(failure, TransferError::Cancelled));
}

async fn cancelled_while_the_task_runs<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    let mut delivery = pair.grant(b"future");
    let (_, session) = pair.worker.fetch(pair.invitation(delivery.ticket)).await.unwrap();
    session.begin(provenance()).await.unwrap();
    delivery.cancel();
    assert_eq!(timeout(LONG, session.cancelled()).await.unwrap(), CancelCause::Cancelled);
    assert_eq!(session.cancelled().await, CancelCause::Cancelled, "and again");
    assert!(matches!(failure(&mut delivery).await, TransferError::Cancelled));
    let late = session.deliver(&pair.spool(b"late"), provenance()).await;
    assert!(matches!(late, Err(TransferError::Cancelled)), "{late:?}");
}

async fn a_dropped_delivery_cancels<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    let delivery = pair.grant(b"future");
    let (_, session) = pair.worker.fetch(pair.invitation(delivery.ticket)).await.unwrap();
    drop(delivery);
    assert_eq!(timeout(LONG, session.cancelled()).await.unwrap(), CancelCause::Cancelled);
}

async fn a_future_over_the_limit_is_refused<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    let mut delivery = pair.grant(&bytes(1001));
    let mut invitation = pair.invitation(delivery.ticket);
    invitation.max_future = 1000;
    let is_it = |error: &TransferError| {
        matches!(error, TransferError::TooLarge { what: Payload::Future, size: 1001, limit: 1000 })
    };
    let error = pair.worker.fetch(invitation).await.unwrap_err();
    assert!(is_it(&error), "{error:?}");
    let events = all_events(&mut delivery).await;
    assert!(
        matches!(&events[..], [DeliveryEvent::Connected, DeliveryEvent::Failed(error)] if is_it(error)),
        "{events:?}"
    );
}

async fn a_result_over_the_limit_is_refused_and_another_one_is_taken<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    let mut delivery = pair.grant(b"future");
    let (_, session) = pair.worker.fetch(pair.invitation(delivery.ticket)).await.unwrap();
    let refused = session.deliver(&pair.spool(&bytes((64 << 20) + 1)), provenance()).await;
    assert!(matches!(refused, Err(TransferError::TooLarge { what: Payload::Result, limit: 0x400_0000, .. })));
    session.deliver(&pair.spool(b"an error instead"), provenance()).await.unwrap();
    let events = all_events(&mut delivery).await;
    let Some(DeliveryEvent::Done { result, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!(read(result), b"an error instead");
}

async fn a_stream_that_breaks_while_the_future_is_sent<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    let payload = bytes(3 << 20);
    let mut delivery = pair.grant(&payload);
    pair.worker.network().cut_after(2 << 20);
    let (future, session) = pair.worker.fetch(pair.invitation(delivery.ticket)).await.unwrap();
    assert_eq!(read(&future), payload);
    session.deliver(&pair.spool(b"result"), provenance()).await.unwrap();
    let events = all_events(&mut delivery).await;
    assert!(matches!(events.last(), Some(DeliveryEvent::Done { .. })), "{events:?}");
    assert_eq!(events.iter().filter(|event| matches!(event, DeliveryEvent::Connected)).count(), 2);
    assert_eq!(events.iter().filter(|event| matches!(event, DeliveryEvent::Sent)).count(), 1);
}

async fn a_stream_that_breaks_while_the_task_runs<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    let mut delivery = pair.grant(b"future");
    let (_, session) = pair.worker.fetch(pair.invitation(delivery.ticket)).await.unwrap();
    session.begin(provenance()).await.unwrap();
    wait_for(&mut delivery, |event| matches!(event, DeliveryEvent::Begun(_)).then_some(())).await;
    for cut in [pair.worker.network(), pair.client.network()] {
        cut.cut();
        wait_for(&mut delivery, |event| matches!(event, DeliveryEvent::Connected).then_some(())).await;
    }
    session.deliver(&pair.spool(b"result"), provenance()).await.unwrap();
    let events = all_events(&mut delivery).await;
    assert!(!events.iter().any(|event| matches!(event, DeliveryEvent::Begun(_))), "begun once: {events:?}");
    let Some(DeliveryEvent::Done { result, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!(read(result), b"result");
}

async fn a_stream_that_breaks_while_the_result_is_sent<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    let result = bytes(3 << 20);
    let mut delivery = pair.grant(b"future");
    let (_, session) = pair.worker.fetch(pair.invitation(delivery.ticket)).await.unwrap();
    wait_for(&mut delivery, |event| matches!(event, DeliveryEvent::Sent).then_some(())).await;
    pair.client.network().cut_after(2 << 20);
    session.deliver(&pair.spool(&result), provenance()).await.unwrap();
    let events = all_events(&mut delivery).await;
    assert_eq!(events.iter().filter(|event| matches!(event, DeliveryEvent::Connected)).count(), 1);
    let Some(DeliveryEvent::Done { result: arrived, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!(read(arrived), result);
}

async fn a_client_that_is_gone_stops_the_task<S: Site>(site: &S) {
    let Pair { client, worker, directory } = Pair::with(site, hasty()).await;
    let pair = Pair { client: client.clone(), worker, directory };
    let delivery = pair.grant(b"future");
    let (_, session) = pair.worker.fetch(pair.invitation(delivery.ticket)).await.unwrap();
    // Nobody takes streams any more, and those that there are break.
    client.network().disallow(pair.worker.network().id());
    pair.worker.network().cut();
    // A connection that is still there would let the worker in again, so its client forgets it.
    let invitation = pair.invitation(delivery.ticket);
    std::mem::forget(delivery);
    drop((client, pair));
    let cause = timeout(LONG, session.cancelled()).await.unwrap();
    assert!(matches!(cause, CancelCause::Gone(_)), "{cause:?}");
    drop(invitation);
}

async fn a_worker_that_is_gone<S: Site>(site: &S) {
    let pair = Pair::with(site, hasty()).await;
    let mut delivery = pair.grant(b"future");
    let hand = pair.hand().await;
    drop(hand);
    let mut hand = pair.hand().await;
    hand.say(&p2p_worker::proto::frames::FromWorker::Hello(crate::transfer_support::hello(delivery.ticket, FETCH)))
        .await;
    wait_for(&mut delivery, |event| matches!(event, DeliveryEvent::Connected).then_some(())).await;
    drop(hand);
    let error = failure(&mut delivery).await;
    assert!(matches!(error, TransferError::WorkerSilent { .. }), "{error:?}");
}

async fn a_worker_that_never_comes<S: Site>(site: &S) {
    let nobody_came = Duration::from_millis(200);
    let pair = Pair::with(site, TransferConfig { nobody_came, ..TransferConfig::default() }).await;
    let mut delivery = pair.grant(b"future");
    let events = all_events(&mut delivery).await;
    assert!(matches!(&events[..], [DeliveryEvent::Failed(TransferError::NobodyCame { .. })]), "{events:?}");
    let late = pair.worker.fetch(pair.invitation(delivery.ticket)).await.unwrap_err();
    assert!(matches!(&late, TransferError::Refused(Refusal::GaveUp(_))), "{late:?}");
}

async fn a_worker_that_gives_up<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    let mut delivery = pair.grant(b"future");
    let (_, session) = pair.worker.fetch(pair.invitation(delivery.ticket)).await.unwrap();
    session.abandon("out of\u{1b}[31m coffee").await;
    let error = failure(&mut delivery).await;
    assert_eq!(error.to_string(), "the other side will not go on: it gave up: out of␛[31m coffee");

    let mut delivery = pair.grant(b"future");
    drop(pair.worker.fetch(pair.invitation(delivery.ticket)).await.unwrap());
    assert!(matches!(failure(&mut delivery).await, TransferError::Refused(Refusal::GaveUp(_))));
}

async fn a_ticket_is_good_for_one_run<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    let mut delivery = pair.grant(b"future");
    let (_, session) = pair.worker.fetch(pair.invitation(delivery.ticket)).await.unwrap();
    session.deliver(&pair.spool(b"result"), provenance()).await.unwrap();
    all_events(&mut delivery).await;
    let again = pair.worker.fetch(pair.invitation(delivery.ticket)).await.unwrap_err();
    assert!(matches!(again, TransferError::Refused(Refusal::Used)), "{again:?}");
}

async fn a_stranger_gets_no_stream<S: Site>(site: &S) {
    let pair = Pair::with(site, hasty()).await;
    let mut delivery = pair.grant(b"future");
    let stranger = transfer(site, hasty()).await;
    let error = stranger.fetch(pair.invitation(delivery.ticket)).await.unwrap_err();
    assert!(matches!(error, TransferError::Network(NetworkError::Closed | NetworkError::Unreachable(_))), "{error:?}");
    // The one that was invited is not disturbed.
    let (_, session) = pair.worker.fetch(pair.invitation(delivery.ticket)).await.unwrap();
    session.deliver(&pair.spool(b"result"), provenance()).await.unwrap();
    assert!(matches!(all_events(&mut delivery).await.last(), Some(DeliveryEvent::Done { .. })));
}

async fn a_folder_that_cannot_be_written<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    let mut delivery = pair.grant(b"future");
    let mut invitation = pair.invitation(delivery.ticket);
    invitation.spool_directory = pair.directory.path().join("missing");
    let error = pair.worker.fetch(invitation).await.unwrap_err();
    assert!(matches!(error, TransferError::Spool(_)), "{error:?}");
    let told = failure(&mut delivery).await;
    assert!(matches!(&told, TransferError::Refused(Refusal::Storage(_))), "{told:?}");
    assert!(!told.to_string().contains("missing"), "the worker's paths are its own business: {told}");
}

async fn many_at_once<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    let runs = (0..12).map(|number| {
        let pair = &pair;
        async move {
            let payload = bytes(100_000 + number);
            let mut delivery = pair.grant(&payload);
            let (future, session) = pair.worker.fetch(pair.invitation(delivery.ticket)).await.unwrap();
            assert_eq!(read(&future), payload);
            session.deliver(&future, provenance()).await.unwrap();
            assert!(matches!(all_events(&mut delivery).await.last(), Some(DeliveryEvent::Done { .. })));
        }
    });
    futures_util::future::join_all(runs).await;
}

#[tokio::test]
async fn a_node_that_listens_everywhere_tells_addresses_that_can_be_dialled() {
    let folder = tempfile::tempdir().unwrap();
    let key = NodeKey::File(folder.path().join("node.key"));
    let start = || Node::start(NodeConfig { key: key.clone(), listen: Listen::Everywhere, ..NodeConfig::default() });
    let node = start().await.unwrap();
    let addresses = node.addresses();
    assert!(addresses[0].as_str().ends_with("/quic-v1"), "QUIC first: {addresses:?}");
    assert!(addresses.iter().any(|address| address.as_str().contains("/tcp/")), "{addresses:?}");
    assert!(!addresses.iter().any(|address| address.as_str().contains("/0.0.0.0/")), "{addresses:?}");

    let worker = Node::start(NodeConfig::default()).await.unwrap();
    assert!(worker.addresses().is_empty(), "a worker need not listen");
    node.allow(worker.id());
    worker.dial(node.id(), &addresses, ANY).await.unwrap();

    // The same key is the same node; another node at the same place is not.
    let id = node.id().clone();
    drop(node);
    assert_eq!(*start().await.unwrap().id(), id);
    let other = Quic.node().await;
    other.allow(worker.id());
    let wrong = worker.dial(&id, &other.addresses(), ANY).await.err().unwrap();
    assert!(matches!(wrong, NetworkError::Unreachable(_)), "{wrong:?}");
}

#[tokio::test]
async fn addresses_of_another_kind_are_not_dialled() {
    let worker = Node::start(NodeConfig::default()).await.unwrap();
    let peer = Tcp.node().await;
    for address in ["/dns4/example.org/tcp/1", "/unix/run", "nonsense", "/ip4/127.0.0.1/udp/9"] {
        let error = worker.dial(peer.id(), &[address.parse().unwrap()], ANY).await.err().unwrap();
        assert!(matches!(error, NetworkError::NoAddress), "{address}: {error:?}");
    }
    let error = worker.dial(&"notapeer".parse().unwrap(), &[], ANY).await.err().unwrap();
    assert!(matches!(error, NetworkError::PeerId(_)), "{error:?}");
}

#[tokio::test]
async fn the_last_event_is_one_and_the_queue_ends() {
    let pair = Pair::new(&Memory::default()).await;
    let mut delivery = pair.grant(b"future");
    delivery.cancel();
    assert!(matches!(event(&mut delivery).await, Some(DeliveryEvent::Failed(TransferError::Cancelled))));
    assert!(event(&mut delivery).await.is_none());
}
