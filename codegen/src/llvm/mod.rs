//! From planned kernels to LLVM IR text to native code. Everything that knows LLVM is below this module.

mod amx;
mod attend;
mod block_float;
pub mod compile;
mod compressed;
mod deal;
pub mod device;
pub mod disassembler;
mod dot;
mod expression;
mod index;
mod kv;
mod math;
mod memory;
mod multiply;
mod rows;
mod step;
mod step_args;
mod text;

use crate::error::CodegenError;
use crate::host::HostTarget;
use crate::kernel::domain::Domain;
use crate::kernel::dot::method;
use amx::TileProducts;
use compressed::LookUp;
use expression::Scope;
use llmc_ir::dim::Bounds;
use llmc_ir::machine::Processor;
use llmc_ir::op::DotMethod;
use llmc_ir::plan::{Goal, KvLayout};
use llmc_ir::region::{Anchor, Kernel, PlannedModel};
use math::Fma;
use multiply::{Multiplies, Registers};
use rows::{Columns, LANES, Outputs, emit_rows};
use std::collections::HashMap;
use std::mem::offset_of;
use text::{FunctionText, I64, Instructions, ModuleText, PTR, Role, Value, int};

/// The LLVM IR of a model's programs, and the working memory that each thread of a step needs.
pub struct ModelText {
    /// The module's text, in units.
    pub units: Vec<String>,
    /// Bytes per thread ([`llmc_ir::abi::StepArgs::scratch_stride`]), a multiple of 64.
    pub scratch_bytes: u64,
}

/// Writes all programs of a model for a target.
pub fn emit_model(model: &PlannedModel, target: &HostTarget) -> Result<ModelText, CodegenError> {
    let mut module = ModuleText::default();
    let mut multiplies = Multiplies::default();
    let mut tile_products = TileProducts::default();
    let registers = registers(target);
    let unit = MatrixUnit::of(target);
    let (mut scratch, mut workspace) = (0, 0);
    let mut used = Vec::new();
    for (program, kernels) in model.programs_on(Processor::Cpu) {
        let mut used_by_program = MatrixUnit::Vectors;
        let head =
            program.search.as_ref().map(|search| &program.functions[search.function].launches[search.launch].kernel);
        let mut goals = vec![Goal::Logits];
        for kernel in kernels {
            let mut context = KernelContext {
                module: &mut module,
                multiplies: &mut multiplies,
                tile_products: &mut tile_products,
                registers: &registers,
                target,
                unit,
                used: MatrixUnit::Vectors,
                kernel,
                kv: &model.plan.kv,
                bounds: &program.bounds,
                method: method(&kernel.region),
                scratch_bytes: 0,
                workspace_bytes: 0,
            };
            let name = kernel_symbol(&program.name, &kernel.name);
            let mut emitted = emit_kernel(&mut context, &name);
            if let (Some(search), true) = (&program.search, Some(&kernel.name) == head) {
                emitted = emitted.and_then(|()| {
                    goals.extend([Goal::Largest, Goal::Candidates]);
                    if search.rounded.is_some() && dot::search::suits(&context)? {
                        goals.push(Goal::Search);
                    }
                    goals[1..].iter().try_for_each(|&goal| {
                        // A step has one of them.
                        let of_others = std::mem::take(&mut context.scratch_bytes);
                        let emitted = emit_head(&mut context, goal, &goal_symbol(&name, goal));
                        context.scratch_bytes = context.scratch_bytes.max(of_others);
                        emitted
                    })
                });
            }
            emitted.map_err(|reason| CodegenError::Kernel {
                program: program.name.clone(),
                kernel: kernel.name.clone(),
                reason,
            })?;
            scratch = scratch.max(context.scratch_bytes);
            workspace = workspace.max(context.workspace_bytes.next_multiple_of(64));
            used_by_program = used_by_program.max(context.used);
        }
        used.push((used_by_program, goals));
    }
    let mut counters = 0;
    for ((program, kernels), (used, goals)) in model.programs_on(Processor::Cpu).zip(used) {
        let dots = kernels.iter().filter(|kernel| has_ahead(kernel, &program.bounds)).map(|kernel| &kernel.name[..]);
        let dots = dots.collect();
        for goal in goals {
            let layout = step::Layout { workspace, counters: workspace + scratch };
            counters = counters.max(step::emit(&mut module, &model.plan, program, layout, (used, &dots), goal));
        }
    }
    let lanes = if target.has("avx512f") { "512" } else { "256" };
    // Without builtins a loop does not become a call of the C library.
    let mut attributes =
        format!("nounwind \"no-builtins\" \"min-legal-vector-width\"=\"{lanes}\" \"prefer-vector-width\"=\"{lanes}\"");
    if registers.are_few {
        // By its model of a generic CPU, LLVM loads what rows are multiplied by so early that sums leave their registers.
        attributes += " \"tune-cpu\"=\"znver3\"";
    }
    let units = module.finish(compile::TRIPLE, &attributes);
    Ok(ModelText { units, scratch_bytes: (workspace + scratch + counters) as u64 })
}

/// The name of a kernel's function in the native code.
pub fn kernel_symbol(program: &str, kernel: &str) -> String {
    let safe = |name: &str| name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "_");
    format!("{}.{}", safe(program), safe(kernel))
}

/// Whether a kernel has a function that prefetches what it reads first: where few rows wait for weights.
fn has_ahead(kernel: &Kernel, bounds: &Bounds) -> bool {
    kernel.region.anchor == Anchor::Dot && bounds.one_token_per_sequence
}

/// The name of that function.
fn ahead_symbol(kernel: &str) -> String {
    format!("{kernel}.ahead")
}

/// The name of the function that does for another goal what a kernel does for logits.
fn goal_symbol(kernel: &str, goal: Goal) -> String {
    format!("{kernel}{}", goal.suffix())
}

/// What the registers of a target allow; see [`multiply`].
fn registers(target: &HostTarget) -> Registers {
    let look_up = match ["avx512vbmi", "avx512bw", "avx2"].map(|feature| target.has(feature)) {
        [true, true, _] => LookUp::Many,
        [_, true, _] => LookUp::Few(64),
        [_, false, true] => LookUp::Few(32),
        [_, false, false] => LookUp::Few(16),
    };
    if target.has("avx512f") {
        Registers { rows: [24, 12, 5], are_few: false, fma: Fma::Fused, look_up }
    } else if target.has("fma") {
        Registers { rows: [6, 2, 0], are_few: true, fma: Fma::Fused, look_up }
    } else {
        Registers { rows: [2, 1, 0], are_few: true, fma: Fma::Separate, look_up }
    }
}

/// What code for a target may use.
fn instructions(target: &HostTarget) -> Instructions {
    Instructions { round_to_bf16: target.has("avx512bf16"), store_some_halves: target.has("avx512bw") }
}

/// What multiplies matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum MatrixUnit {
    /// Vector instructions, which multiply f32.
    Vectors,
    /// Vector instructions that multiply pairs of bf16.
    Pairs,
    /// AMX, for bf16.
    Tiles,
}

impl MatrixUnit {
    /// The best that a target has.
    fn of(target: &HostTarget) -> MatrixUnit {
        match (target.has_tiles(), target.multiplies_pairs) {
            (true, _) => MatrixUnit::Tiles,
            (false, true) => MatrixUnit::Pairs,
            (false, false) => MatrixUnit::Vectors,
        }
    }
}

/// What a kernel is written with.
struct KernelContext<'a> {
    module: &'a mut ModuleText,
    multiplies: &'a mut Multiplies,
    tile_products: &'a mut TileProducts,
    registers: &'a Registers,
    target: &'a HostTarget,
    /// The best unit that the target has, and the one that the kernel uses.
    unit: MatrixUnit,
    used: MatrixUnit,
    kernel: &'a Kernel,
    kv: &'a KvLayout,
    bounds: &'a Bounds,
    /// How the products of a dot region are taken.
    method: DotMethod,
    /// Working memory of each thread.
    scratch_bytes: usize,
    /// Working memory that all threads share.
    workspace_bytes: usize,
}

impl KernelContext<'_> {
    /// Reserves working memory of this kernel's thread; returns its offset.
    fn scratch(&mut self, bytes: usize) -> usize {
        let offset = self.scratch_bytes;
        self.scratch_bytes += bytes.next_multiple_of(64);
        offset
    }

    /// Reserves working memory of this kernel's thread; returns its address.
    fn working(&mut self, f: &mut FunctionText, params: &KernelParams, bytes: usize) -> Value {
        let offset = self.scratch(bytes);
        f.offset(&params.scratch, &int(offset as i64))
    }

    /// What expressions of the kernel refer to, without any products.
    fn scope<'s>(&'s self, params: &'s KernelParams) -> Scope<'s> {
        Scope {
            body: &self.kernel.region.body,
            inputs: &params.inputs,
            layouts: &self.kernel.weight_layouts,
            tiles: HashMap::new(),
            reduced: HashMap::new(),
            fma: self.registers.fma,
            lanes: LANES,
            known: HashMap::new(),
        }
    }
}

/// The parameters of a kernel's function.
struct KernelParams {
    args: Value,
    /// The thread's own working memory.
    scratch: Value,
    /// Working memory that all threads share.
    workspace: Value,
    /// Which share of the work is this thread's.
    thread: Value,
    threads: Value,
    /// The thread's number in the step, for barriers.
    physical_thread: Value,
    /// The counter of the first share, where threads deal items out, and the number of the call in the step: see [`deal`].
    counters: Value,
    call: Value,
    inputs: Vec<Value>,
    outputs: Vec<Value>,
    /// The step's slot mapping.
    slots: Value,
}

/// Parameters of every kernel before its operands; [`step`] passes them in this order.
const COMMON_PARAMS: [(text::Ty, &str); 8] = [
    (PTR, "args"),
    (PTR, "scratch"),
    (PTR, "workspace"),
    (I64, "thread"),
    (I64, "threads"),
    (I64, "physical"),
    (PTR, "counters"),
    (I64, "call"),
];

fn emit_kernel(context: &mut KernelContext<'_>, name: &str) -> Result<(), String> {
    let region = &context.kernel.region;
    let [inputs, outputs] = [region.inputs.len(), region.outputs.len()];
    let (mut f, params) = begin_kernel(context, name, [inputs, outputs]);
    match region.anchor {
        Anchor::Rows => emit_rows_kernel(&mut f, context, &params)?,
        Anchor::Dot => dot::emit(&mut f, context, &params, Goal::Logits)?,
        Anchor::Attend => attend::emit(&mut f, context, &params)?,
        Anchor::Weights => return Err("what depends on weights alone is computed while compiling".into()),
    }
    context.module.add(f.finish());
    if has_ahead(context.kernel, context.bounds) {
        let (mut f, params) = begin_kernel(context, &ahead_symbol(name), [inputs, outputs]);
        dot::emit_ahead(&mut f, context, &params)?;
        context.module.add(f.finish());
    }
    Ok(())
}

/// The function that finds what a goal wants of the logits of each row in place of the kernel that computes them.
fn emit_head(context: &mut KernelContext<'_>, goal: Goal, name: &str) -> Result<(), String> {
    let inputs = if goal == Goal::Search { 3 } else { 2 };
    let (mut f, params) = begin_kernel(context, name, [inputs, 1]);
    dot::emit(&mut f, context, &params, goal)?;
    context.module.add(f.finish());
    Ok(())
}

/// Begins the function of a kernel with so many inputs and outputs.
fn begin_kernel(
    context: &KernelContext<'_>,
    name: &str,
    [inputs, outputs]: [usize; 2],
) -> (FunctionText, KernelParams) {
    let names = |prefix: &str, count: usize| (0..count).map(|i| format!("{prefix}{i}")).collect::<Vec<_>>();
    let (inputs, outputs) = (names("in", inputs), names("out", outputs));
    let mut list = COMMON_PARAMS.to_vec();
    list.extend(inputs.iter().chain(&outputs).map(|name| (PTR, name.as_str())));
    let (f, values) = FunctionText::new(Role::Kernel, name, &list);
    let mut f = f.with_instructions(instructions(context.target));
    let [args, scratch, workspace, thread, threads, physical_thread, counters, call] =
        values[..COMMON_PARAMS.len()].to_vec().try_into().expect("as many as COMMON_PARAMS");
    let operands = &values[COMMON_PARAMS.len()..];
    let slots = step_args::pointer(&mut f, &args, offset_of!(llmc_ir::abi::StepArgs, slots));
    let (inputs, outputs) = operands.split_at(inputs.len());
    let params = KernelParams {
        args,
        scratch,
        workspace,
        thread,
        threads,
        physical_thread,
        counters,
        call,
        inputs: inputs.to_vec(),
        outputs: outputs.to_vec(),
        slots,
    };
    (f, params)
}

fn emit_rows_kernel(
    f: &mut FunctionText,
    context: &mut KernelContext<'_>,
    params: &KernelParams,
) -> Result<(), String> {
    let kernel = context.kernel;
    let parts = kernel.region.parts();
    let part = parts.first().ok_or("a region without outputs")?;
    let domain = Domain::of(&kernel.region, part)?;
    let count = step_args::size(f, &params.args, domain.rows)?;
    let (first, last) = step_args::share(f, &count, &params.thread, &params.threads);
    let outputs = Outputs::of(kernel, part, &params.outputs, context.kv, &params.slots);
    let mut scope = context.scope(params);
    let columns = Columns::Groups(int(0), int(domain.groups as i64));
    emit_rows(f, &mut scope, &domain, &outputs, (&first, &last), &columns)
}
