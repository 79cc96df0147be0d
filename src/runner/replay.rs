//! What [`super::Mode::Show`] gives: text for standard output and standard error, and an exit status, as records
//! `stream: u8, length: u32 LE, bytes`. The task's own fd 1 and fd 2 are one pipe, which could not tell them apart.

use std::io::{self, Read, Write};

/// Why a result could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The records are not records. They come out of the sandbox, where a stranger's result was read.
    #[error("what was made of the result cannot be read: {0}")]
    Malformed(&'static str),
    /// Reading or writing failed.
    #[error("cannot write what the future printed")]
    Io(#[from] io::Error),
}

/// Writes what the future printed, in order, and returns the exit status: 0, 1 after an error of the user's code, 4 when
/// the future was stopped, 5 when the bytes were not a result. Holds 64 KiB at a time.
///
/// # Errors
/// [`ReplayError`].
pub fn replay(mut from: impl Read, out: &mut impl Write, err: &mut impl Write) -> Result<u8, ReplayError> {
    loop {
        let (stream, length) = header(&mut from)?;
        match (stream, length) {
            (0, 1) => {
                let mut status = [0u8; 1];
                from.read_exact(&mut status)?;
                out.flush()?;
                err.flush()?;
                return Ok(u8::from_le_bytes(status));
            }
            (1, _) => copy(&mut from, out, length)?,
            (2, _) => copy(&mut from, err, length)?,
            _ => return Err(ReplayError::Malformed("unknown record")),
        }
    }
}

fn header(from: &mut impl Read) -> Result<(u8, u64), ReplayError> {
    let mut stream = [0u8; 1];
    let mut length = [0u8; 4];
    let cut = |_| ReplayError::Malformed("it ends without an exit status");
    from.read_exact(&mut stream).map_err(cut)?;
    from.read_exact(&mut length).map_err(cut)?;
    Ok((u8::from_le_bytes(stream), u64::from(u32::from_le_bytes(length))))
}

fn copy(from: &mut impl Read, to: &mut impl Write, length: u64) -> Result<(), ReplayError> {
    let copied = io::copy(&mut from.take(length), to)?;
    if copied == length { Ok(()) } else { Err(ReplayError::Malformed("a record is cut short")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_go_where_they_belong() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let records = b"\x01\x02\0\0\0ab\x02\x01\0\0\0c\x01\x01\0\0\0d\0\x01\0\0\0\x04";
        assert_eq!(replay(&records[..], &mut out, &mut err).unwrap(), 4);
        assert_eq!((out.as_slice(), err.as_slice()), (&b"abd"[..], &b"c"[..]));
        for bad in [&b""[..], b"\x01\x05\0\0\0ab", b"\x07\0\0\0\0", b"\0\x02\0\0\0ab"] {
            assert!(matches!(replay(bad, &mut out, &mut err), Err(ReplayError::Malformed(_))), "{bad:?}");
        }
    }
}
