//! What the tasks of a soak do, good and bad, as shell scripts: the supervisor does not care what language a future is in, and
//! a shell starts in a hundredth of R's time. Every eighth task is a real future for the real R all the same.
//!
//! The scripts are run by [`RInTwoMinds`], a folder that looks like an installation of R: its `R` is a shell script that runs
//! the futures of this soak with the shell and all others with the real R.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use p2p_worker::runner::RInstallation;

use crate::Failure;

/// One kind of task.
#[derive(Debug)]
pub(crate) struct Kind {
    /// For the table.
    pub(crate) name: &'static str,
    /// How many of a hundred tasks are of this kind.
    pub(crate) share: usize,
    /// What its client does.
    pub(crate) client: ClientDoes,
    /// The shell script; the frames pipe is its fd 3.
    script: &'static str,
    /// What must be in the result, wherever it comes from.
    pub(crate) expected: &'static str,
}

/// What the client of a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientDoes {
    /// It waits for the result.
    Wait,
    /// It waits for the result of a real future.
    WaitForR,
    /// It takes the future back when the task runs.
    Cancel,
    /// It is killed when the task runs.
    Vanish,
}
use ClientDoes::{Cancel, Vanish, Wait, WaitForR};

/// The task runs (a frame `B`), and its result follows.
const BEGIN: &str = "printf 'B\\0\\0\\0\\0' >&3\n";
const FINISH: &str = "printf 'R\\377\\377\\377\\377fine' >&3\n";

/// All kinds. The limits that they meet are those of [`PROFILE`].
pub(crate) const KINDS: [Kind; 16] = [
    kind("a result at once", 20, Wait, "", "fine"),
    kind("a real future, by R", 12, WaitForR, "", ""),
    kind("an error, no result", 8, Wait, "echo 'it broke' >&2; exit 3\n", "it broke"),
    kind("kills itself", 6, Wait, "kill -9 $$\n", "SIGKILL"),
    kind("kills all that it can", 5, Wait, "kill -9 -1\n", ""),
    kind("leaves daemons behind", 8, Wait, DAEMONS, "fine"),
    kind("a fork bomb", 5, Wait, "f() { f | f & }; f 2>/dev/null; wait\n", ""),
    kind("a memory bomb", 5, Wait, "exec perl -e 'push @a, \"x\" x 1e6 while 1'\n", "limit of"),
    kind("memory bombs in many processes", 3, Wait, MANY_BOMBS, "limit of"),
    kind("fills its scratch space", 5, Wait, FILES, "fine"),
    kind("a flood of output", 5, Wait, "yes | head -c 30000000\n", "fine"),
    kind("a flood of frames", 4, Wait, "cat /dev/urandom >&3\n", "frame"),
    kind("an endless loop", 2, Wait, "while :; do :; done\n", "time limit"),
    kind("sleeps beyond its time", 3, Wait, "sleep 1000\n", "time limit"),
    kind("cancelled by its client", 7, Cancel, "setsid sleep 1000 & sleep 1000\n", ""),
    kind("its client is killed", 2, Vanish, "setsid sleep 1000 & sleep 1000\n", ""),
];

const DAEMONS: &str =
    "for i in 1 2 3; do setsid sh -c 'trap \"\" TERM HUP INT; sleep 1000 & sleep 1000' </dev/null & done\n";
const MANY_BOMBS: &str = "for i in 1 2 3 4; do perl -e 'while (1) { push @a, \"x\" x 1e5; select undef, undef, undef, 0.002 }' & done; wait\n";
const FILES: &str = "cat /dev/urandom >/tmp/big 2>/dev/null; i=0; while [ $i -lt 700 ]; do true >/home/task/$i || break; \
                     i=$((i + 1)); done 2>/dev/null; ln -s big /dev/shm/link\n";

/// Like strict, with limits that can be met in seconds.
pub(crate) const PROFILE: &str = "inherits = \"strict\"\n\n[limits]\nmemory = \"300 MiB\"\naddress_space = \"800 MiB\"\n\
                                  processes = 32\nwall_time = \"10 s\"\ncpu_time = \"2 s\"\n\n[scratch]\n\
                                  \"/tmp\" = { size = \"16 MiB\", files = 500, why = \"soak\" }\n\
                                  \"/home/task\" = { size = \"16 MiB\", files = 500, why = \"soak\" }\n\
                                  \"/dev/shm\" = { size = \"16 MiB\", files = 500, why = \"soak\" }\n";

const fn kind(
    name: &'static str,
    share: usize,
    client: ClientDoes,
    script: &'static str,
    expected: &'static str,
) -> Kind {
    Kind { name, share, client, script, expected }
}

impl Kind {
    /// The bytes of the future.
    pub(crate) fn payload(&self) -> String {
        format!("{BEGIN}{}{FINISH}", self.script)
    }
}

/// The kind of every task of a soak, in an order that mixes them and is the same every time.
pub(crate) fn mixed(tasks: usize) -> Vec<&'static Kind> {
    let hundred: Vec<&Kind> = KINDS.iter().flat_map(|kind| std::iter::repeat_n(kind, kind.share)).collect();
    // 37 has no divisor in common with 100: every place is visited once in a hundred.
    (0..tasks).filter_map(|task| hundred.get(task * 37 % hundred.len()).copied()).collect()
}

/// A folder that looks like an installation of R.
pub(crate) struct RInTwoMinds {
    /// To be put before the path.
    pub(crate) path: PathBuf,
}

impl RInTwoMinds {
    /// Made in this folder. The futures whose name begins with `prefix` are shell scripts.
    pub(crate) fn new(folder: &Path, prefix: &str) -> Result<Self, Failure> {
        let real = RInstallation::find()?.with_future()?;
        let (path, home) = (folder.join("R/path"), folder.join("R/home"));
        for package in ["base", "future"] {
            let library = home.join("library").join(package);
            fs::create_dir_all(&library)?;
            let version = if package == "base" { Some(real.version.as_str()) } else { real.future.as_deref() };
            fs::write(library.join("DESCRIPTION"), format!("Version: {}\n", version.unwrap_or("0")))?;
        }
        for made in [home.join("bin/exec"), home.join("lib"), path.clone()] {
            fs::create_dir_all(made)?;
        }
        program(&path.join("R"), &format!("echo {}\n", home.display()))?;
        let libraries: Vec<_> = real.libraries.iter().map(|library| library.display().to_string()).collect();
        let [share, include, doc, real] =
            [&real.share, &real.include, &real.doc, &real.home].map(|path| path.display().to_string());
        let code = format!(
            "[ -z \"$P2P_AHEAD\" ] || {{ read -r P2P_WHOLE P2P_FUTURE; unset P2P_AHEAD; export P2P_WHOLE P2P_FUTURE; }}\n\
             case $P2P_FUTURE in {prefix}*) exec /bin/sh -s ;; esac\n\
             export R_HOME={real} LD_LIBRARY_PATH={real}/lib R_LIBS_SITE={} R_SHARE_DIR={share} \
             R_INCLUDE_DIR={include} R_DOC_DIR={doc}\nexec {real}/bin/exec/R \"$@\"\n",
            libraries.join(":"),
        );
        program(&home.join("bin/exec/R"), &code)?;
        Ok(Self { path })
    }
}

fn program(path: &Path, code: &str) -> Result<(), Failure> {
    fs::write(path, format!("#!/bin/sh\n{code}"))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}
