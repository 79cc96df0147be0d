//! Bytes of unknown size on their way from somewhere to somewhere: an unnamed file with its size and digest.
//!
//! The file has no name, so it is gone when the process is, however it ends.

use std::{
    fmt,
    fs::File,
    io::{self, BufReader, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::ids::Digest;

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
    size: u64,
    hasher: blake3::Hasher,
    relief: Option<Relief>,
}

impl SpoolWriter {
    /// Begins an unnamed file in a folder (`O_TMPFILE` where the file system has it), for at most `limit` bytes.
    ///
    /// # Errors
    /// [`SpoolError::Write`].
    pub fn new(directory: &Path, limit: u64) -> Result<Self, SpoolError> {
        let file = tempfile::tempfile_in(directory)
            .map_err(|source| SpoolError::Write { directory: directory.to_owned(), source })?;
        Ok(Self { file, directory: directory.to_owned(), limit, size: 0, hasher: blake3::Hasher::new(), relief: None })
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
        Ok(Self { file: File::from(file), directory, limit, size: 0, hasher: blake3::Hasher::new(), relief: None })
    }

    /// Appends bytes. Blocks on the disk: call it from a blocking thread, or with chunks that the page cache takes. What
    /// could not be written may be written again.
    ///
    /// # Errors
    /// [`SpoolError::TooLarge`] before anything over the limit is written; [`SpoolError::Write`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        let size = self.size.saturating_add(bytes.len() as u64);
        if size > self.limit {
            return Err(SpoolError::TooLarge { limit: self.limit });
        }
        let failed = |source| SpoolError::Write { directory: self.directory.clone(), source };
        match (self.file.write_all_at(bytes, self.size), &self.relief) {
            (Err(_), Some(Relief(gives_way))) if gives_way() => {
                self.file.write_all_at(bytes, self.size).map_err(failed)?;
            }
            (written, _) => written.map_err(failed)?,
        }
        self.hasher.update(bytes);
        self.size = size;
        Ok(())
    }

    /// Reads bytes again that were written, by their position.
    ///
    /// # Errors
    /// [`SpoolError::Read`], also when there are fewer.
    pub fn read_back(&self, at: u64, into: &mut [u8]) -> Result<(), SpoolError> {
        let read = self.file.read_exact_at(into, at);
        read.map_err(|source| SpoolError::Read { what: "a temporary file".to_owned(), source })
    }

    /// Bytes so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// BLAKE3 of the bytes so far.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(*self.hasher.finalize().as_bytes())
    }

    /// Ends the file.
    #[must_use]
    pub fn finish(self) -> Spooled {
        Spooled { digest: self.digest(), file: Arc::new(self.file), size: self.size }
    }
}

/// A finished file with its size and digest.
#[derive(Debug)]
pub struct Spooled {
    file: Arc<File>,
    size: u64,
    digest: Digest,
}

impl Spooled {
    /// Measures and digests a file of the user's, which must not change afterwards. Reads it once, blocking.
    ///
    /// # Errors
    /// [`SpoolError::Read`]; [`SpoolError::TooLarge`] without reading when the file is over `limit`.
    pub fn from_path(path: &Path, limit: u64) -> Result<Self, SpoolError> {
        let what = path.display().to_string();
        let file = File::open(path).map_err(|source| SpoolError::Read { what: what.clone(), source })?;
        Self::from_file(file, &what, limit)
    }

    /// The same of a file that is open already, at its first byte; errors call it `what`.
    ///
    /// # Errors
    /// As [`Spooled::from_path`].
    pub fn from_file(mut file: File, what: &str, limit: u64) -> Result<Self, SpoolError> {
        let failed = |source| SpoolError::Read { what: what.to_owned(), source };
        if file.metadata().map_err(failed)?.len() > limit {
            return Err(SpoolError::TooLarge { limit });
        }
        let mut hasher = blake3::Hasher::new();
        let mut from = BufReader::with_capacity(PIECE, (&mut file).take(limit.saturating_add(1)));
        let size = io::copy(&mut from, &mut hasher).map_err(failed)?;
        if size > limit {
            return Err(SpoolError::TooLarge { limit });
        }
        Ok(Self { file: Arc::new(file), size, digest: Digest(*hasher.finalize().as_bytes()) })
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
        Reader { file: self.file(), at: 0, end: self.size }
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
pub struct Reader {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Reader {
    /// Bytes that are still to come.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.end - self.at
    }

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

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.left()).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = self.file.read_at(buffer.get_mut(..length).unwrap_or_default(), self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// How much of a file is read at once for its digest.
const PIECE: usize = 256 * 1024;

/// BLAKE3 of the first bytes of a file, read by position: readers of the file are not disturbed. Blocking.
///
/// # Errors
/// [`SpoolError::Read`], also when the file has fewer bytes.
pub fn digest_of_first(file: &File, bytes: u64) -> Result<Digest, SpoolError> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while at < bytes {
        let length = usize::try_from(bytes - at).map_or(PIECE, |left| left.min(PIECE));
        let piece = buffer.get_mut(..length).unwrap_or_default();
        let read = file.read_exact_at(piece, at);
        read.map_err(|source| SpoolError::Read { what: "a temporary file".to_owned(), source })?;
        hasher.update(piece);
        at += length as u64;
    }
    Ok(Digest(*hasher.finalize().as_bytes()))
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
