//! Execution: a grid's blocks one after the other, the warps of a block in turns, the lanes of a warp side by side.

mod access;
mod atomic;
mod barrier;
mod bits;
mod block;
mod communicate;
mod compare;
mod convert;
mod copies;
mod double;
mod float;
mod half;
mod integer;
mod local;
mod matrix;
mod partial;
mod shared;
mod step;
mod video;
mod warp;
mod wmma;

use self::barrier::Barriers;
use self::block::Block;
use self::shared::SharedMemory;
use self::warp::{Defect, Lanes32, Mask, State, Warp};
use crate::counters::Counters;
use crate::error::{Fault, FaultKind, LaunchError};
use crate::launch::{BlockOrder, LaunchConfig};
use crate::memory::Memory;
use crate::module::{Fill, Kernel, Special};

/// Instructions that a warp issues before the next one has its turn.
const SLICE: u64 = 4096;

/// A launch whose configuration and parameters have been checked.
pub(crate) struct Grid<'l> {
    pub kernel: &'l Kernel,
    pub config: LaunchConfig,
    pub parameters: Vec<u8>,
    /// Address of each module variable that the kernel names.
    pub variables: &'l dyn Fn(&str) -> u64,
}

pub(crate) fn run(grid: Grid, memory: &mut Memory) -> Result<Counters, LaunchError> {
    let Grid { kernel, config, .. } = grid;
    let threads = config.threads();
    let warp_count = threads.div_ceil(32);
    let dynamic_start = kernel.static_shared.next_multiple_of(16);
    let shared_bytes = match config.dynamic_shared_bytes {
        0 => kernel.static_shared,
        dynamic => dynamic_start + u64::from(dynamic),
    };
    let mut block = Block {
        kernel,
        memory,
        shared: SharedMemory::new(shared_bytes, kernel.shared_grain, warp_count),
        parameters: grid.parameters.clone(),
        barriers: Barriers::new(warp_count),
        counters: Counters::default(),
        executed: vec![0; kernel.code.len()],
        remaining: config.instruction_limit,
    };
    let mut warps: Vec<Warp> = (0..warp_count).map(|index| Warp::new(kernel, index)).collect();
    for warp in &mut warps {
        preset(warp, &grid, dynamic_start, shared_bytes);
    }
    let [columns, rows, _] = config.grid.map(u64::from);
    let blocks: u64 = config.grid.iter().map(|&extent| u64::from(extent)).product();
    for turn in 0..blocks {
        let number = match config.order {
            BlockOrder::Ascending => turn,
            BlockOrder::Descending => blocks - 1 - turn,
        };
        let place = [number % columns, number / columns % rows, number / columns / rows];
        run_block(&mut warps, &mut block, &config, place.map(|along| along as u32))?;
    }
    Ok(summarise(block, u64::from(warp_count) * blocks))
}

fn run_block(warps: &mut [Warp], block: &mut Block, config: &LaunchConfig, cta: [u32; 3]) -> Result<(), LaunchError> {
    block.shared.clear();
    block.barriers.clear();
    block.counters.blocks += 1;
    for warp in warps.iter_mut() {
        let lanes = (config.threads() - 32 * warp.index).min(32);
        place(warp, block.kernel, cta);
        warp.restart(Mask::MAX >> (32 - lanes), block.kernel.code.len() as u32);
    }
    let kernel = block.kernel;
    let mut result = Ok(());
    'block: loop {
        let mut progress = false;
        for at in 0..warps.len() {
            if warps[at].state != State::Running {
                continue;
            }
            progress = true;
            if let Err((index, defect)) = step::run(&mut warps[at], block, SLICE) {
                result = Err((at as u32, kernel.code[index].line, defect));
                break 'block;
            }
            barrier::release(warps, block);
        }
        if progress {
            continue;
        }
        if let Some((warp, line)) = block.barriers.first_waiting() {
            let gone: Vec<String> =
                warps.iter().filter(|warp| warp.state == State::Done).map(|warp| warp.index.to_string()).collect();
            let gone = if gone.is_empty() { String::new() } else { format!("; exited warps: {}", gone.join(", ")) };
            let detail = format!("{}{gone}", block.barriers.describe());
            result = Err((warp, line, Defect::warp(FaultKind::DivergentBarrier { detail })));
        }
        break;
    }
    result.map_err(|(warp, line, defect)| locate(kernel, config, cta, (warp, line, defect)))
}

fn locate(kernel: &Kernel, config: &LaunchConfig, cta: [u32; 3], at: (u32, u32, Defect)) -> LaunchError {
    let (warp, line, defect) = at;
    let kind = match *defect.kind {
        FaultKind::InstructionLimit { .. } => FaultKind::InstructionLimit { limit: config.instruction_limit },
        kind => kind,
    };
    Box::new(Fault { kernel: kernel.name.clone(), line, cta, warp, lane: defect.lane, kind }).into()
}

/// Fills the slots that keep their value over all blocks.
fn preset(warp: &mut Warp, grid: &Grid, dynamic_start: u64, shared_bytes: u64) {
    let slots = &grid.kernel.slots;
    let value = |fill: &Fill| match fill {
        Fill::Value(value) => *value,
        Fill::Variable(name) => (grid.variables)(name),
        Fill::DynamicShared => dynamic_start,
        Fill::Special(_) => 0,
    };
    for (slot, fill) in &slots.constants32 {
        let lanes = match fill {
            Fill::Special(special) => lanes_of(*special, warp.index, &grid.config, shared_bytes),
            fill => [value(fill) as u32; 32],
        };
        warp.preset32(*slot, lanes);
    }
    for (slot, fill) in &slots.constants64 {
        warp.preset64(*slot, value(fill));
    }
    for (slot, held) in &slots.constants_predicate {
        warp.preset_predicate(*slot, if *held { Mask::MAX } else { 0 });
    }
}

/// Tells a warp which block it is in.
fn place(warp: &mut Warp, kernel: &Kernel, cta: [u32; 3]) {
    for (slot, fill) in &kernel.slots.constants32 {
        if let Fill::Special(Special::Block(axis)) = fill {
            warp.preset32(*slot, [cta[*axis]; 32]);
        }
    }
}

fn lanes_of(special: Special, warp: u32, config: &LaunchConfig, shared_bytes: u64) -> Lanes32 {
    let [width, height, _] = config.block;
    std::array::from_fn(|lane| {
        let thread = 32 * warp + lane as u32;
        match special {
            Special::Thread(0) => thread % width,
            Special::Thread(1) => thread / width % height,
            Special::Thread(_) => thread / (width * height),
            Special::BlockSize(axis) => config.block[axis],
            Special::GridSize(axis) => config.grid[axis],
            Special::Lane => lane as u32,
            Special::Warp => warp,
            Special::Warps => config.threads().div_ceil(32),
            Special::LaneMaskEqual => 1 << lane,
            Special::LaneMaskLess => (1 << lane) - 1,
            Special::LaneMaskLessEqual => (1 << lane) | ((1 << lane) - 1),
            Special::LaneMaskGreater => !((1 << lane) | ((1 << lane) - 1)),
            Special::LaneMaskGreaterEqual => !((1 << lane) - 1),
            Special::DynamicSharedBytes => config.dynamic_shared_bytes,
            Special::TotalSharedBytes => shared_bytes as u32,
            Special::Block(_) | Special::Zero => 0,
        }
    })
}

fn summarise(block: Block, warps: u64) -> Counters {
    let mut counters = block.counters;
    counters.warps = warps;
    for (code, count) in block.kernel.code.iter().zip(block.executed) {
        counters.warp_instructions += count;
        if count > 0 {
            *counters.instructions.entry(block.kernel.kinds[code.kind as usize].clone()).or_default() += count;
        }
    }
    counters
}
