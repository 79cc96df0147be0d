//! The command line and the whole environment of the R process in the sandbox: a pure function.
//!
//! R is executed directly, without its front end, a shell script that starts half a dozen processes. Nothing is read at
//! start that a task or a user could have planted: no profile, no environment file but R's own, no saved workspace, no
//! private library; the environment is built from nothing.

use std::path::{Path, PathBuf};

use p2p_jail::spec::Command;

use crate::{ids::FutureId, runner::RInstallation, sandbox::LaunchPlan};

/// The R script that the task runs, see its first lines. The planner shows it to the task at [`SCRIPT_PATH`], as a file
/// of its own, so that no path of the host is shared for it.
pub const RUNNER_SCRIPT: &str = include_str!("r/runner.R");

/// Where the script lies in a container.
pub const SCRIPT_PATH: &str = "/run/p2p-worker/runner.R";

/// What the R process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// fd 0: the RDS of a future. Result: the RDS of its `FutureResult`.
    Run,
    /// fd 0: R code as UTF-8. Result: the RDS of a future that evaluates it and prints what `Rscript -e` would print. Code
    /// that cannot be parsed: no result, exit status 1, and the reason as text.
    Make,
    /// fd 0: the RDS of a future. Result: its name, as text. Bytes that are no future: no result, exit status 1, and the
    /// reason as text.
    Name,
    /// fd 0: the RDS of a `FutureResult`. Result: what `Rscript` would have printed, for [`crate::runner::replay`].
    Show,
}

impl Mode {
    fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Make => "make",
            Self::Name => "name",
            Self::Show => "show",
        }
    }
}

/// One R process to be started.
#[derive(Debug, Clone)]
pub struct Job<'a> {
    /// What it is for.
    pub mode: Mode,
    /// The future's name as it was announced. Another future is refused; a made one is given this name.
    pub future: &'a FutureId,
    /// Where [`RUNNER_SCRIPT`] lies, as the task sees it.
    pub script: &'a Path,
    /// The task's home and working directory, as it sees it.
    pub home: &'a Path,
    /// The task's folder for temporary files, as it sees it.
    pub temporary: &'a Path,
    /// The task's memory limit in bytes. R itself stops short of it, with an error that the user's code can handle.
    pub memory: Option<u64>,
    /// The time zone by name, `UTC` for instance.
    pub time_zone: &'a str,
}

/// Libraries that would start a thread per core of the machine.
const ONE_THREAD: [&str; 10] = [
    "BLIS_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "MC_CORES",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "R_DATATABLE_NUM_THREADS",
    "R_PARALLELLY_AVAILABLECORES_FALLBACK",
    "RCPP_PARALLEL_NUM_THREADS",
];

/// R needs some room to say that it has none.
const LEAST_HEAP_MIB: u64 = 64;

/// The R process for a job, under this installation.
#[must_use]
pub fn command(r: &RInstallation, job: &Job<'_>) -> Command {
    let path = |path: &Path| path.display().to_string();
    let argv = vec![
        path(&r.home.join("bin/exec/R")),
        "--vanilla".to_owned(),
        "--no-echo".to_owned(),
        format!("--file={}", job.script.display()),
        "--args".to_owned(),
        job.mode.as_str().to_owned(),
    ];
    let mut environment: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: String| environment.push((name.to_owned(), value));
    set("HOME", path(job.home));
    set("LANG", "C.UTF-8".to_owned());
    set("LD_LIBRARY_PATH", path(&r.home.join("lib")));
    set(FUTURE, job.future.to_string());
    set("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned());
    // The script switches the compiler on when it comes to the user's code.
    set("R_ENABLE_JIT", "0".to_owned());
    set("R_HOME", path(&r.home));
    set("R_LIBS_SITE", r.libraries.iter().map(|library| path(library)).collect::<Vec<_>>().join(":"));
    // R's own word for "none" (?libPaths).
    set("R_LIBS_USER", "NULL".to_owned());
    for (name, folder) in [("R_DOC_DIR", &r.doc), ("R_INCLUDE_DIR", &r.include), ("R_SHARE_DIR", &r.share)] {
        set(name, path(folder));
    }
    if let Some(memory) = job.memory {
        set("R_MAX_VSIZE", format!("{}M", heap_mib(memory)));
    }
    set("TMPDIR", path(job.temporary));
    set("TZ", job.time_zone.to_owned());
    ONE_THREAD.iter().for_each(|name| set(name, "1".to_owned()));
    Command { argv, environment, directory: PathBuf::from(job.home) }
}

/// The same for an R that is started before its future is known: it waits for [`first_line`] on its fd 0.
pub(super) fn ahead_of_its_future(plan: &LaunchPlan) -> LaunchPlan {
    let mut plan = plan.clone();
    plan.spec.watch.waits = true;
    let environment = &mut plan.spec.command.environment;
    environment.retain(|(name, _)| name != FUTURE);
    environment.push((AHEAD.to_owned(), YES.to_owned()));
    plan
}

/// What goes before the bytes of a future to an R that waits for it: what is otherwise in its environment.
pub(super) fn first_line(future: &FutureId, whole: bool) -> String {
    format!("{} {future}\n", if whole { YES } else { "no" })
}

/// What goes before the bytes of a future whose name is not known yet: it follows them, see [`last_line`].
pub(super) const FED_AHEAD: &str = "early\n";

/// What goes after the bytes of a future that began with [`FED_AHEAD`]: a line of its own, whatever these bytes end with.
pub(super) fn last_line(future: &FutureId) -> String {
    format!("\n{future}\n")
}

/// The plan with the word for an input that R reads whole before it makes an object of it.
pub(super) fn reading_whole(plan: &LaunchPlan) -> LaunchPlan {
    let mut plan = plan.clone();
    plan.spec.command.environment.push((WHOLE.to_owned(), YES.to_owned()));
    plan
}

/// The variables by which the script is told of its input: the future's name, that it is to be read whole, and that both are in
/// its first line.
const FUTURE: &str = "P2P_FUTURE";
const WHOLE: &str = "P2P_WHOLE";
const AHEAD: &str = "P2P_AHEAD";
/// The one by which it is told what to write behind its result.
const ENDING: &str = "P2P_ENDING";
const YES: &str = "yes";

/// What R writes behind a result: a zero, which no string of R's has, and a word that nobody knows beforehand. Whoever sees it need not
/// wait for R's end.
#[must_use]
pub(super) fn ending(word: &str) -> Vec<u8> {
    [&[0], word.as_bytes()].concat()
}

/// The variable that has R write [`ending`].
pub(super) fn to_end_with(word: &str) -> (String, String) {
    (ENDING.to_owned(), word.to_owned())
}

/// What R writes behind its result under this plan.
pub(super) fn ending_of(plan: &LaunchPlan) -> Option<Vec<u8>> {
    let environment = &plan.spec.command.environment;
    environment.iter().find(|(name, _)| name == ENDING).map(|(_, word)| ending(word))
}

/// Seven eighths of the memory: the rest is for R itself, its small objects and what it did not allocate through R.
pub(super) fn heap_mib(memory: u64) -> u64 {
    ((memory - memory / 8) >> 20).max(LEAST_HEAP_MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_built_from_nothing() {
        let r = RInstallation::debian_like();
        let future = "f-1".parse().unwrap();
        let job = Job {
            mode: Mode::Run,
            future: &future,
            script: Path::new(SCRIPT_PATH),
            home: Path::new("/home/task"),
            temporary: Path::new("/tmp"),
            memory: Some(2 << 30),
            time_zone: "UTC",
        };
        let Command { argv, environment, directory } = command(&r, &job);
        let flags = ["--vanilla", "--no-echo", "--file=/run/p2p-worker/runner.R", "--args", "run"];
        assert_eq!(argv.first().unwrap(), "/usr/lib/R/bin/exec/R");
        assert_eq!(argv[1..], flags);
        assert_eq!(directory, Path::new("/home/task"));
        let (threads, rest): (Vec<_>, Vec<_>) = environment.iter().partition(|(_, value)| value == "1");
        assert_eq!(threads.len(), ONE_THREAD.len());
        let rest: Vec<_> = rest.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            rest,
            [
                "HOME=/home/task",
                "LANG=C.UTF-8",
                "LD_LIBRARY_PATH=/usr/lib/R/lib",
                "P2P_FUTURE=f-1",
                "PATH=/usr/local/bin:/usr/bin:/bin",
                "R_ENABLE_JIT=0",
                "R_HOME=/usr/lib/R",
                "R_LIBS_SITE=/usr/local/lib/R/site-library:/usr/lib/R/site-library",
                "R_LIBS_USER=NULL",
                "R_DOC_DIR=/usr/share/R/doc",
                "R_INCLUDE_DIR=/usr/share/R/include",
                "R_SHARE_DIR=/usr/share/R/share",
                "R_MAX_VSIZE=1792M",
                "TMPDIR=/tmp",
                "TZ=UTC",
            ]
        );
    }

    #[test]
    fn an_r_that_waits_is_told_the_same_in_its_first_line() {
        let future = "f-1".parse().unwrap();
        assert_eq!([first_line(&future, true), first_line(&future, false)], ["yes f-1\n", "no f-1\n"]);
        assert_eq!(last_line(&future), "\nf-1\n");
    }

    #[test]
    fn r_keeps_a_minimum() {
        assert_eq!(heap_mib(0), 64);
        assert_eq!(heap_mib(u64::MAX), (u64::MAX - u64::MAX / 8) >> 20);
    }
}
