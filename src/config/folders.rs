//! Where our files live, from the environment as systemd and the XDG base directory specification have it.

use std::{
    env,
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use super::ConfigError;

/// The folders of this user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folders {
    /// The home folder.
    pub home: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME`, else `~/.config`.
    pub config: Option<PathBuf>,
    /// `$STATE_DIRECTORY`, else `p2p-worker` in `$XDG_STATE_HOME` or `~/.local/state`.
    pub state: Option<PathBuf>,
}

impl Folders {
    /// Reads the environment.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::from_variables(|name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<PathBuf>) -> Self {
        let home = variable("HOME");
        let below = |name, relative| variable(name).or_else(|| Some(home.as_ref()?.join(relative)));
        let config = below("XDG_CONFIG_HOME", ".config");
        let xdg_state = below("XDG_STATE_HOME", ".local/state").map(|folder| folder.join("p2p-worker"));
        Self { config, state: variable("STATE_DIRECTORY").or(xdg_state), home }
    }

    /// The state folder, made with mode 0700 if it is not there. A folder that was named comes first.
    ///
    /// # Errors
    /// [`ConfigError::NoState`] and [`ConfigError::State`].
    pub fn make_state(&self, named: Option<&Path>) -> Result<PathBuf, ConfigError> {
        let path = named.map(Path::to_owned).or_else(|| self.state.clone()).ok_or(ConfigError::NoState)?;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path).and_then(|()| path.canonicalize());
        made.map_err(|source| ConfigError::State { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_comes_before_xdg_and_xdg_before_home() {
        let folders = |set: &'static [(&str, &str)]| {
            Folders::from_variables(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
        };
        let state = |set| folders(set).state.map(|path: PathBuf| path.display().to_string());
        assert_eq!(state(&[("HOME", "/h")]).unwrap(), "/h/.local/state/p2p-worker");
        assert_eq!(state(&[("HOME", "/h"), ("XDG_STATE_HOME", "/s")]).unwrap(), "/s/p2p-worker");
        assert_eq!(state(&[("STATE_DIRECTORY", "/var/lib/p"), ("HOME", "/h")]).unwrap(), "/var/lib/p");
        assert_eq!(state(&[]), None);
        assert!(matches!(Folders::default().make_state(None), Err(ConfigError::NoState)));
    }
}
