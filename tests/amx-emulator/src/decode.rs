//! Which tile instruction the bytes at an address are (Intel SDM, volume 2: VEX prefix with three bytes, map 0F 38, W0,
//! 128 bits), and which addresses its operands name.

/// A tile instruction with its operands; tiles by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// LDTILECFG.
    LoadConfig {
        /// Of 64 bytes.
        address: u64,
    },
    /// STTILECFG.
    StoreConfig {
        /// Of 64 bytes.
        address: u64,
    },
    /// TILERELEASE.
    Release,
    /// TILEZERO.
    Zero {
        /// The tile.
        tile: usize,
    },
    /// TILELOADD, and TILELOADDT1, whose hint changes no value.
    Load {
        /// The tile.
        tile: usize,
        /// Of the first row.
        address: u64,
        /// Bytes from a row to the next.
        stride: u64,
    },
    /// TILESTORED.
    Store {
        /// The tile.
        tile: usize,
        /// Of the first row.
        address: u64,
        /// Bytes from a row to the next.
        stride: u64,
    },
    /// TDPBF16PS.
    MultiplyBf16 {
        /// What the products are added to.
        sum: usize,
        /// Rows.
        left: usize,
        /// Columns, in pairs of k.
        right: usize,
    },
    /// TDPBSSD.
    MultiplyInt8 {
        /// What the products are added to.
        sum: usize,
        /// Rows.
        left: usize,
        /// Columns, in fours of k.
        right: usize,
    },
}

impl Instruction {
    /// The name that listings show.
    pub fn mnemonic(&self) -> &'static str {
        match self {
            Instruction::LoadConfig { .. } => "ldtilecfg",
            Instruction::StoreConfig { .. } => "sttilecfg",
            Instruction::Release => "tilerelease",
            Instruction::Zero { .. } => "tilezero",
            Instruction::Load { .. } => "tileloadd",
            Instruction::Store { .. } => "tilestored",
            Instruction::MultiplyBf16 { .. } => "tdpbf16ps",
            Instruction::MultiplyInt8 { .. } => "tdpbssd",
        }
    }
}

/// The mandatory prefix that the lowest two bits of a VEX prefix stand for.
const NONE: u8 = 0;
const P66: u8 = 1;
const PF3: u8 = 2;
const PF2: u8 = 3;

/// Decodes the instruction at `address`. `byte` gives the bytes from there on and is asked for no more than the instruction
/// has; `registers` are RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15. Returns the instruction and its length,
/// or nothing if it is no tile instruction.
pub fn decode(byte: impl Fn(usize) -> u8, address: u64, registers: &[u64; 16]) -> Option<(Instruction, usize)> {
    if byte(0) != 0xC4 {
        return None;
    }
    let (second, third) = (byte(1), byte(2));
    // R, X and B are stored inverted, as is the register in bits 3 to 6 of the third byte.
    let (r, x, b) = (second & 0x80 == 0, second & 0x40 == 0, second & 0x20 == 0);
    let (map, wide, long, prefix) = (second & 0x1F, third & 0x80 != 0, third & 4 != 0, third & 3);
    if map != 2 || wide || long || r {
        return None;
    }
    let third_register = usize::from(!third >> 3 & 0xF);
    let opcode = byte(3);
    let modrm = byte(4);
    let (mode, reg, rm) = (modrm >> 6, usize::from(modrm >> 3 & 7), usize::from(modrm & 7));
    let in_memory = mode != 3;
    if third_register != 0 && !matches!(opcode, 0x5C | 0x5E) {
        return None;
    }
    let memory = || Memory { byte: &byte, registers, extended: [x, b], next: address };
    match (opcode, prefix) {
        (0x49, NONE) if in_memory && reg == 0 => {
            let (operand, length) = memory().operand(mode, rm);
            Some((Instruction::LoadConfig { address: operand }, length))
        }
        (0x49, P66) if in_memory && reg == 0 => {
            let (operand, length) = memory().operand(mode, rm);
            Some((Instruction::StoreConfig { address: operand }, length))
        }
        (0x49, NONE) if modrm == 0xC0 && !x && !b => Some((Instruction::Release, 5)),
        (0x49, PF2) if !in_memory && rm == 0 && !x && !b => Some((Instruction::Zero { tile: reg }, 5)),
        (0x4B, P66 | PF2) if in_memory && rm == 4 => {
            let (address, stride, length) = memory().rows(mode);
            Some((Instruction::Load { tile: reg, address, stride }, length))
        }
        (0x4B, PF3) if in_memory && rm == 4 => {
            let (address, stride, length) = memory().rows(mode);
            Some((Instruction::Store { tile: reg, address, stride }, length))
        }
        (0x5C, PF3) if !in_memory && third_register < 8 && !x && !b => {
            Some((Instruction::MultiplyBf16 { sum: reg, left: rm, right: third_register }, 5))
        }
        (0x5E, PF2) if !in_memory && third_register < 8 && !x && !b => {
            Some((Instruction::MultiplyInt8 { sum: reg, left: rm, right: third_register }, 5))
        }
        _ => None,
    }
}

/// Bytes of an instruction up to ModRM.
const HEAD: usize = 5;

/// The operand in memory of an instruction.
struct Memory<'a, F> {
    byte: &'a F,
    registers: &'a [u64; 16],
    /// Whether the index and the base are among the upper eight registers.
    extended: [bool; 2],
    /// The instruction's address.
    next: u64,
}

impl<F: Fn(usize) -> u8> Memory<'_, F> {
    /// Any operand: its address and the instruction's length.
    fn operand(&self, mode: u8, rm: usize) -> (u64, usize) {
        if rm == 4 {
            let (base, offset, length) = self.rows(mode);
            return (base.wrapping_add(offset), length);
        }
        if mode == 0 && rm == 5 {
            let length = HEAD + 4;
            let end = self.next.wrapping_add(length as u64);
            return (end.wrapping_add(self.displacement(HEAD, 4)), length);
        }
        let bytes = displacement_bytes(mode);
        let base = self.registers[rm + 8 * usize::from(self.extended[1])];
        (base.wrapping_add(self.displacement(HEAD, bytes)), HEAD + bytes)
    }

    /// An operand with a SIB byte: base plus displacement, the scaled index, and the instruction's length.
    fn rows(&self, mode: u8) -> (u64, u64, usize) {
        let sib = (self.byte)(HEAD);
        let (scale, index, base) = (sib >> 6, usize::from(sib >> 3 & 7), usize::from(sib & 7));
        let index = index + 8 * usize::from(self.extended[0]);
        // RSP cannot be an index.
        let offset = if index == 4 { 0 } else { self.registers[index] << scale };
        let (start, bytes) = match (mode, base) {
            (0, 5) => (0, 4),
            _ => (self.registers[base + 8 * usize::from(self.extended[1])], displacement_bytes(mode)),
        };
        let displacement = self.displacement(HEAD + 1, bytes);
        (start.wrapping_add(displacement), offset, HEAD + 1 + bytes)
    }

    /// The signed displacement of so many bytes.
    fn displacement(&self, at: usize, bytes: usize) -> u64 {
        let byte = |i: usize| (self.byte)(at + i);
        match bytes {
            0 => 0,
            1 => i64::from(byte(0) as i8) as u64,
            _ => i64::from(i32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)])) as u64,
        }
    }
}

fn displacement_bytes(mode: u8) -> usize {
    match mode {
        0 => 0,
        1 => 1,
        _ => 4,
    }
}
