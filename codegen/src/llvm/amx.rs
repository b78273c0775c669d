//! AMX: the inner kernel of matrix products of bf16, `C = A B` or `C += A B` in blocks of up to 32 rows and 32 columns.
//!
//! A tile is 16 rows of 64 bytes: 16 rows of A with 32 k, or 16 pairs of k of B with 16 columns, or 16 by 16 sums in f32.
//! A block holds its four tiles of sums in registers while two of A and two of B pass by. Every row of sums is computed
//! from its own row of A alone, in one order of k, so what lies in rows beyond those that count reaches nothing.
//!
//! TDPBF16PS adds the products of the even and those of the odd k of a tile in a chain each, the two to the sum, and treats
//! denormal numbers as zero.

use super::multiply::Start;
use super::text::{FunctionText, I8, I64, ModuleText, PTR, Role, Value, int, int_of};
use std::collections::BTreeSet;

/// Rows of a tile.
pub const ROWS: usize = 16;
/// Bytes of a row of a tile.
pub const ROW_BYTES: usize = 64;
/// Bytes of a tile.
pub const TILE_BYTES: usize = ROWS * ROW_BYTES;
/// k of a tile of bf16.
pub const DEPTH: usize = 32;
/// Tiles of rows, and of columns, of a block.
pub const BLOCK: usize = 2;
/// Rows of a block.
pub const GROUP: usize = BLOCK * ROWS;

/// Registers: four tiles of sums, then A's, then B's.
const LEFT: usize = 4;
const RIGHT: usize = 6;

/// Whether what is read is read again soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reuse {
    /// It is to stay in the first-level cache.
    Soon,
    /// It passes by, and should drive nothing else out.
    Later,
}

/// What a function of products is specialised for. All sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// Tiles of k.
    pub depth: usize,
    /// Tiles of rows, 1 or 2.
    pub row_tiles: usize,
    /// Between rows of A.
    pub a_row: usize,
    /// From a tile of A to the one of the next k.
    pub a_depth: usize,
    /// From a tile of A to the one of the next rows.
    pub a_tile: usize,
    /// Whether A is read again soon.
    pub a_reuse: Reuse,
    /// From a tile of B to the one of the next k.
    pub b_depth: usize,
    /// From a tile of B to the one of the next columns.
    pub b_tile: usize,
    /// Between rows of C.
    pub c_row: usize,
    /// Where sums start.
    pub start: Start,
    /// Lines that are brought closer per tile of k, and from those to the ones of the next k.
    pub ahead: usize,
    pub ahead_depth: usize,
}

/// The functions of a module, each emitted once.
#[derive(Debug, Default)]
pub struct TileProducts {
    emitted: BTreeSet<Shape>,
}

impl TileProducts {
    /// The name of a function `(a: ptr, b: ptr, c: ptr, ahead: ptr)` for `shape`, emitted on first use. Tiles must be
    /// configured when it is called.
    pub fn get(&mut self, module: &mut ModuleText, shape: &Shape) -> String {
        let Shape { depth, row_tiles, a_row, a_depth, a_tile, b_depth, b_tile, c_row, ahead, ahead_depth, .. } = shape;
        let start = if shape.start == Start::Zero { "set" } else { "add" };
        let reuse = if shape.a_reuse == Reuse::Soon { "" } else { "_t1" };
        let name = format!(
            "tiles_{start}_k{depth}_r{row_tiles}_a{a_row}_{a_depth}_{a_tile}{reuse}_b{b_depth}_{b_tile}_c{c_row}_p{ahead}_{ahead_depth}"
        );
        if self.emitted.insert(shape.clone()) {
            emit(module, shape, &name);
        }
        name
    }
}

fn emit(module: &mut ModuleText, shape: &Shape, name: &str) {
    let params = [(PTR, "a"), (PTR, "b"), (PTR, "c"), (PTR, "ahead")];
    let (mut f, values) = FunctionText::new(Role::Kernel, name, &params);
    let [a, b, c, ahead] = values.try_into().expect("four parameters");
    shape.emit(&mut f, [&a, &b, &c, &ahead], |_, _| {});
    module.add(f.finish());
}

impl Shape {
    /// The products of one block, with work of other kinds `beside` those of each tile of k: vector instructions run while
    /// tiles are multiplied.
    pub fn emit(
        &self,
        f: &mut FunctionText,
        [a, b, c, ahead]: [&Value; 4],
        beside: impl FnOnce(&mut FunctionText, &Value),
    ) {
        let sums = Sums { row_tiles: self.row_tiles, address: c.clone(), row: self.c_row };
        sums.load(f, self.start);
        f.for_each(&int(0), &int(self.depth as i64), 1, |f, k| {
            let a = f.element(a, k, self.a_depth as i64);
            let b = f.element(b, k, self.b_depth as i64);
            let left = LeftTiles { address: a, row: self.a_row, tile: self.a_tile, reuse: self.a_reuse };
            sums.multiply(f, &left, &b, self.b_tile);
            if self.ahead > 0 {
                let ahead = f.element(ahead, k, self.ahead_depth as i64);
                for line in 0..self.ahead {
                    let address = f.offset(&ahead, &int((line * ROW_BYTES) as i64));
                    f.prefetch_to_second_level(&address);
                }
            }
            beside(f, k);
        });
        sums.store(f);
    }
}

/// Up to 32 rows and 32 columns of sums: in memory, and between loading and storing them in registers.
pub struct Sums {
    /// Tiles of rows, 1 or 2.
    pub row_tiles: usize,
    /// Of the first sum.
    pub address: Value,
    /// Bytes between rows.
    pub row: usize,
}

/// Tiles of A of one k.
pub struct LeftTiles {
    /// Of the first row.
    pub address: Value,
    /// Bytes between rows.
    pub row: usize,
    /// Bytes from a tile to the next.
    pub tile: usize,
    /// Whether they are read again soon.
    pub reuse: Reuse,
}

impl Sums {
    /// Fills the registers.
    pub fn load(&self, f: &mut FunctionText, start: Start) {
        for (register, offset) in self.places() {
            match start {
                Start::Zero => f.tile("tilezero", &[register], None),
                Start::Memory => {
                    let address = f.offset(&self.address, &int(offset as i64));
                    f.tile("tileloadd64", &[register], Some((&address, self.row)));
                }
            }
        }
    }

    /// Adds the products of 32 k. What is loaded last is used last, so that loads and products overlap.
    pub fn multiply(&self, f: &mut FunctionText, left: &LeftTiles, right: &Value, right_tile: usize) {
        let load_left = |f: &mut FunctionText, tile: usize| {
            let address = f.offset(&left.address, &int((tile * left.tile) as i64));
            let load = match left.reuse {
                Reuse::Soon => "tileloadd64",
                Reuse::Later => "tileloaddt164",
            };
            f.tile(load, &[LEFT + tile], Some((&address, left.row)));
        };
        let load_right = |f: &mut FunctionText, tile: usize| {
            let address = f.offset(right, &int((tile * right_tile) as i64));
            f.tile("tileloadd64", &[RIGHT + tile], Some((&address, ROW_BYTES)));
        };
        let product = |f: &mut FunctionText, row: usize, column: usize| {
            f.tile("tdpbf16ps", &[row * BLOCK + column, LEFT + row, RIGHT + column], None);
        };
        load_left(f, 0);
        load_right(f, 0);
        product(f, 0, 0);
        load_right(f, 1);
        product(f, 0, 1);
        if self.row_tiles == BLOCK {
            load_left(f, 1);
            product(f, 1, 0);
            product(f, 1, 1);
        }
    }

    /// Writes the registers to memory.
    pub fn store(&self, f: &mut FunctionText) {
        for (register, offset) in self.places() {
            let address = f.offset(&self.address, &int(offset as i64));
            f.tile("tilestored64", &[register], Some((&address, self.row)));
        }
    }

    /// Each register, and where in memory its sums are.
    fn places(&self) -> impl Iterator<Item = (usize, usize)> {
        let row = self.row;
        let all = (0..self.row_tiles).flat_map(|r| (0..BLOCK).map(move |n| (r, n)));
        all.map(move |(r, n)| (r * BLOCK + n, r * ROWS * row + n * ROW_BYTES))
    }
}

/// For each group of 32 rows or less: its number, and how many rows are left from it on.
pub fn for_groups(f: &mut FunctionText, rows: &Value, body: impl FnOnce(&mut FunctionText, &Value, &Value)) {
    let groups = f.div_ceil(rows, &int(GROUP as i64));
    f.for_each(&int(0), &groups, 1, |f, group| {
        let before = f.scale(group, GROUP as i64);
        let left = f.binary("sub nsw", rows, &before);
        body(f, group, &left);
    });
}

/// Code for one tile of rows and, if there can be so many (`most`), for two: which one runs follows from the rows
/// that are left.
pub fn by_row_tiles(f: &mut FunctionText, most: usize, rows: &Value, mut body: impl FnMut(&mut FunctionText, usize)) {
    if most <= ROWS {
        return body(f, 1);
    }
    let few = f.compare("icmp sle", rows, &int(ROWS as i64));
    let many = f.compare("icmp sgt", rows, &int(ROWS as i64));
    f.when(&few, |f| body(f, 1));
    f.when(&many, |f| body(f, BLOCK));
}

/// Makes all tiles of the calling thread whole ones.
pub fn configure(f: &mut FunctionText) {
    // Palette 1; from byte 16 on the bytes of a row of each tile, 16 bits each; from byte 48 on their rows.
    let mut bytes = [0; 64];
    bytes[0] = 1;
    for tile in 0..8 {
        bytes[16 + 2 * tile] = ROW_BYTES;
        bytes[48 + tile] = ROWS;
    }
    let configuration = f.constant("i8", &bytes.map(|byte| byte.to_string()));
    f.call("llvm.x86.ldtilecfg", None, &[configuration]);
}

/// Gives the tiles back, so that the system need not keep them when it switches threads.
pub fn release(f: &mut FunctionText) {
    f.call("llvm.x86.tilerelease", None, &[]);
}

impl FunctionText {
    /// A tile instruction on registers, by number, and on memory with a stride.
    fn tile(&mut self, name: &str, tiles: &[usize], memory: Option<(&Value, usize)>) {
        let mut arguments: Vec<Value> = tiles.iter().map(|&tile| int_of(I8, tile as i64)).collect();
        if let Some((address, stride)) = memory {
            arguments.extend([address.clone(), int_of(I64, stride as i64)]);
        }
        self.call(&format!("llvm.x86.{name}"), None, &arguments);
    }
}
