//! Loops of tile instructions: two tiles of rows, which come from the buffer, times two of columns, which stay in the
//! first-level cache. So four products need two tiles of the buffer.

use super::{Kernel, Limit, Line};
use std::io;

/// Lines of a tile: 16 rows of 64 bytes.
const TILE: usize = 16;

pub const KERNELS: &[Kernel] = &[
    Kernel {
        limit: Limit::Bf16Products,
        name: "AMX TDPBF16PS",
        needs: &["amx-tile", "amx-bf16"],
        step: 2 * TILE,
        work: (4 * 2 * 16 * 16 * 32 / (2 * TILE)) as f64,
        run: bf16,
    },
    Kernel {
        limit: Limit::Int8Products,
        name: "AMX TDPBSSD",
        needs: &["amx-tile", "amx-int8"],
        step: 2 * TILE,
        work: (4 * 2 * 16 * 16 * 64 / (2 * TILE)) as f64,
        run: int8,
    },
];

/// Asks the system to let this process use tile registers: they are too large for every thread to have.
///
/// # Errors
/// The system's reason: it does not know them, or does not permit them.
pub fn ask_for_tiles() -> io::Result<()> {
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: this operation takes a number and writes no memory.
    let result = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What LDTILECFG reads: the first palette, and the shape of each of its eight tiles.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_per_row: [u16; 16],
    rows: [u8; 16],
}

/// All eight tiles as large as they can be.
static WHOLE_TILES: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    bytes_per_row: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// The columns: two tiles.
static COLUMNS: [Line; 2 * TILE] = [Line::FILLED; 2 * TILE];

/// The loop with an instruction that multiplies tiles.
macro_rules! multiply {
    ($lines:ident, $passes:ident, $multiply:literal) => {
        over_lines!(
            $lines, $passes, 2048,
            before: [
                "ldtilecfg [{configuration}]",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
            ],
            turn: [
                "tileloadd tmm4, [rax + 1*{stride}]",
                "tileloadd tmm6, [{columns} + 1*{stride}]",
                concat!($multiply, " tmm0, tmm4, tmm6"),
                "tileloadd tmm7, [{columns} + 1*{stride} + 1024]",
                concat!($multiply, " tmm1, tmm4, tmm7"),
                "tileloadd tmm5, [rax + 1*{stride} + 1024]",
                concat!($multiply, " tmm2, tmm5, tmm6"),
                concat!($multiply, " tmm3, tmm5, tmm7"),
            ],
            after: "tilerelease",
            configuration = in(reg) &raw const WHOLE_TILES,
            columns = in(reg) COLUMNS.as_ptr(),
            stride = in(reg) size_of::<Line>(),
        )
    };
}

/// # Safety
/// As for every kernel of [`KERNELS`], after [`ask_for_tiles`].
unsafe fn bf16(lines: &mut [Line], passes: usize) {
    // SAFETY: the turns stay in the lines, two whole tiles each, and only read them and the two tiles of columns.
    unsafe { multiply!(lines, passes, "tdpbf16ps") }
}

/// # Safety
/// As for every kernel of [`KERNELS`], after [`ask_for_tiles`].
unsafe fn int8(lines: &mut [Line], passes: usize) {
    // SAFETY: the turns stay in the lines, two whole tiles each, and only read them and the two tiles of columns.
    unsafe { multiply!(lines, passes, "tdpbssd") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_what_the_instruction_reads() {
        assert_eq!(size_of::<Configuration>(), 64);
        let offsets = [
            std::mem::offset_of!(Configuration, start_row),
            std::mem::offset_of!(Configuration, bytes_per_row),
            std::mem::offset_of!(Configuration, rows),
        ];
        assert_eq!(offsets, [1, 16, 48]);
    }
}
