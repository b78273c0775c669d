//! The quality of device code, seen without a device: NVIDIA's assembler takes every kernel of models of real size, and
//! what it makes of them is looked at instruction by instruction.
//!
//! The assembler is not part of the project: `./x test` fetches it. Without it these tests only say that they did nothing.

mod models;
mod sass;

use llmc_codegen::gpu::GpuTarget;
use llmc_codegen::{GpuModule, compile_gpu};
use llmc_ir::dtype::DType;
use llmc_ir::gpu::GridLaunch;
use llmc_ir::machine::Machine;
use llmc_ir::region::Anchor;
use llmc_models::config::ModelConfig;
use sass::{Kernel, Needs, Tools, count, count_with};
use std::collections::HashSet;
use std::fmt::Write;

/// What current drivers assemble PTX of `sm_80` for, and the shared memory that a block may have there, in KiB (CUDA C++
/// Programming Guide, "Compute Capabilities").
const ARCHITECTURES: [(&str, usize); 6] =
    [("sm_80", 163), ("sm_86", 99), ("sm_89", 99), ("sm_90", 227), ("sm_100", 227), ("sm_120", 99)];

/// Registers of a multiprocessor.
const REGISTERS: usize = 65536;

fn code(model: &str) -> GpuModule {
    let (_, planned) = models::all("h100").into_iter().find(|(name, _)| *name == model).unwrap();
    compile_gpu(&planned, &GpuTarget::parse("cuda:sm_80").unwrap()).unwrap()
}

fn launches(code: &GpuModule) -> Vec<&GridLaunch> {
    code.code.programs.iter().flat_map(|program| program.kernels.values().flatten()).collect()
}

/// The tools, or a notice.
fn tools() -> Option<Tools> {
    let tools = Tools::find();
    if tools.is_none() {
        println!("SKIPPED: there is no ptxas in .cache/cuda/bin; ./x test fetches it");
    }
    tools
}

/// The runtime's own kernels.
const RUNTIME: [&str; 2] = [
    include_str!("../../runtime/src/device/cuda/likeliest.ptx"),
    include_str!("../../runtime/src/device/cuda/candidates.ptx"),
];

#[test]
fn every_kernel_assembles_without_spills() {
    let Some(tools) = tools() else { return };
    for (name, _) in models::all("h100") {
        let code = code(name);
        for (architecture, kibibytes) in ARCHITECTURES {
            let kernels = tools.needs(&code.ptx, architecture);
            assert!(kernels.len() > 40, "{architecture}: only {} kernels", kernels.len());
            check_needs(&kernels, &format!("{architecture}, {name}"));
            check_shared(&launches(&code), kibibytes, &format!("{architecture}, {name}"));
        }
    }
    for ptx in RUNTIME {
        for (architecture, _) in ARCHITECTURES {
            let spilled: Vec<_> = tools.needs(ptx, architecture).iter().map(|kernel| kernel.spilled).collect();
            assert!(!spilled.is_empty() && spilled.iter().all(|bytes| *bytes == 0), "{architecture}: {spilled:?}");
        }
    }
}

/// Of kernels that differ in numbers alone, the first.
fn different(ptx: &str) -> String {
    const ENTRY: &str = ".visible .entry ";
    let mut entries = ptx.split(ENTRY);
    let head = entries.next().unwrap_or_default().to_owned();
    let mut seen = HashSet::new();
    let shape = |entry: &str| entry.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    let chosen = entries.filter(|entry| {
        let (name, _) = entry.split_once('(').unwrap();
        let stage = name.rsplit("__").next().unwrap();
        let (body, _) = entry.split_once("\n}").unwrap();
        seen.insert(shape(&body.replace(name, stage)))
    });
    chosen.fold(head, |text, entry| text + ENTRY + entry)
}

/// Code for the attention of a model alone, whose two layers see everything and a window.
fn attention(dtype: DType, (heads, kv_heads, head_dim): (usize, usize, usize)) -> GpuModule {
    let config = models::sizes(256, (heads, kv_heads, head_dim), 512);
    let config = ModelConfig { windows: vec![None, Some(1000)], ..config };
    let mut model = models::planned(config, dtype, Machine::named("h100").unwrap());
    for kernels in &mut model.kernels {
        kernels.retain(|kernel| kernel.region.anchor == Anchor::Attend);
    }
    compile_gpu(&model, &GpuTarget::parse("cuda:sm_80").unwrap()).unwrap()
}

/// Heads of every number of tiles that attention on matrix units takes, and odd ones; beyond 256 another kernel does it,
/// as in f32. One query head per key/value head, some, or more than a matrix instruction has rows for; in decode steps
/// some contexts are split and others are not.
#[test]
fn every_head_size_fits_every_architecture() {
    let tools = tools();
    let sizes = [16, 36, 64, 80, 96, 128, 160, 192, 224, 256, 320];
    let in_bf16 = sizes.into_iter().zip([20, 1, 6].into_iter().cycle());
    let in_f32 = [36, 128, 320].map(|head_dim| (DType::F32, 6, head_dim));
    let all = in_bf16.map(|(head_dim, group)| (DType::BF16, group, head_dim)).chain(in_f32);
    for (turn, (dtype, group, head_dim)) in all.enumerate() {
        let code = attention(dtype, (2 * group, 2, head_dim));
        let what = format!("{group} heads of {head_dim} in {dtype}");
        let launches = launches(&code);
        let flash = launches.iter().any(|launch| launch.symbol.ends_with("__flash"));
        assert_eq!(flash, dtype == DType::BF16 && head_dim <= 256, "{what}");
        let different = different(&code.ptx);
        for (number, (architecture, kibibytes)) in ARCHITECTURES.into_iter().enumerate() {
            // Registers hardly differ: two of the architectures in turn say what all need.
            if let Some(tools) = tools.as_ref().filter(|_| (turn + number).is_multiple_of(3)) {
                check_needs(&tools.needs(&different, architecture), &format!("{architecture}, {what}"));
            }
            check_shared(&launches, kibibytes, &format!("{architecture}, {what}"));
        }
    }
}

/// No spills, and no shared memory but that which comes with a launch.
fn check_needs(assembled: &[Needs], what: &str) {
    for kernel in assembled {
        let Needs { name, spilled, shared } = kernel;
        assert!(*spilled == 0 && *shared == 0, "{what}: {name} spills {spilled} bytes and declares {shared}");
    }
}

/// No block has more shared memory than an architecture grants.
fn check_shared(launches: &[&GridLaunch], kibibytes: usize, what: &str) {
    for launch in launches {
        assert!(launch.shared_bytes as usize <= kibibytes << 10, "{what}: {}: {}", launch.symbol, launch.shared_bytes);
    }
}

#[test]
fn hot_loops() {
    let Some(tools) = tools() else { return };
    for model in ["d64", "d128", "f32"] {
        let kernels = tools.assemble(&code(model).ptx, "sm_80");
        check_products(&kernels, model);
        check_attention(&kernels, model);
        insta::assert_snapshot!(format!("hot_loops_{model}"), table(&kernels));
    }
}

/// Products: as many matrix instructions per instruction as the best that other compilers do, and all copies wide.
fn check_products(kernels: &[Kernel], model: &str) {
    for kernel in
        kernels.iter().filter(|kernel| kernel.name.starts_with("prefill__") && kernel.name.ends_with("__tile"))
    {
        let share = count(&kernel.hot, "HMMA") as f64 / kernel.hot.len() as f64;
        assert!(share >= 0.45, "{}: {share:.2} of the hot loop are matrix instructions", kernel.name);
        assert_eq!(count(&kernel.hot, "LDGSTS"), count_with(&kernel.hot, "LDGSTS", "128"), "{}", kernel.name);
        assert_eq!(count(&kernel.hot, "BAR"), 1, "{}", kernel.name);
    }
    for kernel in kernels.iter().filter(|kernel| kernel.name.ends_with("__wide")) {
        let share = count(&kernel.hot, "FFMA") as f64 / kernel.hot.len() as f64;
        assert!(share >= 0.9, "{}: {share:.2} of the hot loop are multiply-adds", kernel.name);
        let loads = count(&kernel.hot, "LDS");
        assert_eq!(loads, count_with(&kernel.hot, "LDS", "128"), "{}: narrow loads", kernel.name);
    }
    // Of few blocks of a sum no loop is left.
    let multiplies = |kernel: &&Kernel| count(&kernel.hot, "HMMA") + count(&kernel.hot, "FFMA") > 0;
    for kernel in kernels.iter().filter(|kernel| kernel.name.ends_with("__stream")).filter(multiplies) {
        let loads = count(&kernel.hot, "LDG");
        assert!(loads >= 8, "{}: {loads} loads", kernel.name);
        // Weights by 128 bits. Of the row of a single token the assembler may load a half at a time.
        let narrow = loads - count_with(&kernel.hot, "LDG", "128");
        assert!(loads - narrow >= 8 && narrow <= 2, "{}: {narrow} of {loads} loads are narrow", kernel.name);
        // Half the registers' worth of warps, each with 8 loads of 512 bytes of weights under way; in f32 all whole blocks.
        let warps = REGISTERS / (kernel.registers.next_multiple_of(8) * 32);
        let warps = if model == "f32" { warps / 8 * 8 } else { warps / 2 };
        assert!(warps * 8 * 512 >= 32 << 10, "{}: {} registers", kernel.name, kernel.registers);
    }
}

/// Attention: no more instructions per matrix instruction, or per byte of the cache, than what Triton 3.9 makes of the
/// same tiles (700 / 128 and 539 / 128; 288 in each of 4 warps for 64 positions of 128 elements).
fn check_attention(kernels: &[Kernel], model: &str) {
    let (most, elements) = if model == "d64" { (700.0 / 128.0, 64) } else { (539.0 / 128.0, 128) };
    for kernel in kernels.iter().filter(|kernel| kernel.name.ends_with("__flash")) {
        let per_product = kernel.hot.len() as f64 / count(&kernel.hot, "HMMA") as f64;
        assert!(per_product <= most, "{}: {per_product:.2} instructions per matrix instruction", kernel.name);
        // All wide but the one that brings the numbers of blocks.
        assert_eq!(count(&kernel.hot, "LDGSTS"), count_with(&kernel.hot, "LDGSTS", "128") + 1, "{}", kernel.name);
    }
    for kernel in kernels.iter().filter(|kernel| kernel.name.ends_with("__split")) {
        let bytes = 32 * elements * 2 * 2;
        assert_eq!(count_with(&kernel.hot, "LDG", "128") * 512, bytes, "{}", kernel.name);
        let per_byte = kernel.hot.len() as f64 / bytes as f64;
        assert!(per_byte <= 288.0 * 4.0 / (64.0 * 128.0 * 4.0), "{}: {per_byte:.3} instructions per byte", kernel.name);
    }
}

/// A line per kernel.
fn table(kernels: &[Kernel]) -> String {
    let mut text = String::new();
    let mut kernels: Vec<&Kernel> = kernels.iter().collect();
    kernels.sort_by(|a, b| a.name.cmp(&b.name));
    for kernel in kernels {
        write!(text, "{:<52} {:>3} registers", kernel.name, kernel.registers).unwrap();
        if !kernel.hot.is_empty() {
            write!(text, "; loop of {:>4}:", kernel.hot.len()).unwrap();
            for name in ["HMMA", "FFMA", "LDGSTS", "LDSM", "LDS", "STS", "LDG", "STG", "BAR", "SHFL", "MUFU"] {
                let number = count(&kernel.hot, name);
                if number > 0 {
                    write!(text, " {number} {name}").unwrap();
                }
            }
        }
        text += "\n";
    }
    text
}

#[test]
#[ignore = "for reading: writes the PTX of the models to the target directory"]
fn write_ptx() {
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    for (name, _) in models::all("h100") {
        let path = directory.join(format!("{name}.ptx"));
        std::fs::write(&path, code(name).ptx).unwrap();
        println!("{}", path.display());
    }
}
