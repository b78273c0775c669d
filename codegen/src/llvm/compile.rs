//! LLVM at work: parses and verifies the text, optimises it and makes an object file. Units are compiled beside each other.

use crate::error::CodegenError;
use crate::gpu::GpuTarget;
use crate::host::HostTarget;
use inkwell::OptimizationLevel;
use inkwell::context::Context;
use inkwell::memory_buffer::MemoryBuffer;
use inkwell::passes::PassBuilderOptions;
use inkwell::targets::{CodeModel, FileType, InitializationConfig, RelocMode, Target, TargetMachine, TargetTriple};
use rayon::iter::{ParallelBridge, ParallelIterator};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// The platform that host code is for.
pub const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// The platform that PTX is for.
pub const GPU_TRIPLE: &str = "nvptx64-nvidia-cuda";

/// Native code in the forms that callers ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// A relocatable ELF object.
    Object,
    /// Assembly text.
    Assembly,
    /// LLVM IR after optimisation.
    OptimizedIr,
}

/// Compiles the units of a module for a CPU.
pub fn compile(units: &[String], target: &HostTarget, output: Output) -> Result<Vec<Vec<u8>>, CodegenError> {
    compile_each(units, || machine(target), output)
}

/// Compiles the units of a module to PTX.
pub fn compile_ptx(units: &[String], target: &GpuTarget) -> Result<String, CodegenError> {
    let parts = compile_each(units, || gpu_machine(target), Output::Assembly)?;
    let parts: Vec<_> = parts.iter().map(|part| String::from_utf8_lossy(part)).collect();
    Ok(join_ptx(parts.iter().map(AsRef::as_ref)))
}

/// Compiles units, as many at a time as there are cores.
fn compile_each(
    units: &[String],
    machine: impl Fn() -> Result<TargetMachine, CodegenError> + Sync,
    output: Output,
) -> Result<Vec<Vec<u8>>, CodegenError> {
    // The longest first, so that no core begins one when the others are done.
    let mut order: Vec<usize> = (0..units.len()).collect();
    order.sort_by_key(|&unit| Reverse(units[unit].len()));
    let compiled = order.into_iter().par_bridge().map(|unit| {
        let result = machine().and_then(|machine| compile_unit(&machine, &units[unit], output));
        (unit, result)
    });
    let mut compiled: Vec<(usize, Result<Vec<u8>, CodegenError>)> = compiled.collect();
    compiled.sort_by_key(|(unit, _)| *unit);
    compiled.into_iter().map(|(_, result)| result).collect()
}

/// One PTX module of several for one target, whose directives and declarations it has once.
fn join_ptx<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let mut said = BTreeSet::new();
    let mut text = String::new();
    for line in parts.flat_map(str::lines) {
        let is_common = [".version", ".target", ".address_size", ".extern"].iter().any(|start| line.starts_with(start));
        if !is_common || said.insert(line) {
            text += line;
            text += "\n";
        }
    }
    text
}

fn compile_unit(machine: &TargetMachine, ir: &str, output: Output) -> Result<Vec<u8>, CodegenError> {
    let failed = |stage: &'static str| move |message: String| CodegenError::Llvm { stage, message };
    let context = Context::create();
    let buffer = MemoryBuffer::create_from_memory_range_copy(ir.as_bytes(), "llmc");
    let module = context.create_module_from_ir(buffer).map_err(|e| failed("parse")(e.to_string()))?;
    module.verify().map_err(|e| failed("verify")(e.to_string()))?;
    module.set_data_layout(&machine.get_target_data().get_data_layout());
    let options = PassBuilderOptions::create();
    options.set_loop_unrolling(false);
    options.set_loop_vectorization(false);
    options.set_loop_slp_vectorization(false);
    module.run_passes("default<O2>", machine, options).map_err(|e| failed("optimise")(e.to_string()))?;
    let file_type = match output {
        Output::Object => FileType::Object,
        Output::Assembly => FileType::Assembly,
        Output::OptimizedIr => return Ok(module.print_to_string().to_string().into_bytes()),
    };
    let buffer = machine.write_to_memory_buffer(&module, file_type).map_err(|e| failed("emit")(e.to_string()))?;
    Ok(buffer.as_slice().to_vec())
}

fn gpu_machine(target: &GpuTarget) -> Result<TargetMachine, CodegenError> {
    Target::initialize_nvptx(&InitializationConfig::default());
    let failed = |message: String| CodegenError::Llvm { stage: "set up the target", message };
    let triple = TargetTriple::create(GPU_TRIPLE);
    let backend = Target::from_triple(&triple).map_err(|e| failed(e.to_string()))?;
    let level = OptimizationLevel::Aggressive;
    let (cpu, features) = (target.architecture(), target.ptx_feature);
    backend
        .create_target_machine(&triple, &cpu, features, level, RelocMode::Default, CodeModel::Default)
        .ok_or_else(|| failed(format!("LLVM knows no GPU `{cpu}`")))
}

fn machine(target: &HostTarget) -> Result<TargetMachine, CodegenError> {
    Target::initialize_x86(&InitializationConfig::default());
    let failed = |message: String| CodegenError::Llvm { stage: "set up the target", message };
    let triple = TargetTriple::create(TRIPLE);
    let backend = Target::from_triple(&triple).map_err(|e| failed(e.to_string()))?;
    backend
        .create_target_machine(
            &triple,
            &target.llvm_cpu,
            &target.llvm_features,
            OptimizationLevel::Default,
            RelocMode::PIC,
            CodeModel::Default,
        )
        .ok_or_else(|| failed(format!("LLVM knows no CPU `{}`", target.llvm_cpu)))
}

/// LLVM's name of this machine's CPU and its features, `+name` or `-name` each.
pub fn host_cpu() -> (String, String) {
    (TargetMachine::get_host_cpu_name().to_string(), TargetMachine::get_host_cpu_features().to_string())
}
