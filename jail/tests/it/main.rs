//! Tests against the real kernel. They need user namespaces, Landlock and seccomp: where one is missing they fail, since a jail
//! that could not be tested is not a jail that works.

#[cfg(test)]
mod ahead;
#[cfg(test)]
mod check;
#[cfg(test)]
mod containers;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod refusals;
