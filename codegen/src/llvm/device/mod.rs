//! From planned kernels to LLVM IR for GPUs: each becomes one device kernel or several behind each other.
//!
//! | file | what it writes |
//! |---|---|
//! | `rows`   | rows of elementwise work and reductions; also the work behind products that no product kernel takes along |
//! | `dot`    | which kernels a dot region becomes |
//! | `attend` | attention |
//! | `matrix` | the matrix instruction and its operands |
//! | `copy`   | asynchronous copies to shared memory |
//! | `thread` | numbers of threads, shuffles, barriers |

mod attend;
mod copy;
mod dot;
mod matrix;
mod rows;
mod thread;

use super::step_args::pointer;
use super::text::{FunctionText, GLOBAL, ModuleText, Role, Value};
use super::{compile, expression, math};
use crate::error::CodegenError;
use llmc_ir::dim::{Bounds, Dim, Symbol};
use llmc_ir::gpu::{Count, Extent, GpuCode, GpuProgram, GpuStepArgs, GridLaunch};
use llmc_ir::machine::Processor;
use llmc_ir::plan::KvLayout;
use llmc_ir::region::{Anchor, Kernel, PlannedModel};
use std::collections::{BTreeSet, HashMap};
use std::mem::offset_of;

/// The LLVM IR of a model's device kernels, and what of it each launch runs.
pub struct DeviceText {
    /// The module's text, in units.
    pub units: Vec<String>,
    /// Kernels and grids of every program.
    pub code: GpuCode,
}

/// Writes the programs of a model that are for GPUs.
pub fn emit_model(model: &PlannedModel) -> Result<DeviceText, CodegenError> {
    let mut module = ModuleText::default();
    let mut symbols = BTreeSet::new();
    let mut workspace_bytes = 0;
    let mut programs = Vec::new();
    for (program, kernels) in model.programs_on(Processor::Gpu) {
        let mut code = GpuProgram::default();
        for kernel in kernels {
            let mut context = DeviceContext {
                module: &mut module,
                symbols: &mut symbols,
                program: &program.name,
                kernel,
                kv: &model.plan.kv,
                bounds: &program.bounds,
                workspace_bytes: 0,
                launches: Vec::new(),
            };
            emit_kernel(&mut context).map_err(|reason| CodegenError::Kernel {
                program: program.name.clone(),
                kernel: kernel.name.clone(),
                reason,
            })?;
            workspace_bytes = workspace_bytes.max(context.workspace_bytes as u64);
            code.kernels.insert(kernel.name.clone(), context.launches);
        }
        programs.push(code);
    }
    let units = module.finish(compile::GPU_TRIPLE, "nounwind");
    Ok(DeviceText { units, code: GpuCode { workspace_bytes, programs } })
}

fn emit_kernel(context: &mut DeviceContext<'_>) -> Result<(), String> {
    match context.kernel.region.anchor {
        Anchor::Rows => rows::emit(context),
        Anchor::Dot => dot::emit(context),
        Anchor::Attend => attend::emit(context),
        Anchor::Weights => Err("what depends on weights alone is computed while compiling".into()),
    }
}

/// What the device kernels of one planned kernel are written with.
struct DeviceContext<'a> {
    module: &'a mut ModuleText,
    symbols: &'a mut BTreeSet<String>,
    program: &'a str,
    kernel: &'a Kernel,
    kv: &'a KvLayout,
    bounds: &'a Bounds,
    /// What this kernel's launches need.
    workspace_bytes: usize,
    launches: Vec<GridLaunch>,
}

/// The parameters of a device kernel.
struct DeviceParams {
    args: Value,
    workspace: Value,
    inputs: Vec<Value>,
    outputs: Vec<Value>,
    /// The step's slot mapping.
    slots: Value,
}

/// Shared memory that every GPU since compute capability 8.0 grants a block, in bytes. Code for one runs on all later ones,
/// and those of 8.6, 8.9 and 12.0 grant less than the 163 KiB of 8.0 (CUDA C++ Programming Guide, "Compute Capabilities").
const MOST_SHARED_BYTES: usize = 99 << 10;

/// How a device kernel is launched.
struct Geometry {
    /// Blocks, all along x.
    blocks: Extent,
    /// Threads per block.
    threads: usize,
    /// Shared memory per block, at most [`MOST_SHARED_BYTES`].
    shared_bytes: usize,
    /// Blocks that a multiprocessor must have registers for, which also says how many a thread may have; `None`: the
    /// assembler weighs one against the other.
    resident: Option<u32>,
}

impl DeviceContext<'_> {
    /// Adds a device kernel behind those that there are. `stage` tells it from them.
    ///
    /// # Errors
    /// If a block needs more shared memory than devices have.
    fn launch(
        &mut self,
        stage: &str,
        geometry: &Geometry,
        body: impl FnOnce(&mut Self, &mut FunctionText, &DeviceParams) -> Result<(), String>,
    ) -> Result<(), String> {
        let symbol = self.symbol(stage);
        let shared_bytes = geometry.shared_bytes;
        if shared_bytes > MOST_SHARED_BYTES {
            return Err(format!(
                "a block of `{symbol}` needs {shared_bytes} bytes of shared memory, GPUs have {MOST_SHARED_BYTES}; \
                 compile for the CPU (--target native)"
            ));
        }
        let names = |prefix: &str, count: usize| (0..count).map(|i| format!("{prefix}{i}")).collect::<Vec<_>>();
        let inputs = names("in", self.kernel.region.inputs.len());
        let outputs = names("out", self.kernel.region.outputs.len());
        let mut list = vec![(GLOBAL, "args"), (GLOBAL, "workspace")];
        list.extend(inputs.iter().chain(&outputs).map(|name| (GLOBAL, name.as_str())));
        let (mut f, values) = FunctionText::new(Role::DeviceKernel, &symbol, &list);
        let (args, workspace) = (values[0].clone(), values[1].clone());
        let slots = pointer(&mut f, &args, offset_of!(GpuStepArgs, slots));
        let (inputs, outputs) = values[2..].split_at(inputs.len());
        let params = DeviceParams { args, workspace, inputs: inputs.to_vec(), outputs: outputs.to_vec(), slots };
        body(self, &mut f, &params)?;
        self.module.add(f.finish());
        self.module.set_block(&symbol, geometry.threads as u32, geometry.resident);
        let one = Extent { count: Count::One, per: 1, times: 1 };
        self.launches.push(GridLaunch {
            symbol,
            grid: [geometry.blocks, one, one],
            block: geometry.threads as u32,
            shared_bytes: shared_bytes as u32,
        });
        Ok(())
    }

    /// A name that no other kernel has. PTX allows letters, digits and underscores.
    fn symbol(&mut self, stage: &str) -> String {
        let safe = |name: &str| name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let base = format!("{}__{}__{}", safe(self.program), safe(&self.kernel.name), safe(stage));
        let names = std::iter::once(base.clone()).chain((2..).map(|number| format!("{base}_{number}")));
        let symbol = names.into_iter().find(|name| !self.symbols.contains(name)).expect("numbers do not run out");
        self.symbols.insert(symbol.clone());
        symbol
    }

    /// Reserves working memory that this kernel's launches share; returns its offset.
    fn reserve(&mut self, bytes: usize) -> usize {
        let offset = self.workspace_bytes;
        self.workspace_bytes += bytes.next_multiple_of(256);
        offset
    }

    /// What expressions of the kernel refer to, without any products.
    fn scope<'s>(&'s self, params: &'s DeviceParams) -> expression::Scope<'s> {
        expression::Scope {
            body: &self.kernel.region.body,
            inputs: &params.inputs,
            layouts: &self.kernel.weight_layouts,
            tiles: HashMap::new(),
            reduced: HashMap::new(),
            fma: math::Fma::Fused,
            lanes: thread::LANES,
            known: HashMap::new(),
        }
    }
}

/// Blocks for `rows`, `per` of them each, and `times` blocks beside each other for the same rows.
fn blocks(rows: Dim, per: usize, times: usize) -> Result<Extent, String> {
    let count = match rows.symbol {
        None => {
            return Ok(Extent { count: Count::One, per: 1, times: (rows.coefficient.div_ceil(per) * times) as u32 });
        }
        Some(Symbol::Tokens) => Count::Tokens,
        Some(Symbol::Sequences) => Count::Sequences,
        Some(Symbol::Samples) => Count::Samples,
        Some(Symbol::Context) => return Err("context differs between sequences and is no number of rows".into()),
    };
    Ok(Extent { count, per: per as u32, times: (rows.coefficient * times) as u32 })
}
