//! Bytes of unknown size on their way from somewhere to somewhere: an unnamed file with its size and digest.
//!
//! The file has no name, so it is gone when the process is, however it ends.

mod digesting;

use std::{
    borrow::Borrow,
    fmt,
    fs::File,
    io::{self, Read},
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

pub use digesting::digest_of_first;
use digesting::{Digesting, PIECE, in_common};

use crate::ids::{Digest, PieceName};

/// Why bytes could not be spooled.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// More bytes than were allowed.
    #[error("more than {limit} bytes")]
    TooLarge {
        /// The bound.
        limit: u64,
    },
    /// The disk is full, or the folder cannot be written.
    #[error("cannot write a temporary file in {}", directory.display())]
    Write {
        /// The folder of the unnamed file.
        directory: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The bytes cannot be read back, or the source cannot be read.
    #[error("cannot read {what}")]
    Read {
        /// What was being read.
        what: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// What gives way when a disk is full: it says whether there was anything to give. Blocking. Cheap to clone.
#[derive(Clone)]
pub struct Relief(Arc<dyn Fn() -> bool + Send + Sync>);

impl Relief {
    /// Something that makes room, or says that there is none to be made.
    #[must_use]
    pub fn new(give_way: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(give_way))
    }

    /// Makes room, or says that there is none to be made.
    pub(crate) fn gives_way(&self) -> bool {
        (self.0)()
    }
}

impl fmt::Debug for Relief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Relief")
    }
}

/// An unnamed file that is being written.
#[derive(Debug)]
pub struct SpoolWriter {
    file: File,
    directory: PathBuf,
    limit: u64,
    digesting: Digesting,
    relief: Option<Relief>,
    beginning: Option<Beginning>,
}

/// The first bytes of a file, which somebody may have read before the rest was there. Only clones of one are the same.
#[derive(Debug, Clone)]
pub struct Beginning(Arc<u64>);

impl Beginning {
    /// How many bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        *self.0
    }

    /// Whether it is the same file's.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl SpoolWriter {
    /// Begins an unnamed file in a folder (`O_TMPFILE` where the file system has it), for at most `limit` bytes.
    ///
    /// # Errors
    /// [`SpoolError::Write`].
    pub fn new(directory: &Path, limit: u64) -> Result<Self, SpoolError> {
        let file = tempfile::tempfile_in(directory)
            .map_err(|source| SpoolError::Write { directory: directory.to_owned(), source })?;
        Ok(Self::of(file, directory.to_owned(), limit))
    }

    fn of(file: File, directory: PathBuf, limit: u64) -> Self {
        Self { file, directory, limit, digesting: Digesting::default(), relief: None, beginning: None }
    }

    /// Begins an unnamed file with the first bytes of a finished one. Blocking.
    ///
    /// # Errors
    /// [`SpoolError::Write`]; [`SpoolError::Read`], also when it has fewer.
    pub fn beginning_as(directory: &Path, of: &Spooled, bytes: u64) -> Result<Self, SpoolError> {
        let mut writer = Self { digesting: Digesting::within(&of.marks, bytes), ..Self::new(directory, bytes)? };
        let failed = |source| SpoolError::Write { directory: directory.to_owned(), source };
        let digested = writer.size();
        let mut buffer = vec![0; PIECE];
        let mut at = 0;
        while at < bytes {
            let length = usize::try_from(bytes - at).map_or(PIECE, |left| left.min(PIECE));
            let piece = buffer.get_mut(..length).unwrap_or_default();
            of.file.read_exact_at(piece, at).map_err(cannot_read)?;
            writer.file.write_all_at(piece, at).map_err(failed)?;
            let known = usize::try_from(digested.saturating_sub(at)).map_or(length, |known| known.min(length));
            writer.digesting.update(piece.get(known..).unwrap_or_default());
            at += length as u64;
        }
        writer.beginning = Some(Beginning(Arc::new(bytes)));
        Ok(writer)
    }

    /// Its beginning, if it is [another file's](Self::beginning_as).
    #[must_use]
    pub fn beginning(&self) -> Option<&Beginning> {
        self.beginning.as_ref()
    }

    /// The same, for at most `limit` bytes.
    #[must_use]
    pub fn limited_to(self, limit: u64) -> Self {
        Self { limit, ..self }
    }

    /// The same, but what the disk does not take is tried once more when something gave way.
    #[must_use]
    pub fn relieved_by(self, relief: Option<Relief>) -> Self {
        Self { relief, ..self }
    }

    /// Begins an unnamed file in memory, for at most `limit` bytes: for small things that must not fail on a full disk.
    ///
    /// # Errors
    /// [`SpoolError::Write`] when there is no descriptor left.
    pub fn in_memory(limit: u64) -> Result<Self, SpoolError> {
        let directory = PathBuf::from("memory");
        let made = nix::sys::memfd::memfd_create(c"spool", nix::sys::memfd::MFdFlags::MFD_CLOEXEC);
        let file = made.map_err(|error| SpoolError::Write { directory: directory.clone(), source: error.into() })?;
        Ok(Self::of(File::from(file), directory, limit))
    }

    /// Appends bytes. Blocks on the disk: call it from a blocking thread, or with chunks that the page cache takes. What
    /// could not be written may be written again.
    ///
    /// # Errors
    /// [`SpoolError::TooLarge`] before anything over the limit is written; [`SpoolError::Write`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        let at = self.size();
        if at.saturating_add(bytes.len() as u64) > self.limit {
            return Err(SpoolError::TooLarge { limit: self.limit });
        }
        let failed = |source| SpoolError::Write { directory: self.directory.clone(), source };
        match (self.file.write_all_at(bytes, at), &self.relief) {
            (Err(_), Some(relief)) if relief.gives_way() => {
                self.file.write_all_at(bytes, at).map_err(failed)?;
            }
            (written, _) => written.map_err(failed)?,
        }
        self.digesting.update(bytes);
        Ok(())
    }

    /// Reads bytes again that were written, by their position.
    ///
    /// # Errors
    /// [`SpoolError::Read`], also when there are fewer.
    pub fn read_back(&self, at: u64, into: &mut [u8]) -> Result<(), SpoolError> {
        self.file.read_exact_at(into, at).map_err(cannot_read)
    }

    /// Bytes so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.digesting.size
    }

    /// BLAKE3 of the bytes so far.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digesting.digest()
    }

    /// Ends the file.
    #[must_use]
    pub fn finish(self) -> Spooled {
        Spooled { beginning: self.beginning, ..Spooled::of(self.file, self.digesting) }
    }
}

/// A finished file with its size and digest.
#[derive(Debug)]
pub struct Spooled {
    file: Arc<File>,
    size: u64,
    digest: Digest,
    /// Its digest on the way.
    marks: Vec<blake3::Hasher>,
    beginning: Option<Beginning>,
    first_pieces: Vec<PieceName>,
    pieces: Pieces,
}

/// The pieces of a file by their content, in their order: known once somebody has cut it.
pub type Pieces = Arc<OnceLock<Arc<[PieceName]>>>;

impl Spooled {
    fn of(file: File, digesting: Digesting) -> Self {
        let (file, size, digest) = (Arc::new(file), digesting.size, digesting.digest());
        let (marks, first_pieces, pieces) = (digesting.into_marks(), Vec::new(), Pieces::default());
        Self { file, size, digest, marks, beginning: None, first_pieces, pieces }
    }

    /// Measures and digests a file of the user's, which must not change afterwards. Reads it once, blocking.
    ///
    /// # Errors
    /// [`SpoolError::Read`]; [`SpoolError::TooLarge`] without reading when the file is over `limit`.
    pub fn from_path(path: &Path, limit: u64) -> Result<Self, SpoolError> {
        let what = path.display().to_string();
        let file = File::open(path).map_err(|source| SpoolError::Read { what: what.clone(), source })?;
        Self::from_file(file, &what, limit, None)
    }

    /// The same of a file that is open already; errors call it `what`. What it has in common with the beginning of an earlier
    /// file is compared, and neither digested nor cut again: from the byte on up to which both are known to be the same.
    ///
    /// # Errors
    /// As [`Spooled::from_path`].
    pub fn from_file(file: File, what: &str, limit: u64, earlier: Option<(&Self, u64)>) -> Result<Self, SpoolError> {
        let failed = |source| SpoolError::Read { what: what.to_owned(), source };
        let size = file.metadata().map_err(failed)?.len();
        if size > limit {
            return Err(SpoolError::TooLarge { limit });
        }
        let compare = |(earlier, known): (&Self, u64)| earlier.in_common_with(&file, known..size);
        let (common, earlier) = (earlier.map_or(Ok(0), compare).map_err(failed)?, earlier.map(|(earlier, _)| earlier));
        let mut digesting = earlier.map(|earlier| Digesting::within(&earlier.marks, common)).unwrap_or_default();
        let at = digesting.size;
        digesting.read(&mut Reader { file: &file, at, end: limit.saturating_add(1) }).map_err(failed)?;
        if digesting.size > limit {
            return Err(SpoolError::TooLarge { limit });
        }
        let first_pieces = earlier.map(|earlier| earlier.pieces_within(common)).unwrap_or_default();
        Ok(Self { first_pieces, ..Self::of(file, digesting) })
    }

    /// Up to which byte a file is the same as this one, which it is known to be up to where the range begins; and where the range
    /// ends at the latest, which may be behind the end of either. Blocking.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn in_common_with(&self, file: &File, bytes: Range<u64>) -> io::Result<u64> {
        let end = bytes.end.min(self.size);
        if bytes.start >= end { Ok(end) } else { in_common(&self.file, file, bytes.start..end) }
    }

    /// The pieces that lie in the first bytes, without the last one of the file: another file that begins so has them too, as
    /// where a piece ends depends on what is before.
    fn pieces_within(&self, bytes: u64) -> Vec<PieceName> {
        let names = self.pieces.get().map(|names| &**names).unwrap_or_default();
        let mut end = 0;
        let within = names.iter().take(names.len().saturating_sub(1)).take_while(|name| {
            end += u64::from(name.length);
            end <= bytes
        });
        within.copied().collect()
    }

    /// Its pieces, for whoever finds or knows them.
    #[must_use]
    pub fn pieces(&self) -> &Pieces {
        &self.pieces
    }

    /// The first of its pieces, as far as an earlier file had the same.
    #[must_use]
    pub fn first_pieces(&self) -> &[PieceName] {
        &self.first_pieces
    }

    /// Its beginning, if it was [another file's](SpoolWriter::beginning_as).
    #[must_use]
    pub fn beginning(&self) -> Option<&Beginning> {
        self.beginning.as_ref()
    }

    /// Spools bytes that are in memory already.
    ///
    /// # Errors
    /// [`SpoolError::Write`].
    pub fn from_bytes(directory: &Path, bytes: &[u8]) -> Result<Self, SpoolError> {
        let mut writer = SpoolWriter::new(directory, bytes.len() as u64)?;
        writer.write(bytes)?;
        Ok(writer.finish())
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// BLAKE3 of the bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// A reader at the first byte, with a position of its own.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.reader_of(0..self.size())
    }

    /// The same of some of its bytes; there are no others.
    #[must_use]
    pub fn reader_of(&self, bytes: Range<u64>) -> Reader {
        let end = bytes.end.min(self.size());
        Reader { file: self.file(), at: bytes.start.min(end), end }
    }

    /// The file, to be read by position alone: where it stands is nobody's.
    #[must_use]
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Copies the bytes to a file beside `path` and renames it to `path`, so that nobody ever sees half of it.
    ///
    /// # Errors
    /// [`SpoolError::Write`] and [`SpoolError::Read`].
    pub fn save_as(&self, path: &Path) -> Result<(), SpoolError> {
        let (to, directory) = self.copy_beside(path)?;
        to.persist(path).map_err(|error| SpoolError::Write { directory, source: error.error })?;
        Ok(())
    }

    /// The same, but a file that is there already stays as it is, even if it came a moment ago.
    ///
    /// # Errors
    /// As [`Spooled::save_as`]; the source is [`io::ErrorKind::AlreadyExists`] then.
    pub fn save_as_new(&self, path: &Path) -> Result<(), SpoolError> {
        let (to, directory) = self.copy_beside(path)?;
        to.persist_noclobber(path).map_err(|error| SpoolError::Write { directory, source: error.error })?;
        Ok(())
    }

    fn copy_beside(&self, path: &Path) -> Result<(tempfile::NamedTempFile, PathBuf), SpoolError> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let failed = |source| SpoolError::Write { directory: directory.to_owned(), source };
        let mut to = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
        io::copy(&mut self.reader(), &mut to).map_err(failed)?;
        to.as_file().sync_all().map_err(failed)?;
        Ok((to, directory.to_owned()))
    }
}

/// Reads a finished file from its first byte to its last. Any number of readers can be under way in one file: a read of
/// theirs that nobody waits for any more, in a blocking thread, moves no other's position.
#[derive(Debug)]
pub struct Reader<F = Arc<File>> {
    file: F,
    at: u64,
    end: u64,
}

impl<F> Reader<F> {
    /// Bytes that are still to come.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.end - self.at
    }
}

impl Reader {
    /// Up to `most` of the bytes that follow, read in a blocking thread; none at the end. Cancel-safe.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn next(&mut self, most: usize) -> io::Result<Vec<u8>> {
        let (file, at) = (Arc::clone(&self.file), self.at);
        let length = usize::try_from(self.left()).map_or(most, |left| left.min(most));
        if length == 0 {
            return Ok(Vec::new());
        }
        let reading = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; length];
            let read = file.read_at(&mut bytes, at)?;
            bytes.truncate(read);
            Ok::<_, io::Error>(bytes)
        });
        let bytes = reading.await.map_err(io::Error::other)??;
        self.at += bytes.len() as u64;
        Ok(bytes)
    }
}

impl<F: Borrow<File>> Read for Reader<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.left()).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = self.file.borrow().read_at(buffer.get_mut(..length).unwrap_or_default(), self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

fn cannot_read(source: io::Error) -> SpoolError {
    SpoolError::Read { what: "a temporary file".to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_held_before_the_byte_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = SpoolWriter::new(directory.path(), 3).unwrap();
        writer.write(b"abc").unwrap();
        assert!(matches!(writer.write(b"d"), Err(SpoolError::TooLarge { limit: 3 })));
        assert_eq!(writer.finish().size(), 3);
    }

    #[test]
    fn what_was_spooled_is_read_back_and_saved_whole() {
        let directory = tempfile::tempdir().unwrap();
        let spooled = Spooled::from_bytes(directory.path(), b"bytes").unwrap();
        assert_eq!(spooled.digest().0, *blake3::hash(b"bytes").as_bytes());
        let path = directory.path().join("out.rds");
        spooled.save_as(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"bytes");
        let again = spooled.save_as_new(&path);
        assert!(
            matches!(again, Err(SpoolError::Write { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists)
        );
        spooled.save_as_new(&directory.path().join("new.rds")).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2, "nothing else is left");
        assert_eq!(Spooled::from_path(&path, 5).unwrap().digest(), spooled.digest());
        assert!(matches!(Spooled::from_path(&path, 4), Err(SpoolError::TooLarge { .. })));
    }

    #[test]
    fn a_file_that_begins_as_another_one_is_a_file_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..5_000_000u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let other = Spooled::from_bytes(directory.path(), &bytes).unwrap();
        let mut beginnings = Vec::new();
        for length in [0, 1, 1 << 20, (1 << 20) + 1, 3_333_333, 5_000_000] {
            let mut writer = SpoolWriter::beginning_as(directory.path(), &other, length as u64).unwrap();
            assert_eq!(writer.digest().0, *blake3::hash(&bytes[..length]).as_bytes());
            assert!(matches!(writer.write(b"more"), Err(SpoolError::TooLarge { .. })));
            writer = writer.limited_to(length as u64 + 4);
            writer.write(b"more").unwrap();
            let file = writer.finish();
            let mut all = Vec::new();
            file.reader().read_to_end(&mut all).unwrap();
            assert_eq!(all, [&bytes[..length], b"more"].concat());
            assert_eq!(file.digest().0, *blake3::hash(&all).as_bytes());
            beginnings.push(file.beginning().unwrap().clone());
        }
        assert!(beginnings.iter().enumerate().all(|(at, one)| {
            beginnings.iter().enumerate().all(|(other_at, other)| one.is(other) == (at == other_at))
        }));
        assert!(matches!(SpoolWriter::beginning_as(directory.path(), &other, 5_000_001), Err(SpoolError::Read { .. })));
        assert!(other.beginning().is_none());
    }

    #[tokio::test]
    async fn readers_of_one_file_do_not_disturb_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..u8::MAX).collect();
        let spooled = Spooled::from_bytes(directory.path(), &bytes).unwrap();
        let (mut one, mut other) = (spooled.reader(), spooled.reader());
        assert_eq!(one.next(100).await.unwrap(), bytes[..100]);
        // Nobody waits for this one, unless the thread that reads was so quick that it is there at once.
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let unheard = std::pin::pin!(one.next(1000)).as_mut().poll(&mut context).is_pending();
        let rest = if unheard { bytes[100..].to_vec() } else { Vec::new() };
        let mut all = Vec::new();
        other.read_to_end(&mut all).unwrap();
        assert_eq!(all, bytes);
        assert_eq!((one.next(1000).await.unwrap(), one.left()), (rest, 0));
        assert!(one.next(1000).await.unwrap().is_empty());
    }

    #[test]
    fn the_digest_so_far_is_that_of_the_first_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..PIECE * 2 + 7).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let mut writer = SpoolWriter::new(directory.path(), u64::MAX).unwrap();
        writer.write(&bytes[..PIECE + 1]).unwrap();
        let so_far = writer.digest();
        writer.write(&bytes[PIECE + 1..]).unwrap();
        let file = writer.finish().file();
        assert_eq!(digest_of_first(&file, PIECE as u64 + 1).unwrap(), so_far);
        assert_eq!(digest_of_first(&file, 0).unwrap().0, *blake3::hash(b"").as_bytes());
        assert!(matches!(digest_of_first(&file, bytes.len() as u64 + 1), Err(SpoolError::Read { .. })));
    }
}
