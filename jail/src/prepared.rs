//! All that can be worked out, checked and compiled before any process is made: a spec that cannot be carried out is
//! refused while there is nothing to clean up.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use crate::failure::{Failure, Outcome};
use crate::spec::{Builtin, Container, ControlGroup, MAX_CLOSED, MAX_HIERARCHIES, Spec, Stage, Uplink};
use crate::stages::descriptors::MAX_FILES;
use crate::stages::seccomp::Filters;
use crate::status::MAX_DESCRIPTORS;

/// An argument vector and an environment as execve(2) takes them.
pub(crate) struct Program {
    /// The path; also the first argument.
    pub(crate) path: CString,
    /// The arguments.
    pub(crate) arguments: Vec<CString>,
    /// The environment, `NAME=value`.
    pub(crate) environment: Vec<CString>,
}

/// A checked spec.
pub(crate) struct Prepared {
    /// The spec itself.
    pub(crate) spec: Spec,
    /// What is executed at the end.
    pub(crate) command: Program,
    /// The program that makes the container, for [`Container::External`].
    pub(crate) outer: Option<Program>,
    /// The compiled seccomp filters.
    pub(crate) filters: Option<Filters>,
}

impl Prepared {
    /// Checks and compiles.
    pub(crate) fn new(spec: Spec) -> Outcome<Self> {
        let command = Program::new(&spec.command.argv, &spec.command.environment)?;
        let outer = match &spec.container {
            Container::External(external) => Some(Program::new(&external.argv, &external.environment)?),
            Container::Builtin(_) | Container::None { .. } => None,
        };
        let filters = spec.confinement.seccomp.as_ref().map(Filters::compile).transpose()?;
        if !spec.command.directory.is_absolute() {
            return Err(refused(format!("the working directory {} is not absolute", spec.command.directory.display())));
        }
        if let Container::External(external) = &spec.container
            && external.files.len() > MAX_FILES
        {
            return Err(refused(format!("{} files for the program that makes the container", external.files.len())));
        }
        if spec.watch.tmpfs.len() >= MAX_DESCRIPTORS {
            return Err(refused(format!("{} tmpfs to watch", spec.watch.tmpfs.len())));
        }
        if let Container::Builtin(Builtin { uplink: Some(uplink), .. }) = &spec.container {
            check_uplink(uplink)?;
        }
        spec.control_group.as_ref().map_or(Ok(()), check_group)?;
        Ok(Self { spec, command, outer, filters })
    }
}

impl Program {
    fn new(argv: &[String], environment: &[(String, String)]) -> Outcome<Self> {
        let arguments = argv.iter().map(|argument| c_string(argument)).collect::<Outcome<Vec<_>>>()?;
        let path = arguments.first().filter(|path| path.as_bytes().starts_with(b"/")).cloned();
        let path = path.ok_or_else(|| refused("the first argument is not an absolute path"))?;
        let environment = environment
            .iter()
            .map(|(name, value)| {
                let named = !name.is_empty() && !name.contains('=');
                named.then_some(()).ok_or_else(|| refused(format!("{name:?} cannot name a variable")))?;
                c_string(&format!("{name}={value}"))
            })
            .collect::<Outcome<Vec<_>>>()?;
        Ok(Self { path, arguments, environment })
    }
}

/// Refuses control groups that could not work.
pub(crate) fn check_group(group: &ControlGroup) -> Outcome<()> {
    if group.hierarchies.is_empty() || group.hierarchies.len() > MAX_HIERARCHIES {
        return Err(refused(format!("{} hierarchies of control groups", group.hierarchies.len())));
    }
    if group.memory == 0 || group.processes == 0 || group.cpus == 0 {
        return Err(refused("a control group in which nothing could run"));
    }
    group.hierarchies.iter().try_for_each(|hierarchy| names(&hierarchy.parent).map(drop))
}

/// Refuses a way to the internet that could not be closed.
fn check_uplink(uplink: &Uplink) -> Outcome<()> {
    names(&uplink.program)?;
    c_path(&uplink.program)?;
    if uplink.closed.len() > MAX_CLOSED {
        return Err(refused(format!("{} blocks of addresses to be closed", uplink.closed.len())));
    }
    match uplink.closed.iter().find(|block| block.prefix > 32) {
        Some(block) => Err(refused(format!("a block of addresses with a prefix of {} bits", block.prefix))),
        None => Ok(()),
    }
}

/// A string for the kernel, which ends in NUL and has none inside.
fn c_string(text: &str) -> Outcome<CString> {
    CString::new(text).map_err(|_| refused(format!("{text:?} contains a NUL")))
}

/// A path for the kernel.
pub(crate) fn c_path(path: &Path) -> Outcome<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| refused(format!("{} contains a NUL", path.display())))
}

/// The names that lead from the root to an absolute path without `..`.
pub(crate) fn names(path: &Path) -> Outcome<Vec<&std::ffi::OsStr>> {
    let mut components = path.components();
    if components.next() != Some(Component::RootDir) {
        return Err(refused(format!("{} is not absolute", path.display())));
    }
    let name = |component| match component {
        Component::Normal(name) => Ok(name),
        _ => Err(refused(format!("{} has a part that is no name", path.display()))),
    };
    components.map(name).collect()
}

fn refused(what: impl Into<String>) -> Failure {
    Failure::new(Stage::Spec, what)
}
