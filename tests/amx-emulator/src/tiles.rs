//! The tiles of a thread, and what each instruction does to them (Intel SDM, volume 1, chapter 18, and volume 2).

use crate::decode::Instruction;
use crate::products::{self, Sizes};

/// Rows of a tile at most.
pub const ROWS: usize = 16;
/// Bytes of a row at most.
pub const ROW_BYTES: usize = 64;
/// Tiles of a thread.
const TILES: usize = 8;

/// Contents of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(64))]
pub struct Tile(pub [[u8; ROW_BYTES]; ROWS]);

const EMPTY: Tile = Tile([[0; ROW_BYTES]; ROWS]);

/// The state that XSAVE keeps per thread.
#[derive(Clone, Debug)]
pub struct Tiles {
    /// 0: there are no tiles; 1: eight of 16 rows of 64 bytes at most.
    palette: u8,
    start_row: u8,
    row_bytes: [u16; TILES],
    rows: [u8; TILES],
    data: [Tile; TILES],
}

impl Tiles {
    /// The state that a thread starts with.
    pub const INITIAL: Tiles =
        Tiles { palette: 0, start_row: 0, row_bytes: [0; TILES], rows: [0; TILES], data: [EMPTY; TILES] };

    /// Executes an instruction.
    ///
    /// # Errors
    /// Why a CPU raises an exception.
    ///
    /// # Safety
    /// The memory that the instruction names must be the program's to read, or to write.
    pub unsafe fn execute(&mut self, instruction: Instruction) -> Result<(), String> {
        match instruction {
            Instruction::LoadConfig { address } => {
                let mut bytes = [0; 64];
                // SAFETY: promised by the caller.
                unsafe { read(address, &mut bytes) };
                self.load_config(&bytes)
            }
            Instruction::StoreConfig { address } => {
                // SAFETY: promised by the caller.
                unsafe { write(address, &self.config()) };
                Ok(())
            }
            Instruction::Release => {
                *self = Tiles::INITIAL;
                Ok(())
            }
            Instruction::Zero { tile } => {
                self.shape(tile)?;
                self.data[tile] = EMPTY;
                self.start_row = 0;
                Ok(())
            }
            Instruction::Load { tile, address, stride } => {
                let (rows, bytes) = self.shape(tile)?;
                let start = self.first_row(rows)?;
                let mut loaded = EMPTY;
                loaded.0[..start].copy_from_slice(&self.data[tile].0[..start]);
                for row in start..rows {
                    let from = address.wrapping_add((row as u64).wrapping_mul(stride));
                    // SAFETY: promised by the caller.
                    unsafe { read(from, &mut loaded.0[row][..bytes]) };
                }
                self.data[tile] = loaded;
                self.start_row = 0;
                Ok(())
            }
            Instruction::Store { tile, address, stride } => {
                let (rows, bytes) = self.shape(tile)?;
                for row in self.first_row(rows)?..rows {
                    let to = address.wrapping_add((row as u64).wrapping_mul(stride));
                    // SAFETY: promised by the caller.
                    unsafe { write(to, &self.data[tile].0[row][..bytes]) };
                }
                self.start_row = 0;
                Ok(())
            }
            Instruction::MultiplyBf16 { sum, left, right } => self.multiply([sum, left, right], products::bf16),
            Instruction::MultiplyInt8 { sum, left, right } => self.multiply([sum, left, right], products::int8),
        }
    }

    fn load_config(&mut self, bytes: &[u8; 64]) -> Result<(), String> {
        let mut next = Tiles { palette: bytes[0], start_row: bytes[1], ..Tiles::INITIAL };
        match next.palette {
            0 => {
                *self = Tiles::INITIAL;
                return Ok(());
            }
            1 => {}
            other => return Err(format!("there is no palette {other}")),
        }
        let reserved = [2..16, 32..48, 56..64].into_iter().flatten();
        if let Some(at) = reserved.into_iter().find(|&at| bytes[at] != 0) {
            return Err(format!("byte {at} of the configuration is reserved and not 0"));
        }
        for tile in 0..TILES {
            let row_bytes = u16::from_le_bytes([bytes[16 + 2 * tile], bytes[17 + 2 * tile]]);
            let rows = bytes[48 + tile];
            let is_valid =
                usize::from(row_bytes) <= ROW_BYTES && usize::from(rows) <= ROWS && (rows == 0) == (row_bytes == 0);
            if !is_valid {
                return Err(format!("tile {tile} cannot have {rows} rows of {row_bytes} bytes"));
            }
            next.row_bytes[tile] = row_bytes;
            next.rows[tile] = rows;
        }
        *self = next;
        Ok(())
    }

    fn config(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[0] = self.palette;
        bytes[1] = self.start_row;
        for tile in 0..TILES {
            bytes[16 + 2 * tile..18 + 2 * tile].copy_from_slice(&self.row_bytes[tile].to_le_bytes());
            bytes[48 + tile] = self.rows[tile];
        }
        bytes
    }

    /// Rows and bytes of a row of a tile.
    fn shape(&self, tile: usize) -> Result<(usize, usize), String> {
        if self.palette == 0 {
            return Err("no tiles are configured".into());
        }
        match (self.rows[tile], self.row_bytes[tile]) {
            (0, _) | (_, 0) => Err(format!("tile {tile} is not configured")),
            (rows, bytes) => Ok((usize::from(rows), usize::from(bytes))),
        }
    }

    fn first_row(&self, rows: usize) -> Result<usize, String> {
        let start = usize::from(self.start_row);
        if start < rows { Ok(start) } else { Err(format!("start row {start} is beyond the tile's {rows} rows")) }
    }

    fn multiply(
        &mut self,
        [sum, left, right]: [usize; 3],
        product: impl Fn(&mut Tile, &Tile, &Tile, Sizes),
    ) -> Result<(), String> {
        if sum == left || sum == right || left == right {
            return Err(format!("tiles {sum}, {left} and {right} must be three"));
        }
        let [(rows, columns), (left_rows, pairs), (right_rows, right_columns)] =
            [self.shape(sum)?, self.shape(left)?, self.shape(right)?];
        if columns % 4 != 0 || pairs % 4 != 0 || right_columns % 4 != 0 {
            return Err(format!("rows of tiles {sum}, {left} and {right} must be whole 32-bit elements"));
        }
        if rows != left_rows || columns != right_columns || pairs != right_rows * 4 {
            return Err(format!(
                "{left_rows} rows of {pairs} bytes times {right_rows} rows of {right_columns} bytes are not {rows} rows \
                 of {columns} bytes"
            ));
        }
        if self.start_row != 0 {
            return Err(format!("the start row is {}, not 0", self.start_row));
        }
        let (left, right) = (self.data[left], self.data[right]);
        let sizes = Sizes { rows, pairs: pairs / 4, columns: columns / 4 };
        product(&mut self.data[sum], &left, &right, sizes);
        Ok(())
    }
}

/// # Safety
/// There must be as many bytes to read.
unsafe fn read(address: u64, to: &mut [u8]) {
    // SAFETY: promised by the caller; a program's memory and this state do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(address as *const u8, to.as_mut_ptr(), to.len()) }
}

/// # Safety
/// There must be as many bytes to write.
unsafe fn write(address: u64, from: &[u8]) {
    // SAFETY: promised by the caller; a program's memory and this state do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), address as *mut u8, from.len()) }
}
