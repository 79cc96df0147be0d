//! Limits that hold from outside, and those that bound what one task can make of the machine.

use std::path::Path;

use p2p_jail::spec::*;

use crate::harness::*;

/// Fills memory and keeps it: `perl` is everywhere that these tests run, and has no limit of its own.
fn filler(megabytes: u32) -> String {
    format!("perl -e 'my @kept; push @kept, \"x\" x (1 << 20) for 1..{megabytes}; print \"full\\n\"; sleep 7100010'")
}

fn with(starter: Starter, script: &str, change: impl Fn(&mut Watch)) -> Finished {
    let mut spec = shell(starter, script);
    change(&mut spec.watch);
    run(starter, &spec)
}

#[test]
fn wall_time() {
    for starter in starters() {
        let finished = with(starter, "sleep 7100011", |watch| watch.wall_time_ms = Some(150));
        let (exit, stopped, usage) = finished.ended();
        assert_eq!((exit, stopped), (Exit::Signal(9), Some(Stop::WallTime)));
        assert!((150..2000).contains(&usage.wall_ms), "{usage:?}");
    }
}

#[test]
fn cpu_time_of_all_processes_together() {
    for starter in starters() {
        let spin = "i=0; while :; do i=$((i+1)); done";
        let one = with(starter, spin, |watch| watch.cpu_time_ms = Some(300));
        assert_eq!(one.ended().1, Some(Stop::CpuTime));
        let (_, stopped, usage) =
            with(starter, &format!("({spin}) & ({spin}) & wait"), |watch| watch.cpu_time_ms = Some(300)).ended();
        assert_eq!(stopped, Some(Stop::CpuTime));
        assert!((280..900).contains(&usage.cpu_ms), "{usage:?}");
        // Children that have ended count.
        let many = "while :; do i=0; (while [ $i -lt 20000 ]; do i=$((i+1)); done); done";
        assert_eq!(with(starter, many, |watch| watch.cpu_time_ms = Some(300)).ended().1, Some(Stop::CpuTime));
        // Sleeping is free.
        assert_eq!(with(starter, "sleep 0.5", |watch| watch.cpu_time_ms = Some(300)).ended().1, None);
    }
}

#[test]
fn memory_of_one_process() {
    for starter in starters() {
        let limit = |watch: &mut Watch| watch.memory = Some(200 << 20);
        let finished = with(starter, &filler(1000), limit);
        let (exit, stopped, usage) = finished.ended();
        assert_eq!((exit, stopped), (Exit::Signal(9), Some(Stop::Memory)), "{finished:?}");
        assert!(usage.peak_memory >= 200 << 20, "{usage:?}");
        assert!(!finished.text.contains("full"));
        let control = with(starter, &filler(100).replace("sleep 7100010", "1"), limit);
        assert_eq!(control.ended().1, None);
        assert!(control.text.contains("full"));
    }
}

#[test]
fn memory_of_many_small_processes() {
    for starter in starters() {
        let each = filler(20);
        let script = format!("for i in 1 2 3 4 5 6 7 8 9 10; do {each} & done; wait");
        let (_, stopped, _) = with(starter, &script, |watch| watch.memory = Some(150 << 20)).ended();
        assert_eq!(stopped, Some(Stop::Memory));
    }
}

#[test]
fn memory_shared_after_a_fork_counts_once() {
    for starter in starters() {
        let script = "perl -e 'my $kept = \"x\" x (60 << 20); for (1..6) { if (!fork) { select undef, undef, undef, 0.4; exit } } 1 while wait > 0'";
        let finished = with(starter, script, |watch| watch.memory = Some(200 << 20));
        assert_eq!((finished.ended().0, finished.ended().1), (Exit::Code(0), None), "{finished:?}");
    }
}

#[test]
fn memory_in_a_tmpfs() {
    for starter in starters() {
        let script = "head -c 12M /dev/full > /tmp/file; sleep 7100012";
        let (_, stopped, usage) = with(starter, script, |watch| watch.memory = Some(12 << 20)).ended();
        assert_eq!(stopped, Some(Stop::Memory), "{usage:?}");
        let control = "head -c 12M /dev/full > /tmp/file; sleep 0.3";
        assert_eq!(with(starter, control, |watch| watch.memory = Some(40 << 20)).ended().1, None);
    }
}

#[test]
fn a_mapped_file_in_a_tmpfs_counts_once() {
    for starter in starters() {
        // Mapped and touched by a program that everybody has: grep maps nothing, so perl reads through mmap of PerlIO.
        let script = "head -c 14M /dev/full > /tmp/file; perl -e 'open my $f, \"<:mmap\", \"/tmp/file\" or die; local $/; my $n = length <$f>; undef $n; select undef, undef, undef, 0.4'";
        let finished = with(starter, script, |watch| watch.memory = Some(60 << 20));
        assert_eq!(finished.ended().1, None, "{finished:?}");
    }
}

/// Takes so many locks on a file, one byte each, from the end: the kernel finds the place of each at once.
fn locker(locks: u32) -> String {
    let lock = "pack(\"s s x4 q q i x4\", 1, 0, 2 * $_, 1, 0)";
    format!(
        "perl -e 'open F, \"+>\", \"/tmp/locked\" or die; for (reverse 1..{locks}) {{ fcntl F, 6, {lock} or die }} \
         print \"held\\n\"; sleep 3'"
    )
}

#[test]
fn locks_on_files_are_counted() {
    for starter in starters() {
        let finished = run(starter, &shell(starter, &locker(40_000)));
        assert_eq!(finished.ended().1, Some(Stop::FileLocks), "{finished:?}");
        let finished = run(starter, &shell(starter, &locker(5_000)));
        assert_eq!((finished.ended().0, finished.ended().1), (Exit::Code(0), None), "{finished:?}");
        assert!(finished.text.contains("held"), "{finished:?}");
    }
}

#[test]
fn mappings_are_memory() {
    for starter in starters() {
        // Forks of a process with 60,000 mappings of one page each, of which none is ever touched: perl's syscall(2) is mmap,
        // with two protections in turn, so that the kernel cannot join them.
        let script = "perl -e 'for (1..60000) { syscall(MMAP, 0, 4096, $_ % 2, 0x22, -1, 0) } for (1..7) { fork or last } print \"made\\n\"; sleep 50'"
            .replace("MMAP", &nix::libc::SYS_mmap.to_string());
        let finished = with(starter, &script, |watch| watch.memory = Some(90 << 20));
        assert_eq!(finished.ended().1, Some(Stop::Memory), "{finished:?}");
        let script = script.replace("sleep 50", "sleep 1");
        let finished = with(starter, &script, |watch| watch.memory = Some(600 << 20));
        assert_eq!(finished.ended().1, None, "{finished:?}");
    }
}

/// Children of perl, each of which does this and waits.
fn children(number: u32, act: &str, seconds: u32) -> String {
    format!(
        "perl -MPOSIX -e 'for (1..{number}) {{ if (!fork) {{ {act}; sleep {seconds}; exit }} }} 1 while wait > 0; print \"whole\\n\"'"
    )
}

#[test]
fn pipes_are_memory() {
    // 960 of them, of 64 KiB each: with a name, and without.
    let pipes = "for (1..60) { pipe my $r, my $w or die; push @kept, $r, $w }";
    let fifos = "for (1..60) { my $n = \"/tmp/$_-$$\"; mkfifo $n, 0600 or die $!; sysopen my $f, $n, O_RDWR or die $!; push @kept, $f }";
    for starter in starters() {
        let among = |act: &str, seconds| {
            let mut spec = shell(starter, &children(16, act, seconds));
            let Container::Builtin(builtin) = &mut spec.container else { unreachable!() };
            for mount in &mut builtin.mounts {
                if let Mount::Tmpfs { to, inodes, .. } = mount
                    && to.as_path() == Path::new("/tmp")
                {
                    *inodes = 2000;
                }
            }
            spec.watch.tmpfs = vec!["/tmp".into(), "/dev/shm".into()];
            spec.watch.memory = Some(70 << 20);
            run(starter, &spec)
        };
        for act in [pipes, fifos] {
            let finished = among(act, 50);
            assert_eq!(finished.ended().1, Some(Stop::Memory), "{finished:?}");
        }
        let finished = among("1", 2);
        assert_eq!((finished.ended().1, finished.text.as_str()), (None, "whole\n"), "{finished:?}");
    }
}

#[test]
fn watched_events_are_memory() {
    // An epoll instance knows a file by its descriptor's number too, and forgets it only when nobody has the file open: each of
    // 15 instances watches 15 files, each under 60 numbers that it had for a moment. 13,500 in each of 16 processes.
    let event = if cfg!(target_arch = "x86_64") { "pack(\"LQ\", 1, 0)" } else { "pack(\"Lx4Q\", 1, 0)" };
    let held = format!(
        "for (1..15) {{ pipe my $r, my $w; push @w, $w; push @r, $r; push @e, syscall({}, 0) }} my $event = {event}; \
         for my $r (@r) {{ for my $n (60..119) {{ POSIX::dup2(fileno $r, $n) or die $!; \
         for my $e (@e) {{ syscall({}, $e, 1, $n, $event) == 0 or die $! }} }} }} POSIX::close($_) for 60..119",
        nix::libc::SYS_epoll_create1,
        nix::libc::SYS_epoll_ctl
    );
    let closed = format!("{held}; @w = @r = ()");
    for starter in starters() {
        // The pipes are 15 MiB.
        let limit = |watch: &mut Watch| watch.memory = Some(70 << 20);
        let finished = with(starter, &children(16, &held, 50), limit);
        assert_eq!(finished.ended().1, Some(Stop::Memory), "{finished:?}");
        // When the files are closed, nothing is watched any more.
        let one_by_one =
            children(16, &closed, 2).replace("{ if (!fork)", "{ select undef, undef, undef, 0.4; if (!fork)");
        let finished = with(starter, &one_by_one, limit);
        assert_eq!((finished.ended().1, finished.text.as_str()), (None, "whole\n"), "{finished:?}");
    }
}

#[test]
fn a_full_tmpfs() {
    for starter in starters() {
        let finished = run(starter, &shell(starter, "head -c 20M /dev/full > /tmp/file; stat -c %s /tmp/file"));
        assert!(finished.text.contains("No space left on device"), "{}", finished.text);
        assert!(finished.text.ends_with("16777216\n"), "{}", finished.text);
        // /tmp is the first of those that are watched.
        assert_eq!(finished.ended().2.reached.full_tmpfs, 1, "{finished:?}");
        let script = "i=0; while : > /tmp/$i && [ $i -lt 200 ]; do i=$((i+1)); done; echo made $i";
        let finished = run(starter, &shell(starter, script));
        assert!(finished.text.contains("No space left on device"), "{}", finished.text);
        assert_eq!(finished.ended().2.reached.full_tmpfs, 1, "{finished:?}");
        // Seen while it was full, though it is not at the end. What has room for one byte more never was.
        let while_it_ran = "head -c 20M /dev/full > /tmp/file; sleep 1; rm /tmp/file";
        assert_eq!(run(starter, &shell(starter, while_it_ran)).ended().2.reached.full_tmpfs, 1);
        let nearly = "head -c 15M /dev/full > /tmp/file; sleep 1";
        assert_eq!(run(starter, &shell(starter, nearly)).ended().2.reached.full_tmpfs, 0);
    }
}

#[test]
fn a_fork_bomb() {
    for starter in starters() {
        let bomb = "perl -e 'while (1) { fork }' 7100013";
        let mut spec = shell(starter, bomb);
        spec.watch.wall_time_ms = Some(500);
        let finished = run(starter, &spec);
        assert_eq!(finished.ended().1, Some(Stop::WallTime));
        assert!(!is_running("7100013"));
        // The next one is not hindered.
        assert_eq!(run(starter, &shell(starter, "exit 0")).ended().0, Exit::Code(0));
    }
}

#[test]
fn processes_are_counted_in_the_jail_alone() {
    for starter in starters() {
        let script = "perl -e '$| = 1; my $n = 0; while (defined(my $pid = fork)) { if (!$pid) { sleep 7100014 } $n++ } print \"$n\\n\"; kill 9, -1'";
        let finished = run(starter, &shell(starter, script));
        let made: u32 = finished.text.trim().parse().unwrap();
        assert!((25..30).contains(&made), "{made}");
    }
}

#[test]
fn pipes_held_by_a_grandchild_are_not_waited_for() {
    for starter in starters() {
        let finished = run(starter, &shell(starter, "(sleep 7100015 <&0 >&3 2>&1 &) ; echo done >&2"));
        assert_eq!((finished.ended().0, finished.text.as_str()), (Exit::Code(0), "done\n"));
    }
}

/// Not a test: prints how long after a limit on time the whole task was gone, and how long after a process of it had asked
/// for the memory that was too much.
#[test]
#[ignore = "a measurement"]
fn how_late_a_limit_is() {
    let sorted = |mut late: Vec<u64>| {
        late.sort_unstable();
        late
    };
    for starter in starters() {
        // It says how much time has gone by since it began, which is some milliseconds after it was executed.
        let beats = "perl -MTime::HiRes=time -e 'my $t = time; while (1) { syswrite STDOUT, sprintf(\"%d\\n\", 1000 * (time - $t)); select undef, undef, undef, 0.0005 }'";
        let wall = |_| {
            let finished = with(starter, beats, |watch| watch.wall_time_ms = Some(150));
            let last: u64 = finished.text.lines().rev().find_map(|line| line.parse().ok()).unwrap_or(0);
            (last.saturating_sub(150), finished.ended().2.wall_ms.saturating_sub(150))
        };
        let (last, gone): (Vec<u64>, Vec<u64>) = (0..40).map(wall).unzip();
        println!("{starter:?}, wall time, ms until it ran no more: {:?}", sorted(last));
        println!("{starter:?}, wall time, ms until all was gone:   {:?}", sorted(gone));
        let cpu = |_| {
            let spin = with(starter, "while :; do :; done", |watch| watch.cpu_time_ms = Some(200));
            assert_eq!(spin.ended().1, Some(Stop::CpuTime));
            spin.ended().2.cpu_ms.saturating_sub(200)
        };
        println!("{starter:?}, CPU time, ms late: {:?}", sorted((0..20).map(cpu).collect()));
        // It says how much time has gone by since it had what it may have.
        let script = "perl -MTime::HiRes=time -e 'my @k; push @k, \"x\" x (1 << 20) for 1..190; my $t = time; \
                      while (1) { push @k, \"x\" x (1 << 20) if @k < 400; syswrite STDOUT, sprintf(\"%d\\n\", 1000 * (time - $t)) }'";
        let memory = |_| {
            let finished = with(starter, script, |watch| watch.memory = Some(200 << 20));
            assert_eq!(finished.ended().1, Some(Stop::Memory));
            finished.text.lines().last().and_then(|line| line.parse().ok()).unwrap_or(0)
        };
        println!("{starter:?}, memory, ms late at most: {:?}", sorted((0..20).map(memory).collect()));
    }
}

/// Not a test: prints by how much a task that fills memory as fast as C can gets over its limit.
#[test]
#[ignore = "a measurement"]
fn how_far_a_memory_bomb_gets() {
    // A dot for each 4 MiB that it has touched.
    let source = "#include <stdlib.h>\n#include <unistd.h>\nint main(void) { for (;;) { volatile char *p = malloc(1 << 22); if (p) { \
                  for (long i = 0; i < 1 << 22; i += 4096) p[i] = 1; write(1, \".\", 1); } } }";
    let folder = program().parent().unwrap().join("bomb");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("bomb.c"), source).unwrap();
    let compiled = std::process::Command::new("cc")
        .args(["-O2", "-o"])
        .arg(folder.join("bomb"))
        .arg(folder.join("bomb.c"))
        .status();
    assert!(compiled.unwrap().success(), "needs a C compiler");
    for starter in starters() {
        for limit in [256_u64 << 20, 1 << 30, 4 << 30] {
            for cpus in [vec![0], vec![]] {
                let script = if cpus.is_empty() { "/bomb & /bomb" } else { "exec /bomb" };
                let mut spec = shell(starter, script);
                let Container::Builtin(builtin) = &mut spec.container else { unreachable!() };
                builtin.mounts.push(Mount::Bind { from: folder.join("bomb"), to: "/bomb".into(), writable: false });
                spec.confinement.landlock.as_mut().unwrap().read_execute.push("/bomb".into());
                spec.confinement.cpus = cpus;
                spec.watch.memory = Some(limit);
                let over: Vec<i64> = (0..5)
                    .map(|_| {
                        let finished = run(starter, &spec);
                        assert_eq!(finished.ended().1, Some(Stop::Memory));
                        i64::try_from(finished.text.len()).unwrap() * 4 - (limit.cast_signed() >> 20)
                    })
                    .collect();
                println!("{starter:?}, limit {} MiB, {script}: over by {over:?} MiB", limit >> 20);
            }
        }
    }
}
