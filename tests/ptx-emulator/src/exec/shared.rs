//! A block's shared memory, which knows who touched what: bounds, bytes never written, copies in flight, and races.
//!
//! Two accesses of different warps, one of them a write, race unless a barrier orders them. Each warp has a vector clock: its own
//! time, and how far it knows the others' (what barriers told it). Memory is watched in cells of the kernel's shortest access.
//! Within a warp, accesses are ordered as the program is. A plain store of the value that is there already is no race.

use super::warp::{Defect, Mask};
use crate::error::{FaultKind, Space};
use crate::shadow::Shadow;

/// The last accesses of a cell.
#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    /// Warp of the last write, plus one.
    writer: u32,
    writer_time: u32,
    writer_line: u32,
    /// Warp of a `cp.async` in flight to here, plus one.
    flight: u32,
    flight_line: u32,
    /// The store instruction that wrote last, to find two lanes of one store at odds.
    stamp: u32,
}

/// What a write may coincide with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sharing {
    /// Nothing.
    Write,
    /// Another write: the value is there already.
    SameValue,
    /// Other atomic accesses.
    Atomic,
}

/// Who accesses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Actor {
    pub warp: u32,
    pub line: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct SharedMemory {
    data: Vec<u8>,
    defined: Shadow,
    grain: u64,
    warps: usize,
    cells: Vec<Cell>,
    /// For each cell and warp, the time of the warp's last read.
    reads: Vec<u32>,
    /// For each cell, the line of the last read.
    read_lines: Vec<u32>,
    /// For each cell and warp, the time of the warp's last atomic access; empty until there is one.
    atomics: Vec<u32>,
    /// For each cell, the line of the last atomic access.
    atomic_lines: Vec<u32>,
    /// `clocks[w][v]`: what warp `w` knows of warp `v`'s time.
    clocks: Vec<Vec<u32>>,
    stamp: u32,
}

impl SharedMemory {
    pub fn new(bytes: u64, grain: u64, warps: u32) -> Self {
        let cells = bytes.div_ceil(grain) as usize;
        let warps = warps as usize;
        SharedMemory {
            data: vec![0xff; bytes as usize],
            defined: Shadow::undefined(bytes),
            grain,
            warps,
            cells: vec![Cell::default(); cells],
            reads: vec![0; cells * warps],
            read_lines: vec![0; cells],
            atomics: Vec::new(),
            atomic_lines: Vec::new(),
            clocks: first_clocks(warps),
            stamp: 0,
        }
    }

    /// As new, for the next block.
    pub fn clear(&mut self) {
        let bytes = self.data.len() as u64;
        self.defined.forget(0, bytes);
        self.cells.fill(Cell::default());
        self.reads.fill(0);
        self.atomics.clear();
        self.atomic_lines.clear();
        self.clocks = first_clocks(self.warps);
        self.stamp = 0;
    }

    /// Checks an access's place.
    #[inline]
    pub fn check(&self, lane: usize, address: u64, bytes: u64) -> Result<(), Defect> {
        if address.checked_add(bytes).is_none_or(|end| end > self.data.len() as u64) {
            let nearest = format!("the block has {} bytes", self.data.len());
            return Err(defect(lane, FaultKind::OutOfBounds { space: Space::Shared, address, bytes, nearest }));
        }
        if !address.is_multiple_of(bytes) {
            return Err(defect(lane, FaultKind::Misaligned { space: Space::Shared, address, bytes }));
        }
        Ok(())
    }

    #[inline]
    fn knows(&self, warp: u32, other: u32, time: u32) -> bool {
        warp == other || self.clocks[warp as usize][other as usize] >= time
    }

    #[inline]
    fn cell_range(&self, address: u64, bytes: u64) -> std::ops::Range<usize> {
        (address / self.grain) as usize..(address + bytes).div_ceil(self.grain) as usize
    }

    /// The bytes of a load.
    pub fn read(&mut self, actor: Actor, lane: usize, address: u64, bytes: u64) -> Result<&[u8], Defect> {
        self.check(lane, address, bytes)?;
        let time = self.clocks[actor.warp as usize][actor.warp as usize];
        for at in self.cell_range(address, bytes) {
            let cell = &self.cells[at];
            if cell.flight != 0 {
                return Err(self.in_flight(lane, at));
            }
            if cell.writer != 0 && !self.knows(actor.warp, cell.writer - 1, cell.writer_time) {
                return Err(self.race(lane, at, actor, "reads", (cell.writer - 1, cell.writer_line, "wrote")));
            }
            if let Some(other) = self.unknown(&self.atomics, at, actor.warp) {
                return Err(self.race(lane, at, actor, "reads", (other, self.atomic_lines[at], "changed atomically")));
            }
            self.reads[at * self.warps + actor.warp as usize] = time;
            self.read_lines[at] = actor.line;
        }
        self.defined_bytes(lane, address, bytes)
    }

    fn defined_bytes(&self, lane: usize, address: u64, bytes: u64) -> Result<&[u8], Defect> {
        if !self.defined.is_defined(address, bytes) {
            return Err(defect(lane, FaultKind::UninitialisedMemory { space: Space::Shared, address, bytes }));
        }
        Ok(&self.data[address as usize..(address + bytes) as usize])
    }

    /// The bytes of an atomic access, which [`replace`](SharedMemory::replace) completes.
    pub fn read_atomic(&mut self, actor: Actor, lane: usize, address: u64, bytes: u64) -> Result<&[u8], Defect> {
        self.check(lane, address, bytes)?;
        if self.atomics.is_empty() {
            self.atomics = vec![0; self.reads.len()];
            self.atomic_lines = vec![0; self.cells.len()];
        }
        let time = self.clocks[actor.warp as usize][actor.warp as usize];
        for at in self.cell_range(address, bytes) {
            self.order_write(actor, lane, at, Sharing::Atomic)?;
            self.atomics[at * self.warps + actor.warp as usize] = time;
            self.atomic_lines[at] = actor.line;
        }
        self.defined_bytes(lane, address, bytes)
    }

    /// The new value of bytes that [`read_atomic`](SharedMemory::read_atomic) returned.
    pub fn replace(&mut self, address: u64, value: &[u8]) {
        self.data[address as usize..address as usize + value.len()].copy_from_slice(value);
    }

    /// A warp whose entry in `times` (reads or atomics) for the cell is later than what `warp` knows of it.
    #[inline]
    fn unknown(&self, times: &[u32], at: usize, warp: u32) -> Option<u32> {
        let times = times.get(at * self.warps..(at + 1) * self.warps)?;
        let clock = &self.clocks[warp as usize];
        (0..self.warps).find(|&other| times[other] > clock[other]).map(|other| other as u32)
    }

    /// Starts a store instruction: its lanes' writes are compared with each other.
    pub fn begin_store(&mut self) {
        self.stamp += 1;
    }

    /// A store of `value`.
    pub fn write(&mut self, actor: Actor, lane: usize, address: u64, value: &[u8]) -> Result<(), Defect> {
        let bytes = value.len() as u64;
        self.check(lane, address, bytes)?;
        let range = address as usize..address as usize + value.len();
        let same = self.data[range.clone()] == *value && self.defined.is_defined(address, bytes);
        let sharing = if same { Sharing::SameValue } else { Sharing::Write };
        let time = self.clocks[actor.warp as usize][actor.warp as usize];
        for at in self.cell_range(address, bytes) {
            if !self.order_write(actor, lane, at, sharing)? {
                continue;
            }
            let cell = &mut self.cells[at];
            if cell.stamp == self.stamp && !same {
                let did = "wrote another value to in another lane";
                return Err(self.race(lane, at, actor, "writes", (actor.warp, actor.line, did)));
            }
            cell.writer = actor.warp + 1;
            cell.writer_time = time;
            cell.writer_line = actor.line;
            cell.stamp = self.stamp;
        }
        transfer(&mut self.data[range], value);
        self.defined.define(address, bytes);
        Ok(())
    }

    /// Marks bytes as holding nothing: a register that nothing was written to was stored there.
    pub fn forget(&mut self, address: u64, bytes: u64) {
        self.defined.forget(address, bytes);
    }

    /// Checks a write of the cell against earlier accesses. False: a harmless race of equal values, which keeps the first writer.
    fn order_write(&self, actor: Actor, lane: usize, at: usize, sharing: Sharing) -> Result<bool, Defect> {
        let cell = &self.cells[at];
        if cell.flight != 0 {
            return Err(self.in_flight(lane, at));
        }
        if cell.writer != 0 && !self.knows(actor.warp, cell.writer - 1, cell.writer_time) {
            if sharing == Sharing::SameValue {
                return Ok(false);
            }
            return Err(self.race(lane, at, actor, "writes", (cell.writer - 1, cell.writer_line, "wrote")));
        }
        if let Some(reader) = self.unknown(&self.reads, at, actor.warp) {
            return Err(self.race(lane, at, actor, "writes", (reader, self.read_lines[at], "reads")));
        }
        if sharing != Sharing::Atomic
            && let Some(other) = self.unknown(&self.atomics, at, actor.warp)
        {
            return Err(self.race(lane, at, actor, "writes", (other, self.atomic_lines[at], "changed atomically")));
        }
        Ok(true)
    }

    /// A `cp.async` leaves for these bytes: from here to its landing nobody may touch them.
    pub fn launch_copy(&mut self, actor: Actor, lane: usize, address: u64, bytes: u64) -> Result<(), Defect> {
        self.check(lane, address, bytes)?;
        for at in self.cell_range(address, bytes) {
            self.order_write(actor, lane, at, Sharing::Write)?;
            self.cells[at].flight = actor.warp + 1;
            self.cells[at].flight_line = actor.line;
        }
        Ok(())
    }

    /// A `cp.async` lands, as a write of the warp that waited for it.
    pub fn land_copy(&mut self, warp: u32, address: u64, value: &[u8]) {
        let time = self.clocks[warp as usize][warp as usize];
        for at in self.cell_range(address, value.len() as u64) {
            let cell = &mut self.cells[at];
            *cell = Cell { writer: warp + 1, writer_time: time, writer_line: cell.flight_line, ..Cell::default() };
        }
        transfer(&mut self.data[address as usize..address as usize + value.len()], value);
        self.defined.define(address, value.len() as u64);
    }

    /// What a warp knows, for a barrier to gather.
    pub fn knowledge(&self, warp: u32) -> &[u32] {
        &self.clocks[warp as usize]
    }

    /// A barrier tells a warp what the others knew when they arrived.
    pub fn learn(&mut self, warp: u32, knowledge: &[u32]) {
        for (mine, theirs) in self.clocks[warp as usize].iter_mut().zip(knowledge) {
            *mine = (*mine).max(*theirs);
        }
    }

    /// A warp has arrived at a barrier: what it does from here on is later.
    pub fn tick(&mut self, warp: u32) {
        self.clocks[warp as usize][warp as usize] += 1;
    }

    #[cold]
    fn in_flight(&self, lane: usize, at: usize) -> Defect {
        let cell = &self.cells[at];
        defect(
            lane,
            FaultKind::InFlight { address: at as u64 * self.grain, owner: cell.flight - 1, line: cell.flight_line },
        )
    }

    #[cold]
    fn race(&self, lane: usize, at: usize, actor: Actor, does: &str, (other, line, did): (u32, u32, &str)) -> Defect {
        let detail = format!(
            "warp {} {does} what warp {other} {did} (PTX line {line}), with no barrier between the two",
            actor.warp
        );
        defect(lane, FaultKind::SharedRace { address: at as u64 * self.grain, detail })
    }
}

/// Copies an access's bytes; the usual lengths without a call.
#[inline(always)]
pub(crate) fn transfer(to: &mut [u8], from: &[u8]) {
    match from.len() {
        16 => to[..16].copy_from_slice(&from[..16]),
        8 => to[..8].copy_from_slice(&from[..8]),
        4 => to[..4].copy_from_slice(&from[..4]),
        _ => to.copy_from_slice(from),
    }
}

fn first_clocks(warps: usize) -> Vec<Vec<u32>> {
    (0..warps).map(|warp| (0..warps).map(|other| u32::from(warp == other)).collect()).collect()
}

fn defect(lane: usize, kind: FaultKind) -> Defect {
    Defect::lane(lane as u32, kind)
}

/// The addresses of the active lanes, packed.
pub(crate) fn active(addresses: &[u64; 32], mask: Mask, into: &mut [u64; 32]) -> usize {
    let mut count = 0;
    for lane in super::warp::lanes(mask) {
        into[count] = addresses[lane];
        count += 1;
    }
    count
}
