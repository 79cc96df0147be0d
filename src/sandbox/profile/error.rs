//! Why a profile cannot be used, and where in which file.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue};

use super::MAX_PROFILE_BYTES;
use crate::sandbox::syscalls::CallError;

/// A profile and, where they are known, its file and the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The profile's name.
    pub profile: String,
    /// Its file.
    pub file: Option<PathBuf>,
    /// The line, from 1.
    pub line: Option<usize>,
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// No such name, and no such file.
    #[error(
        "no profile is named \"{name}\" and there is no such file; known: strict, standard, or the path of a .toml file"
    )]
    NotFound {
        /// What was asked for.
        name: String,
    },
    /// The file cannot be read.
    #[error("cannot read the profile {}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a small text file.
    #[error("the profile {} is larger than {MAX_PROFILE_BYTES} bytes", path.display())]
    TooLong {
        /// Its path.
        path: PathBuf,
    },
    /// It is not TOML, a key is unknown or a value has the wrong form.
    #[error("{place}")]
    Syntax {
        /// Which profile, and where in it.
        place: Box<Place>,
        /// Where and what.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// It inherits from something that is not built in.
    #[error("{place}: it inherits from \"{parent}\"; only strict and standard can be inherited from")]
    Parent {
        /// Which profile, and where in it.
        place: Box<Place>,
        /// What it says.
        parent: String,
    },
    /// A value is set nowhere.
    #[error("{place}: {key} is not set; begin with inherits = \"strict\" or \"standard\"")]
    Unset {
        /// Which profile, and where in it.
        place: Box<Place>,
        /// The key.
        key: &'static str,
    },
    /// Two values contradict one another, or one makes no sense.
    #[error("{place}: {what}")]
    Contradiction {
        /// Which profile, and where in it.
        place: Box<Place>,
        /// The keys that it is about: the first of them that is in the file is where it is wrong.
        keys: Vec<Vec<String>>,
        /// What contradicts what, and why.
        what: String,
    },
    /// A path must not be shared with a task.
    #[error("{place}: {} cannot be shared with tasks: {why}", path.display())]
    UnsafePath {
        /// Which profile, and where in it.
        place: Box<Place>,
        /// The path.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A rule about system calls.
    #[error("{place}: syscalls.{key}")]
    Call {
        /// Which profile, and where in it.
        place: Box<Place>,
        /// Which group or rule.
        key: String,
        /// What is wrong.
        #[source]
        source: CallError,
    },
}

impl Place {
    /// Boxed: an error is returned by value, and large ones make every result large.
    pub(super) fn of(profile: &str) -> Box<Self> {
        Box::new(Self { profile: profile.to_owned(), file: None, line: None })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (None, _) => write!(f, "profile {}", self.profile),
            (Some(file), None) => write!(f, "profile {} ({})", self.profile, file.display()),
            (Some(file), Some(line)) => write!(f, "profile {} ({}, line {line})", self.profile, file.display()),
        }
    }
}

impl ProfileError {
    /// The same with the file, and the line where this text has what it is about.
    pub(super) fn located(mut self, file: &Path, text: &str) -> Self {
        let line = self.keys().iter().find_map(|key| line_of(text, key));
        if let Self::Syntax { place, .. }
        | Self::Parent { place, .. }
        | Self::Unset { place, .. }
        | Self::Contradiction { place, .. }
        | Self::UnsafePath { place, .. }
        | Self::Call { place, .. } = &mut self
        {
            place.file = Some(file.to_owned());
            place.line = line;
        }
        self
    }

    fn keys(&self) -> Vec<Vec<String>> {
        match self {
            Self::Parent { .. } => vec![vec!["inherits".to_owned()]],
            Self::Contradiction { keys, .. } => keys.clone(),
            Self::UnsafePath { path, .. } => vec![key_of(&["files", "read"], path)],
            Self::Call { key, .. } => {
                vec![["syscalls"].into_iter().chain(key.split('.')).map(str::to_owned).collect()]
            }
            _ => Vec::new(),
        }
    }
}

/// The key of an entry of a table whose entries are paths.
pub(super) fn key_of(table: &[&str], path: &Path) -> Vec<String> {
    table.iter().map(|&part| part.to_owned()).chain([path.to_string_lossy().into_owned()]).collect()
}

/// The line in which the key stands, if it is in this text.
fn line_of(text: &str, key: &[String]) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let (last, tables) = key.split_last()?;
    let mut table = document.get_ref();
    for name in tables {
        let (_, value) = table.iter().find(|(key, _)| key.get_ref() == name.as_str())?;
        let DeValue::Table(inner) = value.get_ref() else { return None };
        table = inner;
    }
    let (key, _) = table.iter().find(|(key, _)| key.get_ref() == last.as_str())?;
    Some(text.get(..key.span().start)?.matches('\n').count() + 1)
}
