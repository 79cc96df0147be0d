//! What the tests of the runner stand on: an R, a jail around it, and questions that R itself answers.

use std::path::{Path, PathBuf};

use p2p_jail::spec::{Builtin, Command, Confinement, Container, Identity, Mount, Spec, Watch};
use p2p_worker::{
    ids::FutureId,
    runner::{self, AttemptEvent, Ended, Job, Mode, Outcome, RInstallation, RUNNER_SCRIPT, SCRIPT_PATH},
    sandbox::{LaunchPlan, Provenance},
    spool::Spooled,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Whom a task of root becomes.
pub(crate) const NOBODY: Identity = Identity { uid: 65534, gid: 65534 };

/// An R to test with, and the file system that it lives in.
pub(crate) struct World {
    pub(crate) r: RInstallation,
    pub(crate) root: PathBuf,
    pub(crate) scratch: tempfile::TempDir,
}

impl World {
    /// The machine's own R.
    pub(crate) fn here() -> Self {
        Self { r: RInstallation::find().unwrap(), root: "/".into(), scratch: tempfile::tempdir().unwrap() }
    }

    /// The newer R in the root file system that `scripts/test-root` makes.
    pub(crate) fn newer() -> Self {
        let root = std::env::var_os("P2P_TEST_ROOT").expect("P2P_TEST_ROOT must be set, see scripts/test-root");
        let root = PathBuf::from(root);
        Self { r: RInstallation::in_root(&root).unwrap(), root, scratch: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn mounts(&self) -> Vec<Mount> {
        let below = |path: &str| self.root.join(path.trim_start_matches('/'));
        let bind = |path: &str| Mount::Bind { from: below(path), to: path.into(), writable: false };
        let link = |name: &str| Mount::Symlink { target: format!("usr/{name}").into(), at: format!("/{name}").into() };
        let tmpfs = |to: &str| Mount::Tmpfs { to: to.into(), bytes: 64 << 20, inodes: 10_000 };
        let mut mounts = vec![bind("/usr"), bind("/etc/R")];
        // What the alternatives system of Debian puts between a program and its libraries (BLAS).
        mounts.push(bind("/etc/alternatives"));
        mounts.extend(["bin", "lib", "lib64"].map(link));
        mounts.extend([Mount::Proc { to: "/proc".into(), only_processes: true }, Mount::Devices { to: "/dev".into() }]);
        mounts.extend([tmpfs("/tmp"), tmpfs("/home/task")]);
        mounts.push(Mount::File { at: SCRIPT_PATH.into(), contents: RUNNER_SCRIPT.as_bytes().to_vec() });
        mounts
    }

    pub(crate) fn job(&self, mode: Mode, future: &FutureId) -> Command {
        let (script, home, temporary) = (Path::new(SCRIPT_PATH), Path::new("/home/task"), Path::new("/tmp"));
        runner::command(&self.r, &Job { mode, future, script, home, temporary, memory: None, time_zone: "UTC" })
    }

    pub(crate) fn plan(&self, command: Command) -> LaunchPlan {
        let builtin = Builtin {
            become_user: nix::unistd::Uid::effective().is_root().then_some(NOBODY),
            inside: Identity { uid: 1000, gid: 1000 },
            hostname: "task".into(),
            mounts: self.mounts(),
            uplink: None,
        };
        let watch = Watch { wall_time_ms: Some(60_000), ..Watch::default() };
        let confinement = Confinement { drop_capabilities: true, ..Confinement::default() };
        LaunchPlan {
            jail: env!("CARGO_BIN_EXE_p2p-jail").into(),
            spec: Spec { container: Container::Builtin(builtin), confinement, watch, control_group: None, command },
            root: "/".into(),
            max_result: 8 << 20,
            max_text: 64 * 1024,
            provenance: Provenance { driver: "jail".into(), profile: "test".into(), layers: Vec::new() },
        }
    }

    pub(crate) fn spool(&self, bytes: &[u8]) -> Spooled {
        Spooled::from_bytes(self.scratch.path(), bytes).unwrap()
    }

    pub(crate) async fn run(&self, plan: &LaunchPlan, input: &[u8], future: &FutureId) -> Outcome {
        let (events, _) = mpsc::channel(1);
        self.run_with(plan, input, future, CancellationToken::new(), events).await
    }

    pub(crate) async fn run_with(
        &self,
        plan: &LaunchPlan,
        input: &[u8],
        future: &FutureId,
        cancel: CancellationToken,
        events: mpsc::Sender<AttemptEvent>,
    ) -> Outcome {
        let input = self.spool(input);
        let outcome = runner::run(plan, &input, future, self.scratch.path(), cancel, events).await.unwrap();
        assert_eq!(outcome.result.digest().0, *blake3::hash(&bytes(&outcome)).as_bytes());
        outcome
    }

    /// Evaluates a future under this R.
    pub(crate) async fn evaluate(&self, input: &[u8], future: &FutureId) -> Outcome {
        self.run(&self.plan(self.job(Mode::Run, future)), input, future).await
    }

    /// Makes a future of R code with `future(..., lazy = TRUE)`, as this R would make it for a client.
    pub(crate) async fn future(&self, expression: &str, arguments: &str) -> (FutureId, Vec<u8>) {
        let code = format!(
            "f <- future::future({{ {expression} }}, lazy = TRUE{arguments})
             f$uuid <- if (length(f$uuid) > 1) c('0123456789abcdef0123456789abcdef', '7') else 'old-7'
             {SAVE}(serialize(f, NULL)); cat(paste(f$uuid, collapse = '-'))"
        );
        let outcome = self.r_code(&code, b"").await;
        assert_eq!(outcome.ended, Ended::Finished, "{}", outcome.text.for_log());
        let id = outcome.text.for_log().parse().unwrap();
        (id, bytes(&outcome))
    }

    /// Runs R code in the jail, without the runner's script.
    pub(crate) async fn r_code(&self, code: &str, input: &[u8]) -> Outcome {
        let future: FutureId = "code-1".parse().unwrap();
        let mut command = self.job(Mode::Run, &future);
        command.argv.truncate(3);
        command.argv.extend(["-e".to_owned(), code.to_owned()]);
        self.run(&self.plan(command), input, &future).await
    }

    /// Evaluates an expression and asks R whether `claims` hold of the result `r`.
    pub(crate) async fn check(&self, expression: &str, claims: &str) -> Outcome {
        let (id, future) = self.future(expression, "").await;
        let outcome = self.evaluate(&future, &id).await;
        assert_eq!(outcome.ended, Ended::Finished, "{expression}: {}", outcome.text.for_log());
        self.claim(&outcome, &id, claims).await;
        outcome
    }

    pub(crate) async fn claim(&self, outcome: &Outcome, id: &FutureId, claims: &str) {
        let code = format!(
            "r <- unserialize(gzcon(file('stdin', 'rb')))
             messages <- function() vapply(r$conditions, function(c) conditionMessage(c$condition), '')
             stopifnot(inherits(r, 'FutureResult'), identical(paste(r$uuid, collapse = '-'), '{id}'))
             stopifnot({claims})
             cat('all is well')"
        );
        let answer = self.r_code(&code, &bytes(outcome)).await.text.for_log();
        assert!(answer.ends_with("all is well"), "{answer}");
    }
}

/// A function of R that gives raw bytes as the task's result.
pub(crate) const SAVE: &str = "(function(bytes) {
    con <- file('/dev/fd/3', 'wb', raw = TRUE)
    writeBin(c(charToRaw('R'), as.raw(rep(255, 4)), bytes), con)
    invisible(close(con))
})";

pub(crate) fn bytes(outcome: &Outcome) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut outcome.result.reader(), &mut bytes).unwrap();
    bytes
}

pub(crate) fn recorded(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).unwrap()
}

/// The names of the recorded futures.
pub(crate) const RECORDED: [(&str, u32); 5] =
    [("value", 2), ("error", 5), ("output", 8), ("seed", 11), ("progress", 14)];

pub(crate) fn recorded_id(number: u32) -> FutureId {
    format!("44934a13689afc85802e5e095930b2c2-{number}").parse().unwrap()
}
