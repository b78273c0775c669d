//! PTX made by another compiler (Triton 3.9) runs and gives the numbers of double-precision references.

mod common;

use common::{CASES, attention, matmul_shape};
use llmc_ptx_emulator::Module;

#[test]
fn triton_kernels_give_the_reference_numbers() {
    for case in CASES.into_iter().chain(attention::CASES) {
        let module = Module::parse(case.text).unwrap();
        assert_eq!(module.kernels().collect::<Vec<_>>(), [case.kernel]);
        let outcome = (case.run)(&module).unwrap_or_else(|error| panic!("{error}"));
        println!("{}: error {}, {}", case.kernel, outcome.error, serde_json::to_string(&outcome.counters).unwrap());
        assert!(outcome.error < 1.0, "{}: {}", case.kernel, outcome.error);
    }
}

#[test]
fn counters_survive_json() {
    let module = Module::parse(CASES[1].text).unwrap();
    let counters = (CASES[1].run)(&module).unwrap().counters;
    let text = serde_json::to_string_pretty(&counters).unwrap();
    assert_eq!(serde_json::from_str::<llmc_ptx_emulator::Counters>(&text).unwrap(), counters);
    insta::assert_snapshot!("gemv_counters", text);
}

#[test]
fn matmul_counts_what_its_shape_says() {
    let module = Module::parse(CASES[0].text).unwrap();
    let outcome = matmul_shape(&module, (256, 256, 128)).unwrap_or_else(|error| panic!("{error}"));
    let counters = outcome.counters;
    assert_eq!(counters.mma_flops, 2 * 256 * 256 * 128);
    assert_eq!(counters.instructions["mma.m16n8k16"], 4096);
    // Each block loads a 128x128 tile of A and of B, twice over the grid.
    assert_eq!(counters.global_loads.requested_bytes, 4 * 2 * 128 * 128 * 2);
    assert_eq!(counters.global_loads.sectors, 8192);
    assert_eq!(counters.global_loads.sectors, counters.global_loads.ideal_sectors);
    assert_eq!(counters.global_stores.sectors, 256 * 256 * 2 / 32);
    // Triton's swizzle leaves no bank conflict.
    assert_eq!(counters.shared_loads.actual, counters.shared_loads.ideal);
    assert_eq!(counters.shared_stores.actual, counters.shared_stores.ideal);
}
