//! The handler of SIGILL that stands in for the CPU, and the choice between it and the CPU.

use crate::decode::{Instruction, decode};
use crate::tiles::Tiles;
use std::cell::UnsafeCell;
use std::fmt::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// What executes tile instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The CPU has AMX.
    Hardware,
    /// This crate.
    Emulator,
}

/// Lets this process execute AMX instructions from now on, and says who does it.
///
/// # Panics
/// If the CPU has AMX and the system does not let this process use it, or takes no handler.
pub fn provide() -> Unit {
    static PROVIDED: OnceLock<()> = OnceLock::new();
    PROVIDED.get_or_init(|| match unit() {
        Unit::Hardware => ask_for_tiles(),
        Unit::Emulator => install(),
    });
    unit()
}

/// What [`provide`] lets execute them.
pub fn unit() -> Unit {
    if has_amx() { Unit::Hardware } else { Unit::Emulator }
}

static PRODUCTS: AtomicU64 = AtomicU64::new(0);

/// How many products of tiles were emulated so far, in all threads.
pub fn count_products() -> u64 {
    PRODUCTS.load(Ordering::Relaxed)
}

/// Whether the CPU has tiles, bf16 products and 8-bit ones (CPUID leaf 7, EDX 24, 22 and 25), and the system knows of
/// tile registers (XCR0 17 and 18, by OSXSAVE).
fn has_amx() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    let (most, first) = (__cpuid(0).eax, __cpuid(1));
    if most < 7 || first.ecx & 1 << 27 == 0 {
        return false;
    }
    let features = __cpuid_count(7, 0).edx;
    let (low, high): (u32, u32);
    // SAFETY: OSXSAVE says that the instruction may be used; register 0 always exists.
    unsafe {
        std::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack));
    }
    let enabled = u64::from(low) | u64::from(high) << 32;
    let needed = 1 << 24 | 1 << 22 | 1 << 25;
    features & needed == needed && enabled >> 17 & 3 == 3
}

fn ask_for_tiles() {
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: this operation takes a number and writes no memory.
    let result = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) };
    assert_eq!(result, 0, "the system does not permit AMX: {}", std::io::Error::last_os_error());
}

fn install() {
    // SAFETY: zero is a valid action, which the fields set below complete.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_flags = libc::SA_SIGINFO;
    action.sa_sigaction = handle as extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) as usize;
    // SAFETY: the action is complete, and its handler has the signature that SA_SIGINFO asks for.
    let result = unsafe { libc::sigaction(libc::SIGILL, &raw const action, std::ptr::null_mut()) };
    assert_eq!(result, 0, "no handler for SIGILL: {}", std::io::Error::last_os_error());
}

/// Where the kernel keeps the registers, in the order of their numbers in instructions.
const REGISTERS: [libc::c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

thread_local! {
    static TILES: UnsafeCell<Tiles> = const { UnsafeCell::new(Tiles::INITIAL) };
}

/// Executes the instruction that trapped and the tile instructions right behind it, since a trap takes much longer than any
/// of them.
extern "C" fn handle(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: a handler with SA_SIGINFO gets the registers of the interrupted thread, which nothing else uses now.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let values = REGISTERS.map(|register| registers[register as usize] as u64);
    let first = registers[libc::REG_RIP as usize] as u64;
    let mut at = first;
    loop {
        // SAFETY: the program executes what is there, and no more bytes are asked for than the instruction has.
        let byte = |offset: usize| unsafe { (at as *const u8).add(offset).read() };
        let Some((instruction, length)) = decode(byte, at, &values) else { break };
        if matches!(instruction, Instruction::MultiplyBf16 { .. } | Instruction::MultiplyInt8 { .. }) {
            PRODUCTS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the tiles are this thread's, and signals do not interrupt the handler of the same one; the instruction
        // names the memory that the program would access.
        let result = TILES.with(|tiles| unsafe { (*tiles.get()).execute(instruction) });
        if let Err(reason) = result {
            end(instruction, at, &reason);
        }
        at += length as u64;
    }
    if at == first {
        // Not ours: what is executed again on return ends the process as it would have without the handler.
        // SAFETY: the default action needs no handler.
        unsafe { libc::signal(libc::SIGILL, libc::SIG_DFL) };
    }
    registers[libc::REG_RIP as usize] = at as i64;
}

/// Ends the process, since a CPU would have raised an exception.
fn end(instruction: Instruction, at: u64, reason: &str) -> ! {
    let mut message = String::new();
    let _ = writeln!(message, "amx-emulator: {} at {at:#x}: {reason} ({instruction:?})", instruction.mnemonic());
    // SAFETY: the message has the length given.
    unsafe {
        libc::write(libc::STDERR_FILENO, message.as_ptr().cast(), message.len());
        libc::abort()
    }
}
