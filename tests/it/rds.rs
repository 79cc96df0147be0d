//! The look at a result's bytes, on what two versions of R really write, on what R dies of, and on damaged bytes.

use std::{fs, io::Write, path::Path, process::Command};

use p2p_worker::{
    ids::FutureId,
    rds::{Finding, Policy, Refusal, ScanError, UnpackError, Wanted, examine, scan, unpack},
    spool::Spooled,
};
use proptest::prelude::*;

use super::runner_world::{SAVE, World, bytes};

/// Objects that are nothing but data.
const DATA: &str = r#"
    NULL; TRUE; 1:10; c(1.5, NA); 1i; "ä"; NA_character_; as.raw(1:3); list(1, list("a")); 1:10 + 0; as.character(1:3)
    as.pairlist(list(a = 1)); mtcars; factor(c("a", "b")); Sys.time(); getRversion(); structure(list(), class = "FutureResult")
    sort(c(3, 1, 2)); c(letters, LETTERS); matrix(1:6, 2); array(0, c(2, 2, 2)); as.Date("2024-01-01"); numeric(0); character(0)
    list(); stats::setNames(1:3, c("a", "b", "c")); globalenv(); baseenv(); emptyenv(); rep(list(1:3), 100); rnorm(1000)
    structure(data.frame(a = 1), .internal.selfref = methods::new("externalptr")); 1:100 * 1L; strsplit("a b c", " ")
"#;

/// Functions, environments, calls, and what holds them: what a future may well return.
const CODE: &str = r#"
    quote(f(x, y = 2)); expression(a, b + c); ~ x + y; asNamespace("stats"); as.environment("package:stats"); new.env(); sum; `if`
    function(x, ...) x; stats::lm; utils::head; stats::lm(mpg ~ wt, mtcars); tryCatch(stop("x"), error = identity); search; rapply
    compiler::cmpfun(function(x) for (i in x) print(i + 1)); local({ f <- function(x) { force(x); function() x }; f(1) })
    Reduce(function(a, b) call("+", a, b), lapply(1:1000, function(i) i)); list(rnorm(10), quote(x[[1]])); stats::ecdf(1:10)
    local({ f <- function(x) x + 1; f(1); f(2); f(3); f }); lapply(1:3, function(i) environment()); stats::glm(am ~ wt, binomial, mtcars); as.name("x")
"#;

/// What runs code, or is void, when it is touched.
const RISKY: &str = r#"
    local({ f <- function(x) function() x; f(stop("never")) })
    local({ makeActiveBinding("a", function() 1, environment()); environment() }); methods::new("externalptr")
    (function(...) environment())(stop("never"))
"#;

/// What R has more of than anybody would list, with no say about the policy.
const MORE: &str = r#"
    methods::new("numeric"); methods::getMethod("show", "ANY"); methods::getClass("numeric"); sys.calls(); methods::new("environment")
"#;

/// Every object of these in both versions and both binary formats, as R serializes them, by a name.
async fn written_by(world: &World, objects: &str) -> Vec<(String, Vec<u8>)> {
    let code = format!(
        "out <- raw()
         for (expression in parse(text = {objects:?}, encoding = 'UTF-8')) {{
             object <- eval(expression, new.env(parent = globalenv()))
             for (version in 2:3) for (xdr in c(TRUE, FALSE)) {{
                 bytes <- serialize(object, NULL, version = version, xdr = xdr)
                 name <- charToRaw(sprintf('%s (version %d, xdr %s)', deparse(expression)[1L], version, xdr))
                 out <- c(out, writeBin(c(length(name), length(bytes)), raw(), endian = 'little'), name, bytes)
             }}
         }}
         {SAVE}(out)"
    );
    let outcome = world.r_code(&code, b"").await;
    let all = bytes(&outcome);
    let (mut rest, mut objects) = (all.as_slice(), Vec::new());
    while !rest.is_empty() {
        let number = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap()) as usize;
        let (name, length) = (number(0), number(4));
        let (head, tail) = rest[8..].split_at(name + length);
        objects.push((String::from_utf8_lossy(&head[..name]).into_owned(), head[name..].to_vec()));
        rest = tail;
    }
    assert!(objects.len() >= 16, "{}", outcome.text.for_log());
    objects
}

fn looked_at(bytes: &[u8], policy: Policy) -> Result<(), Refusal> {
    examine(bytes, bytes.len() as u64, Wanted { policy, future: None }).map(drop)
}

async fn what_r_writes_passes(world: World) {
    use Policy::{Any, DataOnly, Standard};
    let cases: [(&str, &[Policy], &[Policy]); 4] = [
        (DATA, &[DataOnly, Standard, Any], &[]),
        (CODE, &[Standard, Any], &[DataOnly]),
        (RISKY, &[Any], &[DataOnly, Standard]),
        (MORE, &[Any], &[]),
    ];
    for (objects, passes, refused) in cases {
        for (name, bytes) in written_by(&world, objects).await {
            for policy in passes {
                looked_at(&bytes, *policy).unwrap_or_else(|error| panic!("{name}, {policy}: {error:?}"));
            }
            for policy in refused {
                let error = looked_at(&bytes, *policy);
                assert!(matches!(error, Err(Refusal::NotAllowed { .. })), "{name}, {policy}: {error:?}");
            }
            for cut in [bytes.len() / 2, bytes.len() - 1] {
                assert!(looked_at(&bytes[..cut], Any).is_err(), "{name}, cut at {cut}");
            }
            let longer = [&bytes[..], b"x"].concat();
            assert!(matches!(scan(longer.as_slice(), longer.len() as u64), Err(ScanError::Trailing(1))), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_r_writes_is_judged_as_what_it_is() {
    what_r_writes_passes(World::here()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_newer_r_writes_is_judged_as_what_it_is() {
    what_r_writes_passes(World::newer()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_real_futures_are_what_they_say() {
    for world in [World::here(), World::newer()] {
        for (expression, policy) in [
            ("message('said'); warning('careful'); data.frame(a = 1:3)", Policy::DataOnly),
            ("stop('no')", Policy::DataOnly),
            ("stats::lm(mpg ~ wt, datasets::mtcars)", Policy::Standard),
        ] {
            let (id, future) = world.future(expression, "").await;
            let result = bytes(&world.evaluate(&future, &id).await);
            let wanted = Wanted { policy, future: Some(&id) };
            examine(result.as_slice(), result.len() as u64, wanted).unwrap();
            let other: FutureId = "other-1".parse().unwrap();
            let wanted = Wanted { policy, future: Some(&other) };
            let error = examine(result.as_slice(), result.len() as u64, wanted);
            assert!(matches!(error, Err(Refusal::OtherFuture)), "{error:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_result_is_named() {
    let world = World::here();
    let objects = "list(uuid = 'f-1'); mtcars; 1:3; structure(list(value = 1), class = 'FutureResult')
        structure(list(uuid = c('f', '2')), class = 'FutureResult'); structure(list(uuid = NA_character_), class = 'FutureResult')
        structure(list(message = 'x', call = NULL), class = c('FutureLaunchError', 'error'))
        structure(list(value = 1, uuid = c('f', '1')), class = 'FutureResult')";
    let id: FutureId = "f-1".parse().unwrap();
    let words: Vec<String> = written_by(&world, objects)
        .await
        .iter()
        .step_by(4)
        .map(|(_, bytes)| {
            let wanted = Wanted { policy: Policy::Any, future: Some(&id) };
            examine(bytes.as_slice(), bytes.len() as u64, wanted)
                .map_or_else(|error| error.to_string(), |_| "fine".into())
        })
        .collect();
    let none = "it is not the result of a future but ";
    assert_eq!(words[0], format!("{none}a list"));
    assert_eq!(words[1], format!("{none}an object of class data.frame"));
    assert_eq!(words[2], format!("{none}something that is no list"));
    assert_eq!(words[3], format!("{none}a FutureResult without a uuid"));
    assert_eq!(words[4..6], ["it is the result of another future"; 2]);
    assert_eq!(words[6..], ["fine"; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_named_with_its_place() {
    let world = World::here();
    let risky = "local({ f <- function(x) function() x; list(a = 1, b = list(f(stop('never')))) })";
    let objects = format!(
        "structure(list(value = {risky}, uuid = 'f'), class = 'FutureResult')
         structure(list(value = 1, conditions = list(list(condition = simpleError('x', quote(f(y))))), uuid = 'f'), class = 'FutureResult')
         structure(list(value = quote(f(y)), uuid = 'f'), class = 'FutureResult')
         structure(list(value = structure(1, how = sum), uuid = 'f'), class = 'FutureResult')"
    );
    let id: FutureId = "f".parse().unwrap();
    let written = written_by(&world, &objects).await;
    let judged = |number: usize, policy: Policy| {
        let bytes = &written[4 * number].1;
        examine(bytes.as_slice(), bytes.len() as u64, Wanted { policy, future: Some(&id) })
    };
    let Err(Refusal::NotAllowed { what: Finding::Promise, place, .. }) = judged(0, Policy::Standard) else { panic!() };
    assert_eq!(place, "value[[2]][[1]] → its environment$x");
    judged(1, Policy::DataOnly).unwrap();
    let Err(Refusal::NotAllowed { what: Finding::Call, place, .. }) = judged(2, Policy::DataOnly) else { panic!() };
    assert_eq!(place, "value");
    let error = judged(3, Policy::DataOnly).unwrap_err().to_string();
    assert_eq!(error, "it holds a function (at value → attribute how), which results = \"data-only\" does not allow");
}

fn rscript(code: &str, folder: &Path) -> String {
    let output = Command::new("Rscript").args(["--vanilla", "-e", code]).current_dir(folder).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn what_ends_r_is_refused_before_r_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let code =
        "bytes <- c(serialize(NULL, NULL)[1:23], rep(as.raw(c(0, 0, 0, 19, 0, 0, 0, 1)), 3e6), as.raw(c(0, 0, 0, 254)))
        writeBin(bytes, 'deep.rds'); cat('done')";
    assert_eq!(rscript(code, folder.path()), "done");
    let said = rscript("try(x <- unserialize(readBin('deep.rds', 'raw', 1e8))); cat('alive')", folder.path());
    assert!(!said.contains("alive"), "R survives it by now");
    let deep = fs::read(folder.path().join("deep.rds")).unwrap();
    assert!(matches!(scan(deep.as_slice(), deep.len() as u64), Err(ScanError::Depth)));
}

#[test]
fn what_r_compresses_is_unpacked_and_bombs_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let code = "x <- list(mtcars, rnorm(1e4)); zeros <- raw(2e8)
        for (how in c('gzip', 'bzip2', 'xz')) {
            saveRDS(x, how, compress = how)
            saveRDS(zeros, paste0('bomb-', how), compress = how)
        }
        writeBin(serialize(x, NULL), 'plain'); cat('done')";
    assert_eq!(rscript(code, folder.path()), "done");
    let spooled = |bytes: &[u8]| Spooled::from_bytes(folder.path(), bytes).unwrap();
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    let plain = read("plain");
    assert!(unpack(&spooled(&plain), folder.path(), u64::MAX).unwrap().is_none());
    for how in ["gzip", "bzip2", "xz"] {
        let packed = read(how);
        let unpacked = unpack(&spooled(&packed), folder.path(), u64::MAX).unwrap().unwrap();
        assert_eq!(unpacked.digest(), spooled(&plain).digest(), "{how}");
        assert!(matches!(unpack(&spooled(&packed), folder.path(), 1000), Err(UnpackError::Bomb { limit: 1000, .. })));
        for cut in [packed.len() / 2, packed.len() - 1, 8] {
            let error = unpack(&spooled(&packed[..cut]), folder.path(), u64::MAX);
            assert!(matches!(error, Err(UnpackError::Damaged { .. })), "{how}, cut at {cut}: {error:?}");
        }
        let bomb = unpack(&spooled(&read(&format!("bomb-{how}"))), folder.path(), u64::MAX);
        assert!(matches!(bomb, Err(UnpackError::Bomb { limit, .. }) if limit < 200_000_000), "{how}: {bomb:?}");
    }
    // A window of 4 GiB, announced in a header that is otherwise right, is not made.
    let mut greedy = read("xz");
    let window = greedy.iter().position(|byte| *byte == 0x21).unwrap() + 2;
    greedy[window] = 40;
    assert!(unpack(&spooled(&greedy), folder.path(), u64::MAX).is_err());
}

/// A little generator, so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % below.max(1)
    }
}

/// Damaged copies of what R wrote that are let through even so: R reads all of them, and lives.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_let_through_does_not_end_r() {
    let objects =
        "list(a = 1:3, b = 'x', f = quote(g(x)), e = as.character(1:9)); factor(c('a', 'b')); mtcars[1:3, 1:3]
        local({ n <- 1; function(x) x + n }); 1:10; list(list(list(1)), NULL); as.pairlist(list(a = 1, b = 2))";
    let seeds = written_by(&World::here(), objects).await;
    let folder = tempfile::tempdir().unwrap();
    let (mut dice, mut passed) = (Dice(7), 0);
    for round in 0..20_000 {
        let mut bytes = seeds[round % seeds.len()].1.clone();
        for _ in 0..=dice.roll(3) {
            let at = 14 + dice.roll(bytes.len() - 14);
            bytes[at] = u8::try_from([dice.roll(256), 0, 1, 254, 255][dice.roll(5)]).unwrap();
        }
        if looked_at(&bytes, Policy::Standard).is_ok() {
            fs::File::create(folder.path().join(format!("{passed}.rds"))).unwrap().write_all(&bytes).unwrap();
            passed += 1;
        }
    }
    assert!(passed > 1000, "{passed}");
    let mut deadly = Vec::new();
    let mut next = 0;
    while next < passed && deadly.len() < 30 {
        let code = format!(
            "for (n in {next}:{last}) {{
                 cat(n, file = 'last')
                 x <- tryCatch(readRDS(paste0(n, '.rds')), error = identity, warning = identity)
                 tryCatch(object.size(x), error = identity)
             }}
             cat('alive')",
            last = passed - 1
        );
        if rscript(&code, folder.path()).ends_with("alive") {
            break;
        }
        let last: usize = fs::read_to_string(folder.path().join("last")).unwrap().parse().unwrap();
        let bytes = fs::read(folder.path().join(format!("{last}.rds"))).unwrap();
        deadly.push(bytes.escape_ascii().to_string());
        next = last + 1;
    }
    assert!(deadly.is_empty(), "R died of {} of {passed}:\n{}", deadly.len(), deadly.join("\n"));
}

proptest! {
    #[test]
    fn damaged_bytes_do_no_harm(
        which in 0usize..2,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let recorded = super::runner_world::recorded(["value.result.rds", "error.result.rds"][which]);
        let folder = tempfile::tempdir().unwrap();
        let packed = Spooled::from_bytes(folder.path(), &recorded).unwrap();
        let whole = unpack(&packed, folder.path(), 1 << 20).unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut whole.unwrap_or(packed).reader(), &mut bytes).unwrap();
        for (at, byte) in changes {
            *at.get_mut(&mut bytes) = byte;
        }
        let _ = looked_at(&bytes, Policy::Standard);
        let _ = looked_at(&bytes[..cut.index(bytes.len())], Policy::DataOnly);
        // Damage before unpacking.
        let mut packed = recorded;
        let at = cut.index(packed.len());
        packed[at] ^= 1;
        let _ = unpack(&Spooled::from_bytes(folder.path(), &packed).unwrap(), folder.path(), 1 << 20);
    }
}
