//! Loops of 256-bit instructions. Products are blocks of 6 rows by 16 columns, as many as 16 registers hold sums of.

use super::{Kernel, Limit, Line, OWN};

const NEEDS: &[&str] = &["avx2", "fma"];

/// Work is per line: its bytes, or operations on what it holds.
const fn kernel(limit: Limit, name: &'static str, work: usize, run: unsafe fn(&mut [Line], usize)) -> Kernel {
    Kernel { limit, name, needs: NEEDS, step: 4, work: work as f64, run }
}

pub const KERNELS: &[Kernel] = &[
    kernel(Limit::Reads, "in order", 64, reads),
    kernel(Limit::Reads, "prefetched", 64, prefetched),
    kernel(Limit::F32Products, "256-bit FMA", 2 * 6 * 16, products),
    kernel(Limit::Bf16Products, "widened 256-bit FMA", 2 * 6 * 32, widened),
    kernel(Limit::BlockFloatProducts, "256-bit VPMADDWD", 2 * 6 * 32, integers),
    kernel(Limit::Elementwise, "256-bit", 4 * 16, elementwise),
];

/// The columns in ymm12 and ymm13 times one row, added to two of the sums in ymm0 to ymm11.
macro_rules! row {
    ($row:literal, $left:literal, $right:literal) => {
        concat!(
            "vbroadcastss ymm14, dword ptr [{rows} + 4*",
            $row,
            "]\nvfmadd231ps ymm",
            $left,
            ", ymm14, ymm12\nvfmadd231ps ymm",
            $right,
            ", ymm14, ymm13\n",
        )
    };
}

/// All six rows.
macro_rules! block {
    () => {
        concat!(row!(0, 0, 1), row!(1, 2, 3), row!(2, 4, 5), row!(3, 6, 7), row!(4, 8, 9), row!(5, 10, 11))
    };
}

/// The columns of one line, and the products with them.
macro_rules! line {
    ($offset:literal) => {
        concat!("vmovaps ymm12, [rax + ", $offset, "]\nvmovaps ymm13, [rax + 32 + ", $offset, "]\n", block!())
    };
}

/// The columns of one line for two consecutive k, as the compiler packs them, and the products with them.
macro_rules! pairs {
    ($offset:literal) => {
        concat!(
            "vmovaps ymm13, [rax + 32 + ",
            $offset,
            "]\nvpslld ymm12, ymm13, 16\nvmovaps ymm13, [rax + ",
            $offset,
            "]\nvpslld ymm13, ymm13, 16\n",
            block!(),
            "vandps ymm12, ymm15, [rax + ",
            $offset,
            "]\nvandps ymm13, ymm15, [rax + 32 + ",
            $offset,
            "]\n",
            block!(),
        )
    };
}

/// The columns in ymm12 and ymm13, of 16-bit integers for two consecutive k, times one row, added to two of the sums.
macro_rules! integer_row {
    ($row:literal, $left:literal, $right:literal) => {
        concat!(
            "vpbroadcastd ymm14, dword ptr [{rows} + 4*",
            $row,
            "]\nvpmaddwd ymm15, ymm14, ymm12\nvpmaddwd ymm14, ymm14, ymm13\nvpaddd ymm",
            $left,
            ", ymm",
            $left,
            ", ymm15\nvpaddd ymm",
            $right,
            ", ymm",
            $right,
            ", ymm14\n",
        )
    };
}

/// The columns of one line for two consecutive k, and the products with them of all six rows.
macro_rules! integers {
    ($offset:literal) => {
        concat!(
            "vmovdqa ymm12, [rax + ",
            $offset,
            "]\nvmovdqa ymm13, [rax + 32 + ",
            $offset,
            "]\n",
            integer_row!(0, 0, 1),
            integer_row!(1, 2, 3),
            integer_row!(2, 4, 5),
            integer_row!(3, 6, 7),
            integer_row!(4, 8, 9),
            integer_row!(5, 10, 11),
        )
    };
}

/// Reads a line.
macro_rules! read {
    ($offset:literal) => {
        concat!("vmovaps ymm0, [rax + ", $offset, "]\nvmovaps ymm1, [rax + 32 + ", $offset, "]\n")
    };
}

/// Asks for the line 8 KiB further on, and reads one.
macro_rules! prefetch {
    ($offset:literal) => {
        concat!("prefetcht0 [rax + 8192 + ", $offset, "]\n", read!($offset))
    };
}

/// Four operations on each value of a line, which stays in place.
macro_rules! map {
    ($offset:literal, $register:literal) => {
        concat!(
            "vmulps ymm",
            $register,
            ", ymm15, [rax + ",
            $offset,
            "]\nvaddps ymm",
            $register,
            ", ymm15, ymm",
            $register,
            "\nvmaxps ymm",
            $register,
            ", ymm15, ymm",
            $register,
            "\nvminps ymm",
            $register,
            ", ymm14, ymm",
            $register,
            "\nvmovaps [rax + ",
            $offset,
            "], ymm",
            $register,
        )
    };
}

/// # Safety
/// As for every kernel of [`KERNELS`].
unsafe fn reads(lines: &mut [Line], passes: usize) {
    // SAFETY: the turns stay in the lines, which are aligned, and only read them.
    unsafe {
        over_lines!(
            lines, passes, 256,
            before: [], turn: [read!(0), read!(64), read!(128), read!(192)], after: "vzeroupper"
        );
    }
}

/// # Safety
/// As for every kernel of [`KERNELS`].
unsafe fn prefetched(lines: &mut [Line], passes: usize) {
    // SAFETY: the turns stay in the lines, which are aligned, and only read them; a prefetch beyond them does nothing.
    unsafe {
        over_lines!(
            lines, passes, 256,
            before: [], turn: [prefetch!(0), prefetch!(64), prefetch!(128), prefetch!(192)], after: "vzeroupper"
        );
    }
}

/// # Safety
/// As for every kernel of [`KERNELS`].
unsafe fn products(lines: &mut [Line], passes: usize) {
    // SAFETY: the turns stay in the lines, which are aligned, and only read them and six of the 16 rows.
    unsafe {
        over_lines!(
            lines, passes, 256,
            before: ["vzeroall"], turn: [line!(0), line!(64), line!(128), line!(192)], after: "vzeroupper",
            rows = in(reg) &raw const OWN,
        );
    }
}

/// # Safety
/// As for every kernel of [`KERNELS`].
unsafe fn widened(lines: &mut [Line], passes: usize) {
    // SAFETY: the turns stay in the lines, which are aligned, and only read them and six of the 16 rows.
    unsafe {
        over_lines!(
            lines, passes, 256,
            before: ["vzeroall", "vpcmpeqd ymm15, ymm15, ymm15", "vpslld ymm15, ymm15, 16"],
            turn: [pairs!(0), pairs!(64), pairs!(128), pairs!(192)], after: "vzeroupper",
            rows = in(reg) &raw const OWN,
        );
    }
}

/// # Safety
/// As for every kernel of [`KERNELS`].
unsafe fn integers(lines: &mut [Line], passes: usize) {
    // SAFETY: the turns stay in the lines, which are aligned, and only read them and six of the 16 rows.
    unsafe {
        over_lines!(
            lines, passes, 256,
            before: ["vzeroall"], turn: [integers!(0), integers!(64), integers!(128), integers!(192)], after: "vzeroupper",
            rows = in(reg) &raw const OWN,
        );
    }
}

/// With `c` the value that lines are filled with: `min(max(v * c + c, c), 2 * c)`, which stays near 1.
///
/// # Safety
/// As for every kernel of [`KERNELS`].
unsafe fn elementwise(lines: &mut [Line], passes: usize) {
    // SAFETY: the turns stay in the lines, which are aligned and may be written.
    unsafe {
        over_lines!(
            lines, passes, 256,
            before: ["vbroadcastss ymm15, dword ptr [{value}]", "vaddps ymm14, ymm15, ymm15"],
            turn: [
                map!(0, 0), map!(32, 1), map!(64, 2), map!(96, 3), map!(128, 4), map!(160, 5), map!(192, 6), map!(224, 7)
            ],
            after: "vzeroupper",
            value = in(reg) &raw const OWN,
        );
    }
}
