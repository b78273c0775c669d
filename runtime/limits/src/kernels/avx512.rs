//! Loops of 512-bit instructions. Products are blocks of 12 rows by two vectors of columns, as many as 32 registers hold
//! sums of. Reads are none the faster for wider registers, so they are those of AVX2.

use super::{Kernel, Limit, Line, OWN};

const FOUNDATION: &[&str] = &["avx512f"];
const BF16: &[&str] = &["avx512f", "avx512bf16"];
const VNNI: &[&str] = &["avx512f", "avx512vnni"];

pub const KERNELS: &[Kernel] = &[
    Kernel {
        limit: Limit::F32Products,
        name: "512-bit FMA",
        needs: FOUNDATION,
        step: 2,
        work: (2 * 12 * 16) as f64,
        run: products,
    },
    Kernel {
        limit: Limit::Bf16Products,
        name: "widened 512-bit FMA",
        needs: FOUNDATION,
        step: 2,
        work: (2 * 12 * 32) as f64,
        run: widened,
    },
    Kernel {
        limit: Limit::Bf16Products,
        name: "512-bit VDPBF16PS",
        needs: BF16,
        step: 2,
        work: (2 * 12 * 32) as f64,
        run: bf16_pairs,
    },
    Kernel {
        limit: Limit::Int8Products,
        name: "512-bit VPDPBUSD",
        needs: VNNI,
        step: 2,
        work: (2 * 12 * 64) as f64,
        run: int8_quads,
    },
    Kernel {
        limit: Limit::Elementwise,
        name: "512-bit",
        needs: FOUNDATION,
        step: 4,
        work: (4 * 16) as f64,
        run: elementwise,
    },
];

/// The columns in zmm24 and zmm25 times one row, added to two of the sums in zmm0 to zmm23.
macro_rules! row {
    ($multiply:literal, $row:literal, $left:literal, $right:literal) => {
        concat!(
            "vbroadcastss zmm26, dword ptr [{rows} + 4*",
            $row,
            "]\n",
            $multiply,
            " zmm",
            $left,
            ", zmm26, zmm24\n",
            $multiply,
            " zmm",
            $right,
            ", zmm26, zmm25\n",
        )
    };
}

/// All twelve rows.
macro_rules! block {
    ($multiply:literal) => {
        concat!(
            row!($multiply, 0, 0, 1),
            row!($multiply, 1, 2, 3),
            row!($multiply, 2, 4, 5),
            row!($multiply, 3, 6, 7),
            row!($multiply, 4, 8, 9),
            row!($multiply, 5, 10, 11),
            row!($multiply, 6, 12, 13),
            row!($multiply, 7, 14, 15),
            row!($multiply, 8, 16, 17),
            row!($multiply, 9, 18, 19),
            row!($multiply, 10, 20, 21),
            row!($multiply, 11, 22, 23),
        )
    };
}

/// Zeroes the sums.
macro_rules! zero_sums {
    () => {
        concat!(
            "vzeroall\n",
            "vpxord zmm16, zmm16, zmm16\n",
            "vpxord zmm17, zmm17, zmm17\n",
            "vpxord zmm18, zmm18, zmm18\n",
            "vpxord zmm19, zmm19, zmm19\n",
            "vpxord zmm20, zmm20, zmm20\n",
            "vpxord zmm21, zmm21, zmm21\n",
            "vpxord zmm22, zmm22, zmm22\n",
            "vpxord zmm23, zmm23, zmm23\n",
        )
    };
}

/// The loop of a product whose instruction takes columns as they lie in memory.
macro_rules! multiply {
    ($lines:ident, $passes:ident, $multiply:literal) => {
        over_lines!(
            $lines, $passes, 128,
            before: [zero_sums!()],
            turn: ["vmovaps zmm24, [rax]", "vmovaps zmm25, [rax + 64]", block!($multiply)],
            after: "vzeroupper",
            rows = in(reg) &raw const OWN,
        )
    };
}

/// Four operations on each value of a line, which stays in place.
macro_rules! map {
    ($offset:literal, $register:literal) => {
        concat!(
            "vmulps zmm",
            $register,
            ", zmm31, [rax + ",
            $offset,
            "]\nvaddps zmm",
            $register,
            ", zmm31, zmm",
            $register,
            "\nvmaxps zmm",
            $register,
            ", zmm31, zmm",
            $register,
            "\nvminps zmm",
            $register,
            ", zmm30, zmm",
            $register,
            "\nvmovaps [rax + ",
            $offset,
            "], zmm",
            $register,
        )
    };
}

/// # Safety
/// As for every kernel of [`KERNELS`].
unsafe fn products(lines: &mut [Line], passes: usize) {
    // SAFETY: the turns stay in the lines, which are aligned, and only read them and twelve of the 16 rows.
    unsafe { multiply!(lines, passes, "vfmadd231ps") }
}

/// # Safety
/// As for every kernel of [`KERNELS`].
unsafe fn bf16_pairs(lines: &mut [Line], passes: usize) {
    // SAFETY: the turns stay in the lines, which are aligned, and only read them and twelve of the 16 rows.
    unsafe { multiply!(lines, passes, "vdpbf16ps") }
}

/// # Safety
/// As for every kernel of [`KERNELS`].
unsafe fn int8_quads(lines: &mut [Line], passes: usize) {
    // SAFETY: the turns stay in the lines, which are aligned, and only read them and twelve of the 16 rows.
    unsafe { multiply!(lines, passes, "vpdpbusd") }
}

/// Each line holds columns for two consecutive k, as the compiler packs them.
///
/// # Safety
/// As for every kernel of [`KERNELS`].
unsafe fn widened(lines: &mut [Line], passes: usize) {
    // SAFETY: the turns stay in the lines, which are aligned, and only read them and twelve of the 16 rows.
    unsafe {
        over_lines!(
            lines, passes, 128,
            before: [zero_sums!(), "vpternlogd zmm29, zmm29, zmm29, 255", "vpslld zmm29, zmm29, 16"],
            turn: [
                "vmovaps zmm27, [rax]",
                "vmovaps zmm28, [rax + 64]",
                "vpslld zmm24, zmm27, 16",
                "vpslld zmm25, zmm28, 16",
                block!("vfmadd231ps"),
                "vpandd zmm24, zmm27, zmm29",
                "vpandd zmm25, zmm28, zmm29",
                block!("vfmadd231ps"),
            ],
            after: "vzeroupper",
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
            before: ["vbroadcastss zmm31, dword ptr [{value}]", "vaddps zmm30, zmm31, zmm31"],
            turn: [map!(0, 0), map!(64, 1), map!(128, 2), map!(192, 3)],
            after: "vzeroupper",
            value = in(reg) &raw const OWN,
        );
    }
}
