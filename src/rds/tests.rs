//! Bytes that R would write, and those that it would not.

use proptest::prelude::*;

use super::*;

const HEADER: &[u8] = b"X\n\0\0\0\x02\0\x04\x02\x02\0\x02\x03\0";

fn read(parts: &[&[u8]]) -> Result<Carried, ScanError> {
    let bytes = [HEADER, &parts.concat()].concat();
    scan(bytes.as_slice(), bytes.len() as u64)
}

const NULL: &[u8] = &[0, 0, 0, 254];
/// A list of one.
const LIST: &[u8] = &[0, 0, 0, 19, 0, 0, 0, 1];
/// The attribute `a`, which is NULL.
const ATTRIBUTE: &[u8] = b"\0\0\x04\x02\0\0\0\x01\0\x04\0\x09\0\0\0\x01a\0\0\0\xfe\0\0\0\xfe";

fn forged(parts: &[&[u8]]) -> &'static str {
    match read(parts) {
        Err(ScanError::Forged(what)) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_r_writes_is_let_through() {
    let nothing = Carried::default();
    assert_eq!(read(&[NULL]).unwrap(), nothing);
    assert_eq!(read(&[&[0, 0, 2, 19, 0, 0, 0, 1], NULL, ATTRIBUTE]).unwrap(), nothing);
    assert_eq!(read(&[&[0, 0, 0, 24, 0, 0, 0, 3], b"abc"]).unwrap(), nothing);
    assert_eq!(read(&[&[0, 0, 0, 24, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 3], b"abc"]).unwrap(), nothing);
    // 1:10, by its class: a symbol, and what the symbol's number refers to.
    let compact = b"\0\0\0\xee\0\0\0\x02\0\0\0\x01\0\x04\0\x09\0\0\0\x0ecompact_intseq\
        \0\0\0\x02\0\0\0\x01\0\x04\0\x09\0\0\0\x04base\0\0\0\x02\0\0\0\x0d\0\0\0\x01\0\0\0\x0d\0\0\0\xfe";
    let number = |number: f64| number.to_be_bytes();
    let state = |length: f64, first: f64, step: f64| {
        [&b"\0\0\0\x0e\0\0\0\x03"[..], &number(length), &number(first), &number(step)].concat()
    };
    let good = state(10.0, 1.0, 1.0);
    assert_eq!(read(&[compact, &good, NULL]).unwrap(), nothing);
    let again =
        b"\0\0\0\xee\0\0\0\x02\0\0\x01\xff\0\0\0\x02\0\0\x02\xff\0\0\0\x02\0\0\0\x0d\0\0\0\x01\0\0\0\x0d\0\0\0\xfe";
    assert_eq!(read(&[&[0, 0, 0, 19, 0, 0, 0, 2], compact, &good, NULL, again, &good, NULL]).unwrap(), nothing);
    for bad in
        [state(-1.0, 1.0, 1.0), state(f64::NAN, 1.0, 1.0), state(10.0, f64::INFINITY, 1.0), state(10.0, 1.0, 2.0)]
    {
        assert_eq!(forged(&[compact, &bad, NULL]), "a compact vector of no known shape");
    }
    assert_eq!(forged(&[compact, b"\0\0\0\x0e\0\0\0\x01\0\0\0\0\0\0\0\0", NULL]), "a compact vector of no known shape");
}

#[test]
fn what_may_run_later_is_counted() {
    let closure = |environment: &[u8]| read(&[&[0, 0, 4, 3], environment, NULL, NULL]).unwrap();
    let frame = |value: &[u8]| [&[0, 0, 0, 4, 0, 0, 0, 0], NULL, value, NULL, NULL].concat();
    let promise = [&[0, 0, 4, 2], NULL, &[0, 0, 0, 5], NULL, NULL, NULL].concat();
    assert_eq!(closure(&frame(&promise)), Carried { promises: 1, ..Carried::default() });
    let active = [&[8, 0, 4, 2], NULL, NULL, NULL].concat();
    assert_eq!(closure(&frame(&active)), Carried { active_bindings: 1, ..Carried::default() });
    assert_eq!(read(&[&[0, 0, 0, 22], NULL, NULL]).unwrap().pointers, 1);
    let code = b"\0\0\0\x15\0\0\0\x01\0\0\0\x0d\0\0\0\x01\0\0\0\x0c\0\0\0\x02";
    let shared = [&[0, 0, 0, 244, 0, 0, 0, 0, 0, 0, 0, 6], NULL, &[0, 0, 0, 0], NULL, &[0, 0, 0, 0], NULL].concat();
    let carried = read(&[code, &shared, &[0, 0, 0, 243, 0, 0, 0, 0]]).unwrap();
    assert_eq!(carried, Carried { bytecode: 1, ..Carried::default() });
    assert_eq!(carried.to_string(), "compiled functions: 1");
    assert!(matches!(read(&[code, &shared, &[0, 0, 0, 243, 0, 0, 0, 1]]), Err(ScanError::Forged(_))));
}

#[test]
fn depth_has_an_end_however_it_is_made() {
    let deep = |opening: &[u8], levels: u32| read(&[&opening.repeat(levels as usize), NULL]);
    let pair = [0, 0, 0, 2].as_slice();
    let tail = [&[0, 0, 0, 2], NULL].concat();
    let environment = [0, 0, 0, 4, 0, 0, 0, 0].as_slice();
    let attributes = [0, 0, 2, 2].as_slice();
    for opening in [LIST, pair, &tail, environment, attributes, &[0, 0, 0, 238]] {
        let error = deep(opening, 3_000_000).unwrap_err();
        assert!(matches!(error, ScanError::Depth | ScanError::Forged(_)), "{opening:?} {error}");
    }
    assert!(deep(LIST, MAX_DEPTH).is_ok());
    assert!(matches!(deep(LIST, MAX_DEPTH + 1), Err(ScanError::Depth)));
}

#[test]
fn what_no_r_writes_is_refused() {
    for bytes in
        [&b""[..], b"X", b"\x1f\x8b\x08\0\0\0", b"\xfd7zXZ\0", b"BZh91AY", b"A\n2\n", b"B\n\0\0\0\x02\0\0\0\0\0\0\0\0"]
    {
        assert!(matches!(scan(bytes, bytes.len() as u64), Err(ScanError::Format)), "{bytes:?}");
    }
    assert!(matches!(read(&[NULL, NULL]), Err(ScanError::Trailing(4))));
    assert!(matches!(read(&[LIST]), Err(ScanError::Length { .. } | ScanError::Cut)));
    for kind in [10, 13, 14, 15, 16, 19, 20, 24] {
        for length in
            [&[0x7f, 255, 255, 255][..], &[255, 255, 255, 255, 0x7f, 255, 255, 255, 0, 0, 0, 0], &[255, 255, 255, 254]]
        {
            assert!(matches!(read(&[&[0, 0, 0, kind], length, &[0; 8]]), Err(ScanError::Length { .. })), "{kind}");
        }
    }
    assert!(matches!(read(&[&[0, 0, 0, 9, 0x7f, 255, 255, 255], &[0; 8]]), Err(ScanError::Length { .. })));
    assert_eq!(forged(&[&[0, 0, 0, 5], NULL, NULL]), "a promise as a value");
    assert_eq!(forged(&[LIST, &[0, 0, 0, 5], NULL, NULL]), "a promise as a value");
    assert_eq!(forged(&[&[0, 0, 2, 2], &[0, 0, 0, 5], NULL, NULL]), "attributes that are no pairlist");
    assert_eq!(forged(&[&[0, 0, 2, 2], &[0, 0, 0, 2], NULL, NULL]), "an attribute without a name");
    assert_eq!(forged(&[&[0, 0, 1, 255]]), "a reference to nothing");
    assert_eq!(forged(&[&[0, 0, 0, 16, 0, 0, 0, 1], NULL]), "something else in the place of a string");
    assert_eq!(forged(&[&[0, 0, 0, 99]]), "an unknown type");
    let mapped_file = b"\0\0\0\xee\0\0\0\x02\0\0\0\x01\0\x04\0\x09\0\0\0\x0cmmap_integer";
    assert_eq!(forged(&[mapped_file]), "a vector of a foreign class");
}

proptest! {
    #[test]
    fn any_bytes_are_taken_without_harm(bytes in prop::collection::vec(prop_oneof![Just(0u8), 0u8..26, 238u8.., any::<u8>()], 0..400)) {
        let _ = read(&[&bytes]);
    }
}
