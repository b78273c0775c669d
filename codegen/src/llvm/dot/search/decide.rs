//! Which column is the largest: those that may be are computed.

use super::super::super::compressed::Panel;
use super::super::super::math::larger;
use super::super::super::memory::load_index;
use super::super::super::multiply::{Block, Distance, Level, Order, Rows, Scattered, Shape, Start, TILE, Tiles};
use super::super::super::text::{F32, FunctionText, I32, I64, Value, float_of, int};
use super::super::super::{KernelContext, KernelParams};
use super::super::PANEL;
use super::super::largest::told_bound;
use super::{MOST_NOTED, NOTED, RUN, Search};

/// Tiles that are computed at a time: chains of sums that wait for themselves, and lines that wait for memory.
const TILES: usize = 4;

impl Search {
    /// Computes the noted columns of each row that may be the largest of all, and keeps the largest.
    pub(super) fn decide(&self, f: &mut FunctionText, context: &KernelContext<'_>, params: &KernelParams) {
        let none = float_of(F32, f64::NEG_INFINITY);
        self.largest.reset(f);
        f.for_each(&int(0), &self.rows, 1, |f, row| {
            let bound = f.fold(&int(0), &params.threads, 1, std::slice::from_ref(&none), |f, thread, bound| {
                let found = self.largest.found(f, thread, row);
                let other = told_bound(f, &found);
                vec![larger(f, &other, &bound[0])]
            });
            let noted_at = self.fact(f, row, NOTED);
            let noted = f.load(I64, &noted_at, 8);
            let is_whole = f.compare("icmp sgt", &noted, &int(MOST_NOTED));
            let is_noted = f.compare("icmp sle", &noted, &int(MOST_NOTED));
            f.when(&is_whole, |f| self.compute_all(f, context, row));
            f.when(&is_noted, |f| self.compute_noted(f, context, row, [&noted, &bound[0]]));
        });
        self.largest.finish(f, params);
    }

    /// Computes all of the thread's columns.
    fn compute_all(&self, f: &mut FunctionText, context: &KernelContext<'_>, row: &Value) {
        let last = int(self.columns.div_ceil(PANEL) as i64 * 2 - 1);
        self.for_runs(f, |f, run| {
            let first = f.scale(run, RUN * 2);
            let end = f.add(&first, &int(RUN * 2));
            f.for_each(&first, &end, TILES as i64, |f, tile| {
                let tiles = [0, 1, 2, 3].map(|number| {
                    let tile = f.add(tile, &int(number));
                    f.min(&tile, &last)
                });
                self.compute(f, context, row, &tiles);
            });
        });
    }

    /// Computes those of a row's noted columns whose upper bounds reach `bound`.
    fn compute_noted(
        &self,
        f: &mut FunctionText,
        context: &KernelContext<'_>,
        row: &Value,
        [noted, bound]: [&Value; 2],
    ) {
        let list = f.scale(row, (MOST_NOTED as usize + TILE) as i64);
        let [columns, uppers] = [&self.noted, &self.uppers].map(|all| f.element(all, &list, 4));
        // Their tiles, each once, take the first places.
        let kept = f.fold(&int(0), noted, 1, &[int(0), int(-1)], |f, number, state| {
            let upper = f.element(&uppers, number, 4);
            let upper = f.load(F32, &upper, 4);
            let column = load_index(f, &columns, number);
            let tile = f.binary("lshr", &column, &int(4));
            let near = f.compare("fcmp oge", &upper, bound);
            let is_new = f.compare("icmp ne", &tile, &state[1]);
            let stays = f.binary("and", &near, &is_new);
            let to = f.element(&columns, &state[0], 4);
            let short = f.cast("trunc", &tile, I32);
            f.when(&stays, |f| f.store(&short, &to, 4));
            let one = f.cast("zext", &stays, I64);
            vec![f.add(&state[0], &one), f.select(&stays, &tile, &state[1])]
        });
        let last = f.add(&kept[0], &int(-1));
        f.for_each(&int(0), &kept[0], TILES as i64, |f, number| {
            let tiles = [0, 1, 2, 3].map(|next| {
                let number = f.add(number, &int(next));
                let number = f.min(&number, &last);
                load_index(f, &columns, &number)
            });
            self.compute(f, context, row, &tiles);
        });
    }

    /// Computes the logits of some tiles, in ascending order, as the product's kernel does.
    fn compute(&self, f: &mut FunctionText, context: &KernelContext<'_>, row: &Value, tiles: &[Value; TILES]) {
        let k = self.weight.k;
        let layout = match self.weight.is_compressed {
            true => Tiles::Compressed { row: k },
            false => Tiles::PACKED,
        };
        let shape = &Shape {
            k,
            tiles: TILES,
            layout,
            left: self.form,
            a_stride: self.exact_stride,
            c_stride: TILES * TILE * 4,
            start: Start::Zero,
            rows: Rows { unit: 1, most: 1 },
            ahead: Distance::Fixed(0),
            prefetch: Level::First,
        };
        let blocks = int((k / 32) as i64);
        let block = Block { registers: context.registers, shape, rows: 1, tiles: TILES, order: Order::Beside, blocks };
        let a = f.element(&self.exact, row, self.exact_stride as i64);
        let of_panels = tiles.iter().map(|tile| {
            let [panel, tile] = [("lshr", 1), ("and", 1)].map(|(operation, by)| f.binary(operation, tile, &int(by)));
            (self.weight.panel(f, &panel), tile)
        });
        let of_panels: Vec<(Value, Value)> = of_panels.collect();
        let of_panels = of_panels.iter();
        let scattered = match self.weight.is_compressed {
            true => Scattered::Compressed(
                of_panels
                    .map(|(panel, tile)| Panel::at(f, context.registers, panel, k, &int(0)).of_tile(f, tile))
                    .collect(),
            ),
            false => Scattered::Plain(of_panels.map(|(panel, tile)| f.element(panel, tile, 1024)).collect()),
        };
        let sums = block.sums_of_scattered(f, &a, &scattered);
        for (tile, sum) in tiles.iter().zip(&sums) {
            let first = f.scale(tile, TILE as i64);
            self.largest.keep(f, row, &first, sum);
        }
    }
}
