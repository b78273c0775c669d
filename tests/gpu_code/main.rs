//! The quality of device code, seen without a device: NVIDIA's assembler takes every kernel of models of real size, and
//! what it makes of them is looked at instruction by instruction.

mod models;

use llmc_codegen::compile_gpu;
use llmc_codegen::gpu::GpuTarget;
use std::path::PathBuf;

#[test]
#[ignore = "for reading: writes the PTX of the models to the target directory"]
fn write_ptx() {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    for (name, planned) in models::all() {
        let module = compile_gpu(&planned, &GpuTarget::parse("cuda:sm_80").unwrap()).unwrap();
        let path = directory.join(format!("{name}.ptx"));
        std::fs::write(&path, module.ptx).unwrap();
        println!("{}", path.display());
    }
}
