//! What a multiply function does with the rows of a call: register blocks of some rows and tiles, and the order in which they take B.

use super::super::compressed::Panel;
use super::super::math::floats;
use super::super::step_args::share;
use super::super::text::{FunctionText, I64, ModuleText, PTR, Role, Value, float_of, int};
use super::block::{Ahead, Block, Order};
use super::{Distance, Level, Multiplies, Registers, Rows, Shape, Start, TILE, Tiles};

/// Rows that read tiles in turn at most, while registers hold sums of all tiles: an element of A is loaded for each tile
/// then, and more rows would wait for that.
pub const MOST_IN_TURN: usize = 8;

/// Blocks of 32 k for which one half of the rows waits for the other: of two tiles as many as the first-level cache holds until
/// then, beside A and C.
pub const BLOCKS_OF_HALVES: usize = 4;

/// As many rows as the tallest register block has are one block of exactly that many, so that B is read once for them, in
/// the order of memory. More are blocks of two tiles, of which the first brings B into cache.
pub fn emit(multiplies: &mut Multiplies, module: &mut ModuleText, registers: &Registers, shape: &Shape, name: &str) {
    let mut params = vec![(PTR, "a"), (PTR, "b"), (PTR, "c"), (I64, "rows")];
    params.extend((!matches!(shape.ahead, Distance::Fixed(_))).then_some((I64, "ahead")));
    let is_compressed = matches!(shape.layout, Tiles::Compressed { .. });
    params.extend(is_compressed.then_some((I64, "first")));
    let panel_params = params.len();
    let keeps = is_compressed && registers.keep(shape.rows.most);
    params.extend(keeps.then_some((PTR, "plain")));
    let (mut f, values) = FunctionText::new(Role::Kernel, name, &params);
    let [a, b, c, rows] = values[..4].to_vec().try_into().expect("four parameters");
    let ahead = match shape.ahead {
        Distance::Fixed(bytes) => int(bytes as i64),
        Distance::OfCall | Distance::OfTurns { .. } => values[4].clone(),
    };
    let panel = match shape.layout {
        Tiles::Compressed { row } => Some(Panel::at(&mut f, registers, &b, row, &values[panel_params - 1])),
        Tiles::Bf16 { .. } | Tiles::F32 { .. } | Tiles::Blocks => None,
    };
    let tallest = registers.tallest(shape);
    let [_, beside] = registers.heights(shape.layout);
    let plain = values.get(panel_params).cloned();
    let call = Call { registers, shape, a, b, c, panel, plain };
    let Rows { unit, most } = shape.rows;
    let counts = |unit: usize, most: usize| (unit..=most).step_by(unit).collect::<Vec<usize>>();
    if most <= tallest {
        let share = Share::whole(&ahead);
        f.for_count(&counts(unit, most), &rows, &mut |f, rows| call.block(f, rows, &int(0), &share));
    } else if registers.are_few || tallest == beside {
        call.deal_out(&mut f, tallest, &rows, &ahead);
    } else {
        let fit = f.compare("icmp sle", &rows, &int(tallest as i64));
        let few = Shape { rows: Rows { unit: 1, most: tallest }, ..shape.clone() };
        let few = multiplies.get(module, registers, &few);
        f.when(&fit, |f| f.call_local(&few, &values));
        let exceed = f.compare("icmp sgt", &rows, &int(tallest as i64));
        f.when(&exceed, |f| call.deal_out(f, beside, &rows, &ahead));
    }
    module.add(f.finish());
}

/// A function while it is written.
#[derive(Clone)]
struct Call<'s> {
    registers: &'s Registers,
    shape: &'s Shape,
    a: Value,
    b: Value,
    c: Value,
    /// B, if it is compressed.
    panel: Option<Panel>,
    /// Where a compressed panel is kept in bf16, if it is.
    plain: Option<Value>,
}

/// What a register block prefetches of what a call does.
struct Share {
    ahead: Value,
    /// The number of the block in the call, and how many it has.
    number: Value,
    blocks: Value,
    /// How the block reads B.
    order: Order,
    /// Whether it keeps what it looked up.
    keeps: bool,
}

impl Share {
    fn whole(ahead: &Value) -> Share {
        Share { ahead: ahead.clone(), number: int(0), blocks: int(1), order: Order::InTurn, keeps: false }
    }
}

impl Call<'_> {
    /// All rows in as few blocks of at most `tallest` as there can be, all of about the same size: one of few rows takes as
    /// long as one of more, since its sums wait for themselves.
    fn deal_out(&self, f: &mut FunctionText, tallest: usize, rows: &Value, ahead: &Value) {
        let counts: Vec<usize> = (1..=tallest).collect();
        let blocks = f.div_ceil(rows, &int(tallest as i64));
        f.for_each(&int(0), &blocks, 1, |f, number| {
            let (start, end) = share(f, rows, number, &blocks);
            let count = f.binary("sub nsw", &end, &start);
            // Behind the first block what it prefetched is there, unless each has its own share.
            let ahead = match self.shape.ahead {
                Distance::OfTurns { .. } => ahead.clone(),
                Distance::Fixed(_) | Distance::OfCall => {
                    let is_first = f.compare("icmp eq", number, &int(0));
                    f.select(&is_first, ahead, &int(0))
                }
            };
            let (number, blocks) = (number.clone(), blocks.clone());
            let is_first = f.compare("icmp eq", &number, &int(0));
            let share = Share { ahead, number, blocks, order: Order::Beside, keeps: self.plain.is_some() };
            let Some(plain) = &self.plain else {
                return f.for_count(&counts, &count, &mut |f, rows| self.block(f, rows, &start, &share));
            };
            // The first block keeps what it looked up for the others.
            f.when(&is_first, |f| f.for_count(&counts, &count, &mut |f, rows| self.block(f, rows, &start, &share)));
            let is_later = f.compare("icmp ne", &share.number, &int(0));
            let shape = &self.plain_shape();
            let later = Call { shape, b: plain.clone(), panel: None, plain: None, ..self.clone() };
            f.when(&is_later, |f| f.for_count(&counts, &count, &mut |f, rows| later.block(f, rows, &start, &share)));
        });
    }

    /// `rows` rows from `row` on, with as many tiles at a time as registers hold.
    fn block(&self, f: &mut FunctionText, rows: usize, row: &Value, share: &Share) {
        let shape = self.shape;
        let [_, beside] = self.registers.heights(shape.layout);
        let tile_stride = shape.layout.tile_stride();
        let a = f.element(&self.a, row, shape.a_stride as i64);
        let c = f.element(&self.c, row, shape.c_stride as i64);
        let from = f.offset(&self.b, &share.ahead);
        if let Some(panel) = &self.panel {
            let from = f.offset(&panel.blocks, &share.ahead);
            if rows > beside {
                return self.halves(f, rows, [&a, &c, &from]);
            }
            let (order, blocks) = (Order::InTurn, int((shape.k / 32) as i64));
            let block = Block { registers: self.registers, shape, rows, tiles: shape.tiles, order, blocks };
            let kept = self.plain.as_ref().filter(|_| share.keeps);
            return block.emit_compressed(f, [&a, &c], (panel, kept), &block.quarters_ahead(from));
        }
        let tiles = self.registers.tiles(rows, shape.tiles);
        let order = if rows <= MOST_IN_TURN || tiles < shape.tiles { share.order } else { Order::Beside };
        let emit_tiles = |f: &mut FunctionText, shape: &Shape, [a, b]: [&Value; 2], from: &Value| {
            f.for_each(&int(0), &int(shape.tiles as i64), tiles as i64, |f, tile| {
                let b = f.element(b, tile, tile_stride as i64);
                let c = f.element(&c, tile, (TILE * 4) as i64);
                let blocks = int((shape.k / 32) as i64);
                let block = Block { registers: self.registers, shape, rows, tiles, order, blocks };
                let ahead = match shape.ahead {
                    Distance::OfTurns { line } => self.turns(f, tiles, (tile, line), share),
                    Distance::Fixed(_) | Distance::OfCall => {
                        let from = f.element(from, tile, shape.layout.tile_bytes(shape.k));
                        block.lines_ahead(from)
                    }
                };
                match shape.layout {
                    Tiles::Blocks => block.emit_in_blocks(f, [a, &b, &c], &ahead),
                    _ => block.emit(f, [a, &b, &c], &ahead),
                }
            });
        };
        match shape.layout {
            Tiles::Bf16 { block_stride, .. }
                if order == Order::InTurn
                    && tiles < shape.tiles
                    && tile_stride < block_stride
                    && !self.registers.are_few =>
            {
                self.halves(f, rows, [&a, &c, &from]);
            }
            _ => emit_tiles(f, shape, [&a, &self.b], &from),
        }
    }

    /// The shape of B as it is kept.
    fn plain_shape(&self) -> Shape {
        Shape { layout: Tiles::PACKED, ..self.shape.clone() }
    }

    /// Rows that have no registers for sums of all tiles, in two halves that have: one waits for some k of the other, so that B
    /// is read from memory once. Each prefetches half of what follows. They are of rows, or of tiles where registers are few.
    fn halves(&self, f: &mut FunctionText, rows: usize, [a, c, from]: [&Value; 3]) {
        if self.shape.start == Start::Zero {
            clear(f, c, self.shape.c_stride, self.shape.tiles * TILE, &int(rows as i64));
        }
        let shape = &Shape { start: Start::Memory, ..self.shape.clone() };
        let all = int((shape.k / 32) as i64);
        let block_stride = shape.layout.block_bytes();
        let plain_shape = Shape { start: Start::Memory, ..self.plain_shape() };
        let [first, second] = [0..rows.div_ceil(2), rows.div_ceil(2)..rows];
        let halves = match self.registers.are_few {
            true => [(0..rows, 0..1), (0..rows, 1..2)],
            false => [(first, 0..shape.tiles), (second, 0..shape.tiles)],
        };
        f.for_each(&int(0), &all, BLOCKS_OF_HALVES as i64, |f, k32| {
            let left = f.binary("sub nsw", &all, k32);
            let blocks = f.min(&left, &int(BLOCKS_OF_HALVES as i64));
            let a = f.element(a, k32, (32 * shape.left.bytes()) as i64);
            let from = f.element(from, k32, block_stride);
            let behind = f.element(&from, &blocks, block_stride / 2);
            for ((rows, tiles), from) in halves.iter().zip([from, behind]) {
                let a = f.offset(&a, &int((rows.start * shape.a_stride) as i64));
                let c = f.offset(c, &int((rows.start * shape.c_stride + tiles.start * TILE * 4) as i64));
                let (registers, blocks) = (self.registers, blocks.clone());
                let block =
                    Block { registers, shape, rows: rows.len(), tiles: tiles.len(), order: Order::Beside, blocks };
                match (&self.panel, &self.plain) {
                    (Some(panel), None) => {
                        let panel = panel.at_block(f, k32).of_tile(f, &int(tiles.start as i64));
                        block.emit_compressed(f, [&a, &c], (&panel, None), &block.quarters_ahead(from));
                    }
                    (Some(panel), Some(plain)) if rows.start == 0 => {
                        let panel = panel.at_block(f, k32);
                        let ahead = block.quarters_ahead(from).in_halves();
                        block.emit_compressed(f, [&a, &c], (&panel, Some(plain)), &ahead);
                    }
                    (Some(_), Some(plain)) => {
                        let block = Block { shape: &plain_shape, ..block };
                        // As many bytes as the first half has prefetched, in other turns.
                        let ahead = Ahead { step: int(block_stride / 32), ..block.lines_ahead(from).in_halves() };
                        block.emit(f, [&a, plain, &c], &ahead);
                    }
                    _ => {
                        let b = f.element(&self.b, k32, block_stride);
                        block.emit(f, [&a, &b, &c], &block.lines_ahead(from).in_halves());
                    }
                }
            }
        });
    }

    /// What each turn of a block prefetches for the next call, from tile number `tile` on and `tiles` at a time.
    fn turns(&self, f: &mut FunctionText, tiles: usize, (tile, line): (&Value, usize), share: &Share) -> Ahead {
        let passes = (self.shape.tiles / tiles) as i64;
        let all = f.scale(&share.blocks, passes);
        let above = f.add(&all, &int((self.shape.tiles * line) as i64 - 1));
        let step = f.binary("sdiv", &above, &all);
        let pass = f.binary("sdiv", tile, &int(tiles as i64));
        let before = f.scale(&share.number, passes);
        let before = f.add(&before, &pass);
        let before = f.scale(&before, self.shape.k as i64 / 2);
        let before = f.binary("mul nsw", &before, &step);
        let from = f.offset(&self.b, &share.ahead);
        Ahead { from: f.offset(&from, &before), step, lines: tiles, level: Level::First }
    }
}

/// Sets the sums of `rows` rows and `columns` columns, a multiple of a tile's, to zero.
pub fn clear(f: &mut FunctionText, c: &Value, c_stride: usize, columns: usize, rows: &Value) {
    f.for_each(&int(0), rows, 1, |f, row| {
        let c = f.element(c, row, c_stride as i64);
        f.for_each(&int(0), &int(columns as i64), TILE as i64, |f, column| {
            let address = f.element(&c, column, 4);
            f.store(&float_of(floats(TILE), 0.0), &address, 64);
        });
    });
}
