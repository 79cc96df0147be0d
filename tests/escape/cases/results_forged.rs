//! Cases 69 to 75 and 79: what a task says in the place of its result, and how it ends. What the worker and the client make
//! of it should not depend on the sandbox: every variant is tried in every place.

use super::helpers::{Told, expect, limited, marker, no_process_with, open_folder};
use crate::world::{Place, quoted};

/// R: bytes to the frames pipe; a result of these bytes and a good end; the name of this future; a result of this future or
/// another; an RDS with these bytes behind its header.
const HELPERS: &str = r#"
    frame <- function(bytes) {
      con <- file(if (file.exists("/dev/fd/3")) "/dev/fd/3" else "/proc/self/fd/3", "wb", raw = TRUE)
      writeBin(bytes, con)
      close(con)
    }
    leave <- function() quit(save = "no", status = 0L, runLast = FALSE)
    say <- function(bytes) { frame(c(charToRaw("R"), as.raw(rep(255, 4)), bytes)); leave() }
    name <- NULL
    for (up in sys.frames()) if (is.null(name)) name <- get0("uuid", up, inherits = FALSE)
    as_result <- function(uuid = name, value = 1) serialize(structure(class = "FutureResult", list(
      value = value, visible = TRUE, stdout = "forged\n", conditions = list(), uuid = uuid)), NULL)
    rds <- function(...) c(serialize(NULL, NULL)[1:23], as.raw(c(...)))
"#;

/// Scripts, exit statuses, and what `p2p-worker` says on stderr.
type Variant = (&'static str, i32, &'static str);

fn try_variant(place: &Place<'_>, (script, status, says): Variant) -> Told {
    let ran = place.evaluate(&format!("{HELPERS}{script}"));
    let no_panic = if ran.stderr.contains("panicked") { Err(ran.stderr.clone()) } else { Ok(()) };
    no_panic.and(expect(&ran, status, &[], &[says])).map_err(|error| format!("{script}: {error}"))
}

fn variants(place: &Place<'_>, all: &[Variant]) -> Told {
    all.iter().try_for_each(|variant| try_variant(place, *variant))
}

/// 69: a child with the frames pipe in its hands, which writes on while R writes its result and after it has ended.
pub(super) fn survivor(place: &Place<'_>) -> Told {
    let mark = marker(place, 69);
    let after = format!(
        "system('(trap \"\" HUP TERM; sleep 0.1; while :; do printf garbage >&3 || exit; sleep 0.05; done) 2>/dev/null & \
         sleep {mark} &'); cat('mine\\n')"
    );
    let ran = place.evaluate(&after);
    no_process_with(&mark)?;
    // Who writes into the pipe while R lives spoils the own result; never is it taken for another one.
    match ran.status {
        Some(0) => expect(&ran, 0, &["mine"], &[]),
        Some(4) => expect(&ran, 4, &[], &["what came in place of a result is not one"]),
        _ => expect(&ran, 5, &[], &["the result is refused"]),
    }
}

/// 70: over the limit; compressed, whatever it would come to.
pub(super) fn large(place: &Place<'_>) -> Told {
    let profile = limited(place, "result = \"1 MiB\"");
    let result =
        |bytes| place.exec(&format!("{HELPERS}say(as_result(value = raw({bytes})))"), &["--profile", &profile]);
    expect(&result(3_000_000), 4, &[], &["the result is larger than the limit of 1.0 MiB"])?;
    expect(&result(300_000), 0, &["forged"], &[])?;
    let compressed = |how: &str| -> Variant {
        match how {
            "gzip" => (
                "con <- gzcon(file('/tmp/z', 'wb')); writeBin(c(as_result(), raw(1e8)), con); close(con); \
                        say(readBin('/tmp/z', 'raw', 1e7))",
                5,
                "it is compressed",
            ),
            "xz" => ("say(memCompress(c(as_result(), raw(1e6)), 'xz'))", 5, "it is compressed"),
            _ => ("say(memCompress(as_result(), 'bzip2'))", 5, "it is compressed"),
        }
    };
    variants(place, &["bzip2", "gzip", "xz"].map(compressed))
}

/// 71: nested lists, calls, attributes; lengths beyond all memory. Nothing is saved. That R dies of it without the look is the
/// control in `tests/it/rds.rs`.
pub(super) fn deep(place: &Place<'_>) -> Told {
    let to = open_folder(place, &format!("deep-{}", marker(place, 71))).join("result.rds");
    let script = format!("{HELPERS}say(rds(rep(c(0, 0, 0, 19, 0, 0, 0, 1), 3e6), 0, 0, 0, 254))");
    let ran = place.exec(&script, &["--output", &to.display().to_string()]);
    expect(&ran, 5, &[], &["nested more than 10000 levels deep"])?;
    if to.exists() {
        return Err("it was saved".to_owned());
    }
    let all: [Variant; 3] = [
        ("say(rds(rep(c(0, 0, 0, 2), 3e6), 0, 0, 0, 254))", 5, "levels deep"),
        ("say(rds(0, 0, 0, 19, 127, 255, 255, 255, rep(0, 100)))", 5, "it announces"),
        ("say(rds(0, 0, 0, 19, 255, 255, 255, 255, 127, 255, 255, 255, 0, 0, 0, 0))", 5, "it announces"),
    ];
    variants(place, &all)
}

/// 72: a promise where a value belongs runs at the first touch. What R itself may write is named to who saves it.
pub(super) fn promise(place: &Place<'_>) -> Told {
    let to = open_folder(place, &format!("promise-{}", marker(place, 72))).join("result.rds");
    let value = "f <- function(x) function() x; e <- new.env(); makeActiveBinding('a', function() 1, e); \
                 say(as_result(value = list(f(stop('never')), e)))";
    let ran = place.exec(&format!("{HELPERS}{value}"), &["--output", &to.display().to_string()]);
    expect(&ran, 0, &[], &["promises: 1", "active bindings: 1", "in a sandbox"])?;
    let all: [Variant; 3] = [
        ("say(rds(0, 0, 0, 5, 0, 0, 0, 252, 0, 0, 0, 254))", 5, "a promise as a value"),
        ("say(rds(0, 0, 0, 19, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 252, 0, 0, 0, 254))", 5, "a promise as a value"),
        // A vector that is a file of whoever reads it.
        (
            "say(rds(0, 0, 0, 238, 0, 0, 0, 2, 0, 0, 0, 1, 0, 4, 0, 9, 0, 0, 0, 12, charToRaw('mmap_integer'), rep(0, 99)))",
            5,
            "a vector of a foreign class",
        ),
    ];
    variants(place, &all)
}

/// 73: classes and functions in conditions, which packages call to print them.
pub(super) fn conditions(place: &Place<'_>) -> Told {
    let folder = open_folder(place, "conditions");
    let write = format!("function(...) {{ file.create(file.path({}, 'called')); 'called' }}", quoted(folder.display()));
    let script = format!(
        "run <- {write}; stop(structure(class = c('rlang_error', 'error', 'condition'), list(message = 'plain \\033[31mtext', \
         call = quote(f()), body = run, header = run, footer = run, parent = NULL, trace = run)))"
    );
    let ran = place.evaluate(&script);
    expect(&ran, 1, &[], &["plain", "text"])?;
    let called = folder.join("called").exists();
    if called { Err("a function of the task was called outside".to_owned()) } else { Ok(()) }
}

/// 74: everything that a worker of another kind could take for a message, on every descriptor for text.
pub(super) fn printed(place: &Place<'_>) -> Told {
    let script = r#"
        lines <- c("worker_status=done", "{\"type\":\"result\",\"status\":0}", "@type=result,id=1", "R\u00ff\u00ff\u00ff\u00ff")
        for (line in lines) { cat(line, "\n"); message(line); system(paste("echo", shQuote(line), "; echo", shQuote(line), ">&2")) }
        system("printf 'R\\377\\377\\377\\377' ; printf 'B\\0\\0\\0\\0B\\0\\0\\0\\0' >&2; printf 'R\\377\\377\\377\\377' >&2")
        cat("the end\n")"#;
    expect(&place.evaluate(script), 0, &["worker_status=done", "the end"], &["worker_status=done"])
}

/// 75: results that are not this future's, not one, or not whole.
pub(super) fn frames(place: &Place<'_>) -> Told {
    let all: [Variant; 10] = [
        ("say(as_result(c('0123456789abcdef0123456789abcdef', '7')))", 5, "the result of another future"),
        ("say(as_result(NULL))", 5, "the result of another future"),
        ("say(c(as_result(), as_result()))", 5, "bytes follow its end"),
        ("say(head(as_result(), -3))", 5, "the result is refused"),
        ("say(serialize(1, NULL))", 5, "not the result of a future"),
        ("frame(c(charToRaw('P'), as.raw(c(100, 0, 0, 0)), raw(3))); leave()", 4, "the last frame is cut short"),
        ("frame(c(charToRaw('B'), raw(4))); Sys.sleep(600)", 4, "two beginnings"),
        ("frame(c(charToRaw('P'), as.raw(rep(255, 4)))); Sys.sleep(600)", 4, "with a length of"),
        ("frame(charToRaw('Q....')); Sys.sleep(600)", 4, "unknown tag"),
        ("say(raw())", 4, "R ended without a result"),
    ];
    // The control: what is this future's, and whole, is taken, whoever wrote it.
    expect(&place.evaluate(&format!("{HELPERS}say(as_result())")), 0, &["forged"], &[])?;
    variants(place, &all)
}

/// 79: the kernel's word on how R ended outweighs a complete result.
pub(super) fn endings(place: &Place<'_>) -> Told {
    let all: [Variant; 5] = [
        (
            "frame(c(charToRaw('R'), as.raw(rep(255, 4)), as_result())); tools::pskill(Sys.getpid(), tools::SIGKILL)",
            4,
            "signal SIGKILL",
        ),
        ("leave()", 4, "R ended without a result"),
        ("quit(save = 'no', status = 137L, runLast = FALSE)", 4, "R ended with exit status 137"),
        (
            "frame(c(charToRaw('R'), as.raw(rep(255, 4)), as_result())); quit(status = 3L)",
            4,
            "R ended with exit status 3",
        ),
        ("tools::pskill(Sys.getpid(), 11L); Sys.sleep(600)", 4, "signal SIGSEGV"),
    ];
    variants(place, &all)
}
