//! What may be asked: `docs/client-stdio.md`, "Orders". Read strictly; keys that are not known are passed over.

use std::{str::FromStr, time::Duration};

use super::line::Record;
use crate::{ids::FutureId, rds::Policy};

/// The number of the protocol.
pub const PROTOCOL: u32 = 2;

/// The most that may be said.
const MOST_RETRY: u32 = 100;

/// The longest time that a future may be given: ten years.
const MOST_SECONDS: f64 = 10.0 * 365.0 * 86400.0;

/// Why an order was not obeyed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum OrderError {
    /// Nobody told us of it.
    #[error("an unknown order")]
    Unknown,
    /// A key is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A value is not of its form.
    #[error("{0} is not of its form")]
    Value(&'static str),
    /// It was said already.
    #[error("hello was said already")]
    HelloTwice,
    /// A future of this name has no result yet.
    #[error("a future of the same name is open already")]
    Open,
    /// More futures than a session may have.
    #[error("more futures are open than a session may have")]
    TooMany,
}

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    /// The number of the protocol that the other side speaks.
    pub(super) protocol: u32,
    /// Its version.
    pub(super) package: Option<String>,
    /// R's.
    pub(super) r: Option<String>,
}

/// A future to be posted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Post {
    /// Its name.
    pub(super) future: FutureId,
    /// The name of its file in the folder.
    pub(super) file: FileName,
    /// How many more workers get it when one is lost, if that was said.
    pub(super) retry: Option<u32>,
    /// What its result may hold.
    pub(super) results: Policy,
    /// After which it is of no use.
    pub(super) timeout: Option<Duration>,
}

/// An order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Order {
    /// The handshake.
    Hello(Hello),
    /// A file is about to be written.
    Writing(FileName),
    /// A future.
    Post(Post),
    /// Take it back.
    Withdraw(FutureId),
    /// Say how things are.
    Status,
    /// Say that everything before it has been obeyed.
    Ping(u64),
}

/// The name of a file in the session's folder: 1 to 128 letters, digits and `. _ -`, the first of them no dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileName(String);

impl FileName {
    /// The name as text.
    #[must_use]
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FileName {
    type Err = OrderError;
    fn from_str(text: &str) -> Result<Self, OrderError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let good = (1..=128).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(plain);
        if good { Ok(Self(text.to_owned())) } else { Err(OrderError::Value("file")) }
    }
}

fn needed<T: FromStr>(record: &Record, key: &'static str) -> Result<T, OrderError> {
    record.get(key).ok_or(OrderError::Missing(key))?.parse().map_err(|_| OrderError::Value(key))
}

/// A number of digits alone.
fn number<T: FromStr>(record: &Record, key: &'static str) -> Result<Option<T>, OrderError> {
    let read = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    record.get(key).map(|text| read(text).ok_or(OrderError::Value(key))).transpose()
}

impl Order {
    /// What a line asks for.
    ///
    /// # Errors
    /// [`OrderError`]; then nothing is to be done.
    pub(super) fn of(record: &Record) -> Result<Self, OrderError> {
        Ok(match record.kind.as_str() {
            "hello" => Self::Hello(Hello {
                protocol: number(record, "protocol")?.ok_or(OrderError::Missing("protocol"))?,
                package: record.get("package").map(str::to_owned),
                r: record.get("r").map(str::to_owned),
            }),
            "writing" => Self::Writing(needed(record, "file")?),
            "post" => Self::Post(Post::of(record)?),
            "withdraw" => Self::Withdraw(needed(record, "future")?),
            "status" => Self::Status,
            "ping" => Self::Ping(number(record, "n")?.ok_or(OrderError::Missing("n"))?),
            _ => return Err(OrderError::Unknown),
        })
    }
}

impl Post {
    fn of(record: &Record) -> Result<Self, OrderError> {
        let seconds = |text: &str| {
            let seconds: f64 = text.parse().ok()?;
            let good = seconds > 0.0 && seconds <= MOST_SECONDS;
            good.then(|| Duration::from_secs_f64(seconds))
        };
        Ok(Self {
            future: needed(record, "future")?,
            file: needed(record, "file")?,
            retry: match number(record, "retry")? {
                Some(retry) if retry > MOST_RETRY => return Err(OrderError::Value("retry")),
                retry => retry,
            },
            results: match record.get("results") {
                Some(name) => name.parse().map_err(|_| OrderError::Value("results"))?,
                None => Policy::default(),
            },
            timeout: match record.get("timeout") {
                Some(text) => Some(seconds(text).ok_or(OrderError::Value("timeout"))?),
                None => None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(line: &str) -> Result<Order, OrderError> {
        Order::of(&Record::read(line.as_bytes()).unwrap())
    }

    #[test]
    fn orders_are_read_strictly() {
        let Order::Post(post) = order("post\tfuture=f-1\tfile=f-1.rds\tunknown=1").unwrap() else { panic!() };
        assert_eq!((post.retry, post.results, post.timeout), (None, Policy::Standard, None));
        let Order::Post(post) = order("post\tfile=a\tfuture=f\tretry=0\tresults=data-only\ttimeout=0.5").unwrap()
        else {
            panic!()
        };
        assert_eq!(
            (post.retry, post.results, post.timeout),
            (Some(0), Policy::DataOnly, Some(Duration::from_millis(500)))
        );
        for (line, error) in [
            ("walk", OrderError::Unknown),
            ("post\tfuture=f", OrderError::Missing("file")),
            ("post\tfuture=a/b\tfile=x", OrderError::Value("future")),
            ("post\tfuture=f\tfile=a%2Fb", OrderError::Value("file")),
            ("post\tfuture=f\tfile=..", OrderError::Value("file")),
            ("post\tfuture=f\tfile=.x", OrderError::Value("file")),
            ("post\tfuture=f\tfile=", OrderError::Value("file")),
            ("post\tfuture=f\tfile=a%00", OrderError::Value("file")),
            ("post\tfuture=f\tfile=a\tretry=-1", OrderError::Value("retry")),
            ("post\tfuture=f\tfile=a\tretry=101", OrderError::Value("retry")),
            ("post\tfuture=f\tfile=a\tresults=all", OrderError::Value("results")),
            ("post\tfuture=f\tfile=a\ttimeout=0", OrderError::Value("timeout")),
            ("post\tfuture=f\tfile=a\ttimeout=nan", OrderError::Value("timeout")),
            ("post\tfuture=f\tfile=a\ttimeout=inf", OrderError::Value("timeout")),
            ("writing", OrderError::Missing("file")),
            ("writing\tfile=../x", OrderError::Value("file")),
            ("ping\tn=+1", OrderError::Value("n")),
            ("ping", OrderError::Missing("n")),
            ("hello", OrderError::Missing("protocol")),
        ] {
            assert_eq!(order(line), Err(error), "{line}");
        }
    }
}
