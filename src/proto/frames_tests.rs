//! Tests of the codec.

use proptest::prelude::*;

use super::*;
use crate::{
    proto::{
        manifest::{MAX_PIECES, NAMES_PER_FRAME},
        refusal::{MAX_TEXT, Payload, Reason, sanitise},
    },
    sandbox::{Enforcement, Layer},
};

fn text() -> impl Strategy<Value = String> {
    ".{0,300}".prop_map(|text| sanitise(&text))
}

fn provenance() -> impl Strategy<Value = Provenance> {
    let enforcement = prop_oneof![
        text().prop_map(Enforcement::Enforced),
        text().prop_map(Enforcement::Partly),
        text().prop_map(Enforcement::Missing),
        text().prop_map(Enforcement::Reduced),
        text().prop_map(Enforcement::Untried)
    ];
    let layer = prop_oneof![Just(Layer::Filesystem), Just(Layer::Syscalls), Just(Layer::Output)];
    (text(), text(), prop::collection::vec((layer, enforcement), 0..=MAX_LAYERS))
        .prop_map(|(driver, profile, layers)| Provenance { driver, profile, layers })
}

fn refusal() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        any::<u16>().prop_map(|theirs| Refusal::Version { theirs }),
        Just(Refusal::Ticket),
        Just(Refusal::Cancelled),
        (any::<u64>(), any::<u64>()).prop_map(|(size, limit)| Refusal::TooLarge { what: Payload::Result, size, limit }),
        ".{0,300}".prop_map(|text| Refusal::GaveUp(Reason::from(text))),
    ]
}

fn held() -> impl Strategy<Value = Option<Held>> {
    prop::option::of((any::<u64>(), any::<[u8; 32]>()).prop_map(|(size, digest)| Held { size, digest: Digest(digest) }))
}

fn stage() -> impl Strategy<Value = Stage> {
    prop_oneof![held().prop_map(|held| Stage::Fetch { held }), Just(Stage::Resume)]
}

fn whole() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop::option::of(prop::collection::vec(any::<u8>(), 0..2000))
}

fn from_worker() -> impl Strategy<Value = FromWorker> {
    prop_oneof![
        (any::<u16>(), any::<[u8; 16]>(), "[a-z0-9-]{1,128}", any::<[u64; 2]>(), stage()).prop_map(
            |(version, ticket, future, [max_future, keeps], stage)| FromWorker::Hello(Hello {
                version,
                ticket: Ticket(ticket),
                future: future.parse().unwrap(),
                max_future,
                keeps,
                stage
            })
        ),
        prop::collection::vec(any::<bool>(), 0..500).prop_map(|lacks| FromWorker::Lacks(lacks.into_iter().collect())),
        Just(FromWorker::Received),
        Just(FromWorker::Heartbeat),
        provenance().prop_map(|provenance| FromWorker::Begin { provenance }),
        (any::<u64>(), any::<[u8; 32]>(), provenance(), any::<u64>(), whole()).prop_map(
            |(size, digest, provenance, start, whole)| FromWorker::Result {
                size,
                digest: Digest(digest),
                provenance,
                start,
                whole
            }
        ),
        refusal().prop_map(FromWorker::Refuse),
        ".{0,200}".prop_map(|text| FromWorker::Printed(text.into())),
    ]
}

fn piece() -> impl Strategy<Value = PieceName> {
    (any::<u32>(), any::<[u8; 32]>()).prop_map(|(length, digest)| PieceName { length, digest: Digest(digest) })
}

fn from_client() -> impl Strategy<Value = FromClient> {
    prop_oneof![
        (any::<u64>(), any::<[u8; 32]>(), any::<u64>(), any::<u64>(), any::<u32>(), whole()).prop_map(
            |(size, digest, max_result, start, pieces, whole)| FromClient::Future {
                size,
                digest: Digest(digest),
                max_result,
                start,
                pieces,
                whole
            }
        ),
        held().prop_map(|held| FromClient::Resume { held }),
        Just(FromClient::Heartbeat),
        Just(FromClient::Cancel),
        Just(FromClient::Acknowledge),
        refusal().prop_map(FromClient::Refuse),
        prop::collection::vec(piece(), 0..50).prop_map(FromClient::Pieces),
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(message in from_worker(), stray in any::<Vec<u8>>()) {
        let mut bytes = encode(&message).unwrap();
        let length = bytes.len();
        bytes.extend(&stray);
        let (frame, rest) = Frame::decode(&bytes).unwrap().unwrap();
        prop_assert_eq!(frame, Frame::Control(message));
        prop_assert_eq!(rest, stray);
        prop_assert!(Frame::<FromWorker>::decode(&bytes[..length - 1]).unwrap().is_none());
    }

    #[test]
    fn the_clients_messages_too(message in from_client()) {
        let bytes = encode(&message).unwrap();
        prop_assert_eq!(Frame::decode(&bytes).unwrap().unwrap().0, Frame::Control(message));
    }

    #[test]
    fn no_bytes_can_panic_the_decoder(bytes in any::<Vec<u8>>(), kind in 0u8..5, cut in any::<u16>()) {
        let _ = Frame::<FromWorker>::decode(&bytes);
        let _ = Frame::<FromClient>::decode(&bytes);
        let mut framed = vec![kind];
        framed.extend(u32::from(cut).to_le_bytes());
        framed.extend(&bytes);
        let _ = Frame::<FromWorker>::decode(&framed);
        let _ = Frame::<FromWorker>::from_body(Kind::Control, bytes.clone());
        let _ = Frame::<FromClient>::from_body(Kind::Control, bytes);
    }

    #[test]
    fn damaged_messages_never_panic(message in from_worker(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = encode(&message).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = Frame::<FromWorker>::decode(&bytes);
    }

    #[test]
    fn a_peers_text_is_one_short_visible_line(text in any::<String>()) {
        let clean = sanitise(&text);
        prop_assert!(clean.chars().count() <= MAX_TEXT + 1);
        prop_assert!(!clean.chars().any(char::is_control));
        prop_assert_eq!(sanitise(&clean), clean);
    }
}

#[test]
fn each_kind_has_its_limit_on_the_header_alone() {
    let limits = [
        (Kind::Control, MAX_CONTROL),
        (Kind::Progress, MAX_PROGRESS),
        (Kind::Data, MAX_DATA),
        (Kind::Packed, MAX_DATA),
    ];
    for (kind, limit) in limits {
        let mut header = kind.header(limit).unwrap();
        assert_eq!(Kind::parse(header).unwrap(), (kind, limit));
        header[1..].copy_from_slice(&u32::try_from(limit + 1).unwrap().to_le_bytes());
        assert!(matches!(Frame::<FromWorker>::decode(&header), Err(FrameError::TooLong { .. })));
        assert!(matches!(kind.header(0), Err(FrameError::Empty)));
    }
    assert!(matches!(Kind::parse([4, 1, 0, 0, 0]), Err(FrameError::Kind { kind: 4 })));
    assert!(matches!(Kind::parse([2, 0, 0, 0, 0]), Err(FrameError::Empty)));
}

#[test]
fn a_message_fills_its_frame() {
    let mut bytes = encode(&FromClient::Cancel).unwrap();
    bytes[1] += 1;
    bytes.push(0);
    assert!(matches!(Frame::<FromClient>::decode(&bytes), Err(FrameError::Trailing { extra: 1 })));
}

#[test]
fn escapes_of_a_peer_do_not_get_through() {
    // Raw texts, as a hostile peer's own encoder would write them: a reason is a string on the wire.
    #[derive(Serialize)]
    struct Hostile(u8, u8, String);
    let text = "\u{1b}[2J\u{1b}]0;owned\u{7}no\u{202e}thing\nleft".to_owned();
    let bytes = encode(&Hostile(5, 9, text)).unwrap();
    let Some((Frame::Control(FromWorker::Refuse(Refusal::GaveUp(reason))), _)) = Frame::decode(&bytes).unwrap() else {
        panic!("not a refusal");
    };
    assert_eq!(reason.to_string(), "␛[2J␛]0;owned␇no\u{fffd}thing␊left");
    assert_eq!(sanitise(&"x".repeat(1000)).chars().count(), MAX_TEXT + 1);
}

#[test]
fn a_provenance_is_bounded_and_clean() {
    // As a hostile peer's own encoder would write it.
    #[derive(Serialize)]
    struct Hostile(u8, String, String, Vec<(Layer, u8, String)>);
    let layers = vec![(Layer::Time, 1, "\u{9b}31mred".to_owned()); 40];
    let bytes = encode(&Hostile(2, "a\u{0}b".into(), "p".repeat(9999), layers)).unwrap();
    let Some((Frame::Control(FromWorker::Begin { provenance }), _)) = Frame::decode(&bytes).unwrap() else {
        panic!("not a begin");
    };
    assert_eq!(provenance.driver, "a␀b");
    assert_eq!(provenance.profile.chars().count(), MAX_TEXT + 1);
    assert_eq!(provenance.layers.len(), MAX_LAYERS);
    assert_eq!(provenance.layers[0].1, Enforcement::Partly("\u{fffd}31mred".into()));
}

#[test]
fn the_largest_whole_payload_fits_its_frame_beside_the_longest_provenance() {
    let text = "\u{10ffff}".repeat(MAX_TEXT);
    let layers = vec![(Layer::Time, Enforcement::Partly(text.clone())); MAX_LAYERS];
    let provenance = Provenance { driver: text.clone(), profile: text, layers };
    let (size, digest) = (MAX_WHOLE as u64, Digest([255; 32]));
    let whole = Some(vec![255; MAX_WHOLE]);
    assert!(encode(&FromWorker::Result { size, digest, provenance, start: u64::MAX, whole }).is_ok());
}

#[test]
fn the_longest_names_of_pieces_and_the_longest_answer_fit_their_frames() {
    let names = vec![PieceName { length: u32::MAX, digest: Digest([255; 32]) }; NAMES_PER_FRAME];
    assert!(encode(&FromClient::Pieces(names)).is_ok());
    let all = std::iter::repeat_n(true, MAX_PIECES).collect();
    assert!(encode(&FromWorker::Lacks(all)).is_ok());
}

#[test]
fn what_a_task_printed_is_cut_once_and_harmless() {
    let long = Printed::from("ä\u{1b}".repeat(MAX_PRINTED));
    let text = String::from(long.clone());
    assert!(text.len() <= MAX_PRINTED && text.ends_with("more bytes were left out]") && !text.contains('\u{1b}'));
    assert_eq!(Printed::from(text), long);
    assert!(encode(&FromWorker::Printed(long)).is_ok());
}
