//! Code for GPUs: which device kernels each launch became, and within which times a step could run on known machines.
//!
//! The times are estimates from data sheets. No kernel of this project has run on hardware yet.

use super::report::{Bracket, Gpu, GpuKernel, GpuProgram, Grid, Kernel, Program};
use llmc_artifact::{Artifact, CudaCode};
use llmc_ir::dtype::DType;
use llmc_ir::gpu::{self, Count, Extent, GridLaunch};
use llmc_ir::machine::{Machine, Processor};
use llmc_ir::plan;

/// Machines that steps are estimated for.
const MACHINES: [&str; 2] = ["a100", "h100"];

/// The code for each architecture. `priced` are the plan's programs under their machines' roofs, whose bytes and operations do
/// not depend on that machine.
pub fn gpus(artifact: &Artifact, priced: &[Program]) -> Vec<Gpu> {
    let manifest = artifact.manifest();
    let dtype = manifest.plan.model.dtype;
    let program = |(plan, gpu): (&plan::Program, &gpu::GpuProgram)| program(plan, gpu, dtype, priced);
    let one = |cuda: &CudaCode| Gpu {
        name: cuda.name.clone(),
        bytes: artifact.tensor(&cuda.tensor).map_or(0, |text| text.len() as u64),
        workspace_bytes: cuda.code.workspace_bytes,
        programs: manifest.plan.programs_on(Processor::Gpu).zip(&cuda.code.programs).map(program).collect(),
    };
    manifest.cuda.iter().map(one).collect()
}

fn program(plan: &plan::Program, gpu: &gpu::GpuProgram, dtype: DType, priced: &[Program]) -> GpuProgram {
    let mut kernels: Vec<GpuKernel> = Vec::new();
    for launch in plan.calls.iter().flat_map(|call| &plan.functions[call.function].launches) {
        if let Some(known) = kernels.iter_mut().find(|known| known.name == launch.kernel) {
            known.launches += 1;
            continue;
        }
        let grids = gpu.kernels.get(&launch.kernel).into_iter().flatten().map(grid).collect();
        kernels.push(GpuKernel { name: launch.kernel.clone(), launches: 1, grids });
    }
    let launches = kernels.iter().map(|kernel| kernel.launches * kernel.grids.len()).sum();
    let priced = priced.iter().find(|program| program.name == plan.name);
    let machines = MACHINES.iter().filter_map(|name| Machine::named(name).ok());
    let brackets = priced.map(|program| machines.map(|machine| bracket(program, launches, dtype, &machine)).collect());
    GpuProgram { name: plan.name.clone(), launches, kernels, brackets: brackets.unwrap_or_default() }
}

/// Between a step that moves only what it must, at the machine's rates, everything beside everything else, and one whose
/// launches wait for each other and move and compute one after the other.
fn bracket(program: &Program, launches: usize, dtype: DType, machine: &Machine) -> Bracket {
    let peak = |kernel: &Kernel| match kernel.anchor {
        "dot" | "attend" => machine.matrix_flops(dtype),
        _ => machine.vector_flops,
    };
    let compute: f64 =
        program.kernels.iter().map(|kernel| kernel.launches as f64 * kernel.price.flops / peak(kernel)).sum();
    let low = (program.floor_bytes / machine.memory_bandwidth).max(compute);
    let high = program.bytes / machine.memory_bandwidth + compute + launches as f64 * machine.launch_seconds;
    Bracket { machine: machine.name.clone(), low_seconds: low, high_seconds: high.max(low) }
}

fn grid(launch: &GridLaunch) -> Grid {
    let [x, y, z] = launch.grid.map(|extent| along(&extent));
    Grid {
        symbol: launch.symbol.clone(),
        blocks: format!("{x}, {y}, {z}"),
        threads: launch.block,
        shared_bytes: launch.shared_bytes,
    }
}

fn along(extent: &Extent) -> String {
    let count = match extent.count {
        Count::One => return extent.times.to_string(),
        Count::Tokens => "tokens",
        Count::Sequences => "sequences",
        Count::Samples => "samples",
    };
    let per = if extent.per > 1 { format!("/{}", extent.per) } else { String::new() };
    let times = if extent.times > 1 { format!(" x {}", extent.times) } else { String::new() };
    format!("{count}{per}{times}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_read_well() {
        let extent = |count, per, times| Extent { count, per, times };
        let launch = GridLaunch {
            symbol: "gemm".to_owned(),
            grid: [extent(Count::Tokens, 64, 1), extent(Count::One, 1, 12), extent(Count::Sequences, 1, 4)],
            block: 128,
            shared_bytes: 49152,
        };
        let Grid { blocks, threads, shared_bytes, .. } = grid(&launch);
        assert_eq!((&blocks[..], threads, shared_bytes), ("tokens/64, 12, sequences x 4", 128, 49152));
    }
}
