//! A client that is slower than the task: the task waits, and nothing fills up or gets lost.

use std::time::Duration;

use p2p_worker::transfer::{DeliveryEvent, TransferConfig};
use tokio::time::{sleep, timeout};

use crate::{
    transfer::contract,
    transfer_support::{LONG, Pair, Site, provenance},
};

contract!(a_flood_of_progress_waits_for_a_slow_reader);

/// Messages of 256 KiB: 100 MiB in all.
const MESSAGES: u32 = 400;
/// What may be on its way while nobody reads: queues of some messages each, the stream's window of 16 MiB, and a socket's
/// buffers.
const UNDER_WAY: u32 = 280;

async fn a_flood_of_progress_waits_for_a_slow_reader<S: Site>(site: &S) {
    let beat = Duration::from_millis(50);
    let config = TransferConfig { heartbeat: beat, silence: beat * 20, ..TransferConfig::default() };
    let pair = Pair::with(site, config).await;
    let mut delivery = pair.grant(b"future");
    let (_, session) = pair.worker.fetch(pair.invitation(delivery.ticket)).await.unwrap();
    session.begin(provenance()).await.unwrap();
    let mut said = 0u32;
    // A task that says all it can, as long as there is room within a second.
    while said < MESSAGES && timeout(Duration::from_secs(1), session.ready_for_progress()).await.is_ok() {
        let mut message = vec![0; 256 << 10];
        message[..4].copy_from_slice(&said.to_le_bytes());
        assert!(session.progress(message));
        said += 1;
    }
    assert!(said < UNDER_WAY, "{said} messages of 256 KiB are somewhere");
    // Longer than a silence that would break the stream.
    sleep(config.silence * 2).await;
    let flood = async {
        while said < MESSAGES {
            session.ready_for_progress().await;
            assert!(session.progress([&said.to_le_bytes()[..], &[0; 1000]].concat()));
            said += 1;
        }
        session.deliver(&pair.spool(b"result"), provenance()).await.unwrap();
    };
    let reader = async {
        let mut next = 0u32;
        loop {
            match timeout(LONG, delivery.events.recv()).await.unwrap().unwrap() {
                DeliveryEvent::Progress(message) => {
                    assert_eq!(message[..4], next.to_le_bytes());
                    next += 1;
                }
                DeliveryEvent::Done { .. } => return next,
                DeliveryEvent::Failed(error) => panic!("{error:?} after {next}"),
                DeliveryEvent::Disconnected(why) => panic!("{why} after {next}"),
                _ => {}
            }
        }
    };
    let ((), heard) = tokio::join!(flood, reader);
    assert_eq!(heard, MESSAGES);
}
