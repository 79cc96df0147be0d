//! What the demo shows, as data: futures with the values that they must have, and attacks with what must come of them.

use std::{path::Path, time::Duration};

/// An attack and what must be seen of it.
#[derive(Debug)]
pub(super) struct Attack {
    /// What is tried, for a person.
    pub(super) tried: &'static str,
    /// What stops it, for a person.
    pub(super) stopped_by: &'static str,
    /// The R code.
    pub(super) code: String,
    /// What the client must get.
    pub(super) expected: Expected,
}

/// What the client must get from an attack.
#[derive(Debug)]
pub(super) enum Expected {
    /// The code runs to its end and prints this.
    Prints(&'static str),
    /// The task is stopped and the client is told so, with this word in the reason.
    Stopped(&'static str),
}

/// R code and what it prints.
pub(super) const FUTURES: [(&str, &str); 4] = [
    ("6 * 7", "[1] 42"),
    ("x <- c(2, 4, 4, 4, 5, 5, 7, 9); sd(x) * sqrt(7 / 8)", "[1] 2"),
    ("round(unname(coef(lm(dist ~ speed, data = cars))), 2)", "[1] -17.58   3.93"),
    (
        "paste(\"R\", getRversion() >= \"4.0.0\", \"as\", Sys.info()[[\"user\"]], \"on\", Sys.info()[[\"nodename\"]])",
        "task",
    ),
];

/// One element of the parallel map: sleeps, then answers.
pub(super) fn element(i: u32, pause: Duration) -> (String, String) {
    (format!("Sys.sleep({}); {i}^2", pause.as_secs_f64()), format!("[1] {}", i * i))
}

/// The attacks: the two of future.p2p's front page, then what else a stranger would try. `home` is the owner's home
/// folder, `port` a TCP port of this machine that does answer, `marker` a number of seconds that no other process
/// sleeps.
pub(super) fn attacks(home: &Path, port: u16, marker: u32) -> Vec<Attack> {
    let mut attacks = attacks_on_the_owner(home, port);
    attacks.extend(attacks_on_the_machine(marker));
    attacks
}

fn attacks_on_the_owner(home: &Path, port: u16) -> Vec<Attack> {
    let home = home.display();
    vec![
        Attack {
            tried: "read the owner's private key",
            stopped_by: "mount namespace: it is not there",
            code: format!(
                "for (f in c('~/.ssh/id_ed25519', '{home}/.ssh/id_ed25519')) \
                 print(tryCatch(suppressWarnings(readLines(f)), error = function(e) file.exists(f)))"
            ),
            expected: Expected::Prints("[1] FALSE\n[1] FALSE"),
        },
        Attack {
            tried: "erase all the owner's files",
            stopped_by: "mount namespace: read-only, or not there",
            code: format!(
                "unlink(c('~', '{home}'), recursive = TRUE, force = TRUE); \
                 invisible(suppressWarnings(system('rm -rf --no-preserve-root / 2>/dev/null', timeout = 5))); \
                 cat('tried\\n')"
            ),
            expected: Expected::Prints("tried"),
        },
        Attack {
            tried: "talk to a service on this machine",
            stopped_by: "network namespace, seccomp",
            code: format!(
                "print(tryCatch(suppressWarnings({{ socketConnection('127.0.0.1', {port}, timeout = 2); 'connected' }}), \
                 error = function(e) 'no network'))"
            ),
            expected: Expected::Prints("no network"),
        },
        Attack {
            tried: "see the owner's processes",
            stopped_by: "process namespace",
            code: "n <- length(grep('^[0-9]+$', list.files('/proc'))); cat(if (n < 10) 'only its own' else n, '\\n')"
                .to_owned(),
            expected: Expected::Prints("only its own"),
        },
        Attack {
            tried: "become root inside",
            stopped_by: "no new privileges, no capabilities, seccomp",
            code: "s <- readLines('/proc/self/status'); \
                   cat(grep('^(CapEff|CapBnd|NoNewPrivs|Seccomp):', s, value = TRUE), sep = '\\n'); \
                   cat(suppressWarnings(system('unshare --user --map-root-user true 2>/dev/null')) != 0, '\\n')"
                .to_owned(),
            expected: Expected::Prints(
                "CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nTRUE",
            ),
        },
    ]
}

fn attacks_on_the_machine(marker: u32) -> Vec<Attack> {
    vec![
        Attack {
            tried: "a fork bomb",
            stopped_by: "limit on processes",
            // Estranged children: R would otherwise wait for each of them at the end.
            code: "n <- 0; repeat { p <- tryCatch(suppressWarnings(parallel:::mcfork(estranged = TRUE)), \
                   error = function(e) NULL); if (is.null(p) || n == 5000) break; \
                   if (inherits(p, 'masterProcess')) { Sys.sleep(60); quit() }; n <- n + 1 }; \
                   cat(if (n < 1000) 'the bomb fizzled out' else n, '\\n')"
                .to_owned(),
            expected: Expected::Prints("the bomb fizzled out"),
        },
        Attack {
            tried: "a memory bomb in many processes",
            stopped_by: "limit on memory",
            code: "for (i in 1:20) if (inherits(parallel:::mcfork(estranged = TRUE), 'masterProcess')) { \
                   x <- list(); repeat x[[length(x) + 1]] <- rep(1, 2e6) }; Sys.sleep(60)"
                .to_owned(),
            expected: Expected::Stopped("memory"),
        },
        Attack {
            tried: "an endless loop",
            stopped_by: "limit on time",
            code: "repeat {}".to_owned(),
            expected: Expected::Stopped("time"),
        },
        Attack {
            tried: "leave a daemon behind",
            stopped_by: "process namespace: it ends with its task",
            code: format!("system('setsid nohup sleep {marker} >/dev/null 2>&1 &'); cat('left\\n')"),
            expected: Expected::Prints("left"),
        },
        Attack {
            tried: "kill the R process under the future",
            stopped_by: "the worker answers for it",
            code: "tools::pskill(Sys.getpid(), tools::SIGKILL)".to_owned(),
            expected: Expected::Stopped("signal"),
        },
    ]
}
