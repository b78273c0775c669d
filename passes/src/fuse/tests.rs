//! What fusion makes of layers and of odd functions.

use super::sample;
use super::*;
use llmc_ir::region::Anchor;
use llmc_ir::text::print_fused;

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
