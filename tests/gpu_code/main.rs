//! The quality of device code, seen without a device: NVIDIA's assembler takes every kernel of models of real size, and
//! what it makes of them is looked at instruction by instruction.
//!
//! The assembler is not part of the project: `./x test` fetches it. Without it these tests only say that they did nothing.

mod models;
mod sass;

use llmc_codegen::compile_gpu;
use llmc_codegen::gpu::GpuTarget;
use llmc_ir::dtype::DType;
use llmc_ir::machine::Machine;
use sass::{Kernel, Tools, count, count_with};
use std::fmt::Write;

/// What current drivers assemble PTX of `sm_80` for, and the shared memory that a block may have there, in KiB (CUDA C++
/// Programming Guide, "Compute Capabilities").
const ARCHITECTURES: [(&str, usize); 6] =
    [("sm_80", 163), ("sm_86", 99), ("sm_89", 99), ("sm_90", 227), ("sm_100", 227), ("sm_120", 99)];

/// Registers of a multiprocessor.
const REGISTERS: usize = 65536;

fn ptx(model: &str) -> String {
    let (_, planned) = models::all("h100").into_iter().find(|(name, _)| *name == model).unwrap();
    compile_gpu(&planned, &GpuTarget::parse("cuda:sm_80").unwrap()).unwrap().ptx
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
    let models = models::all("h100").into_iter().map(|(name, _)| (ptx(name), 40));
    for (ptx, least) in models.chain(RUNTIME.map(|ptx| (ptx.to_owned(), 0))) {
        for (architecture, _) in ARCHITECTURES {
            let kernels = tools.needs(&ptx, architecture);
            assert!(kernels.len() > least, "{architecture}: only {} kernels", kernels.len());
            let spilling: Vec<_> = kernels.iter().filter(|kernel| kernel.spilled > 0).collect();
            assert!(spilling.is_empty(), "{architecture}: {spilling:?} spill");
        }
    }
}

/// The kernels of a text with that in their names, and what is declared in front of all.
fn only(ptx: &str, part: &str) -> String {
    const ENTRY: &str = ".visible .entry ";
    let mut entries = ptx.split(ENTRY);
    let head = entries.next().unwrap_or_default().to_owned();
    let chosen = entries.filter(|entry| entry.split('(').next().is_some_and(|name| name.contains(part)));
    chosen.fold(head, |text, entry| text + ENTRY + entry)
}

/// Heads of every number of tiles that attention on matrix units takes, and odd ones; beyond 256 another kernel does it.
#[test]
fn every_head_size_fits_every_architecture() {
    let tools = tools();
    for head_dim in [16, 36, 64, 80, 96, 128, 160, 192, 224, 256, 320] {
        // Ten query heads share keys and values.
        let config = models::sizes(256, (20, 2, head_dim), 512);
        let model = models::planned(config, DType::BF16, Machine::named("h100").unwrap());
        let code = compile_gpu(&model, &GpuTarget::parse("cuda:sm_80").unwrap()).unwrap();
        let launches = code.code.programs.iter().flat_map(|program| program.kernels.values().flatten());
        let launches: Vec<_> = launches.collect();
        let flash = launches.iter().any(|launch| launch.symbol.ends_with("__flash"));
        assert_eq!(flash, head_dim <= 256, "heads of {head_dim}");
        for (architecture, kibibytes) in ARCHITECTURES {
            let attention = only(&code.ptx, "__attend__");
            let assembled = tools.as_ref().map(|tools| tools.needs(&attention, architecture)).unwrap_or_default();
            // With 256 elements decode attention's keys, sums and queries alone fill the registers of `sm_86`.
            let spilling: Vec<_> = assembled.iter().filter(|kernel| kernel.spilled > 0 && head_dim < 256).collect();
            assert!(spilling.is_empty(), "{architecture}, heads of {head_dim}: {spilling:?} spill");
            for launch in &launches {
                let own =
                    assembled.iter().find(|kernel| kernel.name == launch.symbol).map_or(0, |kernel| kernel.shared);
                let bytes = launch.shared_bytes as usize + own;
                assert!(
                    bytes <= kibibytes << 10,
                    "{architecture}, heads of {head_dim}: {} needs {bytes}",
                    launch.symbol
                );
            }
        }
    }
}

#[test]
fn hot_loops() {
    let Some(tools) = tools() else { return };
    for model in ["d64", "d128", "f32"] {
        let kernels = tools.assemble(&ptx(model), "sm_80");
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
        std::fs::write(&path, ptx(name)).unwrap();
        println!("{}", path.display());
    }
}
