//! CPU levels that this machine can run, by itself or with AMX emulated, and the GPU that an emulator stands in for.

use crate::case::Target;
use llmc_amx_emulator::{Unit, provide};
use llmc_codegen::gpu::GpuTarget;
use llmc_codegen::host::HostTarget;

/// Code for these is tested wherever the CPU has what they need; the last one is this very CPU. Behind them comes
/// AMX.
const LEVELS: [&str; 5] = ["x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4", "native"];

/// The targets whose code can run here, weakest first. They differ in whether multiply-add is fused, in vector width
/// and in the size of register blocks.
pub fn runnable() -> Vec<Target> {
    let named = |name: &&str| Target::Host(HostTarget::named(name).expect("the level is known"));
    LEVELS.iter().filter(|name| can_run(name)).map(named).chain(tiles()).collect()
}

/// A level that multiplies pairs of bf16, wherever the CPU can: also where it is not faster.
pub fn pairs() -> Option<Target> {
    if !can_run("x86-64-v4") || !is_x86_feature_detected!("avx512bf16") {
        println!("NOTE: this CPU has no AVX-512 for bf16: products of pairs are not tested");
        return None;
    }
    let mut target = HostTarget::named("x86-64-v4").expect("the level is known");
    target.name += " with pairs";
    target.llvm_features = "+avx512bf16".into();
    target.cpu_features.push("avx512bf16".into());
    target.cpu_features.sort();
    target.multiplies_pairs = true;
    Some(Target::Host(target))
}

/// A level with AMX, if this CPU has what it needs beside that: the emulator executes the tile instructions of a CPU that has
/// none.
pub fn tiles() -> Option<Target> {
    if !can_run("x86-64-v4") {
        println!("NOTE: this CPU has no AVX-512: code for AMX is not tested");
        return None;
    }
    match provide() {
        Unit::Hardware => println!("NOTE: AMX instructions are executed by this CPU"),
        Unit::Emulator => println!("NOTE: AMX instructions are emulated"),
    }
    let mut target = HostTarget::named("x86-64-v4").expect("the level is known");
    let mut features = vec!["amx-bf16", "amx-int8", "amx-tile"];
    // CPUs with AMX have it, and code for them uses it.
    features.extend(is_x86_feature_detected!("avx512bf16").then_some("avx512bf16"));
    target.name += " with AMX";
    target.llvm_features = features.iter().map(|feature| format!("+{feature}")).collect::<Vec<_>>().join(",");
    target.cpu_features.extend(features.into_iter().map(str::to_owned));
    target.cpu_features.sort();
    Some(Target::Host(target))
}

/// The architecture that all device code is tested for: the kernels are the same for the others.
pub fn device() -> Target {
    Target::Device(GpuTarget::parse("cuda:sm_80").expect("the target is known"))
}

fn can_run(level: &str) -> bool {
    let v2 = is_x86_feature_detected!("sse4.2") && is_x86_feature_detected!("popcnt");
    let v3 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("movbe");
    let v4 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match level {
        "x86-64-v2" => v2,
        "x86-64-v3" => v2 && v3,
        "x86-64-v4" => v2 && v3 && v4,
        _ => true,
    }
}
