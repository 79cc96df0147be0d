//! Reads configuration files as ssh(1) does for one host: the first value of each keyword holds.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{
    keywords::{self, Kind},
    pattern::{is_in_list, is_match},
    tokens::Tokens,
    words,
};

/// How deep files may include one another, as in OpenSSH.
const MOST_DEPTH: usize = 16;
/// The largest file that is read, in bytes.
const MOST_BYTES: u64 = 1 << 20;

/// Why the configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) path: PathBuf,
    /// Counted from 1; 0 for the file as a whole.
    pub(super) line: usize,
    pub(super) why: String,
}

/// A value, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) words: Vec<String>,
    pub(super) path: PathBuf,
    pub(super) line: usize,
}

impl Value {
    pub(super) fn flaw(&self, why: impl Into<String>) -> Flaw {
        Flaw { path: self.path.clone(), line: self.line, why: why.into() }
    }

    /// The one word that there must be.
    pub(super) fn word(&self) -> Result<&str, Flaw> {
        match self.words.as_slice() {
            [word] if !word.is_empty() => Ok(word),
            [] | [_] => Err(self.flaw("a value is missing")),
            [_, more, ..] => Err(self.flaw(format!("one value too many: {more}"))),
        }
    }
}

/// For whom the files are read.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// The host as it was typed.
    pub(super) typed: String,
    /// The login name that was typed.
    pub(super) login: Option<String>,
    /// The name of the user here.
    pub(super) user: String,
    /// The home folder.
    pub(super) home: Option<PathBuf>,
}

/// What holds for one host.
#[derive(Debug, Default)]
pub(super) struct Found {
    values: BTreeMap<String, Vec<Value>>,
    /// What could not be decided, for a person.
    pub(super) notes: Vec<String>,
    wants_final: bool,
}

impl Found {
    pub(super) fn first(&self, keyword: &str) -> Option<&Value> {
        self.all(keyword).first()
    }

    pub(super) fn all(&self, keyword: &str) -> &[Value] {
        self.values.get(keyword).map_or(&[], Vec::as_slice)
    }

    /// All that was found, by keyword.
    pub(super) fn each(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().flat_map(|(keyword, values)| values.iter().map(move |value| (keyword.as_str(), value)))
    }

    fn add(&mut self, keyword: &str, value: Value, all: bool) {
        // These two compete: the first of either holds.
        let rival = match keyword {
            "proxyjump" => Some("proxycommand"),
            "proxycommand" => Some("proxyjump"),
            _ => None,
        };
        if rival.is_some_and(|rival| self.values.contains_key(rival)) {
            return;
        }
        let values = self.values.entry(keyword.to_owned()).or_default();
        if values.is_empty() || all && !values.iter().any(|other| other.words == value.words) {
            values.push(value);
        }
    }
}

/// Reads the user's file and the system's; neither need exist. A second time where the first finds `Match final`.
///
/// # Errors
/// [`Flaw`].
pub(super) fn read(asked: &Asked, user_folder: &Path, system_folder: &Path) -> Result<Found, Flaw> {
    let (name, found) = (asked.typed.clone(), Found::default());
    let mut reader = Reader { asked, user_folder, system_folder, found, name, is_final: false };
    reader.both()?;
    if reader.found.wants_final {
        // The name is settled then, and `Host` is about what it has become.
        let settled = host_name(asked, &reader.found)?;
        let value = Value { words: vec![settled.replace('%', "%%")], path: PathBuf::new(), line: 0 };
        reader.found.values.insert("hostname".to_owned(), vec![value]);
        (reader.is_final, reader.name) = (true, settled);
        reader.both()?;
    }
    Ok(reader.found)
}

/// The host after `HostName`.
pub(super) fn host_name(asked: &Asked, found: &Found) -> Result<String, Flaw> {
    let Some(value) = found.first("hostname") else { return Ok(asked.typed.clone()) };
    let tokens = Tokens { host: asked.typed.clone(), ..Tokens::default() };
    tokens.expand(value.word()?, "h").map_err(|error| value.flaw(error.to_string()))
}

struct Reader<'a> {
    asked: &'a Asked,
    user_folder: &'a Path,
    system_folder: &'a Path,
    found: Found,
    /// What `Host` is about.
    name: String,
    is_final: bool,
}

/// Where a line stands.
struct Scope<'a> {
    path: &'a Path,
    line: usize,
    is_users: bool,
    depth: usize,
    /// Nothing in this file counts.
    is_never: bool,
    /// Whether lines count at the moment.
    is_active: bool,
}

impl Scope<'_> {
    fn flaw(&self, why: impl Into<String>) -> Flaw {
        Flaw { path: self.path.to_owned(), line: self.line, why: why.into() }
    }
}

impl Reader<'_> {
    fn both(&mut self) -> Result<(), Flaw> {
        for (folder, name, is_users) in [(self.user_folder, "config", true), (self.system_folder, "ssh_config", false)]
        {
            let path = folder.join(name);
            self.file(&path, is_users, 0, true)?;
        }
        Ok(())
    }

    /// Reads a file whose lines count until a `Host` or `Match` says otherwise, or never count.
    fn file(&mut self, path: &Path, is_users: bool, depth: usize, is_active: bool) -> Result<(), Flaw> {
        let mut scope = Scope { path, line: 0, is_users, depth, is_never: !is_active, is_active };
        if depth > MOST_DEPTH {
            return Err(scope.flaw(format!("more than {MOST_DEPTH} files include one another")));
        }
        let Some(text) = text_of(path, is_users).map_err(|why| scope.flaw(why))? else { return Ok(()) };
        for line in text.lines() {
            scope.line = scope.line.saturating_add(1);
            if let Some((keyword, words)) = words::of_line(line).map_err(|error| scope.flaw(error.to_string()))? {
                self.line(&keyword, words, &mut scope)?;
            }
        }
        Ok(())
    }

    fn line(&mut self, keyword: &str, words: Vec<String>, scope: &mut Scope<'_>) -> Result<(), Flaw> {
        match keyword {
            "host" => {
                if words.is_empty() {
                    return Err(scope.flaw("Host without a pattern"));
                }
                // As typed, capitals included.
                let patterns = words.iter().map(String::as_str);
                scope.is_active = !scope.is_never && is_in_list(&self.name, patterns);
                Ok(())
            }
            "match" => {
                scope.is_active = self.matches(&words, scope)? && !scope.is_never;
                Ok(())
            }
            "include" => self.include(&words, scope),
            _ if !scope.is_active => Ok(()),
            _ => self.value(keyword, words, scope),
        }
    }

    fn value(&mut self, keyword: &str, words: Vec<String>, scope: &Scope<'_>) -> Result<(), Flaw> {
        let keyword = keywords::canonical(keyword);
        let ignored = self.found.first("ignoreunknown").map(|value| value.words.join(",").to_ascii_lowercase());
        let is_ignored = |keyword| ignored.is_some_and(|list| is_in_list(keyword, list.split(',')));
        match keywords::kind(keyword) {
            None if is_ignored(keyword) => Ok(()),
            None => Err(scope.flaw(format!("{keyword:?} is no keyword of ssh_config that is known here"))),
            Some(Kind::Idle) => Ok(()),
            Some(_) if words.is_empty() => Err(scope.flaw(format!("{keyword} without a value"))),
            Some(kind) => {
                let value = Value { words, path: scope.path.to_owned(), line: scope.line };
                self.found.add(keyword, value, kind == Kind::All);
                Ok(())
            }
        }
    }

    fn include(&mut self, words: &[String], scope: &Scope<'_>) -> Result<(), Flaw> {
        if words.is_empty() {
            return Err(scope.flaw("Include without a file"));
        }
        let folder = if scope.is_users { self.user_folder } else { self.system_folder };
        for word in words {
            let tokens = Tokens { home: self.asked.home.clone(), ..Tokens::default() };
            let path = match word.strip_prefix('~') {
                Some(_) if !scope.is_users => return Err(scope.flaw("~ in a file of the system")),
                // Its other signs are no tokens here.
                Some(_) => tokens.path(&word.replace('%', "%%")).map_err(|error| scope.flaw(error.to_string()))?,
                None => folder.join(word),
            };
            for file in files_of(&path) {
                self.file(&file, scope.is_users, scope.depth.saturating_add(1), scope.is_active)?;
            }
        }
        Ok(())
    }

    /// Whether the criteria of a `Match` all hold. Those that cannot be evaluated here do not, and are noted.
    fn matches(&mut self, words: &[String], scope: &Scope<'_>) -> Result<bool, Flaw> {
        let words: Vec<&str> =
            words.iter().flat_map(|word| word.splitn(2, '=')).filter(|word| !word.is_empty()).collect();
        if words.is_empty() {
            return Err(scope.flaw("Match without a criterion"));
        }
        let (mut holds, mut rest) = (true, words.iter());
        let mut unknown = Vec::new();
        while let Some(word) = rest.next() {
            let (criterion, negated) = word.strip_prefix('!').map_or((*word, false), |word| (word, true));
            let criterion = criterion.to_ascii_lowercase();
            let result = match criterion.as_str() {
                "all" => true,
                "canonical" => self.is_final,
                "final" => {
                    self.found.wants_final = true;
                    self.is_final
                }
                _ => {
                    let list = rest.next().ok_or_else(|| scope.flaw(format!("Match {criterion} without a value")))?;
                    match self.is_of(&criterion, list)? {
                        Some(result) => result,
                        None if KNOWN_CRITERIA.contains(&criterion.as_str()) => {
                            unknown.push(criterion);
                            continue;
                        }
                        None => return Err(scope.flaw(format!("Match {criterion}: there is no such criterion"))),
                    }
                }
            };
            holds &= result != negated;
        }
        if holds && !unknown.is_empty() && !scope.is_never {
            self.note(&unknown, scope);
        }
        Ok(holds && unknown.is_empty())
    }

    fn note(&mut self, unknown: &[String], scope: &Scope<'_>) {
        let (path, line) = (scope.path.display(), scope.line);
        let note =
            format!("{path}, line {line}: Match {} is not evaluated here, its block is passed over", unknown.join(" "));
        if !self.found.notes.contains(&note) {
            self.found.notes.push(note);
        }
    }

    /// Whether a criterion with a list of patterns holds; `None` for one that is not understood.
    fn is_of(&self, criterion: &str, list: &str) -> Result<Option<bool>, Flaw> {
        let has = |text: &str| Some(is_in_list(text, list.split(',')));
        let has_host = |text: &str| {
            let (text, list) = (text.to_ascii_lowercase(), list.to_ascii_lowercase());
            Some(is_in_list(&text, list.split(',')))
        };
        let login = || match (&self.asked.login, self.found.first("user")) {
            (Some(login), _) => Ok(login.clone()),
            (None, Some(value)) => value.word().map(str::to_owned),
            (None, None) => Ok(self.asked.user.clone()),
        };
        Ok(match criterion {
            "host" => has_host(&host_name(self.asked, &self.found)?),
            "originalhost" => has_host(&self.asked.typed),
            "user" => has(&login()?),
            "localuser" => has(&self.asked.user),
            _ => None,
        })
    }
}

/// Criteria that OpenSSH has and we do not evaluate.
const KNOWN_CRITERIA: [&str; 6] = ["exec", "localnetwork", "tagged", "version", "sessiontype", "command"];

/// The text of a file, if it is there; a user's file that others can write is refused, as ssh does.
fn text_of(path: &Path, is_users: bool) -> Result<Option<String>, String> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    if metadata.is_dir() {
        return Ok(None);
    }
    let owner = metadata.uid();
    if is_users && (owner != 0 && owner != nix::unistd::getuid().as_raw() || metadata.mode() & 0o022 != 0) {
        return Err("others can write it: chmod 600, and it must be yours".to_owned());
    }
    if metadata.len() > MOST_BYTES {
        return Err(format!("it is larger than {MOST_BYTES} bytes"));
    }
    fs::read(path).map(|bytes| Some(String::from_utf8_lossy(&bytes).into_owned())).map_err(|error| error.to_string())
}

/// The files that a path with `*` and `?` in it stands for, in their order; the path itself without any.
fn files_of(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in path.components() {
        let name = part.as_os_str().to_string_lossy().into_owned();
        if !name.contains(['*', '?']) {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        }
        let inside = found.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
        let mut paths: Vec<PathBuf> = inside
            .filter(|entry| {
                let entry = entry.file_name();
                let entry = entry.to_string_lossy();
                is_match(&entry, &name) && (!entry.starts_with('.') || name.starts_with('.'))
            })
            .map(|entry| entry.path())
            .collect();
        paths.sort();
        found = paths;
    }
    found
}
