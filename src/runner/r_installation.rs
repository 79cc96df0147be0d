//! Where R is, on this machine or in a root file system, and which package future it has. Read from R's own files; R
//! itself is not started.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::sandbox::{Machine, Share};

/// An R that can run futures, or could if it had package future. All paths are as the task will see them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RInstallation {
    /// `R.home()`.
    pub home: PathBuf,
    /// The version of R.
    pub version: String,
    /// The version of package future, if it is installed in one of the libraries.
    pub future: Option<String>,
    /// The site libraries that exist, without R's own in its home.
    pub libraries: Vec<PathBuf>,
    /// `R.home("share")`.
    pub share: PathBuf,
    /// `R.home("include")`.
    pub include: PathBuf,
    /// `R.home("doc")`.
    pub doc: PathBuf,
    /// The folder that the files in `etc` of R's home are links into, where they are (Debian: `/etc/R`).
    pub configuration: Option<PathBuf>,
}

/// Why R cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InstallationError {
    /// No R in the path nor at a usual place.
    #[error("R is not installed {place} (Debian, Ubuntu: apt install r-base-core r-cran-future)")]
    NoR {
        /// Where it was looked for.
        place: String,
    },
    /// It is there, but not whole.
    #[error("R in {} cannot be used", home.display())]
    Broken {
        /// Its home.
        home: PathBuf,
        /// What cannot be read.
        #[source]
        source: io::Error,
    },
    /// R is there, package future is not.
    #[error(
        "R {version} lacks package future (Debian, Ubuntu: apt install r-cran-future; or, in R: install.packages(\"future\"))"
    )]
    NoFuture {
        /// The version of R.
        version: String,
    },
}

/// R's home where it cannot be asked: distributions, then R's own default.
const USUAL_HOMES: [&str; 4] = ["/usr/lib/R", "/usr/lib64/R", "/usr/local/lib/R", "/usr/local/lib64/R"];

/// The site libraries of Debian, Fedora and of R built from source.
const USUAL_LIBRARIES: [&str; 4] =
    ["/usr/local/lib/R/site-library", "/usr/lib/R/site-library", "/usr/share/R/library", "/usr/lib64/R/site-library"];

impl RInstallation {
    /// The R of this machine: the one in the path, else one at a usual place. Runs `R RHOME`, which is a shell script that
    /// only prints. Blocks for some milliseconds.
    ///
    /// # Errors
    /// [`InstallationError::NoR`] and [`InstallationError::Broken`]. A missing package future is no error here, see
    /// [`Self::with_future`].
    pub fn find() -> Result<Self, InstallationError> {
        let usual = || USUAL_HOMES.iter().map(PathBuf::from).find(|home| home.join("bin/exec/R").exists());
        let home = home_by_asking().or_else(usual);
        let home = home.ok_or_else(|| InstallationError::NoR { place: "here".to_owned() })?;
        Self::describe(Path::new("/"), home)
    }

    /// The R in a root file system.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn in_root(root: &Path) -> Result<Self, InstallationError> {
        let home = USUAL_HOMES.iter().map(PathBuf::from).find(|home| below(root, home).join("bin/exec/R").exists());
        let place = || format!("in {}", root.display());
        Self::describe(root, home.ok_or_else(|| InstallationError::NoR { place: place() })?)
    }

    /// The R that tasks find on this machine: its own, or that of the root file system in use.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn of(machine: &Machine) -> Result<Self, InstallationError> {
        machine.root.as_deref().map_or_else(Self::find, Self::in_root)
    }

    /// What of the host it needs beside a profile's paths.
    #[must_use]
    pub fn shares(&self, machine: &Machine) -> Vec<Share> {
        let share = |to: PathBuf| Share { from: machine.outside(&to), to, execute: true };
        self.folders().into_iter().map(share).collect()
    }

    /// The same, if it has package future.
    ///
    /// # Errors
    /// [`InstallationError::NoFuture`].
    pub fn with_future(self) -> Result<Self, InstallationError> {
        if self.future.is_some() { Ok(self) } else { Err(InstallationError::NoFuture { version: self.version }) }
    }

    /// Every folder that a task must be able to read to use this R, besides the system's shared libraries.
    #[must_use]
    pub fn folders(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.home.clone(), self.share.clone(), self.include.clone(), self.doc.clone()];
        folders.extend(self.libraries.iter().cloned());
        folders.extend(self.configuration.clone());
        folders.sort();
        folders.dedup();
        // A folder comes right after the folder that holds it, if that is in the list.
        folders.dedup_by(|later, earlier| later.starts_with(earlier));
        folders
    }

    fn describe(root: &Path, home: PathBuf) -> Result<Self, InstallationError> {
        let broken = |source| InstallationError::Broken { home: home.clone(), source };
        let version = package_version(&below(root, &home).join("library/base")).map_err(broken)?;
        fs::metadata(below(root, &home).join("bin/exec/R")).map_err(broken)?;
        let own = home.join("site-library");
        let mut libraries: Vec<PathBuf> = Vec::new();
        for library in USUAL_LIBRARIES.iter().map(PathBuf::from).chain([own]) {
            if below(root, &library).is_dir() && !libraries.contains(&library) {
                libraries.push(library);
            }
        }
        let all = libraries.iter().cloned().chain([home.join("library")]);
        let future = all.filter_map(|library| package_version(&below(root, &library).join("future")).ok()).next();
        let front_end = fs::read_to_string(below(root, &home).join("bin/R")).unwrap_or_default();
        let folder = |name: &str| front_end_folder(&front_end, name);
        Ok(Self {
            share: folder("R_SHARE_DIR").unwrap_or_else(|| home.join("share")),
            include: folder("R_INCLUDE_DIR").unwrap_or_else(|| home.join("include")),
            doc: folder("R_DOC_DIR").unwrap_or_else(|| home.join("doc")),
            configuration: linked_configuration(&below(root, &home).join("etc/Renviron")),
            home,
            version,
            future,
            libraries,
        })
    }

    /// What Debian has, for tests of pure functions.
    #[cfg(test)]
    pub(crate) fn debian_like() -> Self {
        Self {
            home: "/usr/lib/R".into(),
            version: "4.2.2".into(),
            future: Some("1.31.0".into()),
            libraries: vec!["/usr/local/lib/R/site-library".into(), "/usr/lib/R/site-library".into()],
            share: "/usr/share/R/share".into(),
            include: "/usr/share/R/include".into(),
            doc: "/usr/share/R/doc".into(),
            configuration: Some("/etc/R".into()),
        }
    }
}

/// An absolute path of the root file system `root`, as seen from outside.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn home_by_asking() -> Option<PathBuf> {
    let mut ask = Command::new("R");
    ask.arg("RHOME").env_clear().stdin(Stdio::null()).stderr(Stdio::null());
    if let Some(path) = std::env::var_os("PATH") {
        ask.env("PATH", path);
    }
    let answer = ask.output().ok().filter(|output| output.status.success())?;
    let home = PathBuf::from(String::from_utf8(answer.stdout).ok()?.trim_end());
    home.is_absolute().then_some(home)
}

/// The field `Version` of an installed package.
fn package_version(package: &Path) -> io::Result<String> {
    let description = fs::read_to_string(package.join("DESCRIPTION"))?;
    let version = description.lines().find_map(|line| line.strip_prefix("Version:")).map(str::trim);
    version.map(str::to_owned).ok_or_else(|| io::Error::other("DESCRIPTION has no version"))
}

/// A folder that R's front end sets, as `R_SHARE_DIR=/usr/share/R/share` or with quotes.
fn front_end_folder(script: &str, name: &str) -> Option<PathBuf> {
    let value = script.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    let path = PathBuf::from(value.trim().trim_matches('"'));
    path.is_absolute().then_some(path)
}

/// The folder of the file that this one is a link to, when that is elsewhere.
fn linked_configuration(file: &Path) -> Option<PathBuf> {
    let target = fs::read_link(file).ok().filter(|target| target.is_absolute())?;
    target.parent().map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, contents: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    #[test]
    fn an_r_in_a_root_file_system_is_described_from_its_files() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(RInstallation::in_root(root.path()), Err(InstallationError::NoR { .. })));
        write(root.path(), "usr/lib/R/bin/exec/R", "");
        assert!(matches!(RInstallation::in_root(root.path()), Err(InstallationError::Broken { .. })));
        write(root.path(), "usr/lib/R/library/base/DESCRIPTION", "Package: base\nVersion: 4.2.2\n");
        write(root.path(), "usr/lib/R/bin/R", "R_SHARE_DIR=/usr/share/R/share\nR_DOC_DIR=\"/usr/share/R/doc\"\n");
        fs::create_dir_all(root.path().join("usr/lib/R/etc")).unwrap();
        std::os::unix::fs::symlink("/etc/R/Renviron", root.path().join("usr/lib/R/etc/Renviron")).unwrap();
        fs::create_dir_all(root.path().join("usr/local/lib/R/site-library")).unwrap();
        let r = RInstallation::in_root(root.path()).unwrap();
        assert_eq!(r.version, "4.2.2");
        let error = r.with_future().unwrap_err();
        assert!(error.to_string().contains("apt install r-cran-future"), "{error}");
        write(root.path(), "usr/lib/R/site-library/future/DESCRIPTION", "Package: future\nVersion: 1.31.0\n");
        let r = RInstallation::in_root(root.path()).unwrap().with_future().unwrap();
        assert_eq!(r, RInstallation { include: "/usr/lib/R/include".into(), ..RInstallation::debian_like() });
    }

    #[test]
    fn folders_within_folders_are_named_once() {
        let folders = RInstallation::debian_like().folders();
        let expected = ["/etc/R", "/usr/lib/R", "/usr/local/lib/R/site-library"];
        let shared = ["/usr/share/R/doc", "/usr/share/R/include", "/usr/share/R/share"];
        assert_eq!(folders, expected.iter().chain(&shared).map(PathBuf::from).collect::<Vec<_>>());
    }
}
