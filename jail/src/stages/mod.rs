//! The stages through which a process becomes a task, one file for each group of them, in this order:
//!
//! 1. *Spec* ([`crate::prepared`]): the spec is read, checked and compiled.
//! 2. *Identity* ([`crate::identity`]): root becomes an ordinary user.
//! 3. *Namespaces* ([`namespaces`]): a child in new namespaces, one user mapped.
//! 4. *Mounts* ([`mounts`]): the new root; the old one is gone.
//! 5. *Init* ([`init`]): process 1 forks the task's process, gives up all rights, reaps.
//! 6. *Session*, *Limits*, *Descriptors* ([`session`], [`limits`], [`descriptors`]): what the process inherited.
//! 7. *NestedNamespaces*, *Capabilities*, *NoNewPrivileges* ([`privileges`]): what it could become.
//! 8. *Landlock* ([`landlock`]), *Seccomp* ([`seccomp`], [`allow_list`]): what it may ask for.
//! 9. *Exec*: the command.
//!
//! 6 to 9 are the *tail* ([`tail`]), the same code for every container.

pub(crate) mod allow_list;
pub(crate) mod descriptors;
pub(crate) mod init;
pub(crate) mod landlock;
pub(crate) mod limits;
pub(crate) mod mounts;
pub(crate) mod namespaces;
pub(crate) mod network;
pub(crate) mod place;
pub(crate) mod privileges;
pub(crate) mod rtnetlink;
pub(crate) mod seccomp;
pub(crate) mod session;
pub(crate) mod tail;
