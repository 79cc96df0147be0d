//! What stands for something in a value: `%h` and its like, `~`, `${NAME}`.

use std::{
    env,
    path::{Path, PathBuf},
};

/// What the tokens of one host stand for.
#[derive(Debug, Clone, Default)]
pub(super) struct Tokens {
    /// `%d` and `~`.
    pub(super) home: Option<PathBuf>,
    /// `%h`: the host after `HostName`.
    pub(super) host: String,
    /// `%n`: the host as it was typed.
    pub(super) typed: String,
    /// `%p`
    pub(super) port: u16,
    /// `%r`: the login name there.
    pub(super) login: String,
    /// `%u`: the user here.
    pub(super) user: String,
    /// `%k`: the name in known hosts.
    pub(super) known_as: String,
}

/// Why a value cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenError {
    #[error("the token %{0} is not understood here")]
    Unknown(char),
    #[error("a % at the end")]
    Dangling,
    #[error("the environment variable {0} is not set")]
    Unset(String),
    #[error("${{ is not closed")]
    Unclosed,
    #[error("the home folder of {0} is not known")]
    Home(String),
}

impl Tokens {
    /// Expands the tokens in a text that are among those that its keyword takes.
    pub(super) fn expand(&self, text: &str, allowed: &str) -> Result<String, TokenError> {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            if c != '%' {
                expanded.push(c);
                continue;
            }
            let token = rest.next().ok_or(TokenError::Dangling)?;
            if token != '%' && !allowed.contains(token) {
                return Err(TokenError::Unknown(token));
            }
            self.push(token, &mut expanded)?;
        }
        Ok(expanded)
    }

    fn push(&self, token: char, to: &mut String) -> Result<(), TokenError> {
        match token {
            '%' => to.push('%'),
            'd' => to.push_str(&self.home.as_deref().unwrap_or(Path::new("/")).to_string_lossy()),
            'h' => to.push_str(&self.host),
            'i' => to.push_str(&nix::unistd::getuid().to_string()),
            'k' => to.push_str(&self.known_as),
            'L' => to.push_str(host_name().split('.').next().unwrap_or_default()),
            'l' => to.push_str(&host_name()),
            'n' => to.push_str(&self.typed),
            'p' => to.push_str(&self.port.to_string()),
            'r' => to.push_str(&self.login),
            'u' => to.push_str(&self.user),
            other => return Err(TokenError::Unknown(other)),
        }
        Ok(())
    }

    /// A path: `~`, then tokens, then the environment.
    pub(super) fn path(&self, text: &str) -> Result<PathBuf, TokenError> {
        let text = self.at_home(text)?;
        let text = self.expand(&text, "dhikLlnpru")?;
        Ok(PathBuf::from(variables(&text)?))
    }

    /// With `~` and `~name` in front replaced.
    fn at_home(&self, text: &str) -> Result<String, TokenError> {
        let Some(rest) = text.strip_prefix('~') else { return Ok(text.to_owned()) };
        let (name, rest) = rest.split_once('/').map_or((rest, None), |(name, rest)| (name, Some(rest)));
        let of_other = || nix::unistd::User::from_name(name).ok().flatten().map(|user| user.dir);
        let home = if name.is_empty() { self.home.clone() } else { of_other() };
        // A % in the name of the folder is no token.
        let home = home.ok_or_else(|| TokenError::Home(name.to_owned()))?.to_string_lossy().replace('%', "%%");
        Ok(rest.map_or(home.clone(), |rest| format!("{home}/{rest}")))
    }
}

/// Replaces `${NAME}` by what the environment says.
fn variables(text: &str) -> Result<String, TokenError> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').ok_or(TokenError::Unclosed)?;
        expanded.push_str(before);
        expanded.push_str(&env::var(name).map_err(|_| TokenError::Unset(name.to_owned()))?);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn host_name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        Tokens {
            home: Some(PathBuf::from("/home/100%")),
            host: "board.example".to_owned(),
            typed: "board".to_owned(),
            port: 2222,
            login: "alice".to_owned(),
            user: "al".to_owned(),
            known_as: "alias".to_owned(),
        }
    }

    #[test]
    fn paths_are_expanded() {
        let path = |text| tokens().path(text).map(|path| path.display().to_string());
        assert_eq!(
            path("~/.ssh/%r@%h:%p-%n-%u-%k").unwrap(),
            "/home/100%/.ssh/alice@board.example:2222-board-al-alias"
        );
        assert_eq!(path("%d/x%%y").unwrap(), "/home/100%/x%y");
        assert_eq!(path("~").unwrap(), "/home/100%");
        assert_eq!(path("~root/x").unwrap(), "/root/x");
        assert_eq!(path("x/${PATH}").unwrap(), format!("x/{}", env::var("PATH").unwrap()));
        assert_eq!(path("%C"), Err(TokenError::Unknown('C')));
        assert_eq!(path("x%"), Err(TokenError::Dangling));
        assert_eq!(path("${P2P_WORKER_NO_SUCH}"), Err(TokenError::Unset("P2P_WORKER_NO_SUCH".to_owned())));
        assert!(matches!(path("~no-such-user/x"), Err(TokenError::Home(_))));
    }

    #[test]
    fn a_keyword_takes_its_own_tokens_only() {
        assert_eq!(tokens().expand("%h.example", "h").unwrap(), "board.example.example");
        assert_eq!(tokens().expand("%p", "h"), Err(TokenError::Unknown('p')));
    }
}
