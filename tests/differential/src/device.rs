//! A case compiled to PTX, run on the emulator.

use crate::case::Case;
use crate::compiled::packed;
use crate::guarded::Guarded;
use crate::pool::{Batch, Pool};
use llmc_codegen::error::CodegenError;
use llmc_codegen::gpu::GpuTarget;
use llmc_codegen::{GpuModule, compile_gpu};
use llmc_ir::gpu::{GpuCode, GpuStepArgs, GridLaunch};
use llmc_ir::plan::{Launch, Operand, Plan, StepInput};
use llmc_ir::region::PlannedModel;
use llmc_ptx_emulator::{Argument, BlockOrder, Counters, LaunchConfig, Memory, Module, launch};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Code and weights.
#[derive(Debug)]
pub struct Device {
    /// What it was compiled from.
    pub plan: Plan,
    code: GpuCode,
    ptx: String,
    module: Module,
    /// Kernels that run instead of those of the code, with a limit of instructions.
    replaced: BTreeMap<String, (Module, u64)>,
    weights: Vec<Guarded>,
    counters: RefCell<BTreeMap<String, Counters>>,
}

/// How much larger than a step its grids are made: as when a recorded step of a larger size is replayed for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Padding {
    /// Tokens too many.
    pub tokens: u32,
    /// Sequences too many.
    pub sequences: u32,
    /// Samples too many.
    pub samples: u32,
}

/// Where everything of a step lies in the device's memory.
struct Places {
    args: u64,
    workspace: u64,
    arena: u64,
    weights: Vec<u64>,
    kv: u64,
    logits: u64,
    step: [u64; 3],
}

impl Device {
    /// Compiles a planned case and packs its weights.
    ///
    /// # Errors
    /// If code generation fails.
    ///
    /// # Panics
    /// If the emulator does not take the PTX, or a weight is missing.
    pub fn new(case: &Case, model: PlannedModel, target: &GpuTarget) -> Result<Device, CodegenError> {
        let GpuModule { ptx, code } = compile_gpu(&model, target)?;
        let module = Module::parse(&ptx).unwrap_or_else(|error| panic!("{error}\n{ptx}"));
        let weights = model.plan.weights.iter().map(|weight| packed(case, &model, weight)).collect::<Result<_, _>>()?;
        Ok(Device {
            plan: model.plan,
            code,
            ptx,
            module,
            replaced: BTreeMap::new(),
            weights,
            counters: RefCell::default(),
        })
    }

    /// The text that it runs.
    pub fn ptx(&self) -> &str {
        &self.ptx
    }

    /// Runs another kernel instead of the one of that name, up to so many instructions of warps per launch; or the code's
    /// own again.
    pub fn replace(&mut self, symbol: &str, kernel: Option<(Module, u64)>) {
        match kernel {
            Some(kernel) => self.replaced.insert(symbol.to_owned(), kernel),
            None => self.replaced.remove(symbol),
        };
    }

    /// What the last launch of each kernel cost, by the kernel's symbol.
    pub fn counters(&self) -> BTreeMap<String, Counters> {
        self.counters.borrow().clone()
    }

    /// Runs one step of a program on grids for that many tokens, sequences and samples too many. Returns the logits,
    /// `[samples, vocab]`. Every buffer is an allocation of its own, so touching anything else is an error.
    ///
    /// # Errors
    /// What the emulator stopped a kernel for.
    pub fn run(&self, program: usize, batch: &Batch, pool: &mut Pool, padding: Padding) -> Result<Vec<f32>, String> {
        let step = &batch.step;
        let mut memory = Memory::new();
        let mut place = |bytes: &[u8]| {
            let address = memory.allocate(bytes.len().max(1) as u64);
            memory.write(address, bytes).map(|()| address).map_err(|error| error.to_string())
        };
        let mut list = |values: &[i32]| place(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
        let [token_ids, positions, sample_rows, slots, sequence_starts, block_tables] =
            [&step.token_ids, &step.positions, &step.sample_rows, &batch.slots, &batch.starts, &batch.tables]
                .map(|values| list(values));
        let args = GpuStepArgs {
            tokens: step.token_ids.len() as u64,
            sequences: step.sequence_ids.len() as u64,
            samples: step.sample_rows.len() as u64,
            block_table_stride: batch.stride as u64,
            token_ids: token_ids?,
            positions: positions?,
            sample_rows: sample_rows?,
            slots: slots?,
            sequence_starts: sequence_starts?,
            block_tables: block_tables?,
        };
        let weights = self.weights.iter().map(|weight| place(weight.bytes())).collect::<Result<Vec<_>, _>>()?;
        let kv = place(pool.bytes())?;
        let args_at = place(&args_bytes(&args))?;
        let logits_bytes = (step.sample_rows.len() * self.plan.model.vocab * 4) as u64;
        let places = Places {
            args: args_at,
            workspace: memory.allocate(self.code.workspace_bytes.max(1)),
            arena: memory.allocate(self.plan.programs[program].arena_bytes.max(1)),
            weights,
            kv,
            logits: memory.allocate(logits_bytes.max(1)),
            step: [args.token_ids, args.positions, args.sample_rows],
        };
        let sizes = [
            args.tokens as u32 + padding.tokens,
            args.sequences as u32 + padding.sequences,
            args.samples as u32 + padding.samples,
        ];
        self.launch_all(program, &places, sizes, &mut memory)?;
        let cache = memory.read(kv, pool.bytes().len() as u64).map_err(|error| error.to_string())?;
        pool.memory().bytes_mut().copy_from_slice(cache);
        let missing = memory.undefined_bytes(places.logits, logits_bytes).map_err(|error| error.to_string())?;
        if missing > 0 {
            return Err(format!("{missing} of {logits_bytes} bytes of the logits were not written"));
        }
        let logits = memory.read(places.logits, logits_bytes).map_err(|error| error.to_string())?;
        let floats = logits.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        Ok(floats.collect())
    }

    fn launch_all(
        &self,
        program: usize,
        places: &Places,
        [tokens, sequences, samples]: [u32; 3],
        memory: &mut Memory,
    ) -> Result<(), String> {
        let planned = &self.plan.programs[program];
        let code = &self.code.programs[program];
        for call in &planned.calls {
            let function = &planned.functions[call.function];
            for step in &function.launches {
                let kernels = code.kernels.get(&step.kernel).ok_or_else(|| format!("no code for {}", step.kernel))?;
                for kernel in kernels {
                    let grid = kernel.grid.map(|extent| extent.blocks(tokens, sequences, samples));
                    if grid.contains(&0) {
                        continue;
                    }
                    let mut operands = vec![places.args, places.workspace];
                    let all = step.inputs.iter().chain(&step.outputs);
                    operands.extend(all.map(|operand| match operand {
                        Operand::Arena { offset, .. } => places.arena + offset,
                        Operand::Weight { slot } => places.weights[call.weights[*slot]],
                        Operand::Step { input: StepInput::TokenIds } => places.step[0],
                        Operand::Step { input: StepInput::Positions } => places.step[1],
                        Operand::Step { input: StepInput::SampleRows } => places.step[2],
                        Operand::Kv => places.kv + (call.kv_layer * self.plan.kv.layer_bytes()) as u64,
                        Operand::Logits => places.logits,
                    }));
                    self.launch_one(kernel, grid, &operands, step, memory)?;
                }
            }
        }
        Ok(())
    }

    fn launch_one(
        &self,
        kernel: &GridLaunch,
        grid: [u32; 3],
        operands: &[u64],
        step: &Launch,
        memory: &mut Memory,
    ) -> Result<(), String> {
        let arguments: Vec<Argument> = operands.iter().map(|&operand| operand.into()).collect();
        // Behind the fake driver the order is the other one.
        let order = BlockOrder::Descending;
        let mut config = LaunchConfig { order, ..LaunchConfig::new(grid, [kernel.block, 1, 1], kernel.shared_bytes) };
        let mut module = &self.module;
        if let Some((other, limit)) = self.replaced.get(&kernel.symbol) {
            (module, config.instruction_limit) = (other, *limit);
        }
        let counters = launch(module, &kernel.symbol, config, &arguments, memory)
            .map_err(|error| format!("{} on {grid:?}: {error}", step.kernel))?;
        self.counters.borrow_mut().insert(kernel.symbol.clone(), counters);
        Ok(())
    }
}

fn args_bytes(args: &GpuStepArgs) -> Vec<u8> {
    let fields = [
        args.tokens,
        args.sequences,
        args.samples,
        args.block_table_stride,
        args.token_ids,
        args.positions,
        args.sample_rows,
        args.slots,
        args.sequence_starts,
        args.block_tables,
    ];
    fields.iter().flat_map(|field| field.to_le_bytes()).collect()
}
