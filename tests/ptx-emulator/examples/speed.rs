//! How fast the emulator is: warp instructions per second of the Triton kernels of the tests.
//!
//! `cargo run --release -p llmc-ptx-emulator --example speed`

#[path = "../tests/common/mod.rs"]
mod common;

use common::Outcome;
use llmc_ptx_emulator::Module;

/// Times that each of the small kernels is launched.
const LAUNCHES: usize = 400;

fn main() {
    for case in common::CASES {
        let module = Module::parse(case.text).expect("the tests parse it");
        let run = || (case.run)(&module).expect("the tests run it");
        report(case.kernel, &(0..LAUNCHES).map(|_| run()).collect::<Vec<_>>());
    }
    let module = Module::parse(common::CASES[0].text).expect("the tests parse it");
    let large = common::matmul_shape(&module, (512, 512, 512)).expect("the tests run it");
    report("matmul of 512 x 512 x 512", &[large]);
}

fn report(name: &str, outcomes: &[Outcome]) {
    let instructions: u64 = outcomes.iter().map(|outcome| outcome.counters.warp_instructions).sum();
    let seconds: f64 = outcomes.iter().map(|outcome| outcome.seconds).sum();
    println!("{name}: {:.2} M warp instructions/s", instructions as f64 / seconds / 1e6);
}
