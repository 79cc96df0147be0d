//! Reading numbers and lengths, none of which is believed.

use std::io::BufRead;

use super::ScanError;

/// The bytes, and how many are left.
pub(super) struct Bytes<R> {
    from: R,
    pub(super) left: u64,
    /// Numbers are little endian: R's native format, as the machines have it that R runs on.
    pub(super) is_little: bool,
}

impl<R: BufRead> Bytes<R> {
    pub(super) fn new(from: R, size: u64) -> Self {
        Self { from, left: size, is_little: false }
    }

    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], ScanError> {
        self.left = self.left.checked_sub(N as u64).ok_or(ScanError::Cut)?;
        let mut bytes = [0u8; N];
        self.from.read_exact(&mut bytes).map_err(ScanError::Io)?;
        Ok(bytes)
    }

    pub(super) fn word(&mut self) -> Result<u32, ScanError> {
        let bytes = self.take()?;
        Ok(if self.is_little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    pub(super) fn int(&mut self) -> Result<i32, ScanError> {
        self.word().map(u32::cast_signed)
    }

    pub(super) fn real(&mut self) -> Result<f64, ScanError> {
        let bytes = self.take()?;
        Ok(if self.is_little { f64::from_le_bytes(bytes) } else { f64::from_be_bytes(bytes) })
    }

    /// The type of what follows in compiled code: a whole word.
    pub(super) fn kind(&mut self) -> Result<u8, ScanError> {
        u8::try_from(self.word()?).map_err(|_| ScanError::Forged("an unknown type"))
    }

    /// The length of a vector whose elements take at least `size` bytes each.
    pub(super) fn length(&mut self, size: u64) -> Result<u64, ScanError> {
        let length = match self.int()? {
            -1 => (i64::from(self.int()?) << 32) | i64::from(self.word()?),
            length => i64::from(length),
        };
        self.room(length, size)
    }

    /// A count, if there is room for so many things of this size.
    pub(super) fn room(&self, announced: i64, size: u64) -> Result<u64, ScanError> {
        let count = u64::try_from(announced).ok().filter(|count| *count <= self.left / size);
        count.ok_or(ScanError::Length { announced, left: self.left })
    }

    /// A few bytes.
    pub(super) fn short(&mut self, length: u64) -> Result<Vec<u8>, ScanError> {
        (0..length).map(|_| self.take::<1>().map(|[byte]| byte)).collect()
    }

    pub(super) fn skip(&mut self, mut bytes: u64) -> Result<(), ScanError> {
        self.left = self.left.checked_sub(bytes).ok_or(ScanError::Cut)?;
        while bytes > 0 {
            let there = self.from.fill_buf().map_err(ScanError::Io)?.len();
            let now = there.min(usize::try_from(bytes).unwrap_or(usize::MAX));
            if now == 0 {
                return Err(ScanError::Cut);
            }
            self.from.consume(now);
            bytes -= now as u64;
        }
        Ok(())
    }
}
