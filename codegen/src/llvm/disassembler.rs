//! LLVM's disassembler, which inkwell does not wrap.

use super::compile::TRIPLE;
use inkwell::llvm_sys::disassembler::{LLVMCreateDisasmCPUFeatures, LLVMDisasmDispose, LLVMDisasmInstruction};
use inkwell::targets::{InitializationConfig, Target};
use std::ffi::{CStr, CString, c_char};

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Bytes from the start of the function.
    pub offset: u64,
    /// In AT&T syntax.
    pub text: String,
    /// Where a jump or call with a fixed target goes.
    pub target: Option<u64>,
}

/// Disassembles code that runs at `address`.
///
/// # Errors
/// At the first bytes that are no instruction.
pub fn instructions(code: &[u8], address: u64) -> Result<Vec<Instruction>, String> {
    Target::initialize_x86(&InitializationConfig::default());
    let triple = CString::new(TRIPLE).map_err(|error| error.to_string())?;
    // Everything that code for any level may hold.
    let features = c"+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl,+avx512bf16,+avx512vnni,+avx512vbmi,+avx512ifma,+avx512bitalg,+avx512vpopcntdq,+amx-tile,+amx-bf16,+amx-int8,+fma,+f16c,+bmi,+bmi2,+movbe,+lzcnt,+popcnt";
    // SAFETY: all strings are null-terminated and outlive the call; without callbacks there is no user data.
    let context = unsafe {
        LLVMCreateDisasmCPUFeatures(
            triple.as_ptr(),
            c"x86-64".as_ptr(),
            features.as_ptr(),
            std::ptr::null_mut(),
            0,
            None,
            None,
        )
    };
    if context.is_null() {
        return Err("LLVM has no disassembler for this target".to_owned());
    }
    let mut found = Vec::new();
    let mut bytes = code.to_vec();
    let mut offset = 0;
    let mut problem = None;
    while offset < bytes.len() {
        let mut text = [0 as c_char; 256];
        let (start, left) = (bytes[offset..].as_mut_ptr(), (bytes.len() - offset) as u64);
        let at = address + offset as u64;
        // SAFETY: `start` leads to `left` bytes, `text` has the size given, and the context lives.
        let size = unsafe { LLVMDisasmInstruction(context, start, left, at, text.as_mut_ptr(), text.len()) };
        if size == 0 {
            problem = Some(format!("the bytes at offset 0x{offset:x} are no instruction"));
            break;
        }
        // SAFETY: LLVM ends what it writes with a null byte within the size given.
        let text = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy();
        let text = text.trim().replace('\t', " ");
        let target = target(&text, at + size as u64);
        found.push(Instruction { offset: offset as u64, text, target });
        offset += size;
    }
    // SAFETY: the context was made above and is not used again.
    unsafe { LLVMDisasmDispose(context) };
    match problem {
        Some(problem) => Err(problem),
        None => Ok(found),
    }
}

/// Where a jump or call goes, whose operand LLVM prints relative to the next instruction.
fn target(text: &str, next: u64) -> Option<u64> {
    let (instruction, operand) = text.split_once(' ')?;
    if !(instruction.starts_with('j') || instruction.starts_with("call")) {
        return None;
    }
    let relative: i64 = match operand.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok()?,
        None => operand.parse().ok()?,
    };
    next.checked_add_signed(relative)
}
