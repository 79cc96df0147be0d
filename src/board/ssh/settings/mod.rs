//! What OpenSSH's configuration says about a host: `~/.ssh/config` and `/etc/ssh/ssh_config`, as ssh(1) reads them.
//!
//! What would change where a connection goes or how it is authenticated, and is not understood here, is an error that
//! names it: whoever has it configured can have the system's ssh carry the lines (`--ssh-program ssh`). Nothing here
//! starts a program.

mod algorithms;
mod keywords;
mod pattern;
mod read;
#[cfg(test)]
mod tests;
mod tokens;
mod words;

use std::{path::PathBuf, time::Duration};

pub(super) use algorithms::Choice;
pub(super) use pattern::{is_in_list, is_match};
use read::{Asked, Flaw, Found, Value};
use russh::keys::PublicKey;
use tokens::Tokens;

use super::SshBoardConfig;
use crate::board::BoardError;

/// How many hosts a connection may go through.
const MOST_HOPS: usize = 8;

/// The longest that a connection may be waited for, whatever `ConnectTimeout` says.
const MOST_CONNECT: Duration = Duration::from_secs(600);

/// The fewest bits of an RSA key unless `RequiredRSASize` asks for more, as in OpenSSH.
const LEAST_RSA: u32 = 1024;

/// A host that somebody wants to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) login: Option<String>,
}

/// Which addresses of a host count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Family {
    #[default]
    Any,
    Inet,
    Inet6,
}

/// What holds for one host.
#[derive(Debug, Clone)]
pub(super) struct Host {
    /// The host after `HostName`, in lower case.
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) login: String,
    /// Key files; `None` for the usual ones.
    pub(super) identities: Option<Vec<PathBuf>>,
    pub(super) certificates: Vec<PathBuf>,
    pub(super) identities_only: bool,
    /// The socket of the agent.
    pub(super) agent: Option<PathBuf>,
    /// The name in known hosts: with the port unless that is 22, or what `HostKeyAlias` says.
    pub(super) known_as: String,
    /// The name that certificates must be for.
    pub(super) certified_as: String,
    /// The name without the port, which counts where nothing is known with it.
    pub(super) known_plain: Option<String>,
    pub(super) known_hosts: Vec<PathBuf>,
    /// Whether a new host is accepted: what `StrictHostKeyChecking` says.
    pub(super) accept_new: Option<bool>,
    pub(super) connect_timeout: Option<Duration>,
    /// `ServerAliveInterval`
    pub(super) keepalive: Option<Duration>,
    pub(super) family: Family,
    /// Nobody may be asked for anything.
    pub(super) is_batch: bool,
    /// Whether it is on the way only.
    pub(super) is_hop: bool,
    pub(super) ciphers: Choice,
    pub(super) macs: Choice,
    pub(super) key_exchanges: Choice,
    pub(super) host_keys: Choice,
    pub(super) public_keys: Choice,
    pub(super) authorities: Choice,
    /// The fewest bits of an RSA key, the host's or the user's.
    pub(super) least_rsa: u32,
    jumps: Vec<Target>,
}

impl Host {
    /// Whether a key is no RSA key, or one with enough bits.
    pub(super) fn is_long_enough(&self, key: &PublicKey) -> bool {
        key.key_data().rsa().is_none_or(|rsa| rsa.key_size() >= self.least_rsa)
    }
}

/// The hosts to go through, the last of which is the one that is wanted. Blocks on the disk.
///
/// # Errors
/// [`BoardError::SshConfig`] and [`BoardError::SshOption`].
pub(super) fn route(config: &SshBoardConfig, target: &Target) -> Result<Vec<Host>, BoardError> {
    let mut hosts = Vec::new();
    let (mut target, mut jumps) = (target.clone(), None);
    loop {
        let mut host = of(config, &target)?;
        host.is_hop = !hosts.is_empty();
        // Hops that were named together come before one another; the first goes as its own configuration says.
        let mut before = jumps.take().unwrap_or_else(|| std::mem::take(&mut host.jumps));
        let is_loop = hosts.iter().any(|other: &Host| (&other.name, other.port) == (&host.name, host.port));
        if is_loop || hosts.len() >= MOST_HOPS {
            return Err(BoardError::SshOption {
                option: "ProxyJump".to_owned(),
                host: target.host,
                why: "the hosts to jump through lead back to one another, or are too many".to_owned(),
            });
        }
        hosts.push(host);
        let Some(last) = before.pop() else { break };
        target = last;
        jumps = Some(before).filter(|before| !before.is_empty());
    }
    hosts.reverse();
    Ok(hosts)
}

/// What holds for one host alone.
fn of(config: &SshBoardConfig, target: &Target) -> Result<Host, BoardError> {
    let asked = Asked {
        typed: target.host.clone(),
        login: target.login.clone(),
        user: user_here(),
        home: config.ssh_folder.as_deref().and_then(|folder| folder.parent()).map(PathBuf::from),
    };
    let found = match &config.ssh_folder {
        Some(folder) => read::read(&asked, folder, &config.system_folder),
        None => Ok(Found::default()),
    };
    let found = found.map_err(broken)?;
    for note in &found.notes {
        config.memory.note_once(note, |note| {
            tracing::warn!("{note}; if it matters for this board, let the system's ssh connect: --ssh-program ssh");
        });
    }
    refuse_what_is_not_understood(&found, target)?;
    Resolver { config, target, asked: &asked, found: &found }.host().map_err(broken)
}

fn broken(Flaw { path, line, why }: Flaw) -> BoardError {
    BoardError::SshConfig { path, line, why }
}

fn user_here() -> String {
    let found = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
    found.map_or_else(|| "p2p-worker".to_owned(), |user| user.name)
}

fn refuse_what_is_not_understood(found: &Found, target: &Target) -> Result<(), BoardError> {
    for (keyword, value) in found.each() {
        let Some(keywords::Kind::Only(fine)) = keywords::kind(keyword) else { continue };
        let said = value.words.join(" ");
        let is_fine = value
            .words
            .iter()
            .flat_map(|word| word.split(','))
            .any(|word| fine.contains(&word.to_ascii_lowercase().as_str()));
        if !is_fine {
            let why = format!("{} line {}: {keyword} {said}", value.path.display(), value.line);
            return Err(BoardError::SshOption { option: keyword.to_owned(), host: target.host.clone(), why });
        }
    }
    Ok(())
}

struct Resolver<'a> {
    config: &'a SshBoardConfig,
    target: &'a Target,
    asked: &'a Asked,
    found: &'a Found,
}

impl Resolver<'_> {
    fn host(&self) -> Result<Host, Flaw> {
        let name = read::host_name(self.asked, self.found)?.to_ascii_lowercase();
        let port = match (self.target.port, self.found.first("port")) {
            (Some(port), _) => port,
            (None, Some(value)) => number(value)?,
            (None, None) => 22,
        };
        let login = match (&self.target.login, self.word("user")?) {
            (Some(login), _) => login.clone(),
            (None, Some(login)) => login.to_owned(),
            (None, None) => self.asked.user.clone(),
        };
        let alias = self.word("hostkeyalias")?.map(str::to_ascii_lowercase);
        let known_as = alias.clone().unwrap_or_else(|| with_port(&name, port));
        let tokens = Tokens {
            home: self.asked.home.clone(),
            host: name.clone(),
            typed: self.target.host.clone(),
            port,
            login: login.clone(),
            user: self.asked.user.clone(),
            known_as: known_as.clone(),
        };
        let identities = self.found.all("identityfile");
        Ok(Host {
            identities: (!identities.is_empty()).then(|| self.paths(identities, &tokens)).transpose()?,
            certificates: self.paths(self.found.all("certificatefile"), &tokens)?,
            identities_only: self.flag("identitiesonly")?.unwrap_or(false),
            agent: self.agent(&tokens)?,
            known_plain: (alias.is_none() && port != 22).then(|| name.clone()),
            certified_as: alias.unwrap_or_else(|| name.clone()),
            known_hosts: self.known_hosts(&tokens)?,
            accept_new: self.accept_new()?,
            connect_timeout: self.time("connecttimeout")?.map(|time| time.min(MOST_CONNECT)),
            keepalive: self.time("serveraliveinterval")?,
            family: self.family()?,
            is_batch: self.flag("batchmode")?.unwrap_or(false),
            is_hop: false,
            ciphers: Choice::new(self.found.first("ciphers"))?,
            macs: Choice::new(self.found.first("macs"))?,
            key_exchanges: Choice::new(self.found.first("kexalgorithms"))?,
            host_keys: Choice::new(self.found.first("hostkeyalgorithms"))?,
            public_keys: Choice::new(self.found.first("pubkeyacceptedalgorithms"))?,
            authorities: Choice::new(self.found.first("casignaturealgorithms"))?,
            least_rsa: self.least_rsa()?,
            jumps: self.jumps(&tokens)?,
            name,
            port,
            login,
            known_as,
        })
    }

    fn word(&self, keyword: &str) -> Result<Option<&str>, Flaw> {
        self.found.first(keyword).map(Value::word).transpose()
    }

    fn flag(&self, keyword: &str) -> Result<Option<bool>, Flaw> {
        let Some(value) = self.found.first(keyword) else { return Ok(None) };
        match value.word()?.to_ascii_lowercase().as_str() {
            "yes" | "true" => Ok(Some(true)),
            "no" | "false" => Ok(Some(false)),
            other => Err(value.flaw(format!("{other} is neither yes nor no"))),
        }
    }

    fn time(&self, keyword: &str) -> Result<Option<Duration>, Flaw> {
        let Some(value) = self.found.first(keyword) else { return Ok(None) };
        let word = value.word()?;
        if word.eq_ignore_ascii_case("none") {
            return Ok(None);
        }
        let seconds = seconds(word).ok_or_else(|| value.flaw(format!("{word} is no time")))?;
        Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
    }

    fn paths(&self, values: &[Value], tokens: &Tokens) -> Result<Vec<PathBuf>, Flaw> {
        let wanted = values.iter().filter(|value| value.words.first().is_some_and(|word| word != "none"));
        let path = |value: &Value| tokens.path(value.word()?).map_err(|error| value.flaw(error.to_string()));
        wanted.map(path).collect()
    }

    fn agent(&self, tokens: &Tokens) -> Result<Option<PathBuf>, Flaw> {
        let Some(value) = self.found.first("identityagent") else { return Ok(self.config.agent.clone()) };
        match value.word()? {
            "none" => Ok(None),
            "SSH_AUTH_SOCK" => Ok(self.config.agent.clone()),
            word => match word.strip_prefix('$').filter(|rest| !rest.starts_with('{')) {
                Some(name) => Ok(std::env::var_os(name).map(PathBuf::from)),
                None => tokens.path(word).map(Some).map_err(|error| value.flaw(error.to_string())),
            },
        }
    }

    /// The files of the user, those of the system, and ours.
    fn known_hosts(&self, tokens: &Tokens) -> Result<Vec<PathBuf>, Flaw> {
        let Some(folder) = &self.config.ssh_folder else { return Ok(vec![self.config.known_hosts.clone()]) };
        let named = |keyword, usual: [PathBuf; 2]| match self.found.first(keyword) {
            None => Ok(usual.to_vec()),
            Some(value) => {
                let words = value.words.iter().filter(|word| *word != "none");
                let path = |word: &String| tokens.path(word).map_err(|error| value.flaw(error.to_string()));
                words.map(path).collect::<Result<Vec<_>, _>>()
            }
        };
        let system = &self.config.system_folder;
        let mut files = named("userknownhostsfile", ["known_hosts", "known_hosts2"].map(|name| folder.join(name)))?;
        files.extend(named(
            "globalknownhostsfile",
            ["ssh_known_hosts", "ssh_known_hosts2"].map(|name| system.join(name)),
        )?);
        files.push(self.config.known_hosts.clone());
        Ok(files)
    }

    fn accept_new(&self) -> Result<Option<bool>, Flaw> {
        let Some(value) = self.found.first("stricthostkeychecking") else { return Ok(None) };
        match value.word()?.to_ascii_lowercase().as_str() {
            // That a changed key is accepted, which `no` also means to ssh, is not to be had here.
            "accept-new" | "no" | "off" | "false" => Ok(Some(true)),
            "yes" | "true" | "ask" => Ok(Some(false)),
            other => Err(value.flaw(format!("{other} is none of yes, accept-new, ask, no"))),
        }
    }

    fn least_rsa(&self) -> Result<u32, Flaw> {
        let Some(value) = self.found.first("requiredrsasize") else { return Ok(LEAST_RSA) };
        let word = value.word()?;
        word.parse()
            .map(|bits: u32| bits.max(LEAST_RSA))
            .map_err(|_| value.flaw(format!("{word} is no number of bits")))
    }

    fn family(&self) -> Result<Family, Flaw> {
        let Some(value) = self.found.first("addressfamily") else { return Ok(Family::Any) };
        match value.word()? {
            "any" => Ok(Family::Any),
            "inet" => Ok(Family::Inet),
            "inet6" => Ok(Family::Inet6),
            other => Err(value.flaw(format!("{other} is none of any, inet, inet6"))),
        }
    }

    fn jumps(&self, tokens: &Tokens) -> Result<Vec<Target>, Flaw> {
        let Some(value) = self.found.first("proxyjump") else { return Ok(Vec::new()) };
        let word = value.word()?;
        if word.eq_ignore_ascii_case("none") {
            return Ok(Vec::new());
        }
        let word = tokens.expand(word, "hnpr").map_err(|error| value.flaw(error.to_string()))?;
        let jump =
            |text: &str| Target::parse(text).ok_or_else(|| value.flaw(format!("{text} is no host to jump through")));
        word.split(',').map(jump).collect()
    }
}

impl Target {
    /// Reads `[USER@]HOST[:PORT]`, which may begin with `ssh://`.
    fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix("ssh://").map_or(text, |rest| rest.trim_end_matches('/'));
        let (login, rest) = text.rsplit_once('@').map_or((None, text), |(login, rest)| (Some(login), rest));
        let address: super::BoardAddress = rest.parse().ok()?;
        let login = login.map(str::to_owned);
        let is_fine = login.as_ref().is_none_or(|login| !login.is_empty() && !login.starts_with('-'));
        is_fine.then(|| Self { host: address.host().to_owned(), port: address.typed_port(), login })
    }
}

/// The error of a choice that leaves no algorithm.
pub(super) fn none_left(choice: &Choice) -> Option<BoardError> {
    choice.none_left().map(broken)
}

/// A host as known_hosts files write it.
pub(super) fn with_port(host: &str, port: u16) -> String {
    if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") }
}

fn number(value: &Value) -> Result<u16, Flaw> {
    let word = value.word()?;
    word.parse().ok().filter(|&port| port != 0).ok_or_else(|| value.flaw(format!("{word} is no port")))
}

/// Seconds of a time as sshd_config(5) has it: `90`, `1m30s`, `2h`.
fn seconds(text: &str) -> Option<u64> {
    let (mut total, mut number) = (0u64, None::<u64>);
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(u64::from(digit))?);
            continue;
        }
        let unit = match c.to_ascii_lowercase() {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    let is_empty = text.is_empty();
    (!is_empty).then(|| total.checked_add(number.unwrap_or(0)))?
}
