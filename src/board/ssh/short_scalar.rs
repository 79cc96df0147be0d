//! Key files of ECDSA on P-256 whose secret number begins with a zero byte, one in 256 of them. OpenSSH writes the number
//! without it, as an `mpint` (RFC 4251, section 5), and ssh-key 0.7.0-rc.11 takes at least 32 bytes. Files without a
//! passphrase are read here (openssh-portable, PROTOCOL.key); a file with one needs an ssh-agent.

use russh::keys::{
    PrivateKey,
    ssh_key::{
        self,
        encoding::{self, Decode, DecodePem, Mpint, Reader, pem::PemLabel},
        private::{EcdsaKeypair, EcdsaPrivateKey, KeypairData},
        public::{EcdsaPublicKey, KeyData},
    },
};

/// The length of a secret number for P-256, in bytes.
const SCALAR: usize = 32;
const MAGIC: &[u8; 15] = b"openssh-key-v1\0";

struct File(PrivateKey);

/// The key in a file's text, if it is such a one.
pub(super) fn read(text: &str) -> Option<PrivateKey> {
    File::decode_pem(text).ok().map(|File(key)| key)
}

impl PemLabel for File {
    const PEM_LABEL: &'static str = "OPENSSH PRIVATE KEY";
}

impl Decode for File {
    type Error = ssh_key::Error;

    fn decode(reader: &mut impl Reader) -> Result<Self, Self::Error> {
        let mut magic = [0; MAGIC.len()];
        reader.read(&mut magic)?;
        let (cipher, kdf, _) = (String::decode(reader)?, String::decode(reader)?, Vec::<u8>::decode(reader)?);
        if magic != *MAGIC || cipher != "none" || kdf != "none" || u32::decode(reader)? != 1 {
            return Err(encoding::Error::Length.into());
        }
        let KeyData::Ecdsa(EcdsaPublicKey::NistP256(public)) = reader.read_prefixed(KeyData::decode)? else {
            return Err(ssh_key::Error::AlgorithmUnknown);
        };
        reader.read_prefixed(|reader| {
            let (check, again) = (u32::decode(reader)?, u32::decode(reader)?);
            let (_, _, point) = (String::decode(reader)?, String::decode(reader)?, Vec::<u8>::decode(reader)?);
            if check != again || point != public.as_bytes() {
                return Err(ssh_key::Error::FormatEncoding);
            }
            let number = Mpint::decode(reader)?;
            let number = number.as_positive_bytes().ok_or(ssh_key::Error::FormatEncoding)?;
            let zeros = SCALAR.checked_sub(number.len()).ok_or(encoding::Error::Length)?;
            let mut scalar = [0; SCALAR];
            scalar.iter_mut().skip(zeros).zip(number).for_each(|(to, from)| *to = *from);
            let comment = String::decode(reader)?;
            // What fills the last block.
            while !reader.is_finished() {
                u8::decode(reader)?;
            }
            let pair = EcdsaKeypair::NistP256 { public, private: EcdsaPrivateKey::from(scalar) };
            PrivateKey::new(KeypairData::Ecdsa(pair), comment).map(Self)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = include_str!("../../../tests/data/short-scalar");
    const PUBLIC: &str = include_str!("../../../tests/data/short-scalar.pub");

    #[test]
    fn a_secret_that_begins_with_a_zero_byte_is_read() {
        let key = read(KEY).unwrap();
        assert_eq!(key.public_key().to_openssh().unwrap(), PUBLIC.trim());
    }

    #[test]
    fn what_is_no_such_file_is_none() {
        for text in [
            "",
            PUBLIC,
            &KEY.replace("b3Blb", "b3Alb"),
            &KEY.replace("AAAAABG5vbmUAAAAEbm9uZQ", "AAAAABG5vbnUAAAAEbm9uZQ"),
        ] {
            assert!(read(text).is_none(), "{text}");
        }
        // Cut anywhere: no panic, whatever comes of it.
        for end in 0..KEY.len() {
            let _ = read(KEY.get(..end).unwrap_or_default());
        }
    }
}
