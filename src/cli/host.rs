//! `p2p-worker host`: host a shared cluster.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::interval,
};
use tokio_util::sync::CancellationToken;

use super::{
    Failure, Status,
    common::{BoardArgs, Place, PlaceArgs, cancel_on_interrupt},
    service::Service,
};
use crate::{
    board::{Board, server::MOST_GUESTS},
    client::host::{HostError, Hosted},
    error_chain,
    ids::{IdError, PeerName, UserName},
};

/// How often the file of users is looked at.
const LOOK_AT_USERS: Duration = Duration::from_secs(5);

/// The most that a file of users may have, in bytes.
const MOST_BYTES: u64 = 64 * 1024;

/// Hosts until SIGTERM or Ctrl-C. A file of users is read again when it changes, and on SIGHUP.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    board: BoardArgs,
    /// Who may use the cluster besides its owner
    #[arg(long, value_name = "NAME,NAME...", env = "P2P_WORKER_USERS", value_delimiter = ',')]
    users: Option<Vec<String>>,
    /// A file of such names, between commas, blanks or line ends; # begins a comment
    #[arg(long, value_name = "FILE", env = "P2P_WORKER_USERS_FILE", conflicts_with = "users")]
    users_file: Option<PathBuf>,
}

/// Why a list of users cannot be used.
#[derive(Debug, thiserror::Error)]
enum UsersError {
    #[error("cannot read the users in {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the users{}: {name:?}", place.as_deref().map(|path| format!(" in {}", path.display())).unwrap_or_default())]
    Name {
        place: Option<PathBuf>,
        name: String,
        #[source]
        source: IdError,
    },
    #[error("there are {found} users, and an access list can name {MOST_GUESTS} at most")]
    TooMany { found: usize },
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let place = args.place.resolve()?;
    let usage = |error: UsersError| Failure::new(Status::Usage, error);
    let users = Users::of(&args, &place).ok_or_else(|| {
        Failure::new(Status::Usage, "nobody is named who may use the cluster")
            .hint("Name them: --users bob,carol, or --users-file FILE (which may be empty, and may change).")
    })?;
    let list = users.read().map_err(usage)?;
    let (board, cluster) = args.board.resolve(&place)?;
    let cluster = cluster.ok_or_else(|| {
        Failure::new(Status::Usage, "no cluster is named").hint("Name one of your own: --cluster ME/friends")
    })?;

    let me = board.user().await?;
    if me != cluster.owner {
        let error = format!("{cluster} is hosted by {}, and you are {me} on this board", cluster.owner);
        return Err(Failure::new(Status::Usage, error).hint(format!("Host one of your own: --cluster {me}/friends")));
    }
    let topic = cluster.topic(&me).map_err(|error| Failure::new(Status::Usage, error))?;
    let shutdown = CancellationToken::new();
    cancel_on_interrupt(shutdown.clone())?;
    let again = signal(SignalKind::hangup()).map_err(|error| Failure::new(Status::Usage, error))?;
    let (changes, lists) = watch::channel(list);
    let service = Service::of_the_manager();
    service.starting("waiting for the board");
    let ready = format!("hosting {cluster}");
    let told = |hosts| {
        if hosts { service.ready(ready.clone()) } else { service.starting("waiting for the board") }
    };
    let hosted = Hosted { cluster, topic, me: PeerName::of_this_process(&me) };
    let sharing = |mut guests: Vec<UserName>| {
        guests.retain(|guest| *guest != me);
        board.sharing_with(guests)
    };
    let hosting = hosted.host(sharing, lists, shutdown, told);
    let ended = tokio::select! {
        ended = hosting => ended,
        () = users.watch(changes, again) => Ok(()),
    };
    ended.map_err(|error| match error {
        HostError::Join(error) => error.into(),
        HostError::BoardLost(_) => Failure::new(Status::Network, error),
    })
}

/// Where the list comes from.
enum Users {
    Named(Vec<String>),
    File(PathBuf),
}

impl Users {
    /// From the command line, else from the configuration file; `None` where nobody has said anything.
    fn of(args: &Args, place: &Place) -> Option<Self> {
        let named = |names: &Vec<String>| Self::Named(names.clone());
        let typed = args.users_file.clone().map(Self::File).or(args.users.as_ref().map(named));
        typed.or_else(|| place.file.users_file.clone().map(Self::File).or(place.file.users.as_ref().map(named)))
    }

    fn read(&self) -> Result<Vec<UserName>, UsersError> {
        match self {
            Self::Named(names) => parse(names.iter().map(String::as_str), None),
            Self::File(path) => {
                let failed = |source| UsersError::Read { path: path.clone(), source };
                let mut text = String::new();
                let file = fs::File::open(path).map_err(failed)?;
                if file.take(MOST_BYTES + 1).read_to_string(&mut text).map_err(failed)? as u64 > MOST_BYTES {
                    return Err(failed(io::ErrorKind::FileTooLarge.into()));
                }
                let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
                parse(lines.flat_map(|line| line.split([',', ' ', '\t'])), Some(path))
            }
        }
    }

    /// Hands every new list on. A file that cannot be used changes nothing, and is told of once.
    async fn watch(&self, changes: watch::Sender<Vec<UserName>>, mut again: Signal) {
        let stamp = || match self {
            Self::Named(_) => None,
            Self::File(path) => Stamp::of(path),
        };
        let can_change = matches!(self, Self::File(_));
        let (mut look, mut seen) = (interval(LOOK_AT_USERS), stamp());
        loop {
            let asked = tokio::select! {
                _ = look.tick(), if can_change => false,
                _ = again.recv() => true,
            };
            let now = stamp();
            if now == seen && !asked {
                continue;
            }
            seen = now;
            match self.read() {
                Ok(list) => drop(changes.send_if_modified(|old| {
                    let is_new = *old != list;
                    *old = list;
                    is_new
                })),
                Err(error) => tracing::error!(error = error_chain(&error), "the list of users stays as it was"),
            }
        }
    }
}

/// Which version of a file is there.
#[derive(PartialEq, Eq)]
struct Stamp(u64, Option<SystemTime>, u64);

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let data = fs::metadata(path).ok()?;
        Some(Self(data.ino(), data.modified().ok(), data.len()))
    }
}

/// Each name once, in order; empty ones are left out.
fn parse<'a>(names: impl Iterator<Item = &'a str>, place: Option<&Path>) -> Result<Vec<UserName>, UsersError> {
    let mut list: Vec<UserName> = Vec::new();
    for name in names.map(str::trim).filter(|name| !name.is_empty()) {
        let wrong = |source| UsersError::Name { place: place.map(Path::to_owned), name: name.to_owned(), source };
        let name = name.parse().map_err(wrong)?;
        if !list.contains(&name) {
            list.push(name);
        }
    }
    if list.len() > MOST_GUESTS { Err(UsersError::TooMany { found: list.len() }) } else { Ok(list) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[UserName]) -> Vec<&str> {
        list.iter().map(UserName::as_str).collect()
    }

    #[test]
    fn a_list_is_read_from_words_and_from_files() {
        let named = Users::Named(["bob", " carol", "", "bob"].map(str::to_owned).to_vec());
        assert_eq!(names(&named.read().unwrap()), ["bob", "carol"]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let file = Users::File(path.clone());
        assert!(matches!(file.read(), Err(UsersError::Read { .. })));
        fs::write(&path, "# my friends\nbob, carol\tdave\n\n  erin # and her sister\n").unwrap();
        assert_eq!(names(&file.read().unwrap()), ["bob", "carol", "dave", "erin"]);
        fs::write(&path, "").unwrap();
        assert_eq!(file.read().unwrap(), []);
        for bad in ["a/b", "\u{1b}[31m", &"x".repeat(65)] {
            fs::write(&path, bad).unwrap();
            let error = file.read().unwrap_err();
            assert!(matches!(error, UsersError::Name { .. }) && !error.to_string().contains('\u{1b}'), "{error}");
        }
        fs::write(&path, (0..=MOST_GUESTS).map(|at| format!("u{at}\n")).collect::<String>()).unwrap();
        assert!(matches!(file.read(), Err(UsersError::TooMany { .. })));
    }
}
