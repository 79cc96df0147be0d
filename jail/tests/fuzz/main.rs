//! What the decoder of specs makes of bytes that nobody meant: random ones, and specs of every shape with bytes changed, cut
//! off and repeated. It never panics, never takes more memory than a small multiple of what came in, and never makes
//! *another* spec of damaged bytes: so a task is confined as was asked for, or not started.
//!
//! `PROPTEST_CASES=1000000 cargo test -p p2p-jail --test fuzz` for hours; 256 of each without it.

#[cfg(test)]
mod memory;
#[cfg(test)]
mod specs;

#[cfg(test)]
mod tests {
    use p2p_jail::message::{self, MessageError};
    use p2p_jail::spec::{MAX_MESSAGE, Report, Spec};
    use proptest::prelude::*;

    use crate::{memory, specs};

    /// The most memory at any moment for a message of so many bytes: an empty string is one byte of a message and 24 in
    /// memory, and what is compiled of it as much again; serde believes a length for at most 1 MiB of each vector.
    fn bound(message: usize) -> usize {
        (4 << 20) + 100 * message
    }

    /// One thing that can happen to bytes.
    #[derive(Debug, Clone)]
    enum Damage {
        Change(prop::sample::Index, u8),
        Insert(prop::sample::Index, u8),
        Remove(prop::sample::Index),
        Cut(prop::sample::Index),
        Repeat(prop::sample::Index, prop::sample::Index),
    }

    fn damage() -> impl Strategy<Value = Vec<Damage>> {
        let at = any::<prop::sample::Index>;
        let byte = || prop_oneof![any::<u8>(), Just(0), Just(1), Just(0x7f), Just(0x80), Just(0xff)];
        let one = prop_oneof![
            8 => (at(), byte()).prop_map(|(at, byte)| Damage::Change(at, byte)),
            2 => (at(), byte()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
            2 => at().prop_map(Damage::Remove),
            1 => at().prop_map(Damage::Cut),
            1 => (at(), at()).prop_map(|(from, to)| Damage::Repeat(from, to)),
        ];
        prop::collection::vec(one, 1..6)
    }

    fn damaged(mut bytes: Vec<u8>, all: &[Damage]) -> Vec<u8> {
        for one in all {
            if bytes.is_empty() {
                break;
            }
            match one {
                Damage::Change(at, byte) => *at.get_mut(&mut bytes) = *byte,
                Damage::Insert(at, byte) => bytes.insert(at.index(bytes.len()), *byte),
                Damage::Remove(at) => drop(bytes.remove(at.index(bytes.len()))),
                Damage::Cut(at) => bytes.truncate(at.index(bytes.len())),
                Damage::Repeat(from, to) => {
                    let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
                    let piece = bytes[from.min(to)..from.max(to)].to_vec();
                    bytes.splice(from..from, piece);
                }
            }
        }
        bytes.truncate(MAX_MESSAGE - 16);
        bytes
    }

    /// The body of a message with this postcard, contract and sum as they should be: what damage would have to forge.
    fn sealed(postcard: &[u8]) -> Vec<u8> {
        // FNV-1a, written once more: what is tested is not taken from what tests it.
        let sum = postcard
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
        [&message::CONTRACT.to_le_bytes()[..], &sum.to_le_bytes(), postcard].concat()
    }

    /// Decodes and checks, within the bounds; what was understood means the same when it is sent again.
    fn survives(body: &[u8]) {
        let (decoded, most) = memory::most_during(|| message::decode::<Spec>(body));
        assert!(most <= bound(body.len()), "{most} bytes of memory for a message of {}", body.len());
        assert!(!matches!(decoded, Err(MessageError::Io(_) | MessageError::Closed)));
        let Ok(spec) = decoded else { return };
        if let Ok(again) = message::encode(&spec) {
            assert_eq!(message::decode::<Spec>(&again[4..]).unwrap(), spec);
        }
        let (_, most) = memory::most_during(|| p2p_jail::check_spec(spec));
        assert!(most <= bound(body.len()), "{most} bytes of memory to check a spec of {}", body.len());
    }

    proptest! {
        #[test]
        fn a_spec_arrives_as_it_was_sent(spec in specs::any_spec()) {
            let bytes = message::encode(&spec).unwrap();
            prop_assert_eq!(message::decode::<Spec>(&bytes[4..]).unwrap(), spec);
        }

        #[test]
        fn a_damaged_spec_is_never_another_spec(spec in specs::any_spec(), damage in damage()) {
            let bytes = message::encode(&spec).unwrap();
            let body = damaged(bytes[4..].to_vec(), &damage);
            match message::decode::<Spec>(&body) {
                Ok(_) => prop_assert_eq!(&body, &bytes[4..], "damaged, and understood"),
                Err(error) => prop_assert!(matches!(error, MessageError::Damaged | MessageError::OtherBuild)),
            }
        }

        #[test]
        fn damage_with_the_right_sum_does_no_harm(spec in specs::any_spec(), damage in damage()) {
            let bytes = message::encode(&spec).unwrap();
            survives(&sealed(&damaged(bytes[20..].to_vec(), &damage)));
        }

        #[test]
        fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            survives(&bytes);
            survives(&sealed(&bytes));
            drop(message::decode::<Report>(&sealed(&bytes)));
        }

        #[test]
        fn a_spec_is_checked_without_harm(spec in specs::any_spec()) {
            let (_, most) = memory::most_during(|| p2p_jail::check_spec(spec));
            prop_assert!(most <= bound(64 << 10), "{} bytes of memory", most);
        }
    }

    /// Lengths that promise more than there is, and elements that are small as bytes and large in memory.
    #[test]
    fn lengths_do_not_reserve_memory() {
        let good = message::encode(&specs::smallest()).unwrap()[20..].to_vec();
        let huge = [0xff, 0xff, 0xff, 0xff, 0x0f];
        for at in 0..good.len() {
            survives(&sealed(&[&good[..at], &huge, &good[at..]].concat()));
            survives(&sealed(&[&good[..at], &huge, &vec![0; 1000], &good[at..]].concat()));
        }
        for filler in 0..=8 {
            for at in 0..good.len().min(64) {
                survives(&sealed(&[&good[..at], &[0xff, 0xff, 0x0f], &vec![filler; 300_000][..]].concat()));
            }
        }
    }

    #[test]
    fn the_largest_specs_stay_within_the_bound() {
        for spec in specs::large() {
            let bytes = message::encode(&spec).unwrap();
            assert!(bytes.len() > MAX_MESSAGE / 3, "{}", bytes.len());
            survives(&bytes[4..]);
        }
    }
}
