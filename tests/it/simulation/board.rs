//! Chance that can be repeated, and a board that behaves as badly as it is told to.

use std::time::Duration;

use p2p_worker::proto::lines::LineSplitter;

/// Numbers that follow from a seed (splitmix64).
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` to `high`, both included.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    pub(super) fn milliseconds(&mut self, (low, high): (u64, u64)) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    /// Whether something happens that happens so often in a thousand.
    pub(super) fn happens(&mut self, per_mille: u64) -> bool {
        self.next() % 1000 < per_mille
    }
}

/// How a board treats lines. Of a thousand lines to one reader so many …
#[derive(Clone, Copy)]
pub(super) struct Manners {
    /// … are lost,
    pub(super) lost: u64,
    /// … come twice,
    pub(super) repeated: u64,
    /// … are late by up to two seconds, behind others.
    pub(super) reordered: u64,
    /// The way of a line from its writer to its reader, in milliseconds.
    pub(super) way: (u64, u64),
    /// Whether lines come in pieces.
    pub(super) splits: bool,
    /// How far the peers' clocks are apart, in milliseconds.
    pub(super) skew: u64,
}

impl Manners {
    pub(super) const GOOD: Self = Self { lost: 0, repeated: 0, reordered: 0, way: (20, 60), splits: false, skew: 0 };

    pub(super) fn bad(chance: &mut Chance) -> Self {
        let way = chance.between(1, 300);
        Self {
            lost: chance.between(0, 150),
            repeated: chance.between(0, 200),
            reordered: chance.between(0, 200),
            way: (way, way + chance.between(0, 500)),
            splits: true,
            skew: chance.between(0, 3000),
        }
    }

    /// When the copies of a line reach one reader.
    pub(super) fn copies(&self, chance: &mut Chance) -> Vec<Duration> {
        if chance.happens(self.lost) {
            return Vec::new();
        }
        let copies = 1 + usize::from(chance.happens(self.repeated));
        let late = |chance: &mut Chance| {
            if chance.happens(self.reordered) { chance.milliseconds((0, 2000)) } else { Duration::ZERO }
        };
        (0..copies).map(|_| chance.milliseconds(self.way) + late(chance)).collect()
    }
}

/// What a peer reads from its connection, which has no respect for lines.
pub(super) struct Reader {
    splitter: LineSplitter,
    splits: bool,
}

impl Reader {
    pub(super) fn new(splits: bool) -> Self {
        Self { splitter: LineSplitter::new(), splits }
    }

    pub(super) fn read(&mut self, line: &str, chance: &mut Chance) -> Vec<Vec<u8>> {
        let end = if self.splits && chance.happens(500) { "\r\n" } else { "\n" };
        let bytes = format!("{line}{end}").into_bytes();
        let piece = if self.splits { chance.between(1, 40) as usize } else { bytes.len() };
        let mut lines = Vec::new();
        for piece in bytes.chunks(piece) {
            self.splitter.push(piece, |line| lines.push(line.to_vec()));
        }
        lines
    }
}
