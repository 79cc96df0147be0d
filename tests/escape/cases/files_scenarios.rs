//! Scenarios of the cases 1 to 22: what takes a task of its own, or two.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::world::{Place, quoted};

/// Every path below a folder with its contents.
fn tree(path: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::from([(path.to_owned(), fs::read(path).ok())]);
    for entry in fs::read_dir(path).into_iter().flatten() {
        found.extend(tree(&entry.unwrap().path()));
    }
    found
}

/// What must not change: the owner's files, and those that are shared.
fn treasures(place: &Place<'_>) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let own =
        tree(&place.home()).into_iter().filter(|(path, _)| !path.components().any(|part| part.as_os_str() == ".local"));
    own.chain(tree(place.world.shared())).collect()
}

/// 2: erases the home as the task knows it and as the host does, the shared folder, and then everything.
pub(super) fn erase(place: &Place<'_>) -> Result<(), String> {
    let before = treasures(place);
    let unlink = |paths: &[&Path]| {
        let paths = paths.iter().map(|path| quoted(path.display())).collect::<Vec<_>>().join(", ");
        format!("unlink(c('~', {paths}), recursive = TRUE, force = TRUE); cat('tried\\n')")
    };
    let ran = place.evaluate(&format!(
        "{}; invisible(suppressWarnings(system('rm -rf --no-preserve-root / 2>/dev/null')))",
        unlink(&[&place.home(), place.world.shared()])
    ));
    if !ran.stdout.contains("tried") {
        return Err(format!("it did not run: {ran:?}"));
    }
    if treasures(place) != before || before.len() < 8 {
        return Err(format!("the owner's files have changed: {:?}", before.keys()));
    }
    // The control, on a folder made for it.
    let sacrifice = place.world.sacrifice();
    let ran = place.bare().evaluate(&unlink(&[&sacrifice.join("inside")]));
    if tree(&sacrifice).len() == 1 { Ok(()) } else { Err(format!("the control erased nothing: {ran:?}")) }
}

/// 4: plants what the next R would read at its start; the next task must find nothing of it.
pub(super) fn planted(place: &Place<'_>) -> Result<(), String> {
    let list = "invisible(lapply(c('~', getwd(), '/tmp', '/dev/shm'), function(folder) cat(setdiff(list.files(folder, \
                all.files = TRUE, no.. = TRUE), basename(tempdir())), ''))); cat('options', getOption('planted', 'none'), '\\n')";
    let plant = "for (folder in c('~', getwd(), '/tmp', '/dev/shm')) { dir.create(file.path(folder, '.R')); \
                 for (name in c('.Rprofile', '.Renviron', '.RData', '.R/Makevars')) \
                 writeLines('options(planted = TRUE)', file.path(folder, name)) }; options(planted = TRUE); planted <- TRUE";
    let first = place.evaluate(&format!("suppressWarnings({{ {plant} }}); {list}"));
    if !first.stdout.contains(".Rprofile") || !first.stdout.contains("options TRUE") {
        return Err(format!("the control: nothing could be planted: {first:?}"));
    }
    let second = place.evaluate(&format!("{list}; cat('planted', exists('planted'), '\\n')"));
    let clean = !second.stdout.contains(".R") && second.stdout.contains("options none \nplanted FALSE");
    if clean { Ok(()) } else { Err(format!("the next task finds: {second:?}")) }
}

/// 6: whoever wrote to or read from a path that the task can choose would follow its links.
pub(super) fn collected(place: &Place<'_>) -> Result<(), String> {
    let target = place.home().join("thesis.txt");
    let before = treasures(place);
    let links = format!(
        "for (name in c('result.rds', 'result', 'out.rds', 'stdout', 'stderr', '.p2p')) for (folder in c('~', '/tmp', getwd())) \
         suppressWarnings(file.symlink({}, file.path(folder, name))); cat(Sys.readlink('/tmp/result.rds'), '\\n')",
        quoted(target.display())
    );
    let to = place.home().join(".local/out.rds");
    let _ = fs::remove_file(&to);
    let ran = place.exec(&links, &["--output", &to.display().to_string()]);
    let fine =
        to.is_file() && !to.is_symlink() && fs::read(&to).unwrap().windows(12).any(|part| part == b"FutureResult");
    if !fine || treasures(place) != before {
        return Err(format!("the result is not what was written, or something else changed: {ran:?}"));
    }
    let shown = place.evaluate(&links);
    let made = shown.stdout.contains(&target.display().to_string());
    if made { Ok(()) } else { Err(format!("the control: no link was made: {shown:?}")) }
}
