//! Stage *Session*: no controlling terminal, no inherited signal settings, files private by default.

use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{getpid, getsid, setsid};

use crate::failure::{At, Outcome};
use crate::spec::Stage;
use crate::sys;

const STAGE: Stage = Stage::Session;

/// Leaves everything behind that a process has from its session.
pub(crate) fn enter() -> Outcome<()> {
    match setsid() {
        // An external container may have made this process the leader of a new session already.
        Err(Errno::EPERM) if getsid(None) == Ok(getpid()) => {}
        result => result.map(drop).at(STAGE, || "setsid".into())?,
    }
    sys::reset_signals();
    umask(Mode::from_bits_truncate(0o077));
    Ok(())
}
