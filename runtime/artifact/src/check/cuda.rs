//! What has to hold of code for GPUs: every launch of the plan has its kernels, and every grid can be launched.

use super::check_memory;
use crate::manifest::CudaCode;
use crate::names::code_tensor_name;
use llmc_ir::gpu::{Extent, GpuProgram, GridLaunch};
use llmc_ir::machine::Processor;
use llmc_ir::plan::{Plan, Program};
use std::collections::{BTreeMap, BTreeSet};

/// Blocks along each axis of a grid.
const LARGEST_GRID: [u64; 3] = [0x7fff_ffff, 0xffff, 0xffff];

/// Threads of a block.
const LARGEST_BLOCK: u32 = 1024;

/// Shared memory of a block on the largest device there is, in bytes.
const LARGEST_SHARED: u32 = 227 << 10;

/// Compute capabilities that there can be, as `10 * major + minor`: PTX for older ones is gone.
const CAPABILITIES: std::ops::RangeInclusive<u32> = 50..=999;

/// Checks the code for one architecture against the plan and the sizes of the file's tensors.
pub(super) fn check_cuda(plan: &Plan, cuda: &CudaCode, sizes: &BTreeMap<&str, u64>) -> Result<(), String> {
    let name = &cuda.name;
    if !CAPABILITIES.contains(&cuda.compute_capability) || *name != format!("cuda:sm_{}", cuda.compute_capability) {
        return Err(format!("code for `{name}` says it is for compute capability {}", cuda.compute_capability));
    }
    if cuda.tensor != code_tensor_name(name) || !sizes.contains_key(cuda.tensor.as_str()) {
        let expected = code_tensor_name(name);
        return Err(format!("code for {name} should be the tensor `{expected}`, the manifest names `{}`", cuda.tensor));
    }
    check_memory(&format!("workspace of the code for {name}"), cuda.code.workspace_bytes)?;
    let programs = plan.programs_on(Processor::Gpu);
    let (found, expected) = (cuda.code.programs.len(), programs.clone().count());
    if found != expected {
        return Err(format!("code for {name} has {found} programs, the plan has {expected} for a GPU"));
    }
    for (program, gpu) in programs.zip(&cuda.code.programs) {
        check_program(program, gpu)
            .map_err(|problem| format!("code for {name}, program `{}`: {problem}", program.name))?;
    }
    Ok(())
}

fn check_program(program: &Program, gpu: &GpuProgram) -> Result<(), String> {
    let launches = program.functions.iter().flat_map(|function| &function.launches);
    let kernels: BTreeSet<&str> = launches.map(|launch| launch.kernel.as_str()).collect();
    if let Some(kernel) = kernels.iter().find(|kernel| !gpu.kernels.contains_key(**kernel)) {
        return Err(format!("nothing is launched for `{kernel}`"));
    }
    for (kernel, launches) in &gpu.kernels {
        if !kernels.contains(kernel.as_str()) {
            return Err(format!("`{kernel}` is no kernel of the program"));
        }
        for launch in launches {
            check_launch(program, launch).map_err(|problem| format!("kernel `{kernel}`: {problem}"))?;
        }
    }
    Ok(())
}

fn check_launch(program: &Program, launch: &GridLaunch) -> Result<(), String> {
    let GridLaunch { symbol, grid, block, shared_bytes } = launch;
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
    if symbol.is_empty() || !symbol.chars().all(letter) {
        return Err(format!("{symbol:?} is not the name of a function"));
    }
    for (extent, most) in grid.iter().zip(LARGEST_GRID) {
        let blocks = most_blocks(program, extent).ok_or_else(|| format!("`{symbol}` has a grid of no size"))?;
        if blocks > most {
            return Err(format!("`{symbol}` has {blocks} blocks along an axis that takes {most}"));
        }
    }
    if !(1..=LARGEST_BLOCK).contains(block) {
        return Err(format!("`{symbol}` has {block} threads in a block, but must have 1 to {LARGEST_BLOCK}"));
    }
    if *shared_bytes > LARGEST_SHARED {
        return Err(format!("`{symbol}` asks for {shared_bytes} bytes of shared memory, there are {LARGEST_SHARED}"));
    }
    Ok(())
}

/// Blocks of the program's largest step; `None` where an extent is not a size.
fn most_blocks(program: &Program, extent: &Extent) -> Option<u64> {
    let (per, times) = (u64::from(extent.per), u64::from(extent.times));
    let max = &program.bounds.max;
    let [tokens, sequences, samples] = [max.tokens, max.sequences, max.samples].map(|size| size as u32);
    let count = u64::from(extent.count.of(tokens, sequences, samples));
    (per > 0 && times > 0).then(|| count.div_ceil(per) * times)
}

#[cfg(test)]
mod tests {
    use super::super::tests::plan;
    use super::*;
    use llmc_ir::gpu::{Count, GpuCode};

    fn gpu_plan() -> Plan {
        let mut plan = plan();
        plan.programs[0].processor = Processor::Gpu;
        plan
    }

    fn code() -> CudaCode {
        let extent = |count| Extent { count, per: 4, times: 2 };
        let launch = GridLaunch {
            symbol: "prefill_k".to_owned(),
            grid: [extent(Count::Tokens), extent(Count::Sequences), extent(Count::One)],
            block: 128,
            shared_bytes: 1024,
        };
        let kernels = BTreeMap::from([("k".to_owned(), vec![launch])]);
        CudaCode {
            name: "cuda:sm_80".to_owned(),
            compute_capability: 80,
            tensor: "code/cuda:sm_80".to_owned(),
            code: GpuCode { workspace_bytes: 64, programs: vec![GpuProgram { kernels }] },
        }
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut CudaCode), says: &str) {
        let sizes = BTreeMap::from([("code/cuda:sm_80", 10)]);
        let mut code = code();
        assert_eq!(check_cuda(&gpu_plan(), &code, &sizes), Ok(()));
        change(&mut code);
        let problem = check_cuda(&gpu_plan(), &code, &sizes).unwrap_err();
        assert!(problem.contains(says), "`{says}` is not in: {problem}");
    }

    fn launch(code: &mut CudaCode) -> &mut GridLaunch {
        &mut code.code.programs[0].kernels.get_mut("k").unwrap()[0]
    }

    #[test]
    fn code_must_be_there_and_for_what_it_says() {
        refused(|code| code.compute_capability = 90, "capability 90");
        refused(|code| code.name = "cuda:sm_80a".to_owned(), "capability 80");
        refused(|code| (code.name, code.compute_capability) = ("cuda:sm_1".to_owned(), 1), "capability 1");
        refused(|code| (code.name, code.compute_capability) = ("cuda:sm_90".to_owned(), 90), "code/cuda:sm_90");
        refused(|code| code.tensor = "weights/0000/w".to_owned(), "should be the tensor `code/cuda:sm_80`");
        refused(|code| code.code.workspace_bytes = u64::MAX, "workspace");
    }

    #[test]
    fn every_launch_has_its_kernels_and_no_other_has() {
        refused(|code| code.code.programs.clear(), "has 0 programs, the plan has 1");
        refused(|code| code.code.programs[0].kernels.clear(), "program `prefill`: nothing is launched for `k`");
        let other = |code: &mut CudaCode| code.code.programs[0].kernels.insert("other".to_owned(), Vec::new());
        refused(|code| drop(other(code)), "`other` is no kernel");
    }

    #[test]
    fn grids_can_be_launched() {
        refused(|code| launch(code).grid[0].per = 0, "no size");
        refused(|code| launch(code).grid[1].times = 0, "no size");
        refused(|code| launch(code).grid[0].times = u32::MAX, "8589934590 blocks");
        refused(|code| launch(code).grid[2].times = 65536, "65536 blocks");
        refused(|code| launch(code).block = 0, "0 threads");
        refused(|code| launch(code).block = 1025, "1025 threads");
        refused(|code| launch(code).shared_bytes = u32::MAX, "shared memory");
        for symbol in ["", "a b", "a\0b", "ä"] {
            refused(|code| launch(code).symbol = symbol.to_owned(), "not the name of a function");
        }
    }
}
