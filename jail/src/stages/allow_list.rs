//! The BPF program of an allow-list of system calls.
//!
//! Not left to `seccompiler`, whose programs compare with one number after the other: the kernel runs a new filter once for every
//! number that there is, which with 400 allowed calls took longer than all other stages together (2 ms). Numbers that follow
//! one another are one range here, and the ranges are in order.

use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, sock_filter};

use crate::failure::{Failure, Outcome};
use crate::spec::Stage;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// Instructions (linux/bpf_common.h); all are below 256.
#[expect(clippy::cast_possible_truncation, reason = "the kernel's codes have 16 bits")]
mod code {
    use super::libc::*;
    pub(super) const LOAD: u16 = (BPF_LD | BPF_W | BPF_ABS) as u16;
    pub(super) const IF_EQUAL: u16 = (BPF_JMP | BPF_JEQ | BPF_K) as u16;
    pub(super) const IF_LESS_NOT: u16 = (BPF_JMP | BPF_JGE | BPF_K) as u16;
    pub(super) const IF_GREATER: u16 = (BPF_JMP | BPF_JGT | BPF_K) as u16;
    pub(super) const JUMP: u16 = (BPF_JMP | BPF_JA) as u16;
    pub(super) const RETURN: u16 = (BPF_RET | BPF_K) as u16;
}

/// Allows these numbers of this architecture, answers all others with `otherwise`, and kills what comes from another
/// architecture.
pub(crate) fn program(allow: &[i64], otherwise: u32) -> Outcome<BpfProgram> {
    let mut program = beginning()?;
    for (first, last) in ranges(allow)? {
        program.extend([
            instruction(code::IF_LESS_NOT, 1, first),
            instruction(code::RETURN, 0, otherwise), // Below this range, and above all before it.
            instruction(code::IF_GREATER, 1, last),
            instruction(code::RETURN, 0, u32::from(SeccompAction::Allow)),
        ]);
    }
    program.push(instruction(code::RETURN, 0, otherwise));
    Ok(program)
}

/// Allows all but these numbers, and kills what comes from another architecture.
pub(crate) fn all_but(deny: &[i64], denied: u32) -> Outcome<BpfProgram> {
    let mut program = beginning()?;
    for (first, last) in ranges(deny)? {
        program.extend([
            instruction(code::IF_LESS_NOT, 1, first),
            instruction(code::RETURN, 0, u32::from(SeccompAction::Allow)),
            instruction(code::IF_GREATER, 1, last),
            instruction(code::RETURN, 0, denied),
        ]);
    }
    program.push(instruction(code::RETURN, 0, u32::from(SeccompAction::Allow)));
    Ok(program)
}

/// Loads the number, after a look at the architecture.
fn beginning() -> Outcome<BpfProgram> {
    let architecture = architecture().ok_or_else(|| failed("no filter for this architecture is known"))?;
    Ok(vec![
        instruction(code::LOAD, 0, ARCHITECTURE),
        instruction(code::IF_EQUAL, 1, architecture),
        instruction(code::RETURN, 0, u32::from(SeccompAction::KillProcess)),
        instruction(code::LOAD, 0, NUMBER),
    ])
}

/// The instruction that ends a program.
pub(crate) const RETURN: u16 = code::RETURN;

/// An instruction that skips so many others.
pub(crate) fn jump(skipped: usize) -> Outcome<sock_filter> {
    let skipped = u32::try_from(skipped).map_err(|_| failed("the filter is too long"))?;
    Ok(instruction(code::JUMP, 0, skipped))
}

/// An instruction that, if it is a condition that holds, skips so many others.
fn instruction(code: u16, skipped: u8, k: u32) -> sock_filter {
    sock_filter { code, jt: skipped, jf: 0, k }
}

/// The numbers as ranges, both ends included, in order and apart.
fn ranges(numbers: &[i64]) -> Outcome<Vec<(u32, u32)>> {
    let number = |number: &i64| u32::try_from(*number).map_err(|_| failed(format!("{number} is no system call")));
    let mut numbers = numbers.iter().map(number).collect::<Outcome<Vec<u32>>>()?;
    numbers.sort_unstable();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if number <= last.saturating_add(1) => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    Ok(ranges)
}

/// `AUDIT_ARCH_*` of the architecture that this program is built for.
fn architecture() -> Option<u32> {
    match std::env::consts::ARCH {
        "x86_64" => Some(0xC000_003E),
        "aarch64" => Some(0xC000_00B7),
        "riscv64" => Some(0xC000_00F3),
        _ => None,
    }
}

fn failed(what: impl Into<String>) -> Failure {
    Failure::new(Stage::Seccomp, what)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What the kernel would do with it: the instructions that are used here, no others.
    fn verdict(program: &[sock_filter], architecture: u32, number: u32) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            let holds = match code {
                code::LOAD => {
                    value = if k == NUMBER { number } else { architecture };
                    at += 1;
                    continue;
                }
                code::RETURN => return k,
                code::IF_EQUAL => value == k,
                code::IF_LESS_NOT => value >= k,
                code::IF_GREATER => value > k,
                other => panic!("{other}"),
            };
            at += 1 + usize::from(if holds { jt } else { jf });
        }
    }

    #[test]
    fn allows_what_is_listed_and_nothing_else() {
        let lists: [&[i64]; 5] = [&[], &[0], &[5, 3, 4, 4, 9], &[0, 1, 2, 450], &[7, 8, 100, 102, 101, 60]];
        for list in lists {
            let allowed: BTreeSet<i64> = list.iter().copied().collect();
            let program = program(list, SeccompAction::Errno(38).into()).unwrap();
            for number in (0..500).chain([0x4000_0000, 0x4000_0003, u32::MAX]) {
                let expected = if allowed.contains(&number.into()) { 0x7fff_0000 } else { 0x0005_0026 };
                assert_eq!(verdict(&program, architecture().unwrap(), number), expected, "{list:?} {number}");
                assert_eq!(verdict(&program, 0x4000_0003, number), 0x8000_0000);
                let opposite = all_but(list, 0x0005_0026).unwrap();
                let expected = if allowed.contains(&number.into()) { 0x0005_0026 } else { 0x7fff_0000 };
                assert_eq!(verdict(&opposite, architecture().unwrap(), number), expected, "{list:?} {number}");
            }
        }
        assert!(program(&[-1], 0).is_err());
    }
}
