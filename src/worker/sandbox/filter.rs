//! Which system calls a job may not make: a second wall behind the name spaces. Pure; `inside` puts it up.
//!
//! A compiler, an assembler or a plugin makes whatever ordinary calls its authors and their C library please, also ones
//! that do not exist yet, so this is a list of what is forbidden: calls that have reached parts of the kernel which a job has no business with,
//! and that have been the way out of name spaces before. All of them would be refused to a job anyhow, for want of
//! rights; here they do not even get to the code that decides. Invariant: a call that is not named here is untouched, and
//! costs what it did (the kernel remembers such answers since 5.11).

/// One instruction of the kernel's packet filter machine (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    value: u32,
}

/// A kind of machine whose calls have numbers of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "each kind of machine has those that it runs")]
enum Numbers {
    X86_64,
    I386,
    Arm,
    Aarch64,
}

/// The numbers that a job on this machine may use: its own, and those of the older programs that it runs as well, such as a vendor's
/// compiler of 32 bits.
#[cfg(target_arch = "x86_64")]
const HERE: &[Numbers] = &[Numbers::X86_64, Numbers::I386];
#[cfg(target_arch = "aarch64")]
const HERE: &[Numbers] = &[Numbers::Aarch64, Numbers::Arm];
#[cfg(target_arch = "arm")]
const HERE: &[Numbers] = &[Numbers::Arm];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "arm")))]
const HERE: &[Numbers] = &[];

impl Numbers {
    /// The kernel's `AUDIT_ARCH_*`.
    fn architecture(self) -> u32 {
        match self {
            Numbers::X86_64 => 0xc000_003e,
            Numbers::I386 => 0x4000_0003,
            Numbers::Arm => 0x4000_0028,
            Numbers::Aarch64 => 0xc000_00b7,
        }
    }

    fn of(self, row: &Row) -> Option<u32> {
        let number = match self {
            Numbers::X86_64 => row.1[0],
            Numbers::I386 => row.1[1],
            Numbers::Arm => row.1[2],
            Numbers::Aarch64 => row.1[3],
        };
        (number != NONE).then_some(u32::from(number))
    }
}

/// There is no such call.
const NONE: u16 = u16::MAX;

/// A call: its name, and its number on x86-64, i386, arm (EABI) and aarch64, from the kernel's `unistd` headers.
type Row = (&'static str, [u16; 4]);

/// Refused with EPERM.
const FORBIDDEN: &[Row] = &[
    // Other processes.
    ("ptrace", [101, 26, 26, 117]),
    ("process_vm_readv", [310, 347, 376, 270]),
    ("process_vm_writev", [311, 348, 377, 271]),
    ("kcmp", [312, 349, 378, 272]),
    ("pidfd_getfd", [438, 438, 438, 438]),
    // Roots, mounts and name spaces.
    ("mount", [165, 21, 21, 40]),
    ("umount2", [166, 52, 52, 39]),
    ("pivot_root", [155, 217, 218, 41]),
    ("chroot", [161, 61, 61, 51]),
    ("unshare", [272, 310, 337, 97]),
    ("setns", [308, 346, 375, 268]),
    ("open_tree", [428, 428, 428, 428]),
    ("move_mount", [429, 429, 429, 429]),
    ("fsopen", [430, 430, 430, 430]),
    ("fsconfig", [431, 431, 431, 431]),
    ("fsmount", [432, 432, 432, 432]),
    ("fspick", [433, 433, 433, 433]),
    ("mount_setattr", [442, 442, 442, 442]),
    ("open_by_handle_at", [304, 342, 371, 265]),
    ("name_to_handle_at", [303, 341, 370, 264]),
    ("fanotify_init", [300, 338, 367, 262]),
    // Machines within the kernel.
    ("bpf", [321, 357, 386, 280]),
    ("perf_event_open", [298, 336, 364, 241]),
    ("userfaultfd", [323, 374, 388, 282]),
    ("io_uring_setup", [425, 425, 425, 425]),
    ("io_uring_enter", [426, 426, 426, 426]),
    ("io_uring_register", [427, 427, 427, 427]),
    ("keyctl", [250, 288, 311, 219]),
    ("add_key", [248, 286, 309, 217]),
    ("request_key", [249, 287, 310, 218]),
    // The whole node.
    ("kexec_load", [246, 283, 347, 104]),
    ("init_module", [175, 128, 128, 105]),
    ("finit_module", [313, 350, 379, 273]),
    ("delete_module", [176, 129, 129, 106]),
    ("swapon", [167, 87, 87, 224]),
    ("swapoff", [168, 115, 115, 225]),
    ("reboot", [169, 88, 88, 142]),
    ("quotactl", [179, 131, 131, 60]),
    ("quotactl_fd", [443, 443, 443, 443]),
    ("acct", [163, 51, 51, 89]),
    ("settimeofday", [164, 79, 79, 170]),
    ("clock_settime", [227, 264, 262, 112]),
    ("adjtimex", [159, 124, 124, 171]),
    ("clock_adjtime", [305, 343, 372, 266]),
    ("sethostname", [170, 74, 74, 161]),
    ("setdomainname", [171, 121, 121, 162]),
    ("syslog", [103, 103, 103, 116]),
    ("iopl", [172, 110, NONE, NONE]),
    ("ioperm", [173, 101, NONE, NONE]),
    ("modify_ldt", [154, 123, NONE, NONE]),
    // Its arguments are out of sight. C libraries of the last ten years do without.
    ("socketcall", [NONE, 102, NONE, NONE]),
];
/// Its arguments are out of sight; C libraries fall back to `clone` when there is none.
const CLONE3: Row = ("clone3", [435, 435, 435, 435]);
const CLONE: Row = ("clone", [56, 120, 120, 220]);
const SOCKET: Row = ("socket", [41, 359, 281, 198]);
const IOCTL: Row = ("ioctl", [16, 54, 54, 29]);

/// `CLONE_NEW*` in `clone`'s flags: mounts, cgroups, UTS, IPC, users, processes, network.
const NEW_SPACES: u32 = 0x7e02_0000;
/// Puts characters into a terminal's input, as if typed.
const TIOCSTI: u32 = 0x5412;
/// The same for virtual consoles.
const TIOCLINUX: u32 = 0x541c;
/// Calls of the x32 kind carry this bit under x86-64's name.
const X32_BIT: u32 = 0x4000_0000;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const EAFNOSUPPORT: u32 = 97;
const AF_UNIX: u32 = 1;

// Places in `struct seccomp_data`; the low half of an argument comes first on these machines.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const fn argument_at(index: u32) -> u32 {
    16 + 8 * index
}

// From the kernel's `bpf_common.h` and `seccomp.h`.
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const ERROR: u32 = 0x0005_0000;

fn op(code: u16, value: u32) -> Instruction {
    Instruction {
        code,
        if_true: 0,
        if_false: 0,
        value,
    }
}

/// Goes on with the next instruction if the test holds; else leaves out `skipped`.
fn unless(code: u16, value: u32, skipped: u8) -> Instruction {
    Instruction {
        if_false: skipped,
        ..op(code, value)
    }
}

fn refuse(error: u32) -> Instruction {
    op(RETURN, ERROR | error)
}

/// Returns the program for this machine; empty where its numbers are not known here, and there is no second wall then.
pub fn program() -> Vec<Instruction> {
    if HERE.is_empty() {
        return Vec::new();
    }
    let mut program = vec![op(LOAD, ARCHITECTURE_AT)];
    for numbers in HERE {
        let body = calls(*numbers);
        program.push(Instruction {
            if_true: 1,
            ..op(IF_EQUAL, numbers.architecture())
        });
        program.push(op(JUMP, body.len() as u32));
        program.extend(body);
    }
    // No program of this machine's speaks any other way.
    program.push(op(RETURN, KILL));
    program
}

/// What is asked of a call of one kind of numbers. Ends with an answer in any case.
fn calls(numbers: Numbers) -> Vec<Instruction> {
    let mut body = vec![op(LOAD, NUMBER_AT)];
    if numbers == Numbers::X86_64 {
        body.extend([unless(IF_AT_LEAST, X32_BIT, 1), refuse(ENOSYS)]);
    }
    for number in FORBIDDEN.iter().filter_map(|row| numbers.of(row)) {
        body.extend([unless(IF_EQUAL, number, 1), refuse(EPERM)]);
    }
    if let Some(number) = numbers.of(&CLONE3) {
        body.extend([unless(IF_EQUAL, number, 1), refuse(ENOSYS)]);
    }
    if let Some(number) = numbers.of(&CLONE) {
        body.extend([
            unless(IF_EQUAL, number, 4),
            op(LOAD, argument_at(0)),
            unless(IF_ANY_BIT, NEW_SPACES, 1),
            refuse(EPERM),
            op(RETURN, ALLOW),
        ]);
    }
    if let Some(number) = numbers.of(&SOCKET) {
        body.extend([
            unless(IF_EQUAL, number, 4),
            op(LOAD, argument_at(0)),
            unless(IF_EQUAL, AF_UNIX, 1),
            op(RETURN, ALLOW),
            refuse(EAFNOSUPPORT),
        ]);
    }
    if let Some(number) = numbers.of(&IOCTL) {
        body.extend([
            unless(IF_EQUAL, number, 6),
            op(LOAD, argument_at(1)),
            unless(IF_EQUAL, TIOCSTI, 1),
            refuse(EPERM),
            unless(IF_EQUAL, TIOCLINUX, 1),
            refuse(EPERM),
            op(RETURN, ALLOW),
        ]);
    }
    body.push(op(RETURN, ALLOW));
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel does.
    fn answer(program: &[Instruction], numbers: Numbers, number: u32, arguments: [u64; 2]) -> u32 {
        let load = |at: u32| match at {
            NUMBER_AT => number,
            ARCHITECTURE_AT => numbers.architecture(),
            at => arguments[((at - 16) / 8) as usize] as u32,
        };
        let (mut at, mut register) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            let holds = match step.code {
                LOAD => {
                    register = load(step.value);
                    continue;
                }
                JUMP => {
                    at += step.value as usize;
                    continue;
                }
                RETURN => return step.value,
                IF_EQUAL => register == step.value,
                IF_AT_LEAST => register >= step.value,
                IF_ANY_BIT => register & step.value != 0,
                code => panic!("{code:#x}"),
            };
            at += usize::from(if holds { step.if_true } else { step.if_false });
        }
    }

    #[test]
    fn what_is_named_is_refused_and_nothing_else() {
        let program = program();
        for numbers in HERE {
            let ask = |number, arguments| answer(&program, *numbers, number, arguments);
            let special = [CLONE3, CLONE, SOCKET, IOCTL].map(|row| numbers.of(&row).unwrap());
            let forbidden: Vec<u32> = FORBIDDEN.iter().filter_map(|row| numbers.of(row)).collect();
            for number in 0..1000 {
                let expected = match number {
                    number if forbidden.contains(&number) => ERROR | EPERM,
                    number if special.contains(&number) => continue,
                    _ => ALLOW,
                };
                assert_eq!(ask(number, [0; 2]), expected, "{numbers:?} {number}");
            }
            let [clone3, clone, socket, ioctl] = special;
            assert_eq!(ask(clone3, [0; 2]), ERROR | ENOSYS);
            // As fork, vfork and threads do.
            for flags in [17, 0x4111, 0x003d_0f00] {
                assert_eq!(ask(clone, [flags, 0]), ALLOW, "{flags:#x}");
            }
            for flags in [0x0002_0000, 0x1000_0011, 0x4000_0000] {
                assert_eq!(ask(clone, [flags, 0]), ERROR | EPERM, "{flags:#x}");
            }
            assert_eq!(ask(socket, [1, 1]), ALLOW);
            for family in [2, 10, 16, 17, 40] {
                assert_eq!(ask(socket, [family, 1]), ERROR | EAFNOSUPPORT, "{family}");
            }
            // Asking for a window's size, and typing.
            assert_eq!(ask(ioctl, [1, 0x5413]), ALLOW);
            assert_eq!(ask(ioctl, [1, u64::from(TIOCSTI)]), ERROR | EPERM);
            assert_eq!(ask(ioctl, [1, u64::from(TIOCLINUX)]), ERROR | EPERM);
        }
        #[cfg(target_arch = "x86_64")]
        {
            assert_eq!(answer(&program, Numbers::X86_64, X32_BIT + 1, [0; 2]), ERROR | ENOSYS);
            assert_eq!(
                answer(&program, Numbers::Aarch64, 0, [0; 2]),
                KILL,
                "not of this machine"
            );
        }
    }

    #[test]
    fn no_call_is_named_twice_and_all_jumps_fit() {
        for numbers in [Numbers::X86_64, Numbers::I386, Numbers::Arm, Numbers::Aarch64] {
            let special = [CLONE3, CLONE, SOCKET, IOCTL];
            let mut all: Vec<u32> = FORBIDDEN
                .iter()
                .chain(&special)
                .filter_map(|row| numbers.of(row))
                .collect();
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), count, "{numbers:?}");
        }
        // The kernel takes 4,096 instructions.
        assert!(program().len() < 1000);
    }

    /// The compiler's C library has numbers of its own for this machine.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn numbers_are_those_of_this_machine() {
        let of = |name: &str| {
            FORBIDDEN
                .iter()
                .find(|row| row.0 == name)
                .and_then(|row| Numbers::X86_64.of(row))
        };
        for (name, number) in [
            ("ptrace", libc::SYS_ptrace),
            ("mount", libc::SYS_mount),
            ("unshare", libc::SYS_unshare),
            ("bpf", libc::SYS_bpf),
            ("keyctl", libc::SYS_keyctl),
            ("userfaultfd", libc::SYS_userfaultfd),
            ("open_by_handle_at", libc::SYS_open_by_handle_at),
            ("clock_settime", libc::SYS_clock_settime),
            ("io_uring_setup", libc::SYS_io_uring_setup),
        ] {
            assert_eq!(of(name).map(i64::from), Some(number), "{name}");
        }
        assert_eq!(Numbers::X86_64.of(&CLONE).map(i64::from), Some(libc::SYS_clone));
        assert_eq!(Numbers::X86_64.of(&SOCKET).map(i64::from), Some(libc::SYS_socket));
        assert_eq!(Numbers::X86_64.of(&IOCTL).map(i64::from), Some(libc::SYS_ioctl));
    }
}
