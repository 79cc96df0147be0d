//! A key from a password that two sides know, which tells nobody else anything of it: symmetric SPAKE2 over Ed25519.
//!
//! Source: python-spake2 0.9, `SPAKE2_Symmetric` with `ParamsEd25519`, which magic-wormhole speaks. With x and y drawn by the
//! two sides, w made of the password and S a fixed point, the messages are X = xB + wS and Y = yB + wS, the shared point is
//! K = x(Y - wS) = y(X - wS), and the key is SHA-256 of SHA-256(password), SHA-256(application), the smaller and the larger
//! message, and K.
//!
//! gospake2 0.2.1 (`Compress` in `ed25519group/affine.go`, `transcriptSymmetric` in `gospake2.go`), which wormhole-william
//! 1.0.6 has, leaves out the zero bytes that K ends in, and of both messages the same number of last bytes, whatever these are.
//! That is another key, once in 256 times. Nothing is lost by taking it where the peer does: it needs the same K.

use curve25519_dalek::{EdwardsPoint, Scalar, edwards::CompressedEdwardsY, traits::IsIdentity};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The length of a point, and of a key, in bytes.
const POINT: usize = 32;
/// What a message of the symmetric kind begins with.
const SYMMETRIC: u8 = b'S';
/// The point that hides: nobody knows of which number it is the multiple.
const S: CompressedEdwardsY = CompressedEdwardsY([
    0x6f, 0x00, 0xda, 0xe8, 0x7c, 0x1b, 0xe1, 0xa7, 0x3b, 0x59, 0x22, 0xef, 0x43, 0x1c, 0xd8, 0xf5, 0x78, 0x79, 0x56,
    0x9c, 0x22, 0x2d, 0x22, 0xb1, 0xcd, 0x71, 0xe8, 0x54, 0x6a, 0xb8, 0xe6, 0xf1,
]);

/// One side of an exchange, with its message out. It is good for one answer.
pub(crate) struct Side {
    /// x.
    scalar: Zeroizing<Scalar>,
    /// wS.
    hiding: Zeroizing<EdwardsPoint>,
    /// X.
    message: [u8; POINT],
    /// What the key is made of that both sides know beforehand.
    known: Zeroizing<[u8; 2 * POINT]>,
}

/// What both sides know in the end, if both knew the password.
pub(crate) struct Keys {
    /// As python-spake2 computes it.
    pub(crate) key: Zeroizing<[u8; POINT]>,
    /// As gospake2 does, where that is another.
    pub(crate) cut: Option<Zeroizing<[u8; POINT]>>,
}

impl Side {
    /// Draws x. `None` without random bits.
    pub(crate) fn begin(password: &[u8], application: &[u8]) -> Option<Self> {
        let mut wide = Zeroizing::new([0; 64]);
        getrandom::fill(&mut *wide).ok()?;
        Self::with(Scalar::from_bytes_mod_order_wide(&wide), password, application)
    }

    fn with(scalar: Scalar, password: &[u8], application: &[u8]) -> Option<Self> {
        let scalar = Zeroizing::new(scalar);
        let hiding = Zeroizing::new(S.decompress()? * *of_password(password)?);
        let message = (EdwardsPoint::mul_base(&scalar) + *hiding).compress().to_bytes();
        let mut known = Zeroizing::new([0; 2 * POINT]);
        let digests = [Sha256::digest(password), Sha256::digest(application)];
        known.iter_mut().zip(digests.iter().flatten()).for_each(|(to, from)| *to = *from);
        Some(Self { scalar, hiding, message, known })
    }

    /// What the other side must get.
    pub(crate) fn message(&self) -> Vec<u8> {
        [&[SYMMETRIC], &self.message[..]].concat()
    }

    /// The keys, by the other side's message. `None` if it is none: of another kind, our own, no point, or one outside the
    /// group of prime order, with which a stranger could choose K.
    pub(crate) fn finish(self, theirs: &[u8]) -> Option<Keys> {
        let (&kind, encoded) = theirs.split_first()?;
        let encoded: [u8; POINT] = encoded.try_into().ok()?;
        let point = CompressedEdwardsY(encoded).decompress()?;
        let reflected = point.compress().to_bytes() == self.message;
        if kind != SYMMETRIC || reflected || point.is_identity() || !point.is_torsion_free() {
            return None;
        }
        let shared = Zeroizing::new(Zeroizing::new((point - *self.hiding) * *self.scalar).compress().to_bytes());
        let zeros = shared.iter().rev().take_while(|byte| **byte == 0).count();
        let key = self.digest(&encoded, &shared, POINT);
        let cut = (zeros > 0).then(|| self.digest(&encoded, &shared, POINT - zeros));
        Some(Keys { key, cut })
    }

    /// The digest of what is known and the first bytes of the three points.
    fn digest(&self, theirs: &[u8; POINT], shared: &[u8; POINT], length: usize) -> Zeroizing<[u8; POINT]> {
        let mut digest = Sha256::new_with_prefix(self.known.as_slice());
        // Who is first is known to neither side.
        let messages = [(&self.message).min(theirs), (&self.message).max(theirs)];
        for point in [messages[0], messages[1], shared] {
            digest.update(point.get(..length).unwrap_or(point));
        }
        Zeroizing::new(digest.finalize().into())
    }
}

/// w: 48 bytes of HKDF-SHA256, the first the highest, modulo the order of the group. `None` cannot happen with so few.
fn of_password(password: &[u8]) -> Option<Zeroizing<Scalar>> {
    let mut wide = Zeroizing::new([0; 64]);
    let (low, _) = wide.split_first_chunk_mut::<48>()?;
    Hkdf::<Sha256>::new(None, password).expand(b"SPAKE2 pw", low).ok()?;
    low.reverse();
    Some(Zeroizing::new(Scalar::from_bytes_mod_order_wide(&wide)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hex;

    const PASSWORD: &[u8] = b"7-guitarist-revenge";
    const APPLICATION: &[u8] = b"lothar.com/wormhole/text-or-file-xfer";

    /// An exchange as the two libraries computed it.
    struct Known {
        what: &'static str,
        scalars: [&'static str; 2],
        messages: [&'static str; 2],
        /// Of python-spake2 0.9.
        key: &'static str,
        /// Of gospake2 0.2.1, where it is another.
        cut: Option<&'static str>,
    }

    const KNOWN: [Known; 5] = [
        Known {
            what: "no zeros",
            scalars: [
                "f8b3c0835f2eeb8440e7185b061ea95c4cd512e4642f9e3eef427962fe12590b",
                "ab6d5d8a33bffa4482195baf78556fc2d6c3c7bad4ebd4aa2a69df5680b7450b",
            ],
            messages: [
                "53209b141f9d2a08cc795ff42dcfc38451a2239849a86785041287595e52a5087e",
                "5374c582b8fe08e6738b1f25c07862e8c449e4ca61bd2b3c6a77381bd34b53a52d",
            ],
            key: "b52ed8dfee18bd88ca2deb0c582b12f56bb8d0370d37419322477cbe8a7c9470",
            cut: None,
        },
        Known {
            what: "K ends in a zero",
            scalars: [
                "f8b3c0835f2eeb8440e7185b061ea95c4cd512e4642f9e3eef427962fe12590b",
                "116f5d8a33bffa4482195baf78556fc2d6c3c7bad4ebd4aa2a69df5680b7450b",
            ],
            messages: [
                "53209b141f9d2a08cc795ff42dcfc38451a2239849a86785041287595e52a5087e",
                "531f120102b7139289537f79b41c76b30d428dbad1cd6a569dd75c4d16e57d204c",
            ],
            key: "3e03a6dce9bc06d26bc34b0a71a60bff9a2f11bd6e7b158e31f6a6cd8e375e54",
            cut: Some("7ee7e6ddfb2b5b074dc927e027f425d5c620674b18ddc63d1c9762a13da6e05b"),
        },
        Known {
            what: "K ends in two zeros",
            scalars: [
                "f8b3c0835f2eeb8440e7185b061ea95c4cd512e4642f9e3eef427962fe12590b",
                "a9765d8a33bffa4482195baf78556fc2d6c3c7bad4ebd4aa2a69df5680b7450b",
            ],
            messages: [
                "53209b141f9d2a08cc795ff42dcfc38451a2239849a86785041287595e52a5087e",
                "53239ff1bc38d4356e524947402e47d6d9290e70c37f6209bc776b096534591f38",
            ],
            key: "096168a82a7f637d7a20f90c6d2f235d3de88f031a89f8f6260cd73f8766a33b",
            cut: Some("852b1235a7d5ebf6f0e4925fd49016d2b071c56327bae8926ebb7276eeeafcd2"),
        },
        Known {
            what: "one message ends in a zero",
            scalars: [
                "7ab6c0835f2eeb8440e7185b061ea95c4cd512e4642f9e3eef427962fe12590b",
                "ab6d5d8a33bffa4482195baf78556fc2d6c3c7bad4ebd4aa2a69df5680b7450b",
            ],
            messages: [
                "535201dd0ac0e6e4436eef4bde01969e9c209cb73a443842dd73fb7df85a703400",
                "5374c582b8fe08e6738b1f25c07862e8c449e4ca61bd2b3c6a77381bd34b53a52d",
            ],
            key: "7831c66e8eed4acddb97a6cfe33bedc34d4e306f8e6d7106eb95ae3d911002e3",
            cut: None,
        },
        Known {
            what: "all three points end in a zero",
            scalars: [
                "7ab6c0835f2eeb8440e7185b061ea95c4cd512e4642f9e3eef427962fe12590b",
                "dbfc5d8a33bffa4482195baf78556fc2d6c3c7bad4ebd4aa2a69df5680b7450b",
            ],
            messages: [
                "535201dd0ac0e6e4436eef4bde01969e9c209cb73a443842dd73fb7df85a703400",
                "536ccadc77b7a0e15c3501f4d3a640ca3d46c0cae119f8df2f837de580b9a29600",
            ],
            key: "badb29088681a73d15f494db4498b67e9b3bc6e4582a8a55e7aafcc25471c69b",
            cut: Some("f27e6fd1aaba1a222b0cb879eba5836c24d6783ff3928828ca719fb311ad6051"),
        },
    ];

    fn bytes(digits: &str) -> Vec<u8> {
        hex::decode(digits).unwrap()
    }

    fn side(scalar: &str) -> Side {
        let scalar = Scalar::from_canonical_bytes(bytes(scalar).try_into().unwrap()).unwrap();
        Side::with(scalar, PASSWORD, APPLICATION).unwrap()
    }

    #[test]
    fn both_sides_compute_what_python_and_go_do() {
        for Known { what, scalars, messages, key, cut } in KNOWN {
            for (ours, theirs) in [(0, 1), (1, 0)] {
                let side = side(scalars[ours]);
                assert_eq!(hex::encode(&side.message()), messages[ours], "{what}");
                let keys = side.finish(&bytes(messages[theirs])).unwrap();
                assert_eq!(hex::encode(&*keys.key), key, "{what}");
                assert_eq!(keys.cut.map(|cut| hex::encode(&*cut)).as_deref(), cut, "{what}");
            }
        }
    }

    /// The vectors of python-spake2's own tests.
    #[test]
    fn passwords_become_the_numbers_of_python() {
        for (password, number) in [
            ("7077", "cf090b60384cb818b12c8d972dfbaf910c0c7295c5cfe560e508f5f062f3960f"),
            ("0001feff", "e86622bb57ea0f6f9f963354f2973a43a9e981901a478e6478682374441b0c04"),
        ] {
            assert_eq!(hex::encode(of_password(&bytes(password)).unwrap().as_bytes()), number);
        }
    }

    #[test]
    fn other_passwords_and_applications_make_other_keys() {
        let theirs = bytes(KNOWN[0].messages[1]);
        let scalar = || Scalar::from_canonical_bytes(bytes(KNOWN[0].scalars[0]).try_into().unwrap()).unwrap();
        for (password, application) in [(&PASSWORD[1..], APPLICATION), (PASSWORD, &APPLICATION[1..])] {
            let keys = Side::with(scalar(), password, application).unwrap().finish(&theirs).unwrap();
            assert_ne!(hex::encode(&*keys.key), KNOWN[0].key);
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let message = bytes(KNOWN[0].messages[1]);
        let kind = |kind: u8| [&[kind], &message[1..]].concat();
        let point = |encoded: [u8; POINT]| [&[SYMMETRIC], &encoded[..]].concat();
        let mut others =
            vec![vec![], message[..32].to_vec(), [&message[..], &[0]].concat(), kind(b'A'), kind(b'B'), kind(0)];
        // Our own back.
        others.push(bytes(KNOWN[0].messages[0]));
        // No point of the curve.
        others.push(point([0x53; POINT]));
        // The eight points of small order, in every way to write them.
        let small = curve25519_dalek::constants::EIGHT_TORSION.map(|torsion| torsion.compress().to_bytes());
        for encoded in small {
            others.push(point(encoded));
            let mut negative = encoded;
            negative[POINT - 1] ^= 0x80;
            others.push(point(negative));
        }
        for low in [0xed, 0xee] {
            // p and p + 1, for 0 and 1.
            let mut large = [0xff; POINT];
            (large[0], large[POINT - 1]) = (low, 0x7f);
            others.push(point(large));
        }
        // A good point, moved out of the group of prime order.
        let good = CompressedEdwardsY(message[1..].try_into().unwrap()).decompress().unwrap();
        for torsion in &curve25519_dalek::constants::EIGHT_TORSION[1..] {
            others.push(point((good + torsion).compress().to_bytes()));
        }
        for other in others {
            assert!(side(KNOWN[0].scalars[0]).finish(&other).is_none(), "{}", hex::encode(&other));
        }
        assert!(side(KNOWN[0].scalars[0]).finish(&message).is_some());
    }
}
