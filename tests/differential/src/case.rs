//! A module, its weights, and how it is compiled.

use crate::compiled::flagged_panels;
use llmc_codegen::gpu::GpuTarget;
use llmc_codegen::host::HostTarget;
use llmc_ir::dim::Bounds;
use llmc_ir::dtype::DType;
use llmc_ir::eval::Tensor;
use llmc_ir::machine::Machine;
use llmc_ir::module::{Module, SpecializedModule};
use llmc_ir::op::{AttendMethod, Attention, DotMethod, Op};
use llmc_ir::plan::ModelFacts;
use llmc_ir::region::PlannedModel;
use llmc_ir::shape::{TensorType, Type};
use llmc_ir::testing::Random;
use llmc_passes::compress::compress_weights;
use llmc_passes::fuse::{Epilogues, fuse_program};
use llmc_passes::instrument::{Instrument, Verify};
use llmc_passes::pass::{Context, State};
use llmc_passes::phase::Phase;
use llmc_passes::pipeline::{Options, run_pipeline};
use llmc_passes::plan::{check_plan, plan_programs};
use llmc_passes::prologue::take_rows;
use llmc_passes::rebuild::rebuild;
use llmc_passes::search::{Rounding, add_searches};
use std::collections::BTreeMap;

/// What is compiled and run.
#[derive(Clone, Debug)]
pub struct Case {
    /// What a step computes.
    pub module: Module,
    /// Its weights by checkpoint key.
    pub weights: BTreeMap<String, Tensor>,
    /// Sizes that it is compiled for.
    pub limits: Limits,
    /// How it is compiled.
    pub build: Build,
}

/// The largest step.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Positions of a sequence.
    pub max_context: usize,
    /// Sequences in a step.
    pub max_batch: usize,
    /// Tokens in a step of the prefill program.
    pub prefill_chunk: usize,
}

/// How a case is compiled.
#[derive(Clone, Debug)]
pub struct Build {
    /// For which processor.
    pub target: Target,
    /// Optional passes to leave out.
    pub without: Vec<String>,
    /// Whether products take the work behind them along.
    pub epilogues: Epilogues,
    /// How all products are taken that can be; `None`: each in any way that changes no value.
    pub method: Option<DotMethod>,
}

/// Ways to take products that change no value.
const EXACT_METHODS: [DotMethod; 3] = [DotMethod::Gemm, DotMethod::Gemv, DotMethod::SplitK];

/// Rows that a gemv usually takes.
const FEW_ROWS: usize = 32;

/// What a case is compiled for.
#[derive(Clone, Debug)]
pub enum Target {
    /// A CPU.
    Host(HostTarget),
    /// A GPU, which the emulator stands in for.
    Device(GpuTarget),
}

impl Target {
    /// The target's name.
    pub fn name(&self) -> &str {
        match self {
            Target::Host(target) => &target.name,
            Target::Device(target) => &target.name,
        }
    }

    /// Whether rounding to bf16 makes denormal numbers zero, as the instruction for it does on CPUs that have it.
    pub fn takes_denormals_for_zero(&self) -> bool {
        self.has("avx512bf16")
    }

    /// Whether it takes products in block floating point.
    pub fn has_blocks(&self) -> bool {
        matches!(self, Target::Host(target) if target.block_float().is_some())
    }

    /// Whether attention in bf16 rounds the weights of positions, as tiles of AMX want them.
    pub fn rounds_weights(&self) -> bool {
        self.has("amx-bf16")
    }

    /// Whether it is a CPU with that feature.
    fn has(&self, feature: &str) -> bool {
        matches!(self, Target::Host(target) if target.has(feature))
    }
}

impl Case {
    /// The programs of the case as the passes leave them to fusion, or why they refuse it. But for how they divide the
    /// work: prices would choose the same for all small cases, so any way is taken.
    ///
    /// # Errors
    /// The refusing pass's message.
    pub fn programs(&self) -> Result<Vec<SpecializedModule>, String> {
        let mut random = Random::new(self.weights.len() as u64);
        self.programs_with(|_| (*random.choose(&EXACT_METHODS), *random.choose(AttendMethod::ALL)))
    }

    /// The same, with the ways that large models take: a gemv for few rows, and attention split in decode.
    ///
    /// # Errors
    /// The refusing pass's message.
    pub fn usual_programs(&self) -> Result<Vec<SpecializedModule>, String> {
        self.programs_with(|bounds| {
            let product = if bounds.max.tokens <= FEW_ROWS { DotMethod::Gemv } else { DotMethod::Gemm };
            (product, AttendMethod::Split)
        })
    }

    /// The programs with ways to divide the work that `choose` picks for each operation of a program.
    fn programs_with(
        &self,
        mut choose: impl FnMut(&Bounds) -> (DotMethod, AttendMethod),
    ) -> Result<Vec<SpecializedModule>, String> {
        let mut programs = self.rewritten()?;
        for program in &mut programs {
            let may_split = program.bounds.one_token_per_sequence;
            for function in &mut program.module.functions {
                rebuild(function, |graph, op, operands| {
                    let op = match op {
                        Op::Dot { left: 1, right: 1, batch: 0, .. } => {
                            let method = choose(&program.bounds).0;
                            let method = self.build.method.unwrap_or(method);
                            let chosen = Op::Dot { left: 1, right: 1, batch: 0, method };
                            // Not all types can be multiplied in all ways.
                            return graph.add(chosen, operands).or_else(|_| graph.add(op, operands));
                        }
                        Op::Attend(attention) if may_split => {
                            Op::Attend(Attention { method: choose(&program.bounds).1, ..attention })
                        }
                        op => op,
                    };
                    graph.add(op, operands)
                })?;
            }
        }
        Ok(programs)
    }

    fn rewritten(&self) -> Result<Vec<SpecializedModule>, String> {
        let context = self.context()?;
        let without = self.build.without.clone();
        let options = Options { without, stop_after: Some(Phase::Rewritten), ..Options::default() };
        let mut instruments: Vec<Box<dyn Instrument>> = vec![Box::new(Verify)];
        let state = State::Module(self.module.clone());
        let (state, _) = run_pipeline(state, &context, &options, &mut instruments).map_err(|e| e.to_string())?;
        match state {
            State::Programs(programs) => Ok(programs),
            state => Err(format!("expected programs, found {}", state.kind())),
        }
    }

    /// The plan of the case's programs.
    ///
    /// # Errors
    /// Why there is none.
    pub fn plan(&self, programs: &[SpecializedModule]) -> Result<PlannedModel, String> {
        let mut fused: Vec<_> = programs.iter().map(|program| fuse_program(program, self.build.epilogues)).collect();
        if self.build.epilogues == Epilogues::Fused {
            let mut random = Random::new(self.weights.len() as u64);
            for function in fused.iter_mut().flat_map(|program| &mut program.module.functions) {
                let wanted = *random.choose(&[true, true, false]);
                take_rows(function, |_| wanted);
            }
        }
        let mut model = plan_programs(fused, &self.context()?.facts).map_err(|e| e.to_string())?;
        if matches!(&self.build.target, Target::Host(target) if target.decompresses()) {
            compress_weights(&mut model, &self.flagged())?;
        }
        let rounds = matches!(&self.build.target, Target::Host(target) if target.byte_products().is_some());
        add_searches(&mut model, if rounds { Rounding::Always } else { Rounding::No })?;
        assert_eq!(check_plan(&model), Vec::<String>::new());
        Ok(model)
    }

    /// How many quarters of its matrices in bf16 are flagged if they are compressed; of none if they are not to be.
    fn flagged(&self) -> BTreeMap<String, u64> {
        let is_counted = self.build.without.iter().all(|pass| pass != "compress");
        let matrices = self.weights.iter().filter(|(_, tensor)| is_counted && tensor.dtype() == DType::BF16);
        let flagged = |tensor| flagged_panels(tensor).into_iter().map(u64::from).sum();
        matrices.map(|(name, tensor)| (name.clone(), flagged(tensor))).collect()
    }

    fn context(&self) -> Result<Context, String> {
        let Limits { max_context, max_batch, prefill_chunk } = self.limits;
        let facts = ModelFacts {
            architecture: self.module.name.clone(),
            dtype: DType::F32,
            vocab: State::Module(self.module.clone()).vocab().ok_or("the logits have no fixed width")?,
            hidden: 0,
            layers: 0,
            max_context,
            max_batch,
            parameters: 0,
        };
        let machine = match self.build.target {
            Target::Host(_) => "host",
            Target::Device(_) => "a100",
        };
        Ok(Context { prefill_chunk, ..Context::new(facts, Machine::named(machine)?) })
    }
}

/// The type of every weight that a module's calls read, by checkpoint key.
pub fn weight_types(module: &Module) -> BTreeMap<String, TensorType> {
    let mut types = BTreeMap::new();
    for call in &module.calls {
        let Some(function) = module.function(&call.function) else { continue };
        for node in function.graph.topological() {
            if let Op::Weight { name, ty: Type::Tensor(ty) } = function.graph.op(node) {
                types.insert(Module::weight_key(&call.scope, name), ty.clone());
            }
        }
    }
    types
}

/// A random tensor of a fixed shape with elements in `-scale..scale`.
pub fn random_weight(random: &mut Random, ty: &TensorType, scale: f64) -> Tensor {
    let sizes: Vec<usize> = ty.shape.0.iter().map(|dim| dim.as_fixed().expect("weights have fixed shapes")).collect();
    let count = sizes.iter().product();
    let data = (0..count).map(|_| ty.dtype.round(scale * random.unit())).collect();
    Tensor::new(ty.dtype, sizes, data).expect("as many numbers as elements")
}
