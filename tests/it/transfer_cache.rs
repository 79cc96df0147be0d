//! What futures have in common travels once: bytes counted on the wire, over every network.

use std::{io::ErrorKind, path::Path, process::Stdio, sync::Arc, time::Duration};

use futures_util::future::join_all;
use p2p_worker::{
    spool::{SpoolError, SpoolWriter, Spooled},
    transfer::{Cache, Delivery, DeliveryEvent, Invitation, Network, Transfer, TransferConfig},
};
use tokio::{process::Command, time::timeout};

use crate::{
    transfer::contract,
    transfer_support::{
        Breaking, LONG, Memory, Pair, Quic, Site, all_events, bytes, provenance, read, transfer, wait_for,
    },
};

contract!(
    what_futures_have_in_common_travels_once,
    futures_at_the_same_time_wait_for_one_another,
    what_changed_travels,
    another_client_sends_its_own,
    what_was_of_use_longest_ago_makes_room,
    a_cache_that_is_off_or_too_small_changes_nothing,
    streams_that_break_at_any_byte_of_the_names_and_the_pieces,
    a_future_that_ends_lets_the_others_go_on,
    pieces_that_shrink_are_packed,
);

const MIB: u64 = 1 << 20;
/// What one future of a MiB or more costs in names, heartbeats and the pieces around what is its own.
const EACH: u64 = 300_000;

/// Bytes of their own for each number, as random as [`bytes`].
fn other(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A future with something of its own before and behind what it has in common with others.
fn around(common: &[u8], number: u64) -> Vec<u8> {
    let length = 500 + usize::try_from(number % 1000).unwrap();
    [other(number, length), common.to_vec(), other(number + 1, length)].concat()
}

/// A worker fetches a future, brings it back as its result, and the client says what it sent. The bytes that the worker
/// read for it.
async fn run<N: Network>(pair: &Pair<N>, payload: &[u8]) -> u64 {
    let before = pair.worker.network().bytes_read();
    let mut delivery = pair.grant(payload);
    let (future, session) = pair.worker.fetch(pair.invitation(delivery.ticket)).await.unwrap();
    assert_eq!(read(&future), payload);
    let there = pair.worker.network().bytes_read() - before;
    let (delivered, events) =
        tokio::join!(async { session.deliver(&pair.spool(b"result"), provenance()).await }, all_events(&mut delivery));
    delivered.unwrap();
    assert!(matches!(events.last(), Some(DeliveryEvent::Done { .. })), "{events:?}");
    assert!(events.iter().any(|event| matches!(event, DeliveryEvent::Sending { .. })), "{events:?}");
    there
}

async fn what_futures_have_in_common_travels_once<S: Site>(site: &S) {
    let pair = Pair::keeping(site, 256 * MIB).await;
    let common = bytes(20 << 20);
    let first = run(&pair, &around(&common, 0)).await;
    assert!(first > 20 * MIB, "{first}");
    let mut most = 0;
    for number in 1..6 {
        most = run(&pair, &around(&common, number * 10)).await.max(most);
    }
    assert!(most < EACH, "{most}");
    assert_eq!(run(&pair, &common).await / EACH, 0, "without anything around it too");
}

/// The real thing, over one network because it takes a while: 100 futures, four at a time.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_futures_over_the_same_50_mb_move_it_once() {
    let pair = Arc::new(Pair::keeping(&Quic, 256 * MIB).await);
    let common: Arc<Vec<u8>> = Arc::new(bytes(50_000_000));
    let slots = (0..4u64).map(|slot| {
        let (pair, common) = (Arc::clone(&pair), Arc::clone(&common));
        tokio::spawn(async move {
            for number in 0..25 {
                let payload = around(&common, 1000 * slot + 10 * number);
                let mut delivery = pair.grant(&payload);
                let (future, session) = pair.worker.fetch(pair.invitation(delivery.ticket)).await.unwrap();
                assert_eq!(future.digest().0, *blake3::hash(&payload).as_bytes());
                session.deliver(&pair.spool(b"result"), provenance()).await.unwrap();
                all_events(&mut delivery).await;
            }
        })
    });
    for ended in join_all(slots).await {
        ended.unwrap();
    }
    let read = pair.worker.network().bytes_read();
    assert!((50_000_000..50_000_000 + 100 * EACH).contains(&read), "{read}");
}

async fn futures_at_the_same_time_wait_for_one_another<S: Site>(site: &S) {
    let pair = Pair::keeping(site, 64 * MIB).await;
    let common = bytes(10 << 20);
    let (pair, common) = (&pair, &common);
    let runs = (0..8).map(|number| async move {
        let payload = around(common, number * 10);
        let mut delivery = pair.grant(&payload);
        let (future, session) = pair.worker.fetch(pair.invitation(delivery.ticket)).await.unwrap();
        assert_eq!(read(&future), payload);
        session.deliver(&pair.spool(b"result"), provenance()).await.unwrap();
        assert!(matches!(all_events(&mut delivery).await.last(), Some(DeliveryEvent::Done { .. })));
    });
    join_all(runs).await;
    let read = pair.worker.network().bytes_read();
    assert!((10 * MIB..10 * MIB + 8 * EACH).contains(&read), "{read}");
}

async fn what_changed_travels<S: Site>(site: &S) {
    let pair = Pair::keeping(site, 64 * MIB).await;
    let before = bytes(12 << 20);
    run(&pair, &before).await;
    // Other bytes, more and fewer of them, at the beginning, in the middle and at the end.
    let after =
        [&other(7, 300_000), &before[..4 << 20], &other(8, 200_000), &before[5 << 20..11 << 20], b"end"].concat();
    let read = run(&pair, &after).await;
    assert!((500_000..500_000 + 2 * EACH).contains(&read), "{read}");
    assert!(run(&pair, &before).await < EACH);
}

async fn another_client_sends_its_own<S: Site>(site: &S) {
    let pair = Pair::keeping(site, 64 * MIB).await;
    let common = bytes(4 << 20);
    run(&pair, &common).await;
    assert!(run(&pair, &common).await < EACH);
    let Pair { worker, directory, .. } = pair;
    let another = Pair { client: transfer(site, TransferConfig::default()).await, worker, directory };
    assert!(run(&another, &common).await > 4 * MIB, "what another client sent is not here for this one");
    assert!(run(&another, &common).await < EACH);
}

async fn what_was_of_use_longest_ago_makes_room<S: Site>(site: &S) {
    let cache_limit = 16 * MIB;
    let Pair { client, worker, directory } = Pair::new(site).await;
    let cache = Cache::new(directory.path().to_owned(), cache_limit);
    let pair = Pair { client, worker: worker.keeping(cache.clone()), directory };
    let [a, b, c] = [1, 2, 3].map(|number| other(number, 3 << 20));
    run(&pair, &a).await;
    run(&pair, &b).await;
    assert!(run(&pair, &a).await < EACH, "both fit into a half");
    run(&pair, &c).await;
    assert!(run(&pair, &a).await < EACH, "this one was of use");
    assert!(run(&pair, &b).await > MIB, "this one was not");
    assert!(cache.size() <= cache_limit / 2, "{}", cache.size());
    // Other clients have their halves, and all together no more than the limit.
    let Pair { worker, directory, .. } = pair;
    let mut worker_and_folder = (worker, directory);
    for number in 10..14 {
        let client = transfer(site, TransferConfig::default()).await;
        let pair = Pair { client, worker: worker_and_folder.0, directory: worker_and_folder.1 };
        run(&pair, &other(number, 6 << 20)).await;
        assert!(cache.size() <= cache_limit, "{}", cache.size());
        worker_and_folder = (pair.worker, pair.directory);
    }
    assert!(cache.size() > cache_limit / 2);
    cache.clear();
    assert_eq!(cache.size(), 0);
}

async fn a_cache_that_is_off_or_too_small_changes_nothing<S: Site>(site: &S) {
    for limit in [0, 1, 100_000, 5 * MIB] {
        let pair = Pair::keeping(site, limit).await;
        let common = bytes(3 << 20);
        for _ in 0..2 {
            assert!(run(&pair, &common).await > 3 * MIB);
        }
    }
}

/// Numbers that look random and are the same each time.
fn roll(seed: &mut u64, below: u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % below
}

async fn streams_that_break_at_any_byte_of_the_names_and_the_pieces<S: Site>(site: &S) {
    let runs = (0..6).map(|mut seed| async move {
        let pair = Pair::keeping(site, 64 * MIB).await;
        let common = bytes(4 << 20);
        run(&pair, &common[..3 << 20]).await;
        // Some gaps: what was there is between what was not.
        let payload = [&other(1, 700_000), &common[..1 << 20], &other(2, 900_000), &common[1 << 20..]].concat();
        // The names are about 5 kB; some cuts are before them, within them, and in the middle of pieces.
        let cuts: Vec<_> =
            (0..5).map(|cut| 1 + roll(&mut seed, if cut % 2 == 0 { 12_000 } else { 1_200_000 })).collect();
        pair.worker.network().cut_at(&cuts);
        let read = run(&pair, &payload).await;
        assert!(read < 2_700_000 + 6 * EACH, "seed {seed}: {read}");
        assert!(run(&pair, &payload).await < EACH);
    });
    join_all(runs).await;
}

async fn a_future_that_ends_lets_the_others_go_on<S: Site>(site: &S) {
    let pair = Pair::keeping(site, 64 * MIB).await;
    let common = bytes(16 << 20);
    let mut first = pair.grant(&around(&common, 0));
    let fetching = pair.worker.fetch(pair.invitation(first.ticket));
    let second = async {
        wait_for(&mut first, |event| matches!(event, DeliveryEvent::Sending { .. }).then_some(())).await;
        let payload = around(&common, 10);
        let second = run(&pair, &payload);
        let cancelling = async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            first.cancel();
        };
        tokio::join!(second, cancelling).0
    };
    let (fetched, _) = tokio::join!(fetching, timeout(LONG, second));
    // Whether the cancellation came before the end of it is not the point.
    drop(fetched);
    assert!(run(&pair, &around(&common, 20)).await < EACH);
}

async fn pieces_that_shrink_are_packed<S: Site>(site: &S) {
    let pair = Pair::keeping(site, 64 * MIB).await;
    let payload: Vec<u8> = (0..2_000_000u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
    let first = run(&pair, &payload).await;
    assert!(first < payload.len() as u64 / 2, "{first}");
    assert!(run(&pair, &payload).await < EACH / 4);
}

#[tokio::test]
async fn what_a_client_sent_is_dropped_when_it_does_not_come_back() {
    let Pair { client, worker, directory } = Pair::new(&Memory::default()).await;
    let cache = Cache::with_patience(directory.path().to_owned(), 64 * MIB, Duration::from_millis(200));
    let pair = Pair { client, worker: worker.keeping(cache.clone()), directory };
    run(&pair, &bytes(2 << 20)).await;
    let dropped = async {
        while cache.size() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, dropped).await.expect("dropped in the end");
    assert!(run(&pair, &bytes(2 << 20)).await > 2 * MIB);
}

#[tokio::test]
async fn nothing_of_it_has_a_name_on_the_disk() {
    let pair = Pair::keeping(&Memory::default(), 64 * MIB).await;
    run(&pair, &bytes(2 << 20)).await;
    assert_eq!(std::fs::read_dir(pair.directory.path()).unwrap().count(), 0);
}

/// On a disk of 24 MB: what is kept makes room for futures, and no future fails for it.
#[tokio::test]
async fn a_full_disk_costs_the_cache_and_no_future() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"
        set -e
        mount -t tmpfs -o size=24m none "$1"
        P2P_TEST_SMALL_DISK="$1" exec "$2" --exact transfer_cache::on_a_small_disk --ignored --nocapture
    "#;
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    command.arg(folder.path()).arg(std::env::current_exe().unwrap());
    let output = timeout(2 * LONG, command.stdin(Stdio::null()).kill_on_drop(true).output()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
#[ignore = "a part of a_full_disk_costs_the_cache_and_no_future, which runs it on a small disk"]
async fn on_a_small_disk() {
    let disk = std::env::var("P2P_TEST_SMALL_DISK").unwrap();
    let disk = Path::new(&disk);
    let site = Memory::default();
    let Pair { client, worker, directory } = Pair::new(&site).await;
    let cache = Cache::new(disk.to_owned(), 1 << 30);
    let worker: Transfer<Breaking<_>> = worker.keeping(cache.clone());
    let pair = Pair { client, worker, directory };
    let fetch = async |payload: &[u8]| -> (Spooled, Delivery) {
        let delivery = pair.grant(payload);
        let spool_directory = disk.to_owned();
        let invitation = Invitation { spool_directory, ..pair.invitation(delivery.ticket) };
        let (arrived, session) = pair.worker.fetch(invitation).await.unwrap();
        assert_eq!(read(&arrived), payload);
        session.abandon("enough").await;
        (arrived, delivery)
    };
    // 5 MB are kept, and are still of use.
    drop(fetch(&other(1, 5_000_000)).await);
    assert!(cache.size() >= 4_900_000, "{}", cache.size());
    let before = pair.worker.network().bytes_read();
    drop(fetch(&other(1, 5_000_000)).await);
    assert!(pair.worker.network().bytes_read() - before < EACH);
    // 20 MB do not fit beside them: they go.
    drop(fetch(&other(2, 20_000_000)).await);
    assert_eq!(cache.size(), 0);
    // Somebody else fills the disk: nothing is kept beyond what is spared.
    let ballast = disk.join("ballast");
    std::fs::write(&ballast, vec![1; 14_000_000]).unwrap();
    drop(fetch(&other(3, 8_000_000)).await);
    assert_eq!(cache.size(), 0);
    std::fs::remove_file(&ballast).unwrap();
    drop(fetch(&other(4, 6_000_000)).await);
    assert!(cache.size() >= 5_900_000, "{}", cache.size());
    // What is kept already goes when there is too little room, before the disk is full.
    std::fs::write(&ballast, vec![1; 16_800_000]).unwrap();
    drop(fetch(&other(5, 1_500_000)).await);
    assert_eq!(cache.size(), 0);
    // So it does when the disk is full of a result.
    std::fs::remove_file(&ballast).unwrap();
    drop(fetch(&other(4, 6_000_000)).await);
    assert!(cache.size() >= 5_900_000, "{}", cache.size());
    let relieved = SpoolWriter::new(disk, 1 << 30).unwrap().relieved_by(Some(cache.relief()));
    assert_eq!(filled(relieved, 21), None);
    assert_eq!(cache.size(), 0);
    assert_eq!(
        filled(SpoolWriter::new(disk, 1 << 30).unwrap().relieved_by(Some(cache.relief())), 30),
        Some(true),
        "no more"
    );
}

/// Writes so many megabytes; whether the disk was full, if it was not possible.
fn filled(mut writer: SpoolWriter, megabytes: usize) -> Option<bool> {
    let written = (0..megabytes).try_for_each(|_| writer.write(&[1; 1_000_000]));
    written
        .err()
        .map(|error| matches!(error, SpoolError::Write { source, .. } if source.kind() == ErrorKind::StorageFull))
}
