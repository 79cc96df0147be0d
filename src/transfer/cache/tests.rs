//! Tests of what is kept, without a network.

use proptest::prelude::*;

use super::*;

fn client(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn piece(number: u8, length: u32) -> (PieceName, Vec<u8>) {
    let bytes = vec![number; length as usize];
    (PieceName { length, digest: Digest(*blake3::hash(&bytes).as_bytes()) }, bytes)
}

fn go(cache: &Cache, who: &str, pieces: &[(PieceName, Vec<u8>)]) -> Supply {
    let names: Vec<_> = pieces.iter().map(|(name, _)| *name).collect();
    let size = names.iter().map(|name| u64::from(name.length)).sum();
    match cache.plan(&client(who), &Manifest::new(size, names).unwrap(), 0) {
        Plan::Go(supply) => supply,
        Plan::Wait => panic!("somebody brings them"),
    }
}

fn bring(cache: &Cache, who: &str, pieces: &[(PieceName, Vec<u8>)]) -> usize {
    let mut supply = go(cache, who, pieces);
    pieces.iter().for_each(|(name, bytes)| supply.claim.keep(name, bytes));
    for (kept, (_, bytes)) in supply.pieces.iter().zip(pieces) {
        assert!(kept.as_ref().is_none_or(|kept| kept.read().unwrap() == *bytes));
    }
    supply.pieces.iter().filter(|piece| piece.is_none()).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever comes from whom, the limits hold, and what is found is what was brought.
    #[test]
    fn limits_hold_and_bytes_are_right(steps in prop::collection::vec((0usize..5, 0u8..40, 1u8..8), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _guard = runtime.enter();
        let limit = 20 * u64::from(MIN_PIECE);
        let cache = Cache::new(std::env::temp_dir(), limit);
        for (who, first, count) in steps {
            let who = format!("client{who}");
            let pieces: Vec<_> = (first..first + count).map(|number| piece(number, MIN_PIECE)).collect();
            bring(&cache, &who, &pieces);
            prop_assert!(cache.size() <= limit);
            let state = cache.0.state();
            prop_assert!(state.shelves.values().all(|shelf| shelf.used() <= limit / 2));
        }
        cache.clear();
        prop_assert_eq!(cache.size(), 0);
    }
}

#[tokio::test]
async fn who_needs_what_another_one_brings_waits_until_that_is_over() {
    let cache = Cache::new(std::env::temp_dir(), 1 << 30);
    let pieces = [piece(1, MIN_PIECE), piece(2, MIN_PIECE), piece(3, MIN_PIECE)];
    let names = |of: &[(PieceName, Vec<u8>)]| {
        let names: Vec<_> = of.iter().map(|(name, _)| *name).collect();
        Manifest::new(names.len() as u64 * u64::from(MIN_PIECE), names).unwrap()
    };
    let plan = |who: &str, of: &[(PieceName, Vec<u8>)]| cache.plan(&client(who), &names(of), 0);
    let supply = go(&cache, "alice", &pieces[..2]);
    assert!(matches!(plan("alice", &pieces[1..]), Plan::Wait));
    assert!(matches!(plan("alice", &pieces[2..]), Plan::Go(_)), "nobody brings this one");
    assert!(matches!(plan("bob", &pieces[..2]), Plan::Go(_)), "another client's are its own");
    let mut changes = cache.changes();
    drop(supply);
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!(bring(&cache, "alice", &pieces), 3);
    assert!(changes.has_changed().unwrap());
    assert_eq!(bring(&cache, "alice", &pieces), 0);
}

#[tokio::test]
async fn what_somebody_reads_is_not_given_up_and_what_is_dropped_can_still_be_read() {
    let limit = 8 * u64::from(MIN_PIECE);
    let cache = Cache::new(std::env::temp_dir(), limit);
    let old: Vec<_> = (0..4).map(|number| piece(number, MIN_PIECE)).collect();
    assert_eq!(bring(&cache, "alice", &old), 4);
    let reading = go(&cache, "alice", &old);
    let new: Vec<_> = (10..14).map(|number| piece(number, MIN_PIECE)).collect();
    bring(&cache, "alice", &new);
    assert_eq!(bring(&cache, "alice", &new), 4, "there was no room");
    cache.forget(&client("alice"));
    for (piece, (_, bytes)) in reading.pieces.iter().zip(&old) {
        assert_eq!(piece.as_ref().unwrap().read().unwrap(), *bytes);
    }
    drop(reading);
    assert_eq!(cache.size(), 0);
}

#[tokio::test]
async fn a_name_with_another_length_is_another_piece_and_short_ones_are_not_kept() {
    let cache = Cache::new(std::env::temp_dir(), 1 << 30);
    let (name, bytes) = piece(1, 2 * MIN_PIECE);
    bring(&cache, "alice", &[(name, bytes)]);
    let lie = PieceName { length: MIN_PIECE, ..name };
    assert!(go(&cache, "alice", &[(lie, vec![])]).pieces[0].is_none());
    let short = piece(2, MIN_PIECE - 1);
    bring(&cache, "alice", std::slice::from_ref(&short));
    assert!(go(&cache, "alice", &[short]).pieces[0].is_none());
}

#[tokio::test]
async fn more_clients_than_places() {
    let cache = Cache::new(std::env::temp_dir(), 1 << 30);
    let own = piece(1, MIN_PIECE);
    for number in 0..CLIENTS + 10 {
        bring(&cache, &format!("client{number}"), std::slice::from_ref(&own));
    }
    assert_eq!(cache.0.state().shelves.len(), CLIENTS);
    assert_eq!(bring(&cache, "client0", std::slice::from_ref(&own)), 1, "this one made room");
    assert_eq!(bring(&cache, &format!("client{}", CLIENTS + 9), &[own]), 0);
}

#[tokio::test]
async fn a_folder_that_is_not_there_keeps_nothing_and_fails_nothing() {
    let cache = Cache::new("/nonexistent/folder".into(), 1 << 30);
    let own = [piece(1, MIN_PIECE)];
    assert_eq!((bring(&cache, "alice", &own), bring(&cache, "alice", &own), cache.size()), (1, 1, 0));
}

#[tokio::test]
async fn what_else_there_is_gives_way_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::new(directory.path().to_owned(), 1 << 30);
    let times = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&times);
    cache.with_it(Relief::new(move || count.fetch_add(1, Ordering::Relaxed) == 0));
    let relief = cache.relief();
    assert_eq!([relief.gives_way(), relief.gives_way()], [true, false]);
    assert_eq!(times.load(Ordering::Relaxed), 2);
}
