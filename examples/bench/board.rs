//! A line from one client to many: the board beside OpenSSH's `sshd` with `tail -f` as the program of each reader.
//!
//! The server is a process of its own, whose processor time and memory the kernel counts. The readers are SSH connections of
//! this process, the same for both; on a small machine they take as much of it as the server, so that the time on the clock
//! is that of both together.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::unistd::{SysconfVar, sysconf};
use russh::{
    ChannelMsg, ChannelWriteHalf,
    client::{self, Handle},
    keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate, load_secret_key},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::Notify,
    time::Instant,
};

use crate::{
    Failure,
    figures::{Samples, Table, milliseconds, progress},
    world::patiently,
};

/// A line as long as a request's, with its end.
const LINE: usize = 128;
/// Lines that are posted before all readers have to have them: at most so many, and no more than wait for all readers together
/// without being half of what a board keeps (64 MiB, a line for each reader) before it cuts off who is slowest.
const BATCH: usize = 1000;
const WAITING: usize = 32 << 20;
/// How often one line alone is timed.
const SINGLE: usize = 50;
/// Connections that are made at a time.
const AT_A_TIME: usize = 8;

/// An `sshd` that lets this user in.
#[derive(Debug, clap::Args)]
pub(crate) struct Sshd {
    /// Its port; without it, there is no sshd beside the board
    #[arg(long, requires = "sshd_pid")]
    sshd_port: Option<u16>,
    /// Its process
    #[arg(long)]
    sshd_pid: Option<u32>,
    /// A key that it knows
    #[arg(long)]
    sshd_key: Option<PathBuf>,
    /// Whose account it lets in
    #[arg(long, default_value = "root")]
    sshd_user: String,
}

pub(crate) async fn measure(readers: &[usize], batches: usize, sshd: &Sshd) -> Result<(), Failure> {
    let columns = [
        "",
        "lines a second",
        "to all readers",
        "server's time for a line to a reader",
        "one line to all",
        "memory of a reader",
    ];
    let lines = batches * BATCH;
    let mut table = Table::new(format!("Lines of {LINE} bytes from one client to many, {lines} of them"), &columns);
    for &count in readers {
        progress(&format!("the board, {count} readers"));
        table.row(board(count, batches).await?);
    }
    if let (Some(port), Some(pid), Some(key)) = (sshd.sshd_port, sshd.sshd_pid, &sshd.sshd_key) {
        // A reader is four processes there: more would measure the machine's memory.
        let count = readers.iter().copied().min().unwrap_or(100).min(100);
        progress(&format!("sshd and tail -f, {count} readers"));
        table.row(beside(count, batches, port, pid, key, &sshd.sshd_user).await?);
    }
    Ok(table.print()?)
}

/// Our own board.
async fn board(count: usize, batches: usize) -> Result<Vec<String>, Failure> {
    let folder = tempfile::Builder::new().prefix("p2p-bench-").tempdir()?;
    let (key, state) = (folder.path().join("key"), folder.path().join("board"));
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key))?;
    let program = crate::programs()?.join("p2p-worker");
    run(Command::new(&program)
        .args(["board", "user", "add", "bench"])
        .arg(key.with_extension("pub"))
        .arg("--state")
        .arg(&state))?;
    let most = (count + 8).to_string();
    let mut server = tokio::process::Command::new(&program);
    server.args(["board", "--listen", "127.0.0.1:0", "--max-lines-per-second", "400000000", "--state"]).arg(&state);
    server.args(["--max-connections", &most, "--max-connections-per-account", &most]);
    let mut server = server.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut said = BufReader::new(server.stdout.take().ok_or("no output")?).lines();
    let first = patiently("the board", said.next_line()).await??.ok_or("the board did not start")?;
    let port = first.rsplit(':').next().unwrap_or_default().parse()?;
    let pid = server.id().ok_or("the board has ended")?;

    let server = Server { pids: vec![pid], idle: memory(&[pid])?, port, user: "bench", key: &key };
    let writer = connect(&server).await?;
    let posting = writer.channel_open_session().await?;
    posting.exec(true, "pub busy").await?;
    let (_, posting) = posting.split();
    let audience = Audience::of(count, &server, "sub busy").await?;
    let post = Post::Board(posting);
    audience.measure(&format!("p2p-worker board, {count} readers"), &server, post, batches).await
}

/// `sshd`, and `tail -f` of a file that this process writes to.
async fn beside(
    count: usize,
    batches: usize,
    port: u16,
    pid: u32,
    key: &Path,
    user: &str,
) -> Result<Vec<String>, Failure> {
    let folder = tempfile::Builder::new().prefix("p2p-bench-").tempdir()?;
    let path = folder.path().join("lines");
    let file = fs::File::create(&path)?;
    let mut server = Server { pids: vec![pid], idle: memory(&descendants(pid)?)?, port, user, key };
    let audience = Audience::of(count, &server, &format!("exec tail -n +1 -f {}", path.display())).await?;
    server.pids = descendants(pid)?;
    audience.measure(&format!("OpenSSH sshd with tail -f, {count} readers"), &server, Post::File(file), batches).await
}

/// What is measured.
struct Server<'a> {
    pids: Vec<u32>,
    /// Memory without readers, in kB.
    idle: f64,
    port: u16,
    user: &'a str,
    key: &'a Path,
}

/// Where lines are posted.
enum Post {
    Board(ChannelWriteHalf<client::Msg>),
    File(fs::File),
}

impl Post {
    async fn lines(&mut self, lines: usize) -> Result<(), Failure> {
        let mut line = "x".repeat(LINE - 1);
        line.push('\n');
        match self {
            Self::Board(channel) => Ok(channel.data_bytes(line.repeat(lines).into_bytes()).await?),
            Self::File(file) => Ok(file.write_all(line.repeat(lines).as_bytes())?),
        }
    }
}

/// The readers, and how much they have read together.
struct Audience {
    count: usize,
    read: Arc<AtomicU64>,
    progress: Arc<Notify>,
    _connections: Vec<Handle<Anybody>>,
}

impl Audience {
    async fn of(count: usize, server: &Server<'_>, command: &str) -> Result<Self, Failure> {
        let (read, progress) = (Arc::<AtomicU64>::default(), Arc::<Notify>::default());
        let mut connections = Vec::new();
        while connections.len() < count {
            let some = AT_A_TIME.min(count - connections.len());
            let made = futures_util::future::try_join_all((0..some).map(|_| connect(server))).await?;
            for connection in made {
                let channel = connection.channel_open_session().await?;
                channel.exec(true, command).await?;
                let (mut from, to) = channel.split();
                let (read, progress) = (Arc::clone(&read), Arc::clone(&progress));
                tokio::spawn(async move {
                    // A reader that has no input is one all the same.
                    let _to = to;
                    while let Some(message) = from.wait().await {
                        if let ChannelMsg::Data { data } = message {
                            read.fetch_add(data.len() as u64, Ordering::Relaxed);
                            progress.notify_one();
                        }
                    }
                });
                connections.push(connection);
            }
        }
        Ok(Self { count, read, progress, _connections: connections })
    }

    /// Waits until all have read so many lines, since the beginning.
    async fn have(&self, lines: usize) -> Result<(), Failure> {
        let target = (lines * LINE * self.count) as u64;
        let all = async {
            while self.read.load(Ordering::Relaxed) < target {
                self.progress.notified().await;
            }
        };
        patiently("all readers have all lines", all).await
    }

    async fn measure(
        &self,
        name: &str,
        server: &Server<'_>,
        mut post: Post,
        batches: usize,
    ) -> Result<Vec<String>, Failure> {
        let mut lines = 0;
        let mut single = Samples::of("one line");
        // Whoever joins after a line has not heard it; the first lines are posted until everybody is there.
        if matches!(post, Post::Board(_)) {
            self.warm_up(&mut post).await?;
        }
        for _ in 0..SINGLE {
            let began = Instant::now();
            post.lines(1).await?;
            lines += 1;
            self.have(lines).await?;
            single.add(began.elapsed());
        }
        let a_reader = (memory(&server.pids)? - server.idle) / self.count as f64;
        let (began, cpu) = (Instant::now(), cpu_seconds(&server.pids)?);
        let end = lines + batches * BATCH;
        while lines < end {
            let batch = BATCH.min(WAITING / (LINE * self.count)).clamp(1, end - lines);
            post.lines(batch).await?;
            lines += batch;
            self.have(lines).await?;
        }
        let (took, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds(&server.pids)? - cpu);
        let posted = (batches * BATCH) as f64;
        let delivered = posted * self.count as f64;
        Ok(vec![
            name.to_owned(),
            format!("{:.0}", posted / took),
            format!("{:.0}", delivered / took),
            format!("{:.2} µs", cpu / delivered * 1e6),
            milliseconds(single.median()),
            format!("{a_reader:.0} kB"),
        ])
    }

    /// Posts single lines until one has reached everybody, and begins to count after it.
    async fn warm_up(&self, post: &mut Post) -> Result<(), Failure> {
        let reached = async {
            loop {
                let before = self.read.load(Ordering::Relaxed);
                post.lines(1).await?;
                tokio::time::sleep(Duration::from_millis(500)).await;
                if self.read.load(Ordering::Relaxed) - before == (LINE * self.count) as u64 {
                    self.read.store(0, Ordering::Relaxed);
                    return Ok::<_, Failure>(());
                }
            }
        };
        patiently("every reader on the topic", reached).await?
    }
}

struct Anybody;

impl client::Handler for Anybody {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

async fn connect(server: &Server<'_>) -> Result<Handle<Anybody>, Failure> {
    let key = Arc::new(load_secret_key(server.key, None)?);
    let config = client::Config { nodelay: true, ..client::Config::default() };
    let connecting = client::connect(Arc::new(config), ("127.0.0.1", server.port), Anybody);
    let mut handle = patiently("a connection", connecting).await??;
    let signing_in = handle.authenticate_publickey(server.user, PrivateKeyWithHashAlg::new(key, None));
    if patiently("the sign-in", signing_in).await??.success() { Ok(handle) } else { Err("the sign-in failed".into()) }
}

fn run(command: &mut Command) -> Result<(), Failure> {
    let output = command.output()?;
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {output:?}").into()) }
}

/// A process with all below it.
fn descendants(root: u32) -> Result<Vec<u32>, Failure> {
    let mut parents = HashMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // It may have ended just now.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        parents.insert(pid, parent.unwrap_or_default());
    }
    let mut found = HashSet::from([root]);
    loop {
        let more: Vec<u32> = parents
            .iter()
            .filter(|(pid, parent)| found.contains(*parent) && !found.contains(*pid))
            .map(|(&pid, _)| pid)
            .collect();
        if more.is_empty() {
            return Ok(found.into_iter().collect());
        }
        found.extend(more);
    }
}

/// Proportional set size of these processes together, in kB: what they share counts once.
fn memory(pids: &[u32]) -> Result<f64, Failure> {
    let mut sum = 0.0;
    for pid in pids {
        // It may have ended just now.
        let Ok(rollup) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { continue };
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).ok_or("no Pss")?;
        sum += line.split_whitespace().next().ok_or("no number")?.parse::<f64>()?;
    }
    Ok(sum)
}

/// User and system time of these processes together.
fn cpu_seconds(pids: &[u32]) -> Result<f64, Failure> {
    let ticks_a_second = sysconf(SysconfVar::CLK_TCK)?.ok_or("no clock tick")? as f64;
    let mut ticks = 0.0;
    for pid in pids {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let (_, rest) = stat.rsplit_once(')').ok_or("no name in stat")?;
        for field in rest.split_whitespace().skip(11).take(2) {
            ticks += field.parse::<f64>()?;
        }
    }
    Ok(ticks / ticks_a_second)
}
