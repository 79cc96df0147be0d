//! Undoes what `saveRDS` compresses with, within bounds: a bomb ends where it has grown too far.

use std::{
    fmt,
    io::{self, BufRead, Read},
    path::Path,
};

use crate::spool::{SpoolError, SpoolWriter, Spooled};

/// How far bytes may grow: so many times, once they are over [`FREE`]. R's own data rarely shrinks to a twentieth.
const MOST_TIMES: u64 = 200;

/// Up to so many bytes nobody asks how far they have grown.
const FREE: u64 = 64 << 20;

/// The memory that undoing xz may take, in KiB: enough for its strongest setting, which has a window of 64 MiB.
const MOST_XZ_KIB: u32 = 80 << 10;

/// How much is undone at once.
const AT_ONCE: usize = 64 * 1024;

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// `saveRDS()` as it is.
    Gzip,
    /// `compress = "bzip2"`.
    Bzip2,
    /// `compress = "xz"`.
    Xz,
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
        })
    }
}

/// Why bytes cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// They are damaged, or something follows them.
    #[error("its {packing} compression is damaged")]
    Damaged {
        /// What they are.
        packing: Packing,
        /// What the decoder said.
        #[source]
        source: io::Error,
    },
    /// They grow too far.
    #[error("it is {packed} bytes of {packing} that grow to more than {limit}")]
    Bomb {
        /// What they are.
        packing: Packing,
        /// Their size.
        packed: u64,
        /// What they may grow to.
        limit: u64,
    },
    /// They cannot be kept.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// How bytes that begin like this are compressed.
#[must_use]
pub fn packing(first: &[u8]) -> Option<Packing> {
    match first {
        [0x1f, 0x8b, ..] => Some(Packing::Gzip),
        [b'B', b'Z', b'h', ..] => Some(Packing::Bzip2),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Packing::Xz),
        _ => None,
    }
}

/// Unpacks what is compressed, to at most `most` bytes in an unnamed file of `folder`; `None` if it is not compressed.
/// Blocking.
///
/// # Errors
/// [`UnpackError`].
pub fn unpack(packed: &Spooled, folder: &Path, most: u64) -> Result<Option<Spooled>, UnpackError> {
    let mut from = io::BufReader::with_capacity(AT_ONCE, packed.reader());
    let first = from.fill_buf().map_err(|source| SpoolError::Read { what: "a temporary file".to_owned(), source })?;
    let Some(packing) = packing(first) else { return Ok(None) };
    let limit = most.min(FREE.max(packed.size().saturating_mul(MOST_TIMES)));
    let mut to = SpoolWriter::new(folder, limit)?;
    match packing {
        Packing::Gzip => pour(flate2::bufread::MultiGzDecoder::new(from), &mut to),
        Packing::Bzip2 => pour(bzip2::bufread::MultiBzDecoder::new(from), &mut to),
        Packing::Xz => pour(lzma_rust2::XzReader::new_mem_limit(from, true, MOST_XZ_KIB), &mut to),
    }
    .map_err(|error| match error {
        Poured::Damaged(source) => UnpackError::Damaged { packing, source },
        Poured::Unkept(SpoolError::TooLarge { limit }) => UnpackError::Bomb { packing, packed: packed.size(), limit },
        Poured::Unkept(error) => error.into(),
    })?;
    Ok(Some(to.finish()))
}

enum Poured {
    Damaged(io::Error),
    Unkept(SpoolError),
}

fn pour(mut from: impl Read, to: &mut SpoolWriter) -> Result<(), Poured> {
    let mut buffer = vec![0; AT_ONCE];
    loop {
        let count = from.read(&mut buffer).map_err(Poured::Damaged)?;
        if count == 0 {
            return Ok(());
        }
        to.write(buffer.get(..count).unwrap_or_default()).map_err(Poured::Unkept)?;
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    }

    /// What comes out, `None` if it was not packed.
    fn unpacked(bytes: &[u8], most: u64) -> Result<Option<Vec<u8>>, UnpackError> {
        let folder = tempfile::tempdir().unwrap();
        let result = unpack(&Spooled::from_bytes(folder.path(), bytes).unwrap(), folder.path(), most)?;
        Ok(result.map(|result| {
            let mut all = Vec::new();
            result.reader().read_to_end(&mut all).unwrap();
            all
        }))
    }

    #[test]
    fn gzip_is_unpacked_and_what_is_not_packed_stays() {
        let bytes = vec![7; 200_000];
        assert_eq!(unpacked(&gzip(&bytes), 200_000).unwrap(), Some(bytes));
        let members = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(unpacked(&members, 100).unwrap().unwrap(), b"one two", "R writes it in members");
        assert_eq!(unpacked(&gzip(b""), 0).unwrap().unwrap(), b"");
        for plain in [&b""[..], b"X", b"X\n\0\0\0\x03", b"\x1f", b"BZ9"] {
            assert_eq!(unpacked(plain, 0).unwrap(), None);
        }
    }

    #[test]
    fn bombs_and_damage_are_errors() {
        let bomb = gzip(&vec![0; 1 << 22]);
        assert!(bomb.len() < 1 << 15);
        assert!(matches!(unpacked(&bomb, 1 << 20), Err(UnpackError::Bomb { limit, .. }) if limit == 1 << 20));
        let good = gzip(b"a result");
        for bad in [&good[..good.len() - 1], &good[..9], &[&good[..12], &b"zzzzzzz"[..]].concat()] {
            assert!(matches!(unpacked(bad, 100), Err(UnpackError::Damaged { .. })), "{bad:?}");
        }
    }
}
