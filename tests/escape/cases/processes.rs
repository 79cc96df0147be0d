//! Cases 23 to 45: processes and the kernel.

use crate::{
    case::{Act, Case, Outcome::*},
    world::Place,
};

pub(super) fn cases() -> Vec<Case> {
    vec![Case {
        acts: foreign_calls,
        ..Case::new(34, Denied, "make system calls by the entries of x32 and of i386 (int 0x80)", "syscalls")
    }]
}

fn foreign_calls(_: &Place<'_>) -> Vec<Act> {
    vec![
        Act::native("x32\t39", "ENOSYS").stated("kernels are built without x32, where ENOSYS is the kernel's own answer; getpid by the 64-bit entry is the control"),
        Act::native("int80\t20", "signal 31").bare("ok"),
    ]
}
