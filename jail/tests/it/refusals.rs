//! What cannot be carried out is refused, by its stage, and nothing of the task runs.

use nix::errno::Errno;
use p2p_jail::message;
use p2p_jail::spec::*;

use crate::harness::*;

fn mounts(spec: &mut Spec) -> &mut Vec<Mount> {
    match &mut spec.container {
        Container::Builtin(builtin) => &mut builtin.mounts,
        _ => unreachable!(),
    }
}

#[test]
fn a_missing_source_of_a_bind() {
    for starter in starters() {
        let mut spec = shell(starter, "echo ran");
        let bind = Mount::Bind { from: "/no/such/source".into(), to: "/x".into(), writable: false };
        mounts(&mut spec).push(bind);
        let finished = run(starter, &spec);
        let (stage, what, errno) = finished.refused();
        assert_eq!((stage, errno), (Stage::Mounts, Errno::ENOENT as i32));
        assert!(what.contains("/no/such/source"), "{what}");
        assert_eq!(finished.text, "");
    }
}

#[test]
fn a_target_behind_a_symbolic_link() {
    for starter in starters() {
        let mut spec = shell(starter, "echo ran");
        mounts(&mut spec).extend([
            Mount::Symlink { target: "/usr".into(), at: "/link".into() },
            Mount::Directory { at: "/link/inside".into() },
        ]);
        let finished = run(starter, &spec);
        assert_eq!(finished.refused().0, Stage::Mounts);
        assert_eq!(finished.refused().2, Errno::ENOTDIR as i32);
    }
}

#[test]
fn a_target_that_is_no_plain_path() {
    for starter in starters() {
        for path in ["relative", "/a/../b", ""] {
            let mut spec = shell(starter, "echo ran");
            mounts(&mut spec).push(Mount::Directory { at: path.into() });
            assert_eq!(run(starter, &spec).refused().0, Stage::Spec, "{path:?}");
        }
    }
}

#[test]
fn an_unbounded_tmpfs() {
    for starter in starters() {
        let mut spec = shell(starter, "echo ran");
        mounts(&mut spec).push(Mount::Tmpfs { to: "/x".into(), bytes: 0, inodes: 10 });
        assert_eq!(run(starter, &spec).refused().0, Stage::Mounts);
    }
}

#[test]
fn a_missing_program() {
    for starter in starters() {
        let finished = run(starter, &strict_spec(starter, &["/usr/bin/no-such-program"]));
        let (stage, what, errno) = finished.refused();
        assert_eq!((stage, errno), (Stage::Exec, Errno::ENOENT as i32));
        assert!(what.contains("no-such-program"), "{what}");
        assert!(finished.stages().contains(&Stage::Seccomp));
    }
}

#[test]
fn a_program_that_landlock_does_not_let_execute() {
    for starter in starters() {
        let finished = run(starter, &strict_spec(starter, &["/etc/passwd"]));
        assert_eq!((finished.refused().0, finished.refused().2), (Stage::Exec, Errno::EACCES as i32));
    }
}

#[test]
fn a_missing_working_directory() {
    for starter in starters() {
        let mut spec = shell(starter, "echo ran");
        spec.command.directory = "/nowhere".into();
        assert_eq!(
            (run(starter, &spec).refused().0, run(starter, &spec).refused().2),
            (Stage::Exec, Errno::ENOENT as i32)
        );
    }
}

#[test]
fn a_kernel_without_the_required_landlock() {
    for starter in starters() {
        let mut spec = shell(starter, "echo ran");
        spec.confinement.landlock.as_mut().unwrap().minimum_abi = 1000;
        let finished = run(starter, &spec);
        assert_eq!(finished.refused().0, Stage::Landlock);
        assert!(finished.refused().1.contains("1000"));
    }
}

#[test]
fn a_landlock_path_that_is_not_there() {
    for starter in starters() {
        let mut spec = shell(starter, "echo ran");
        spec.confinement.landlock.as_mut().unwrap().read.push("/nowhere".into());
        let finished = run(starter, &spec);
        assert_eq!(finished.refused().0, Stage::Landlock);
        assert!(finished.refused().1.contains("/nowhere"));
    }
}

#[test]
fn a_seccomp_list_that_is_a_hole_or_cannot_work() {
    for starter in starters() {
        for number in [435, 0x4000_0000 + 59, -1] {
            let mut spec = shell(starter, "echo ran");
            spec.confinement.seccomp.as_mut().unwrap().allow.push(number);
            assert_eq!(run(starter, &spec).refused().0, Stage::Seccomp, "{number}");
        }
        let mut spec = shell(starter, "echo ran");
        spec.confinement.seccomp.as_mut().unwrap().allow.retain(|number| *number != nix::libc::SYS_write);
        assert!(run(starter, &spec).refused().1.contains("write"));
    }
}

#[test]
fn a_watched_tmpfs_that_is_not_there() {
    for starter in starters() {
        let mut spec = shell(starter, "echo ran");
        spec.watch.tmpfs.push("/nowhere".into());
        assert_eq!(run(starter, &spec).refused().0, Stage::Watch);
    }
}

#[test]
fn root_without_a_user_to_become() {
    if !starters().contains(&Starter::Root) {
        return;
    }
    for become_user in [None, Some(Identity { uid: 0, gid: 0 }), Some(Identity { uid: 0, gid: 1 })] {
        let mut spec = shell(Starter::Root, "echo ran");
        let Container::Builtin(builtin) = &mut spec.container else { unreachable!() };
        builtin.become_user = become_user;
        assert_eq!(run(Starter::Root, &spec).refused().0, Stage::Identity);
        spec.container = Container::None { become_user };
        assert_eq!(run(Starter::Root, &spec).refused().0, Stage::Identity);
    }
}

#[test]
fn an_ordinary_user_who_wants_to_be_another() {
    let mut spec = shell(Starter::Ordinary, "echo ran");
    let Container::Builtin(builtin) = &mut spec.container else { unreachable!() };
    builtin.become_user = Some(Identity { uid: 1, gid: 1 });
    assert_eq!(run(Starter::Ordinary, &spec).refused().0, Stage::Identity);
}

#[test]
fn what_is_not_a_spec() {
    let good = message::encode(&shell(Starter::Ordinary, "echo ran")).unwrap();
    let framed = |body: &[u8]| [&u32::try_from(body.len()).unwrap().to_le_bytes(), body].concat();
    let too_long = (u32::try_from(MAX_MESSAGE).unwrap() + 1).to_le_bytes().to_vec();
    let trailing = framed(&[&good[4..], b"x"].concat());
    let cases = [
        ("too long", too_long, 3),
        ("trailing", trailing, 3),
        ("another build", framed(&[&[0; 8], &good[12..]].concat()), 3),
        ("one bit of the last byte", [&good[..good.len() - 1], &[good[good.len() - 1] ^ 1]].concat(), 3),
        ("malformed", framed(&[0xff; 40]), 3),
        ("empty", framed(&[]), 3),
        ("no descriptors", good.clone(), 0),
        ("two descriptors", good, 2),
    ];
    for starter in starters() {
        for (name, bytes, descriptors) in &cases {
            let finished = Jail::start_raw(starter, bytes, *descriptors).finish();
            assert_eq!(finished.refused().0, Stage::Spec, "{name}");
            assert_eq!(finished.text, "", "{name}");
        }
    }
}

#[test]
fn arguments_that_the_kernel_cannot_take() {
    for starter in starters() {
        let mut nul = shell(starter, "echo ran");
        nul.command.argv.push("a\0b".into());
        let mut variable = shell(starter, "echo ran");
        variable.command.environment.push(("A=B".into(), "c".into()));
        let mut relative = shell(starter, "echo ran");
        relative.command.argv[0] = "sh".into();
        let mut none = shell(starter, "echo ran");
        none.command.argv.clear();
        for spec in [nul, variable, relative, none] {
            assert_eq!(run(starter, &spec).refused().0, Stage::Spec);
        }
    }
}
