//! The accounts of a board: a text file that people can read and repair.
//!
//! One key a line: `NAME ID CREATED KEYTYPE KEY [COMMENT]`, several lines for an account with several keys; empty lines
//! and lines that begin with `#` are kept as they are. The file is only ever replaced as a whole (temporary file, fsync,
//! rename), by one writer at a time, and never when it could not be read.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use russh::keys::{HashAlg, PublicKey};

use crate::{
    board::{ServeError, hub::PUBLIC},
    clock,
    ids::UserName,
};

/// The most that the file may have, in bytes: some ten thousand keys.
const MOST_BYTES: u64 = 4 * 1024 * 1024;

/// One key of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name, unique on the board.
    pub name: UserName,
    /// Stays the same for the life of the account; 32 hexadecimal digits.
    pub id: String,
    /// When it was made, RFC 3339 in UTC.
    pub created: String,
    /// The key.
    pub key: PublicKey,
}

impl Account {
    /// SHA-256 of the key as OpenSSH writes it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.key.fingerprint(HashAlg::Sha256).to_string()
    }

    fn parse(line: &str) -> Result<Self, String> {
        let mut fields = line.splitn(4, ' ');
        let mut field = || fields.next().filter(|field| !field.is_empty()).ok_or("NAME ID CREATED KEY is expected");
        let (name, id, created, key) = (field()?, field()?, field()?, field()?);
        let name = name.parse().map_err(|error| format!("{error}"))?;
        if id.len() > 64 || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err("the id must be 1 to 64 letters, digits and hyphens".to_owned());
        }
        created.parse::<jiff::Timestamp>().map_err(|_| "the time must look like 2026-11-22T14:03:59Z")?;
        let key = parse_key(key).map_err(|error| error.to_string())?;
        Ok(Self { name, id: id.to_owned(), created: created.to_owned(), key })
    }
}

/// Which version of the file was read: inode, size and time of change.
pub(super) type Stamp = (u64, u64, i64, i64);

/// The accounts in a board's state folder. Holds nothing: every call looks at the file.
#[derive(Debug, Clone)]
pub struct Accounts {
    path: PathBuf,
}

impl Accounts {
    /// The accounts in a state folder, which is made if it is not there.
    ///
    /// # Errors
    /// [`ServeError::File`] when the folder cannot be made.
    pub fn open(state: &Path) -> Result<Self, ServeError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(state);
        made.map_err(|source| ServeError::File { act: "make", path: state.to_owned(), source })?;
        Ok(Self { path: state.join("accounts") })
    }

    /// Every key of every account, in the order of the file.
    ///
    /// # Errors
    /// [`ServeError::File`], and [`ServeError::Accounts`] for the first line that is not as it should be.
    pub fn list(&self) -> Result<Vec<Account>, ServeError> {
        self.parse(&self.read()?)
    }

    /// Makes an account, or gives one another key. Adding a key that it has already changes nothing. `key` is the text of
    /// an OpenSSH public key file. Blocks on the disk.
    ///
    /// # Errors
    /// [`ServeError::PublicKey`], [`ServeError::PrivateKey`]; [`ServeError::Account`] when the key or the name is
    /// taken; those of [`Accounts::list`].
    pub fn add(&self, name: &UserName, key: &str) -> Result<Account, ServeError> {
        let key = parse_key(key)?;
        let _lock = self.lock()?;
        let text = self.read()?;
        let accounts = self.parse(&text)?;
        if let Some(same) = accounts.iter().find(|account| account.key.key_data() == key.key_data()) {
            let why = || format!("its key belongs to {}", same.name);
            return if same.name == *name { Ok(same.clone()) } else { Err(cannot_add(name, why())) };
        }
        let account = match accounts.iter().find(|account| alike(&account.name, name)) {
            Some(other) if other.name != *name => {
                return Err(cannot_add(name, format!("{} is too much like it", other.name)));
            }
            Some(same) => Account { key, ..same.clone() },
            None => new_account(name, key)?,
        };
        self.replace(&(text + &line(&account)?))?;
        Ok(account)
    }

    /// Removes an account with all its keys. Blocks on the disk.
    ///
    /// # Errors
    /// [`ServeError::NoAccount`]; those of [`Accounts::list`].
    pub fn remove(&self, name: &UserName) -> Result<(), ServeError> {
        let _lock = self.lock()?;
        let text = self.read()?;
        if !self.parse(&text)?.iter().any(|account| account.name == *name) {
            return Err(ServeError::NoAccount { name: name.to_string() });
        }
        let is_other = |line: &&str| line.split(' ').next() != Some(name.as_str());
        self.replace(&text.split_inclusive('\n').filter(is_other).collect::<String>())
    }

    /// Which version of the file is there; `None` when there is none.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        let data = fs::metadata(&self.path).ok()?;
        Some((data.ino(), data.len(), data.mtime(), data.mtime_nsec()))
    }

    fn read(&self) -> Result<String, ServeError> {
        let failed = |source| ServeError::File { act: "read", path: self.path.clone(), source };
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut text = String::new();
        if file.take(MOST_BYTES + 1).read_to_string(&mut text).map_err(failed)? as u64 > MOST_BYTES {
            return Err(failed(io::ErrorKind::FileTooLarge.into()));
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Ok(text)
    }

    fn parse(&self, text: &str) -> Result<Vec<Account>, ServeError> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let parsed = lines.map(|(at, line)| {
            let wrong = |why| ServeError::Accounts { path: self.path.clone(), line: at.saturating_add(1), why };
            Account::parse(line).map_err(wrong)
        });
        parsed.collect()
    }

    /// Waits for the one writer's place; released when the file is dropped.
    fn lock(&self) -> Result<File, ServeError> {
        let path = self.path.with_extension("lock");
        let locked = File::create(&path).and_then(|file| file.lock().map(|()| file));
        locked.map_err(|source| ServeError::File { act: "lock", path, source })
    }

    fn replace(&self, text: &str) -> Result<(), ServeError> {
        write_whole(&self.path, text.as_bytes())
            .and_then(|file| file.persist(&self.path).map_err(|error| error.error))
            .and_then(|_| sync_folder(&self.path))
            .map_err(|source| ServeError::File { act: "write", path: self.path.clone(), source })
    }
}

/// Writes a temporary file beside `path`, mode 0600, and brings it to the disk.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Brings a rename in the folder of `path` to the disk.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn parse_key(text: &str) -> Result<PublicKey, ServeError> {
    if text.contains("-----BEGIN") && text.contains("PRIVATE KEY") {
        return Err(ServeError::PrivateKey);
    }
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (first, more) = (lines.next().unwrap_or_default(), lines.next());
    if more.is_some() {
        return Err(ServeError::PublicKey { why: "there is more than one line".to_owned() });
    }
    let key = PublicKey::from_openssh(first).map_err(|error| ServeError::PublicKey { why: error.to_string() })?;
    if key.algorithm().is_rsa() && key.key_data().rsa().is_some_and(|rsa| rsa.key_size() < 2048) {
        return Err(ServeError::PublicKey { why: "an RSA key must have at least 2048 bits".to_owned() });
    }
    Ok(key)
}

fn alike(one: &UserName, other: &UserName) -> bool {
    one.as_str().eq_ignore_ascii_case(other.as_str())
}

fn cannot_add(name: &UserName, why: String) -> ServeError {
    ServeError::Account { name: name.to_string(), why }
}

fn new_account(name: &UserName, key: PublicKey) -> Result<Account, ServeError> {
    if name.as_str().eq_ignore_ascii_case(PUBLIC) {
        return Err(cannot_add(name, "public topics are stored under this name".to_owned()));
    }
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| cannot_add(name, error.to_string()))?;
    let id = format!("{:032x}", u128::from_be_bytes(id));
    let seconds = i64::try_from(clock::now().unix_seconds()).unwrap_or_default();
    let created = jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string();
    Ok(Account { name: name.clone(), id, created, key })
}

fn line(account: &Account) -> Result<String, ServeError> {
    let mut key = account.key.clone();
    // A comment is the key owner's free text: only what can stand in a line and on a terminal is kept.
    let comment = key.comment().as_str_lossy();
    let printable: String = comment.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(100).collect();
    key.set_comment(printable.trim());
    let key = key.to_openssh().map_err(|error| ServeError::PublicKey { why: error.to_string() })?;
    Ok(format!("{} {} {} {}\n", account.name, account.id, account.created, key.trim_end()))
}
