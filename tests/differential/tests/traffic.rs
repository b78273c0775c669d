//! What device kernels ask of memory, counted by the emulator: full sectors of global memory, and no bank of shared memory
//! that two lanes want at once.

use llmc_codegen::gpu::GpuTarget;
use llmc_differential::case::{Build, Case, Limits, random_weight, weight_types};
use llmc_differential::device::{Device, Padding};
use llmc_differential::pool::Pool;
use llmc_differential::targets;
use llmc_ir::builder::Numerics;
use llmc_ir::dtype::DType;
use llmc_ir::eval::StepInputs;
use llmc_ir::testing::Random;
use llmc_models::architecture::Architecture;
use llmc_models::config::ModelConfig;
use llmc_passes::fuse::Epilogues;
use llmc_ptx_emulator::Counters;

/// A model whose sizes fill the tiles, and steps of 128 tokens in one sequence and of one more.
fn counters((dtype, hidden): (DType, usize)) -> Vec<(String, Counters)> {
    let tiny = Architecture::Llama.tiny();
    let config = ModelConfig {
        hidden,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        intermediate: 256,
        vocab: 256,
        windows: vec![None],
        ..tiny
    };
    let module = llmc_models::build(&config, Numerics::new(dtype)).expect("the sizes are sound");
    let mut random = Random::new(1);
    let types = weight_types(&module).into_iter();
    let weights = types.map(|(name, ty)| (name, random_weight(&mut random, &ty, 0.1))).collect();
    let limits = Limits { max_context: 256, max_batch: 4, prefill_chunk: 128 };
    let build = Build { target: targets::device(), without: vec![], epilogues: Epilogues::Fused, method: None };
    let case = Case { module, weights, limits, build };
    let programs = case.usual_programs().expect("a model has programs");
    let planned = case.plan(&programs).expect("a model has a plan");
    let target = GpuTarget::parse("cuda:sm_80").expect("the target is known");
    let device = Device::new(&case, planned, &target).expect("a model has code");
    let program = |name: &str| device.plan.programs.iter().position(|program| program.name == name).expect("a program");
    let mut pool = Pool::new(device.plan.kv, 8, 0);
    let tokens: Vec<i32> = (0..128).collect();
    for (name, step) in
        [("prefill", StepInputs::batch(&[(0, 0, &tokens)])), ("decode_1", StepInputs::batch(&[(0, 128, &[7])]))]
    {
        let batch = pool.batch(&step);
        device.run(program(name), &batch, &mut pool, Padding::default()).expect("a sound step");
    }
    device.counters().into_iter().collect()
}

#[test]
fn memory_is_used_well() {
    // Sums that are taken 64 at a time, and 32.
    let counters = [(DType::BF16, 256), (DType::BF16, 224), (DType::F32, 256)].map(counters).concat();
    let mut checked = 0;
    for (symbol, counters) in &counters {
        println!(
            "{symbol}: {:?} {:?} {:?} {:?}",
            counters.global_loads, counters.global_stores, counters.shared_loads, counters.shared_stores
        );
        let loads = counters.global_loads;
        let ends = |stage: &str| symbol.ends_with(stage);
        // Products and attention on matrix units: the copies and the operands of the instruction meet in no bank.
        if ["__tile", "__wide", "__flash"].into_iter().any(ends) {
            checked += 1;
            let (actual, ideal) = (counters.shared_loads.actual, counters.shared_loads.ideal);
            assert_eq!(actual, ideal, "{symbol}: bank conflicts of loads");
            let (actual, ideal) = (counters.shared_stores.actual, counters.shared_stores.ideal);
            assert_eq!(actual, ideal, "{symbol}: bank conflicts of stores");
        }
        if ["__tile", "__wide", "__stream", "__split", "__flash"].into_iter().any(ends) {
            checked += 1;
            let wasted = loads.sectors as f64 / loads.ideal_sectors as f64;
            assert!(wasted <= 1.02, "{symbol}: {wasted:.3} times the sectors that the bytes fill");
        }
    }
    assert!(checked >= 30, "only {checked} kernels of {} were looked at", counters.len());
}
