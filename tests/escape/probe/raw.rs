//! System calls by every entry that a processor has: the only file of the probe with `unsafe` in it.
//!
//! An attacker is not bound by what libc offers, so neither is the probe. Whatever a call does to the memory of this process
//! is between it and the kernel: each act has a process of its own, which does nothing afterwards but say what happened.

use nix::{
    errno::Errno,
    libc,
    unistd::{ForkResult, Pid},
};

/// Six arguments of a system call: numbers, or addresses of memory that the caller keeps alive.
pub(crate) type Arguments = [usize; 6];

/// A system call of this architecture, by the instruction that is meant for it (through libc's syscall(2)).
pub(crate) fn call(number: usize, [a, b, c, d, e, f]: Arguments) -> Result<i64, Errno> {
    // SAFETY: whatever the kernel writes to goes to memory that the caller of this act keeps for it (`acts::Words`), or is
    // refused with EFAULT; an act that breaks its own process is an outcome like others.
    Errno::result(unsafe { libc::syscall(libc::c_long::try_from(number).unwrap_or(-1), a, b, c, d, e, f) })
}

/// A system call of i386, by interrupt 0x80, which every x86-64 kernel with 32-bit programs takes from 64-bit ones too.
#[cfg(target_arch = "x86_64")]
pub(crate) fn int80(number: u32, [a, b, c]: [u32; 3]) -> Result<i64, Errno> {
    let mut answer = u64::from(number);
    // SAFETY: interrupt 0x80 takes its arguments from registers and changes rax; rbx, which the compiler keeps for itself, is
    // restored. Memory below 4 GiB, the only one that it could write to, is not mapped by this program.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {b}", "int 0x80", "xchg rbx, {b}",
            b = inout(reg) u64::from(a) => _, inout("rax") answer, in("rcx") u64::from(b), in("rdx") u64::from(c),
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    let answer = (answer & 0xffff_ffff) as u32 as i32;
    if (-4095..0).contains(&answer) { Err(Errno::from_raw(-answer)) } else { Ok(answer.into()) }
}

/// fork(2). `None` in the child.
pub(crate) fn fork() -> Result<Option<Pid>, Errno> {
    // SAFETY: this program has one thread.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}
