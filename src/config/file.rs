//! The configuration file as it was typed: every key optional, unknown keys refused.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// Where the configuration is looked for when none is named, below the user's configuration folder and then here.
const SYSTEM_FILE: &str = "/etc/p2p-worker/config.toml";

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not there, or cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It is not TOML, has an unknown key, or a value of the wrong kind. The source shows the line.
    #[error("cannot use the configuration file {}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
}

/// The keys of a configuration file, which are the long names of the flags.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each is documented at the flag of its name")]
pub struct ConfigFile {
    pub board: Option<String>,
    pub cluster: Option<String>,
    pub identity: Option<Vec<PathBuf>>,
    pub login: Option<String>,
    pub accept_new: Option<bool>,
    pub ssh_program: Option<String>,
    pub ssh_args: Option<String>,
    pub users: Option<Vec<String>>,
    pub users_file: Option<PathBuf>,
    pub state: Option<PathBuf>,
    pub sandbox: Option<String>,
    pub profile: Option<String>,
    pub root: Option<PathBuf>,
    pub task_user: Option<String>,
    pub via: Option<String>,
    pub listen: Option<Vec<String>>,
    pub announce: Option<Vec<String>>,
    pub wormhole_mailbox: Option<String>,
    pub wormhole_relay: Option<String>,
    pub slots: Option<usize>,
    pub duration: Option<String>,
    pub drain_time: Option<String>,
    pub keep_warm: Option<String>,
    pub max_future: Option<String>,
    pub max_result: Option<String>,
    pub cache: Option<String>,
}

impl ConfigFile {
    /// Reads the named file, else the user's, else the system's, else nothing.
    ///
    /// # Errors
    /// Any of [`FileError`]. Only a file that was not named may be missing.
    pub fn load(named: Option<&Path>, user_folder: Option<&Path>) -> Result<Self, FileError> {
        if let Some(path) = named {
            return Self::read(path);
        }
        let users = user_folder.map(|folder| folder.join("p2p-worker/config.toml"));
        let found = users.into_iter().chain([PathBuf::from(SYSTEM_FILE)]).find(|path| path.exists());
        found.map_or_else(|| Ok(Self::default()), |path| Self::read(&path))
    }

    fn read(path: &Path) -> Result<Self, FileError> {
        let text = std::fs::read_to_string(path).map_err(|source| FileError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|source| FileError::Parse { path: path.to_owned(), source: Box::new(source) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_must_be_there_and_an_unknown_key_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        assert!(matches!(ConfigFile::load(Some(&path), None), Err(FileError::Read { .. })));
        std::fs::write(&path, "slotz = 2\n").unwrap();
        let error = ConfigFile::load(Some(&path), None).unwrap_err();
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("slotz"));
        std::fs::write(&path, "slots = 2\nmax-future = \"2 GiB\"\n").unwrap();
        assert_eq!(ConfigFile::load(Some(&path), None).unwrap().slots, Some(2));
    }
}
