//! A client for one R session, over a pair of pipes: orders in, events out, one in a line. `docs/client-stdio.md` is the
//! contract, and the R package is the other side.
//!
//! - `line`, `orders`: how lines are written, and what may be asked
//! - `folder`: where the bytes of futures and results pass through; `following` looks at a file while it is written
//! - `session`: the loop; `journey` takes one future from its file to its end, `returned` looks at what came back
//! - `outbox`: events wait there while R does not read; `members`: what the board tells of itself and of workers

mod failed;
mod folder;
mod following;
mod input;
mod journey;
mod line;
mod members;
mod orders;
mod outbox;
mod returned;
mod session;

pub use folder::FolderError;
pub use line::{Line, LineError, MAX_LINE, Record};
pub use members::Members;
pub use orders::PROTOCOL;
pub use session::{Connected, End, NoBoard, SessionError, Settings, serve};
