//! A file over TCP to another file, and nothing else: what this machine can do at most.

use std::{
    fs::File,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    thread,
    time::Duration,
};

use crate::{Failure, relay::Relay};

/// As much as a data frame of ours carries.
const PIECE: usize = 256 << 10;

/// Copies a file beside itself by a new connection and says how long that took, to its last byte.
pub(crate) async fn copy(path: &Path, delay: u32) -> Result<Duration, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let relay = Relay::tcp(listener.local_addr()?.port(), delay).await?;
    let (from, target, port) = (path.to_owned(), path.with_extension("plain"), relay.port());
    let begin = tokio::time::Instant::now();
    let sender = thread::spawn(move || -> std::io::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        pump(&mut File::open(from)?, &mut stream)?;
        stream.shutdown(std::net::Shutdown::Write)
    });
    let to = target.clone();
    let receiver = thread::spawn(move || pump(&mut listener.accept()?.0, &mut File::create(to)?));
    let done = tokio::task::spawn_blocking(move || (sender.join(), receiver.join())).await?;
    let took = begin.elapsed();
    match done {
        (Ok(Ok(())), Ok(Ok(()))) => Ok(std::fs::remove_file(target).map(|()| took)?),
        failed => Err(format!("the plain copy: {failed:?}").into()),
    }
}

fn pump(from: &mut impl Read, to: &mut impl Write) -> std::io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => to.write_all(buffer.get(..count).unwrap_or_default())?,
        }
    }
}
