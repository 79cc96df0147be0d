//! Cases 68 to 84: the result and the protocol. Scenarios are in `results_forged` (what a task says) and `results_scenarios`
//! (what is around it).

use super::{results_forged as forged, results_scenarios as scenarios};
use crate::{
    case::{Act, Case, Outcome::*},
    world::{Driver, Place},
};

pub(super) fn cases() -> Vec<Case> {
    [results(), tasks(), sandboxes()].into_iter().flatten().collect()
}

fn results() -> Vec<Case> {
    vec![
        Case {
            acts: no_result_file,
            scenario: Some(scenarios::output_file),
            known: "judge0 CVE-2024-28185, 28189, 29021",
            gets: "no path is shared; `-o` replaces a link only with `--force`, and follows none (hard link, FIFO, socket, folder in one place: nothing of the sandbox takes part)",
            ..Case::new(68, Nothing, "put a link, FIFO, socket or folder in the result's place", "output, filesystem")
        },
        Case {
            scenario: Some(forged::survivor),
            gets: "the result that R wrote, or a refusal",
            ..Case::new(69, Nothing, "change the result after R has ended", "output, processes")
        },
        Case {
            scenario: Some(forged::large),
            gets: "refused: the limit and its value; compressed (gzip, bzip2, xz): refused as it is",
            ..Case::new(70, Denied, "send a result over the limit, or one that grows when it is decompressed", "output")
        },
        Case {
            scenario: Some(forged::deep),
            gets: "refused before any R reads it, not saved",
            ..Case::new(71, Denied, "end the client's R by a result of 3,000,000 nested lists", "output")
        },
        Case {
            scenario: Some(forged::promise),
            known: "R CVE-2024-27322",
            gets: "a promise as a value is refused; promises, active bindings, code within are named",
            ..Case::new(72, Denied, "have code run when the client reads the result", "output")
        },
        Case {
            scenario: Some(forged::conditions),
            gets: "plain text, made in a sandbox",
            ..Case::new(73, Nothing, "have the client call methods of conditions", "output, filesystem")
        },
        Case {
            scenario: Some(forged::printed),
            gets: "text",
            ..Case::new(74, Nothing, "print status lines, frames, results of its own making", "output")
        },
        Case {
            scenario: Some(forged::frames),
            gets: "refused; through real peers: `tests/e2e/forged.rs`; frames, digests, tickets, stalls between them: `tests/it/transfer_hostile.rs`",
            ..Case::new(
                75,
                Denied,
                "return another future's result, two, half of one, one with more behind it",
                "output",
            )
        },
        Case {
            scenario: Some(scenarios::names),
            known: "CVE-2024-32462",
            gets: "refused before it runs (names of files in one place: nothing of the sandbox takes part); such lines on a real board: `tests/e2e/forged.rs`",
            ..Case::new(76, Denied, "be named `../..`, with line ends, escapes, 4 KiB", "output")
        },
    ]
}

fn tasks() -> Vec<Case> {
    vec![
        Case {
            scenario: Some(scenarios::after_another),
            gets: "a new process in new file systems",
            ..Case::new(
                77,
                Nothing,
                "find what the task before left: variables, options, files, packages",
                "filesystem, processes, ipc",
            )
        },
        Case {
            scenario: Some(scenarios::beside_another),
            gets: "nothing of it",
            ..Case::new(78, Nothing, "see a task that runs at the same time", "filesystem, processes, ipc, network")
        },
        Case {
            scenario: Some(forged::endings),
            gets: "an error that says how it ended, from the kernel",
            ..Case::new(
                79,
                Denied,
                "pretend success: a result and then a crash, `quit()`, exit statuses of signals",
                "output",
            )
        },
        Case {
            scenario: Some(scenarios::evil_future),
            known: "R CVE-2024-27322",
            gets: "it is read in the sandbox and nowhere else",
            ..Case::new(80, Nothing, "run code when the worker reads the future", "filesystem, processes")
        },
        Case {
            scenario: Some(scenarios::beside_another),
            gets: "every process dies with it, no file is left",
            ..Case::new(81, Nothing, "outlive a supervisor that is killed (SIGKILL)", "processes")
        },
    ]
}

fn sandboxes() -> Vec<Case> {
    vec![
        Case {
            scenario: Some(scenarios::layer_missing),
            gets: "nothing is run, exit 3, the layer named; each layer taken away: `tests/sabotage/kernel.rs` whatever_the_kernel_lacks_nothing_is_evaluated_and_the_layer_is_named",
            ..Case::new(82, Denied, "run where a layer is missing", "all")
        },
        Case {
            scenario: Some(scenarios::half_way),
            gets: "nothing is run, exit 3; at every point: `tests/sabotage/kernel.rs` descriptors_that_run_out_at_any_point_stop_everything, `tests/sabotage/resources.rs`, `jail/tests/it/refusals.rs`",
            ..Case::new(83, Denied, "run where the sandbox fails half-way (EMFILE)", "all")
        },
        Case {
            acts: later_rights,
            scenario: Some(scenarios::doctor),
            gets: "what is in force is reported, and is the kernel's; older kernels: `tests/sabotage/kernel.rs` an_older_landlock_is_used_as_far_as_it_goes",
            ..Case::new(84, Nothing, "use what an older Landlock (ABI 1 to 3) does not hold", "filesystem")
        },
    ]
}

/// What an older Landlock does not hold is held by other layers too: by a read-only mount, a mount of its own, the filter. (TCP is
/// case 62, abstract sockets are case 14, signals case 25.)
fn later_rights(place: &Place<'_>) -> Vec<Act> {
    let file = format!("{}/data.csv", place.world.shared().display());
    let (from, to) = match place.driver {
        Driver::None => {
            let folder = place.world.sacrifice().display().to_string();
            (format!("{folder}/inside/file"), format!("{folder}/renamed"))
        }
        Driver::Jail | Driver::Bubblewrap => {
            ("/tmp/later".to_owned(), format!("{}/later", place.world.shared().display()))
        }
    };
    let mut acts = vec![
        // ABI 2: renaming and linking into another folder. Making the file is no attack.
        Act::native(format!("open\t{from}\tc"), "ok").stated("no attack: what the next act is about"),
        Act::native(format!("call\trename\ts:{from}\ts:{to}"), "EXDEV|EROFS|EACCES").bare("ok"),
        Act::native(format!("call\tlink\ts:{file}\ts:{to}.linked"), "EXDEV|EROFS|EACCES").bare("ok|EEXIST"),
        // ABI 3: truncation. ABI 5: ioctl on devices (RNDADDTOENTCNT, which only root may).
        Act::native(format!("call\ttruncate\ts:{file}\t4"), "EROFS|EACCES").bare("ok"),
        Act::native("call\tioctl\tfd:/dev/null\t0x540b\t0", "EPERM|EACCES").bare("ENOTTY"),
    ];
    if scenarios::landlock_abi(place) >= 5 {
        // FIONREAD, which the filter allows: on a device, Landlock alone denies it.
        acts.push(Act::native("call\tioctl\tfd:/dev/null\t0x541b\t0", "EACCES").bare("ENOTTY"));
        acts.push(Act::native("call\tioctl\tfd:/dev/urandom\t0x541b\t0", "EACCES").bare("ENOTTY|EINVAL"));
    }
    acts
}

/// Nothing in the task is a path that anybody collects a result from.
fn no_result_file(_: &Place<'_>) -> Vec<Act> {
    let spool = "any(grepl('result|spool|FutureResult', list.files(c('/run', '/tmp', '/home'), recursive = TRUE, all.files = TRUE)))";
    let pipe = "substr(Sys.readlink('/proc/self/fd/3'), 1, 5)";
    vec![
        Act::r(spool, "FALSE").stated("there is no such file without a sandbox either"),
        Act::r(pipe, "pipe:").stated("it is a pipe without a sandbox too"),
        Act::native("call\tunlink\ts:/proc/self/fd/3", "EPERM | EACCES | ENOENT | EROFS")
            .stated("nobody can remove it"),
    ]
}
