//! A library to preload: with it a program finds AMX on a CPU that has none, and the emulator executes it. For tests only.
//!
//! `LD_PRELOAD` puts it before the C library. It answers two questions that a program asks the system, and no others:
//! `/proc/cpuinfo` lists AMX among the flags of every CPU, and the request for tile registers is granted. So programs
//! themselves do not know the difference, and no check in them is weaker than it was. On a CPU that has AMX it does
//! nothing.
//!
//! It is never found by accident: `./x fake-amx` or a test names it for one process.

use libc::{c_char, c_int, c_long, c_uint};
use llmc_amx_emulator::{Unit, provide, unit};
use std::ffi::CStr;
use std::io::{Read, Seek, Write};
use std::os::fd::{FromRawFd, IntoRawFd};

/// What `/proc/cpuinfo` says of a CPU with AMX.
const FLAGS: &str = " amx_bf16 amx_tile amx_int8";

/// Runs when the library is loaded, before the program.
#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;

extern "C" fn start() {
    provide();
}

/// The C library's `open64`, but for `/proc/cpuinfo`.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller passes a string.
    let is_cpuinfo = unsafe { CStr::from_ptr(path) } == c"/proc/cpuinfo";
    // SAFETY: promised by the caller.
    let file = unsafe { real_open(path, flags, mode) };
    if !is_cpuinfo || file < 0 || unit() == Unit::Hardware {
        return file;
    }
    // SAFETY: the descriptor was just made and belongs to nothing else.
    let original = unsafe { std::fs::File::from_raw_fd(file) };
    with_flags(original).map_or(-1, IntoRawFd::into_raw_fd)
}

/// A copy of `/proc/cpuinfo` with the flags of AMX.
fn with_flags(mut original: std::fs::File) -> std::io::Result<std::fs::File> {
    let mut text = String::new();
    original.read_to_string(&mut text)?;
    let line = |line: &str| if line.starts_with("flags") { format!("{line}{FLAGS}\n") } else { format!("{line}\n") };
    let text: String = text.lines().map(line).collect();
    // SAFETY: the name is a null-terminated string; a descriptor, if there is one, belongs to nothing else.
    let mut file = unsafe {
        match libc::memfd_create(c"cpuinfo".as_ptr(), libc::MFD_CLOEXEC) {
            descriptor if descriptor < 0 => return Err(std::io::Error::last_os_error()),
            descriptor => std::fs::File::from_raw_fd(descriptor),
        }
    };
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// # Safety
/// As for `open`.
unsafe fn real_open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: promised by the caller; `openat` of the working directory is `open`.
    unsafe { libc::openat(libc::AT_FDCWD, path, flags | libc::O_LARGEFILE, mode) }
}

/// The C library's `syscall`, but for the request for tile registers.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    const ARCH_REQ_XCOMP_PERM: c_long = 0x1023;
    const XFEATURE_XTILEDATA: c_long = 18;
    if (number, a, b) == (libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) && unit() == Unit::Emulator {
        return 0;
    }
    let result: c_long;
    // SAFETY: promised by the caller; the kernel changes RCX and R11 besides the result.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            in("r9") f,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    if (-4095..0).contains(&result) {
        // SAFETY: the address is this thread's.
        unsafe { *libc::__errno_location() = -result as c_int };
        return -1;
    }
    result
}
