//! Stages *Capabilities* and *NoNewPrivileges*: nothing now, and nothing to be gained.

use nix::errno::Errno;
use nix::sys::prctl::set_no_new_privs;

use crate::failure::{At, Failure, Outcome};
use crate::spec::Stage;
use crate::sys;

const STAGE: Stage = Stage::Capabilities;
const CAP_SETPCAP: u8 = 8;

/// Empties all five sets and locks the securebits.
///
/// The bounding set and the securebits need `CAP_SETPCAP`, which an ordinary user has only inside a user namespace. With
/// `all` the lack of it is a failure; otherwise what the process *has* is still given up, and the detail says what was
/// left. (With `no_new_privs`, nothing can be gained through what is left in the bounding set.)
pub(crate) fn give_up_capabilities(all: bool) -> Outcome<&'static str> {
    sys::clear_ambient_set().at(STAGE, || "emptying the ambient set".into())?;
    let able = sys::has_capability(CAP_SETPCAP).at(STAGE, || "capget".into())?;
    if able {
        empty_bounding_set()?;
        sys::lock_securebits().at(STAGE, || "locking the securebits".into())?;
    } else if all {
        return Err(Failure::new(STAGE, "no CAP_SETPCAP, so the bounding set cannot be emptied"));
    }
    sys::clear_capabilities().at(STAGE, || "capset to nothing".into())?;
    Ok(if able {
        "all five sets empty, securebits locked"
    } else {
        "bounding set and securebits as they were (no CAP_SETPCAP)"
    })
}

fn empty_bounding_set() -> Outcome<()> {
    for number in 0..64 {
        match sys::drop_from_bounding_set(number) {
            Err(Errno::EINVAL) => break, // Above the last one that the kernel knows.
            result => result.at(STAGE, || format!("taking capability {number} out of the bounding set"))?,
        }
    }
    Ok(())
}

/// No exec gives a right that this process does not have.
pub(crate) fn no_new_privileges() -> Outcome<()> {
    set_no_new_privs().at(Stage::NoNewPrivileges, || "prctl PR_SET_NO_NEW_PRIVS".into())
}
