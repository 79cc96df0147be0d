//! How the owner's commands reach a board that serves: a socket in its state folder.
//!
//! One line comes (`status` or `look`), one answer goes back. Only the account that the board runs as, and root, are
//! answered: the kernel says who asks (unix(7), `SO_PEERCRED`), whatever the folder's mode. A lock in the same folder, held
//! as long as the board serves, keeps a second board out.

use std::{
    fs::{self, File, Permissions},
    io,
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    time::timeout,
};

use super::{files, status::Status};
use crate::board::ServeError;

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest question, in bytes.
const MOST_QUESTION: u64 = 64;
/// The longest answer, in bytes.
const MOST_ANSWER: u64 = 16 * 1024 * 1024;
/// The longest path that a socket can be bound to, with room to spare (108 bytes in unix(7)).
const MOST_PATH: usize = 100;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// How it is.
    Status,
    /// To look at the accounts now.
    Look,
}

/// The socket of a board that serves.
#[derive(Debug)]
pub(super) struct Control {
    listener: UnixListener,
    path: PathBuf,
    _lock: File,
}

impl Control {
    /// Takes the place of the one board that serves this state.
    ///
    /// # Errors
    /// [`ServeError::Serving`] when another one does; [`ServeError::File`].
    pub(super) fn bind(state: &Path) -> Result<Self, ServeError> {
        let path = state.join("control");
        let lock = serve_alone(state)?;
        let failed = |source| ServeError::File { act: "listen on", path: path.clone(), source };
        // Nobody else listens there: this is what a killed board left.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = reachable(state, UnixListener::bind).map_err(failed)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { listener, path, _lock: lock })
    }

    /// The next question that may be answered, and where. Cancel-safe.
    pub(super) async fn next(&self) -> Asked {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) if is_owner(&stream) => return Asked(stream),
                Ok(_) => tracing::warn!("somebody else tried the control socket"),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the control socket");
                    // So that a lack of descriptors does not become a busy loop.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // The next board removes it where this one cannot.
        let _ = fs::remove_file(&self.path);
    }
}

/// Somebody who asks.
pub(super) struct Asked(UnixStream);

impl Asked {
    /// Reads the question, and answers it. Whoever is too slow, or asks for something else, hears nothing.
    pub(super) async fn answer<A: Future<Output = String>>(mut self, answer: impl FnOnce(Question) -> A) {
        let served = timeout(PATIENCE, async {
            let (read, mut write) = self.0.split();
            let mut line = String::new();
            BufReader::new(read.take(MOST_QUESTION)).read_line(&mut line).await?;
            let question = match line.trim_end() {
                "status" => Question::Status,
                "look" => Question::Look,
                _ => return Err(io::ErrorKind::InvalidInput.into()),
            };
            write.write_all(answer(question).await.as_bytes()).await?;
            write.shutdown().await
        });
        if !matches!(served.await, Ok(Ok(()))) {
            tracing::debug!("a question on the control socket was not answered");
        }
    }
}

/// Asks the board that serves a state how it is.
///
/// # Errors
/// [`ServeError::NotServing`], [`ServeError::Control`].
pub async fn status(state: &Path) -> Result<Status, ServeError> {
    let answer = ask(state, "status\n").await?;
    let failed = |error| ServeError::Control { path: state.join("control"), source: io::Error::other(error) };
    serde_json::from_slice(&answer).map_err(failed)
}

/// Lets the board that serves a state look at its accounts now, so that who was removed is cut before this comes back.
///
/// # Errors
/// [`ServeError::NotServing`], [`ServeError::Control`].
pub async fn look(state: &Path) -> Result<(), ServeError> {
    ask(state, "look\n").await.map(drop)
}

async fn ask(state: &Path, question: &str) -> Result<Vec<u8>, ServeError> {
    let path = state.join("control");
    let failed = |source| ServeError::Control { path: path.clone(), source };
    let asking = async {
        let stream = reachable(state, std::os::unix::net::UnixStream::connect)?;
        stream.set_nonblocking(true)?;
        let mut stream = UnixStream::from_std(stream)?;
        stream.write_all(question.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(MOST_ANSWER).read_to_end(&mut answer).await?;
        if answer.is_empty() { Err(io::Error::from(io::ErrorKind::UnexpectedEof)) } else { Ok(answer) }
    };
    match timeout(2 * PATIENCE, asking).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Err(ServeError::NotServing { path: state.to_owned() })
        }
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
    }
}

fn serve_alone(state: &Path) -> Result<File, ServeError> {
    let path = state.join("serving.lock");
    let failed = |source| ServeError::File { act: "lock", path: path.clone(), source };
    let file = files::create_lock(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(ServeError::Serving { path: state.to_owned() }),
        Err(fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Does something with the socket of a state folder, by a path that is short enough however long the folder's is.
fn reachable<T>(state: &Path, with: impl FnOnce(PathBuf) -> io::Result<T>) -> io::Result<T> {
    let path = state.join("control");
    if path.as_os_str().len() <= MOST_PATH {
        return with(path);
    }
    let folder = File::open(state)?;
    with(PathBuf::from(format!("/proc/self/fd/{}/control", folder.as_raw_fd())))
}

fn is_owner(stream: &UnixStream) -> bool {
    let me = nix::unistd::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == me)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_board_serves_a_state_and_is_found_however_long_its_path_is() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("x".repeat(150));
        fs::create_dir(&state).unwrap();
        assert!(matches!(look(&state).await, Err(ServeError::NotServing { .. })));
        let control = Control::bind(&state).unwrap();
        assert!(matches!(Control::bind(&state), Err(ServeError::Serving { .. })));
        let serving = async { control.next().await.answer(async |_| "done".to_owned()).await };
        let (looked, ()) = tokio::join!(look(&state), serving);
        looked.unwrap();
        drop(control);
        assert!(!state.join("control").exists());
        drop(Control::bind(&state).unwrap());
        // What a killed board left.
        drop(std::os::unix::net::UnixListener::bind(folder.path().join("control")).unwrap());
        assert!(matches!(look(folder.path()).await, Err(ServeError::NotServing { .. })));
        Control::bind(folder.path()).unwrap();
    }

    #[tokio::test]
    async fn other_questions_are_not_answered() {
        let folder = tempfile::tempdir().unwrap();
        let control = Control::bind(folder.path()).unwrap();
        for question in ["\n", "stop\n", &"x".repeat(1000)] {
            let serving = async { control.next().await.answer(async |_| "done".to_owned()).await };
            let (asked, ()) = tokio::join!(ask(folder.path(), question), serving);
            assert!(matches!(asked, Err(ServeError::Control { .. })), "{asked:?}");
        }
    }
}
