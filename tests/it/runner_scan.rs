//! The look at a result's bytes, on what real R writes, and on what R dies of.

use std::{fs, process::Command};

use p2p_worker::rds::{Carried, ScanError, scan};

/// Objects of every type that R can write, one per line: each is saved in both versions of the format.
const OBJECTS: &str = r#"
    NULL; TRUE; 1:10; c(1.5, NA); 1i; "ä"; NA_character_; as.raw(1:3); list(1, list("a")); 1:10 + 0; as.character(1:3)
    quote(f(x, y = 2)); expression(a, b + c); as.pairlist(list(a = 1)); ~ x + y; globalenv(); baseenv(); emptyenv()
    asNamespace("stats"); as.environment("package:stats"); new.env(); sum; `if`; function(x, ...) x; stats::lm; utils::head
    mtcars; factor(c("a", "b")); Sys.time(); getRversion(); structure(list(), class = "FutureResult"); methods::new("numeric")
    stats::lm(mpg ~ wt, mtcars); methods::getMethod("show", "ANY"); methods::getClass("numeric"); tryCatch(stop("x"), error = identity)
    sort(c(3, 1, 2)); c(letters, LETTERS); matrix(1:6, 2); array(0, c(2, 2, 2)); as.Date("2024-01-01"); search; compiler::cmpfun(function(x) for (i in x) print(i + 1))
    local({ f <- function(x) function() x; f(stop("never")) }); local({ makeActiveBinding("a", function() 1, environment()); environment() })
    lapply(1:3, function(i) environment()); Reduce(function(a, b) call("+", a, b), lapply(1:1000, function(i) i)); sys.calls()
    ggplot <- list(rnorm(10), quote(x[[1]])); numeric(0); character(0); list(); stats::setNames(1:3, c("a", "b", "c")); rapply
"#;

fn rscript(code: &str, folder: &std::path::Path) {
    let output = Command::new("Rscript").args(["--vanilla", "-e", code]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn scanned(path: &std::path::Path) -> Result<Carried, ScanError> {
    let bytes = fs::read(path).unwrap();
    scan(bytes.as_slice(), bytes.len() as u64)
}

#[test]
fn whatever_r_writes_is_let_through() {
    let folder = tempfile::tempdir().unwrap();
    let code = format!(
        "n <- 0
         for (expression in parse(text = {OBJECTS:?})) {{
             object <- eval(expression, new.env(parent = globalenv()))
             for (version in 2:3) {{
                 n <- n + 1
                 writeBin(serialize(object, NULL, version = version), sprintf('%03d.rds', n))
             }}
         }}"
    );
    rscript(&code, folder.path());
    let mut all = Carried::default();
    let mut count = 0;
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let carried = scanned(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        count += 1;
        all.promises += carried.promises;
        all.active_bindings += carried.active_bindings;
        all.bytecode += carried.bytecode;
    }
    assert!(count > 100, "{count}");
    assert!(all.promises > 0 && all.active_bindings > 0 && all.bytecode > 0, "{all}");
}

#[test]
fn what_ends_r_is_refused_before_r_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let code =
        "bytes <- c(serialize(NULL, NULL)[1:23], rep(as.raw(c(0, 0, 0, 19, 0, 0, 0, 1)), 3e6), as.raw(c(0, 0, 0, 254)))
        writeBin(bytes, 'deep.rds'); writeBin(memCompress(bytes, 'gzip'), 'deep.zlib')
        con <- gzfile('bomb.rds', 'wb'); writeBin(serialize(raw(2e8), NULL), con); close(con)";
    rscript(code, folder.path());
    let control = Command::new("Rscript")
        .args(["--vanilla", "-e", "try(x <- unserialize(readBin('deep.rds', 'raw', 1e8))); cat('alive')"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(!String::from_utf8_lossy(&control.stdout).contains("alive"), "R survives it by now: {control:?}");
    assert!(matches!(scanned(&folder.path().join("deep.rds")), Err(ScanError::Depth)));
    for compressed in ["deep.zlib", "bomb.rds"] {
        assert!(matches!(scanned(&folder.path().join(compressed)), Err(ScanError::Format)), "{compressed}");
    }
}
