//! The loop that kernels in assembly have in common: several passes over a buffer, some lines per turn.

/// Goes `$passes` times over `$lines`, `$step` bytes per turn: `before` runs once at the start, `turn` for every turn,
/// in which `rax` points to its lines, and `after` once at the end. What follows are more operands.
///
/// # Safety
/// Both counts must be positive, and the lines whole turns. Everything that the instructions need must be there.
macro_rules! over_lines {
    (
        $lines:ident, $passes:ident, $step:literal,
        before: [$($before:expr),* $(,)?], turn: [$($turn:expr),* $(,)?], after: $after:literal
        $(, $name:ident = $class:ident($place:tt) $operand:expr)* $(,)?
    ) => {
        std::arch::asm!(
            $($before,)*
            "2:",
            "mov rax, {start}",
            "3:",
            $($turn,)*
            concat!("add rax, ", $step),
            "cmp rax, {end}",
            "jb 3b",
            "dec rcx",
            "jnz 2b",
            $after,
            start = in(reg) $lines.as_mut_ptr(),
            end = in(reg) $lines.as_mut_ptr_range().end,
            $($name = $class($place) $operand,)*
            inout("rcx") $passes => _,
            out("rax") _,
            // All vector, mask and tile registers among them.
            clobber_abi("sysv64"),
            options(nostack),
        )
    };
}
