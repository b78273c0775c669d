//! Reading of compressed weights ([`llmc_ir::plan::WeightLayout::Compressed`]): four bits of an element are looked up and give its
//! upper byte, which is put beside the lower one. 128 elements take three loads and ten instructions between registers.

use super::math::ints;
use super::multiply::{Multiplies, Registers};
use super::text::{FunctionText, I1, I8, I16, I64, ModuleText, PTR, Role, Value, int, int_of};
use llmc_ir::plan::compressed::{BLOCK, CODES, CODES_AT, HALF, QUARTER, QUARTERS, TILES, head, panel as panel_bytes};

/// Bytes of a line: a vector.
const LINE: usize = 64;

/// Lines of a quarter of a tile, and those of them whose codes lie in one half of their bytes.
pub const LINES: usize = 4;
const LINES_OF_HALF: usize = 2;

/// Lines of upper bytes that a flagged quarter has.
const FLAGGED_LINES: usize = HALF / LINE;

/// What looks up 8-bit numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookUp {
    /// VPERMB, among 64, and bits beyond six do not matter.
    Many,
    /// PSHUFB, among 16 and so many bytes at once.
    Few(usize),
}

/// Lines that are read of a quarter.
pub const LINES_READ: usize = QUARTER / LINE;

/// From a tile to the next one of the same 32 k, in bf16 as it was before, and from 32 k to the next ones.
pub const PLAIN_TILE: usize = QUARTERS * LINES * LINE;
pub const PLAIN_BLOCK: usize = TILES * PLAIN_TILE;

/// A panel, or its part from some k on.
#[derive(Clone, Debug)]
pub struct Panel {
    /// `u8[64]`: upper bytes by code, four times.
    codes: Value,
    /// The address of the flags of the first block.
    flags: Value,
    /// The address of the first block.
    pub blocks: Value,
    /// The tile that is the first one.
    tile: Value,
    look_up: LookUp,
}

impl Panel {
    /// Of rows of `k` elements, from block number `first` on.
    pub fn at(f: &mut FunctionText, registers: &Registers, panel: &Value, k: usize, first: &Value) -> Panel {
        let codes = f.load(I8.with_lanes(CODES), panel, LINE);
        let codes = f.shuffle(&codes, &codes, (0..LINE).map(|lane| lane % CODES));
        let flags = f.offset(panel, &int(CODES as i64));
        let flags = f.offset(&flags, first);
        let blocks = f.offset(panel, &int(head(k) as i64));
        let blocks = f.element(&blocks, first, BLOCK as i64);
        Panel { codes, flags, blocks, tile: int(0), look_up: registers.look_up }
    }

    /// The same from a later block on.
    pub fn at_block(&self, f: &mut FunctionText, block: &Value) -> Panel {
        let flags = f.offset(&self.flags, block);
        let blocks = f.element(&self.blocks, block, BLOCK as i64);
        Panel { flags, blocks, ..self.clone() }
    }

    /// The same from a later tile on.
    pub fn of_tile(&self, f: &mut FunctionText, tile: &Value) -> Panel {
        let blocks = f.element(&self.blocks, tile, QUARTER as i64);
        Panel { blocks, tile: f.add(&self.tile, tile), ..self.clone() }
    }

    /// The flags of a block, from those of the first tile on.
    pub fn flags(&self, f: &mut FunctionText, block: &Value) -> Value {
        let flags = f.offset(&self.flags, block);
        let flags = f.load(I8, &flags, 1);
        let flags = f.cast("zext", &flags, I64);
        f.binary("lshr", &flags, &self.tile)
    }

    /// The quarter of a tile at an address, whose flag is the lowest bit of `flags`.
    pub fn quarter(&self, f: &mut FunctionText, quarter: &Value, flags: &Value) -> Quarter {
        let coded = f.offset(quarter, &int(CODES_AT as i64));
        let is_flagged = f.cast("trunc", flags, I1);
        let is_flagged = f.call("llvm.expect.i1", Some(I1), &[is_flagged, int_of(I1, 0)]).expect("it has a result");
        let upper = f.choose(
            &is_flagged,
            |f| {
                let distance = f.load(I64, &coded, 8);
                let upper = f.offset(&coded, &distance);
                // Behind them are those that come next: they are too far apart in time for the CPU's prefetchers.
                for line in 2 * FLAGGED_LINES..3 * FLAGGED_LINES {
                    let later = f.offset(&upper, &int((line * LINE) as i64));
                    f.prefetch(&later);
                }
                [0, 1].map(|number| load_bytes(f, &upper, number)).into()
            },
            |f| {
                let both = load_bytes(f, &coded, 0);
                self.upper(f, &both)
            },
        );
        Quarter { address: quarter.clone(), upper }
    }

    /// The upper bytes of the codes in the lower halves of 64 bytes, and of those in the upper halves.
    fn upper(&self, f: &mut FunctionText, both: &Value) -> Vec<Value> {
        let LookUp::Few(bytes) = self.look_up else {
            // It takes no notice of other bits than six, and finds the same by any of the upper two of them.
            let words = f.cast("bitcast", both, I16.with_lanes(LINE / 2));
            let high = f.binary("lshr", &words, &int_of(words.ty, 4));
            let high = f.cast("bitcast", &high, both.ty);
            let name = "llvm.x86.avx512.permvar.qi.512";
            let found = |codes| f.call(name, Some(both.ty), &[self.codes.clone(), codes]).expect("it has a result");
            return [both.clone(), high].map(found).into();
        };
        let name = match bytes {
            64 => "llvm.x86.avx512.pshuf.b.512",
            32 => "llvm.x86.avx2.pshuf.b",
            _ => "llvm.x86.ssse3.pshuf.b.128",
        };
        let low = f.binary("and", both, &int_of(both.ty, 15));
        let high = f.binary("lshr", both, &int_of(both.ty, 4));
        let table = f.shuffle(&self.codes, &self.codes, 0..bytes);
        let found = |codes: Value| {
            f.in_parts([&codes], bytes, |f, [codes]| {
                f.call(name, Some(codes.ty), &[table.clone(), codes]).expect("it has a result")
            })
        };
        [low, high].map(found).into()
    }

    /// Visits all quarters of `blocks` blocks in the order of memory, with the numbers of block, tile and quarter.
    fn for_quarters(
        &self,
        f: &mut FunctionText,
        blocks: &Value,
        ahead: Option<usize>,
        body: impl FnOnce(&mut FunctionText, [&Value; 3], &Quarter),
    ) {
        f.for_each(&int(0), blocks, 1, |f, block| {
            let flags = self.flags(f, block);
            let address = f.element(&self.blocks, block, BLOCK as i64);
            f.for_each(&int(0), &int((QUARTERS * TILES) as i64), 1, |f, number| {
                let address = f.element(&address, number, QUARTER as i64);
                for line in ahead.map_or(0..0, |ahead| ahead / LINE..ahead / LINE + LINES_READ) {
                    let at = f.offset(&address, &int((line * LINE) as i64));
                    f.prefetch_to_second_level(&at);
                }
                let flags = f.binary("lshr", &flags, number);
                let lines = self.quarter(f, &address, &flags);
                let tile = f.binary("and", number, &int(TILES as i64 - 1));
                let quarter = f.binary("lshr", number, &int(i64::from(TILES.ilog2())));
                body(f, [block, &tile, &quarter], &lines);
            });
        });
    }
}

/// A quarter of a tile whose upper bytes are there.
pub struct Quarter {
    address: Value,
    upper: Vec<Value>,
}

impl Quarter {
    /// A line of pairs of bf16, one of four.
    pub fn line(&self, f: &mut FunctionText, number: usize) -> Value {
        let (of, half) = (number / LINES_OF_HALF, number % LINES_OF_HALF);
        let lower = load_bytes(f, &self.address, of);
        // Of 16 bytes of each, 8 of both in turn.
        let places = (0..LINE).map(|byte| byte / 16 * 16 + half * 8 + byte % 16 / 2 + byte % 2 * LINE);
        let bytes = f.shuffle(&lower, &self.upper[of], places);
        f.cast("bitcast", &bytes, ints(LINE / 4))
    }
}

/// 64 bytes, of which so many times 64 lie before them.
fn load_bytes(f: &mut FunctionText, base: &Value, number: usize) -> Value {
    let at = f.offset(base, &int((number * LINE) as i64));
    f.load(I8.with_lanes(LINE), &at, LINE)
}

/// The bits of an element of a weight whose rows have `columns` elements: a byte of each half, the upper one by its code unless it is
/// written out.
pub fn element(f: &mut FunctionText, weight: &Value, columns: usize, [row, k]: [&Value; 2]) -> Value {
    let part = |f: &mut FunctionText, value: &Value, from: i64, bits: u32| {
        let shifted = if from == 0 { value.clone() } else { f.binary("lshr", value, &int(from)) };
        f.binary("and", &shifted, &int((1 << bits) - 1))
    };
    let panel = f.binary("lshr", row, &int(5));
    let panel = f.element(weight, &panel, panel_bytes(columns) as i64);
    let [tile, column] = [(4, 1), (0, 4)].map(|(from, bits)| part(f, row, from, bits));
    let block = f.binary("lshr", k, &int(5));
    // Of the k of a block: quarter, lines by twos, one of two, and one of a pair.
    let [quarter, two, half, odd] = [(3, 2), (2, 1), (1, 1), (0, 1)].map(|(from, bits)| part(f, k, from, bits));
    let number = f.scale(&quarter, TILES as i64);
    let number = f.add(&number, &tile);
    let address = f.offset(&panel, &int(head(columns) as i64));
    let address = f.element(&address, &block, BLOCK as i64);
    let address = f.element(&address, &number, QUARTER as i64);
    // Of 16 bytes of a line, 8 are of one line and 8 of the next one.
    let in_line = f.scale(&column, 2);
    let in_line = f.add(&in_line, &odd);
    let [lane, byte] = [(3, 2), (0, 3)].map(|(from, bits)| part(f, &in_line, from, bits));
    let place = f.scale(&lane, 16);
    let half = f.scale(&half, 8);
    let place = f.add(&place, &half);
    let in_codes = f.add(&place, &byte);
    let before = f.scale(&two, LINE as i64);
    let place = f.add(&in_codes, &before);
    let load_byte = |f: &mut FunctionText, base: &Value, at: &Value| {
        let at = f.offset(base, at);
        let byte = f.load(I8, &at, 1);
        f.cast("zext", &byte, I64)
    };
    let lower = load_byte(f, &address, &place);
    let codes = f.offset(&address, &int(CODES_AT as i64));
    let both = load_byte(f, &codes, &in_codes);
    let shift = f.scale(&two, 4);
    let code = f.binary("lshr", &both, &shift);
    let code = f.binary("and", &code, &int(CODES as i64 - 1));
    let coded = f.offset(&panel, &code);
    let flags_at = f.offset(&panel, &int(CODES as i64));
    let flags = load_byte(f, &flags_at, &block);
    let flag = f.binary("lshr", &flags, &number);
    let is_flagged = f.cast("trunc", &flag, I1);
    let distance = f.load(I64, &codes, 8);
    let written = f.offset(&codes, &distance);
    let written = f.offset(&written, &place);
    let upper = f.select(&is_flagged, &written, &coded);
    let upper = load_byte(f, &upper, &int(0));
    let upper = f.scale(&upper, 256);
    let bits = f.binary("or", &upper, &lower);
    f.cast("trunc", &bits, I16)
}

/// The name of a function `(panel: ptr, first: i64, blocks: i64, to: ptr)` that makes so many blocks of a panel of rows of `k`
/// elements what they are in [`llmc_ir::plan::WeightLayout::Panels`], from block `first` on. What it reads it prefetches
/// `ahead` bytes before, if nothing else does. Emitted on first use.
pub fn unpack(
    multiplies: &mut Multiplies,
    module: &mut ModuleText,
    registers: &Registers,
    (k, ahead): (usize, Option<usize>),
) -> String {
    let prefetches = ahead.map_or(String::new(), |ahead| format!("_p{ahead}"));
    let name = format!("unpack_compressed_k{k}{prefetches}");
    if !multiplies.is_new(&name) {
        return name;
    }
    let params = [(PTR, "panel"), (I64, "first"), (I64, "blocks"), (PTR, "to")];
    let (mut f, values) = FunctionText::new(Role::Kernel, &name, &params);
    let [panel, first, blocks, to] = values.try_into().expect("four parameters");
    let panel = Panel::at(&mut f, registers, &panel, k, &first);
    panel.for_quarters(&mut f, &blocks, ahead, |f, [block, tile, quarter], lines| {
        let to = f.element(&to, block, PLAIN_BLOCK as i64);
        let to = f.element(&to, tile, PLAIN_TILE as i64);
        let to = f.element(&to, quarter, (LINES * LINE) as i64);
        for number in 0..LINES {
            let line = lines.line(f, number);
            let to = f.offset(&to, &int((number * LINE) as i64));
            f.store(&line, &to, LINE);
        }
    });
    module.add(f.finish());
    name
}
