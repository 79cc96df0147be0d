//! Many workers and clients, the real state machines, over a board that loses, repeats, reorders, delays and splits lines and
//! restarts, while workers die and fall silent. In virtual time, from seeds: a failure names its seed, and
//! `P2P_SIM_SEED=n` runs that one alone; `P2P_SIM_SEEDS=n` runs so many.

#![expect(clippy::cast_possible_truncation, reason = "the numbers of a simulation are small")]

mod board;
mod world;

use std::time::Duration;

use board::{Chance, Manners};
use world::{Plan, World};

const HOUR: Duration = Duration::from_secs(3600);

/// The seeds of this run.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match number("P2P_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("P2P_SIM_SEEDS").unwrap_or(usual),
    }
}

fn plan(seed: u64, workers: usize, clients: usize) -> Plan {
    let (manners, task) = (Manners::GOOD, (500, 1500));
    Plan { seed, workers, slots: 1, clients, manners, apart: 1, task, trouble: false, attempts: 4 }
}

#[test]
fn every_future_has_exactly_one_result_whatever_happens() {
    let seeds = seeds(300);
    let (many, mut doubted, mut replaced, mut lines) = (seeds.end - seeds.start > 50, 0, 0, 0);
    let (mut offers, mut requests, mut most) = (0, 0, 0.0);
    for seed in seeds {
        let mut chance = Chance::new(seed ^ 0xfeed);
        let (workers, clients) = (chance.between(1, 8) as usize, chance.between(1, 5) as usize);
        let slots = chance.between(1, 3) as usize;
        let manners = Manners::bad(&mut chance);
        let task = (100, chance.between(200, 20_000));
        // How often workers die here has no bound, so that neither has the client's patience.
        let apart = chance.between(0, 3000);
        let plan = Plan { seed, workers, slots, clients, manners, apart, task, trouble: true, attempts: u32::MAX };
        let mut world = World::new(plan);
        for client in 0..clients {
            for future in 0..chance.between(1, 40) as usize {
                world.post(client, future, chance.between(0, 60_000));
            }
        }
        world.run(4 * HOUR);
        let unresolved = world.fates.values().filter(|fate| fate.gave_up).count();
        assert_eq!(unresolved, 0, "{}: given up", world.describe());
        for fate in world.fates.values() {
            let each = fate.offers as f64 / fate.requests.max(1) as f64;
            assert!(each <= workers as f64, "{}: {} offers, {} requests", world.describe(), fate.offers, fate.requests);
            most = f64::max(most, each);
            (offers, requests) = (offers + fate.offers, requests + fate.requests);
        }
        doubted += world.doubted;
        replaced += world.replaced;
        lines += world.lines;
    }
    println!("{lines} lines; workers were {doubted} times in doubt and {replaced} times replaced");
    println!("{offers} offers for {requests} requests, at most {most:.1} for one");
    assert!(offers <= 2 * requests, "{offers} offers for {requests} requests");
    assert!(!many || (doubted > replaced && replaced > 0), "there was too little trouble to show anything");
}

#[test]
fn everything_ends_when_no_worker_stays_for_long() {
    for seed in seeds(60) {
        let mut chance = Chance::new(seed ^ 0xdead);
        let manners = Manners::bad(&mut chance);
        let trouble = Plan { manners, trouble: true, attempts: 2, task: (20_000, 90_000), ..plan(seed, 4, 2) };
        let mut world = World::new(trouble);
        (0..10).for_each(|future| world.post(future % 2, future, 0));
        world.run(4 * HOUR);
    }
}

#[test]
fn of_many_idle_workers_one_or_two_offer() {
    // All at once, so that each hears the others' hello; or one after the other, so that the last has heard nobody's.
    for (workers, apart) in [1, 2, 3, 5, 10, 25, 50].into_iter().flat_map(|workers| [(workers, 1), (workers, 300)]) {
        let mut world = World::new(Plan { apart, ..plan(workers as u64, workers, 1) });
        // One at a time, so that all workers are idle; then a burst, one for each worker.
        let single = 60;
        (0..single).for_each(|future| world.post(0, future, 20_000 + future as u64 * 4_000));
        let burst = workers.min(16);
        (0..burst).for_each(|future| world.post(0, single + future, 600_000));
        world.run(HOUR);
        let offers: u64 = world.fates.values().map(|fate| fate.offers).sum();
        let mean = offers as f64 / world.fates.len() as f64;
        let most = world.fates.values().map(|fate| fate.offers).max().unwrap();
        let waits: Vec<Duration> = world.fates.values().map(|fate| fate.first_offer.unwrap() - fate.posted).collect();
        let wait = waits.iter().sum::<Duration>() / waits.len() as u32;
        println!(
            "{workers} workers, {apart} ms apart: {mean:.2} offers for a future, at most {most}; the first after {wait:?}"
        );
        assert!(mean <= 2.0, "{workers} workers: {mean} offers for a future");
        assert!(wait < Duration::from_millis(700), "{workers} workers: {wait:?}");
        if workers == 1 {
            assert!(wait <= Duration::from_millis(60), "who is alone does not wait: {wait:?}");
        }
    }
}

#[test]
fn no_client_starves_behind_another_ones_many_futures() {
    for seed in seeds(20) {
        for workers in [1, 3, 12] {
            let mut world = World::new(plan(seed, workers, 4));
            (0..300).for_each(|future| world.post(0, future, 0));
            for client in 1..4 {
                (0..3).for_each(|future| world.post(client, future, 10_000 + 20_000 * future as u64));
            }
            world.run(HOUR);
            for ((client, future), fate) in world.fates.iter().filter(|((client, _), _)| *client > 0) {
                let took = fate.ended - fate.posted;
                let turns = Duration::from_secs(12);
                assert!(took < turns, "{}: {client} {future} took {took:?}", world.describe());
            }
        }
    }
}

#[test]
fn many_futures_of_one_client_keep_all_workers_busy() {
    let mut world = World::new(Plan { task: (1000, 1000), ..plan(7, 20, 1) });
    (0..400).for_each(|future| world.post(0, future, 5_000));
    world.run(HOUR);
    let took = world.fates.values().map(|fate| fate.ended - fate.posted).max().unwrap();
    let offers: u64 = world.fates.values().map(|fate| fate.offers).sum();
    println!("400 futures of 1 s over 20 workers: {took:?}, {offers} offers");
    assert!(took < Duration::from_secs(40) && offers <= 800, "{took:?}, {offers} offers");
}
