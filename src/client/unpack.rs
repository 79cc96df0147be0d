//! Results as R's `saveRDS()` writes them: in gzip (RFC 1952). Ours are not packed; what comes by wormhole is, and is unpacked
//! before anybody looks at it, to no more bytes than a result may have.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;

use crate::spool::{SpoolError, SpoolWriter, Spooled};

/// How a gzip file begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// How many bytes are read and written at once.
const PIECE: usize = 64 * 1024;

/// Why a result cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The worker packed it in another way than gzip, or it was damaged before it was sent.
    #[error("the result is gzip that cannot be unpacked")]
    Damaged(#[source] std::io::Error),
    /// This side cannot store or read the bytes, or they are more than a result may have.
    #[error("cannot unpack the result")]
    Spool(#[from] SpoolError),
}

/// The bytes of a gzip file, at most `most`, in an unnamed file in `directory`; those of any other file as they are. Blocks.
///
/// # Errors
/// [`UnpackError`].
pub(super) fn unpacked(result: Spooled, most: u64, directory: &Path) -> Result<Spooled, UnpackError> {
    let read = |source| SpoolError::Read { what: "a temporary file".to_owned(), source };
    let mut from = BufReader::with_capacity(PIECE, result.reader()?);
    if !from.fill_buf().map_err(read)?.starts_with(&GZIP) {
        return Ok(result);
    }
    let (mut from, mut to) = (MultiGzDecoder::new(from), SpoolWriter::new(directory, most)?);
    let mut piece = vec![0; PIECE];
    loop {
        let count = match from.read(&mut piece) {
            Ok(0) => return Ok(to.finish()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(UnpackError::Damaged(error)),
        };
        to.write(piece.get(..count).unwrap_or_default())?;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    }

    fn unpack(bytes: &[u8], most: u64) -> Result<Vec<u8>, UnpackError> {
        let folder = tempfile::tempdir().unwrap();
        let mut all = Vec::new();
        unpacked(Spooled::from_bytes(folder.path(), bytes).unwrap(), most, folder.path())?
            .reader()
            .unwrap()
            .read_to_end(&mut all)
            .unwrap();
        Ok(all)
    }

    #[test]
    fn gzip_is_unpacked_and_everything_else_stays() {
        let bytes = vec![7; 200_000];
        assert_eq!(unpack(&gzip(&bytes), 200_000).unwrap(), bytes);
        assert_eq!(unpack(&[gzip(b"one "), gzip(b"two")].concat(), 100).unwrap(), b"one two", "R writes it in members");
        assert_eq!(unpack(&gzip(b""), 0).unwrap(), b"");
        for plain in [&b""[..], b"X", b"X\n\0\0\0\x03", b"BZh9"] {
            assert_eq!(unpack(plain, 0).unwrap(), plain);
        }
    }

    #[test]
    fn bombs_and_damage_are_errors() {
        let bomb = gzip(&vec![0; 1 << 22]);
        assert!(bomb.len() < 1 << 15);
        assert!(matches!(unpack(&bomb, 1 << 20), Err(UnpackError::Spool(SpoolError::TooLarge { .. }))));
        let good = gzip(b"a result");
        for bad in [&good[..good.len() - 1], &good[..9], &[&good[..12], &b"zzzzzzz"[..]].concat()] {
            assert!(matches!(unpack(bad, 100), Err(UnpackError::Damaged(_))), "{bad:?}");
        }
    }
}
