//! What fusion makes of layers and of odd functions.

use super::random;
use super::sample;
use super::*;
use llmc_ir::dtype::DType;
use llmc_ir::eval::{KvState, Mode, StepInputs, Tensor, eval_fused_module, eval_module};
use llmc_ir::module::Module;
use llmc_ir::op::Op;
use llmc_ir::region::Anchor;
use llmc_ir::testing::Random;
use llmc_ir::text::print_fused;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn summary(function: &FusedFunction) -> Vec<String> {
    let line = |region: &Region| {
        let outputs: Vec<_> = region.outputs.iter().map(|&output| region.body.ty(output).to_string()).collect();
        format!("{} {} -> {}", region.anchor.name(), region.name, outputs.join(", "))
    };
    function.regions.iter().map(line).collect()
}

#[test]
fn a_llama_layer_is_nine_kernels() {
    let fused = fuse_function(&sample::layer(), Epilogues::Fused);
    insta::assert_snapshot!(summary(&fused).join("\n"), @r"
    rows input_layernorm -> f32[tokens, 32], bf16[tokens, 32]
    dot q_proj -> bf16[tokens, 32]
    dot k_proj -> kv<2 x 8, bf16>
    dot v_proj -> kv<2 x 8, bf16>
    attend attend -> bf16[tokens, 32]
    dot o_proj -> f32[tokens, 32]
    rows post_attention_layernorm -> bf16[tokens, 32]
    dot gate_proj+up_proj -> bf16[tokens, 48]
    dot down_proj -> f32[tokens, 32]
    ");
    assert!(fused.regions.iter().all(|region| check_region(region) == Ok(())));
    assert!(fused.regions.iter().filter(|region| region.anchor == Anchor::Dot).count() == 6);
}

#[test]
fn without_epilogues_every_product_is_alone() {
    let fused = fuse_function(&sample::layer(), Epilogues::Separate);
    insta::assert_snapshot!(summary(&fused).join("\n"), @r"
    rows input_layernorm -> f32[tokens, 32], bf16[tokens, 32]
    dot q_proj -> f32[tokens, 32]
    rows q_proj.2 -> bf16[tokens, 32]
    dot k_proj -> f32[tokens, 16]
    dot v_proj -> f32[tokens, 16]
    rows kv_write -> kv<2 x 8, bf16>
    rows kv_write.2 -> kv<2 x 8, bf16>
    attend attend -> bf16[tokens, 32]
    dot o_proj -> f32[tokens, 32]
    rows post_attention_layernorm -> f32[tokens, 32], bf16[tokens, 32]
    dot gate_proj -> f32[tokens, 48]
    dot up_proj -> f32[tokens, 48]
    rows mul -> bf16[tokens, 48]
    dot down_proj -> f32[tokens, 32]
    ");
    assert!(fused.regions.iter().all(|region| check_region(region) == Ok(())));
}

#[test]
fn the_fused_module_reads_well() {
    insta::assert_snapshot!(print_fused(&[fuse_program(&sample::program(), Epilogues::Fused)]));
}

/// Weights that follow from their names, of the sizes that the module gives them.
fn weights(program: &SpecializedModule) -> BTreeMap<String, Tensor> {
    let mut weights = BTreeMap::new();
    for call in &program.module.calls {
        let function = program.module.function(&call.function).unwrap();
        for node in function.graph.topological() {
            let Op::Weight { name, ty } = function.graph.op(node) else { continue };
            let key = Module::weight_key(&call.scope, name);
            let ty = ty.as_tensor().unwrap();
            let sizes = ty.shape.evaluate(&program.bounds.max);
            let mut random =
                Random::new(key.bytes().fold(7_u64, |hash: u64, byte| hash.wrapping_mul(31).wrapping_add(byte.into())));
            let mut value = || ty.dtype.round(random.below(200) as f64 / 100.0 - 1.0);
            let data = (0..sizes.iter().product()).map(|_| value()).collect();
            weights.insert(key, Tensor::new(ty.dtype, sizes, data).unwrap());
        }
    }
    weights
}

/// Runs two steps (a prompt of two sequences, then a token for each) before and after fusion.
fn assert_fusion_keeps_the_meaning(program: &SpecializedModule, epilogues: Epilogues) {
    let weights = weights(program);
    let weights = |name: &str| weights.get(name).cloned();
    let fused = fuse_program(program, epilogues);
    let (mut state, mut fused_state) = (KvState::default(), KvState::default());
    for step in
        [StepInputs::batch(&[(0, 0, &[1, 2, 3]), (1, 0, &[4])]), StepInputs::batch(&[(1, 1, &[5]), (0, 3, &[6])])]
    {
        let expected = eval_module(&program.module, &weights, &mut state, &step, Mode::AsTyped).unwrap();
        let found = eval_fused_module(&fused.module, &weights, &mut fused_state, &step, Mode::AsTyped).unwrap();
        assert_eq!(bits(&expected), bits(&found));
        assert_eq!(format!("{state:?}"), format!("{fused_state:?}"));
    }
}

fn bits(tensor: &Tensor) -> (DType, Vec<usize>, Vec<u64>) {
    (tensor.dtype(), tensor.sizes().to_vec(), tensor.data().iter().map(|x| x.to_bits()).collect())
}

#[test]
fn a_fused_llama_computes_the_same() {
    for epilogues in [Epilogues::Fused, Epilogues::Separate] {
        assert_fusion_keeps_the_meaning(&sample::program(), epilogues);
    }
}

proptest! {
    #[test]
    fn fused_programs_compute_the_same(seed: u64) {
        let program = random::program(seed);
        for epilogues in [Epilogues::Fused, Epilogues::Separate] {
            assert_fusion_keeps_the_meaning(&program, epilogues);
        }
    }

    #[test]
    fn there_is_a_kernel_for_every_region(seed: u64) {
        let program = random::program(seed);
        for epilogues in [Epilogues::Fused, Epilogues::Separate] {
            for function in fuse_program(&program, epilogues).module.functions {
                for region in &function.regions {
                    prop_assert_eq!(check_region(region), Ok(()));
                }
            }
        }
    }

    #[test]
    fn fusion_is_deterministic(seed: u64) {
        let text = || print_fused(&[fuse_program(&random::program(seed), Epilogues::Fused)]);
        prop_assert_eq!(text(), text());
    }
}
