//! The accounts of a board: a text file that people can read and repair.
//!
//! One key a line: `NAME ID CREATED KEYTYPE KEY [COMMENT]`, several lines for an account with several keys; empty lines
//! and lines that begin with `#` are kept as they are. The file is only ever replaced as a whole ([`super::files`]), by one
//! writer at a time, and never when it could not be read. Options as in authorized_keys files are refused, in the file and
//! in keys that are added.

use std::path::{Path, PathBuf};

use russh::keys::{HashAlg, PublicKey};

use super::{
    files::{self, Stamp, StateFile},
    invites::{Invite, Invites},
};
use crate::{
    board::{ServeError, hub::PUBLIC},
    clock::{self, Timestamp},
    ids::UserName,
};

/// The most keys that one account may have.
const MOST_KEYS: usize = 64;

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

/// The accounts in a board's state folder, and the invitations to it. Holds nothing: every call looks at the files.
#[derive(Debug, Clone)]
pub struct Accounts {
    state: PathBuf,
    file: StateFile,
    invites: Invites,
}

impl Accounts {
    /// The accounts in a state folder, which is made if it is not there.
    ///
    /// # Errors
    /// [`ServeError::File`] when the folder cannot be made.
    pub fn open(state: &Path) -> Result<Self, ServeError> {
        files::make_folder(state).map_err(|source| ServeError::File { act: "make", path: state.to_owned(), source })?;
        let file = StateFile::new(state.join("accounts"));
        Ok(Self { state: state.to_owned(), file, invites: Invites::new(state) })
    }

    /// Every key of every account, in the order of the file.
    ///
    /// # Errors
    /// [`ServeError::File`], and [`ServeError::Accounts`] for the first line that is not as it should be.
    pub fn list(&self) -> Result<Vec<Account>, ServeError> {
        self.parse(&self.file.read()?)
    }

    /// Makes an account, or gives one another key. Adding a key that it has already changes nothing. `key` is the text of
    /// an OpenSSH public key file. Blocks on the disk.
    ///
    /// # Errors
    /// [`ServeError::PublicKey`], [`ServeError::PrivateKey`]; [`ServeError::Account`] when the key or the name is
    /// taken; those of [`Accounts::list`].
    pub fn add(&self, name: &UserName, key: &str) -> Result<Account, ServeError> {
        let key = parse_key(key)?;
        let _lock = files::lock(&self.state)?;
        self.add_locked(name, key)
    }

    fn add_locked(&self, name: &UserName, key: PublicKey) -> Result<Account, ServeError> {
        let text = self.file.read()?;
        let accounts = self.parse(&text)?;
        if let Some(same) = accounts.iter().find(|account| account.key.key_data() == key.key_data()) {
            let why = || format!("its key belongs to {}", same.name);
            return if same.name == *name { Ok(same.clone()) } else { Err(cannot_add(name, why())) };
        }
        check_name(name, &accounts)?;
        let mut same = accounts.iter().filter(|account| account.name == *name);
        let account = match same.next() {
            Some(_) if same.count() + 1 >= MOST_KEYS => {
                return Err(cannot_add(name, format!("an account can have {MOST_KEYS} keys at most")));
            }
            Some(first) => Account { key, ..first.clone() },
            None => new_account(name, key)?,
        };
        self.file.replace(&(text + &line(&account)?))?;
        Ok(account)
    }

    /// Removes an account with all its keys and invitations. Blocks on the disk.
    ///
    /// # Errors
    /// [`ServeError::NoAccount`]; those of [`Accounts::list`].
    pub fn remove(&self, name: &UserName) -> Result<(), ServeError> {
        let _lock = files::lock(&self.state)?;
        // First, so that nobody gets the account again if this stops half-way.
        let revoked = self.invites.revoke(name)?;
        let text = self.file.read()?;
        if !self.parse(&text)?.iter().any(|account| account.name == *name) {
            return if revoked > 0 { Ok(()) } else { Err(ServeError::NoAccount { name: name.to_string() }) };
        }
        let is_other = |line: &&str| line.split(' ').next() != Some(name.as_str());
        self.file.replace(&text.split_inclusive('\n').filter(is_other).collect::<String>())
    }

    /// Removes one key of an account, which must have another one. Blocks on the disk.
    ///
    /// # Errors
    /// [`ServeError::NoAccount`], [`ServeError::NoSuchKey`], [`ServeError::LastKey`]; those of [`Accounts::list`].
    pub fn remove_key(&self, name: &UserName, fingerprint: &str) -> Result<(), ServeError> {
        let _lock = files::lock(&self.state)?;
        let text = self.file.read()?;
        let keys: Vec<Account> = self.parse(&text)?.into_iter().filter(|account| account.name == *name).collect();
        let is_it = |account: &Account| account.name == *name && account.fingerprint() == fingerprint;
        match keys.as_slice() {
            [] => return Err(ServeError::NoAccount { name: name.to_string() }),
            keys if !keys.iter().any(is_it) => {
                return Err(ServeError::NoSuchKey { name: name.to_string(), fingerprint: fingerprint.to_owned() });
            }
            [_] => return Err(ServeError::LastKey { name: name.to_string() }),
            _ => {}
        }
        let stays = |line: &&str| !Account::parse(line.trim_end()).is_ok_and(|account| is_it(&account));
        self.file.replace(&text.split_inclusive('\n').filter(stays).collect::<String>())
    }

    /// Makes a code with which somebody can give an account their own key, once, until `expires`. The account need not be
    /// there yet. Blocks on the disk.
    ///
    /// # Errors
    /// [`ServeError::Account`] when the name cannot be taken; [`ServeError::TooManyInvites`]; those of
    /// [`Accounts::list`].
    pub fn invite(&self, name: &UserName, expires: Timestamp) -> Result<String, ServeError> {
        let _lock = files::lock(&self.state)?;
        check_name(name, &self.list()?)?;
        self.invites.make(name, expires, clock::now())
    }

    /// The invitations that can still be used, the oldest first.
    ///
    /// # Errors
    /// [`ServeError::File`], [`ServeError::Accounts`].
    pub fn invites(&self) -> Result<Vec<Invite>, ServeError> {
        self.invites.list(clock::now())
    }

    /// Takes back all invitations to an account. Blocks on the disk.
    ///
    /// # Errors
    /// [`ServeError::NoInvite`] when there are none; [`ServeError::File`], [`ServeError::Accounts`].
    pub fn revoke(&self, name: &UserName) -> Result<usize, ServeError> {
        let _lock = files::lock(&self.state)?;
        let revoked = self.invites.revoke(name)?;
        if revoked > 0 { Ok(revoked) } else { Err(ServeError::NoInvite { name: name.to_string() }) }
    }

    /// Gives a key to the account that a code was made for. The code is used up before the key is there, so that no
    /// second key ever gets in by it: who is interrupted in between comes again with the same key. Blocks on the disk.
    ///
    /// # Errors
    /// [`ServeError::Code`] for a code that is not valid; those of [`Accounts::add`].
    pub(super) fn join(&self, code: &str, key: &PublicKey) -> Result<Account, ServeError> {
        let _lock = files::lock(&self.state)?;
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        if let Some(other) = self.list()?.into_iter().find(|account| account.key.key_data() == key.key_data()) {
            let why = format!("this key belongs to {} already", other.name);
            return Err(cannot_add(&other.name, why));
        }
        let name = self.invites.claim(code, &fingerprint, clock::now())?;
        let account = self.add_locked(&name, key.clone())?;
        self.invites.forget(&name, &fingerprint)?;
        Ok(account)
    }

    /// Which version of the file of accounts is there; `None` when there is none.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        self.file.stamp()
    }

    fn parse(&self, text: &str) -> Result<Vec<Account>, ServeError> {
        parse_lines(self.file.path(), text, Account::parse)
    }
}

/// The lines of a file of the state that are neither empty nor comments.
pub(super) fn parse_lines<T>(
    path: &Path,
    text: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, ServeError> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let parsed = lines.map(|(at, line)| {
        parse(line).map_err(|why| ServeError::Accounts { path: path.to_owned(), line: at.saturating_add(1), why })
    });
    parsed.collect()
}

/// Whether an account of this name can be there: nobody else's is too much like it.
fn check_name(name: &UserName, accounts: &[Account]) -> Result<(), ServeError> {
    if name.as_str().eq_ignore_ascii_case(PUBLIC) {
        return Err(cannot_add(name, "public topics are stored under this name".to_owned()));
    }
    match accounts.iter().find(|account| alike(&account.name, name) && account.name != *name) {
        Some(other) => Err(cannot_add(name, format!("{} is too much like it", other.name))),
        None => Ok(()),
    }
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
    if !first.is_empty() && !is_key_type(first.split(' ').next().unwrap_or_default()) {
        return Err(ServeError::KeyOptions);
    }
    let key = PublicKey::from_openssh(first).map_err(|error| ServeError::PublicKey { why: error.to_string() })?;
    check_strength(&key)?;
    Ok(key)
}

/// Refuses keys that are too weak to know anybody by.
pub(super) fn check_strength(key: &PublicKey) -> Result<(), ServeError> {
    if key.algorithm().is_rsa() && key.key_data().rsa().is_some_and(|rsa| rsa.key_size() < 2048) {
        return Err(ServeError::PublicKey { why: "an RSA key must have at least 2048 bits".to_owned() });
    }
    Ok(())
}

/// Whether a word begins a bare key, rather than the options that authorized_keys files have before one (sshd(8)).
fn is_key_type(word: &str) -> bool {
    ["ssh-", "ecdsa-", "sk-"].iter().any(|start| word.starts_with(start)) && !word.contains(['=', '"'])
}

fn alike(one: &UserName, other: &UserName) -> bool {
    one.as_str().eq_ignore_ascii_case(other.as_str())
}

fn cannot_add(name: &UserName, why: String) -> ServeError {
    ServeError::Account { name: name.to_string(), why }
}

fn new_account(name: &UserName, key: PublicKey) -> Result<Account, ServeError> {
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
