//! Becoming an ordinary user of the host, when started by root.

use nix::sys::prctl::set_dumpable;
use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};

use crate::failure::{At, Failure, Outcome};
use crate::spec::{Container, Identity, Stage};

const STAGE: Stage = Stage::Identity;

/// Takes on the identity that the spec names, for good. Returns a line for the owner.
pub(crate) fn assume(wanted: Option<Identity>) -> Outcome<String> {
    match wanted {
        None if geteuid().is_root() => Err(Failure::new(STAGE, "started by root, and no user to become is named")),
        None => Ok(format!("uid {}", geteuid())),
        Some(Identity { uid: 0, .. } | Identity { gid: 0, .. }) => {
            Err(Failure::new(STAGE, "the user to become is root, or in its group"))
        }
        Some(identity) if geteuid().is_root() => become_user(identity),
        Some(identity) if identity.uid == geteuid().as_raw() => Ok(format!("uid {}", geteuid())),
        Some(identity) => Err(Failure::new(
            STAGE,
            format!("only root can become uid {}, and this is uid {}", identity.uid, geteuid()),
        )),
    }
}

/// The identity that a container names.
pub(crate) fn wanted(container: &Container) -> Option<Identity> {
    match container {
        Container::Builtin(builtin) => builtin.become_user,
        Container::External(external) => external.become_user,
        Container::None { become_user } => *become_user,
    }
}

fn become_user(identity: Identity) -> Outcome<String> {
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    setgroups(&[]).at(STAGE, || "setgroups to none".into())?;
    setresgid(gid, gid, gid).at(STAGE, || format!("setresgid {gid}"))?;
    setresuid(uid, uid, uid).at(STAGE, || format!("setresuid {uid}"))?;
    // Without this, /proc/self/uid_map would still belong to root, and no user namespace could be set up.
    set_dumpable(true).at(STAGE, || "prctl PR_SET_DUMPABLE".into())?;
    Ok(format!("uid {uid}, gid {gid}, was root"))
}
