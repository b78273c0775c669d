//! One-instruction tests: what the PTX ISA says of an instruction, on values that tell its variants apart.

#[path = "../common/mod.rs"]
mod common;

mod bits;
mod convert;
mod float;
mod half;
mod integer;
mod matrix;
mod memory;
mod warp;
mod wmma;

use common::{download32, upload};
use llmc_ptx_emulator::{Argument, LaunchConfig, Memory, Module, launch};

/// What surrounds the instructions under test.
pub const HEAD: &str = ".version 8.5\n.target sm_90\n.address_size 64\n";

/// Registers for an instruction under test. Operand `n` is in `%rdn`, cut to 32 bits in `%rn`, cut to 16 bits in `%hn`; `%tid.x` is
/// in `%r9`, where `%rd9` points to 16 bytes per thread.
pub const REGISTERS: &str = "
    .reg .b16 %h<10>;
    .reg .b32 %r<40>;
    .reg .b64 %rd<20>;
    .reg .pred %p<10>;
    mov.u32 %r9, %tid.x;
";

/// Runs `body` in one warp with operands of `inputs[operand][lane]`; returns what it leaves in `%rd0` of each lane.
pub fn run(body: &str, inputs: &[Vec<u64>]) -> Vec<u64> {
    let mut memory = Memory::new();
    let mut text = format!("{HEAD}.visible .entry k(.param .u64 out");
    for at in 1..=inputs.len() {
        text += &format!(", .param .u64 in{at}");
    }
    text += &format!(") {{ {REGISTERS}\n");
    let output = memory.allocate(32 * 8);
    let mut arguments = vec![Argument::from(output)];
    for (at, values) in inputs.iter().enumerate() {
        let at = at + 1;
        assert_eq!(values.len(), 32);
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        arguments.push(upload(&mut memory, &bytes).into());
        text += &format!(
            "ld.param.u64 %rd19, [in{at}]; mad.wide.u32 %rd19, %r9, 8, %rd19; ld.global.u64 %rd{at}, [%rd19];"
        );
        text += &format!("cvt.u32.u64 %r{at}, %rd{at}; cvt.u16.u64 %h{at}, %rd{at};\n");
    }
    text += body;
    text += "\nld.param.u64 %rd19, [out]; mad.wide.u32 %rd19, %r9, 8, %rd19; st.global.u64 [%rd19], %rd0; ret; }";
    let module = Module::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let config = LaunchConfig::new([1, 1, 1], [32, 1, 1], 0);
    launch(&module, "k", config, &arguments, &mut memory).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let words = download32(&memory, output, 64);
    words.chunks(2).map(|pair| u64::from(pair[1]) << 32 | u64::from(pair[0])).collect()
}

/// An instruction that leaves its result in `%r0`, with operands; returns the result, which has to be the same in all lanes.
pub fn one(instruction: &str, operands: &[u64]) -> u64 {
    let inputs: Vec<Vec<u64>> = operands.iter().map(|&operand| vec![operand; 32]).collect();
    let widen = match () {
        () if instruction.contains("%rd0") => "",
        () if instruction.contains("%r0") => "cvt.u64.u32 %rd0, %r0;",
        () if instruction.contains("%h0") => "cvt.u64.u16 %rd0, %h0;",
        () => "selp.u64 %rd0, 1, 0, %p0;",
    };
    let results = run(&format!("{instruction} {widen}"), &inputs);
    assert!(results.iter().all(|result| *result == results[0]), "{instruction}: lanes differ");
    results[0]
}

/// Checks a table of instructions, operands and results.
pub fn check(table: &[(&str, &[u64], u64)]) {
    for (instruction, operands, expected) in table {
        let result = one(instruction, operands);
        assert_eq!(result, *expected, "{instruction} of {operands:x?} is {result:#x}, expected {expected:#x}");
    }
}

/// The bits of a single.
pub fn f(value: f32) -> u64 {
    u64::from(value.to_bits())
}

/// The bits of a double.
pub fn d(value: f64) -> u64 {
    value.to_bits()
}
