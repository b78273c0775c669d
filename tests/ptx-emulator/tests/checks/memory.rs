//! Bounds, alignment, bytes never written, read-only memory, launch geometry.

use crate::{HEAD, fault, run, sound};
use llmc_ptx_emulator::{FaultKind, LaunchConfig, LaunchError, Memory, Module, Space, launch};

#[test]
fn an_access_outside_names_place_and_neighbour() {
    let fault = fault(64, "setp.ge.u32 %p1, %t, 40; \n@%p1 add.s64 %rd2, %rd2, 16224;\nst.global.u32 [%rd2], 1;");
    assert_eq!((fault.kernel.as_str(), fault.line, fault.warp, fault.lane), ("k", 10, 1, Some(8)));
    assert_eq!(
        fault.to_string(),
        "kernel `k`, PTX line 10, block (0, 0, 0), warp 1, lane 8: 4 bytes at 0x1000004000 lie outside global memory: \
         at offset 16384 of the 16384 bytes at 0x1000000000"
    );
    // The last word that is inside.
    sound(64, "add.s64 %rd2, %rd2, 16128; st.global.u32 [%rd2], 1;");
}

#[test]
fn every_memory_has_bounds() {
    let space = |body: &str| match fault(32, body).kind {
        FaultKind::OutOfBounds { space, .. } => space,
        other => panic!("{other}"),
    };
    assert_eq!(space("ld.global.u32 %r1, [%rd1+-4];"), Space::Global);
    assert_eq!(space("mov.u64 %rd3, 0; ld.global.u32 %r1, [%rd3];"), Space::Global);
    assert_eq!(space("st.shared.u32 [%tile+4096], 1;"), Space::Shared);
    assert_eq!(space("st.shared.u32 [%tile+-4], 1;"), Space::Shared);
    assert_eq!(space(".local .b8 l[8]; mov.u64 %rd3, l; st.local.u32 [%rd3+8], 1;"), Space::Local);
    assert_eq!(space("ld.param.u32 %r1, [p+8];"), Space::Parameter);
    assert_eq!(space("cp.async.ca.shared.global [%tile], [%rd1+16384], 4;"), Space::Global);
    // A partial vector is outside as a whole.
    assert_eq!(
        space(
            "add.s64 %rd3, %rd1, 16380; mov.b64 %rd4, 0; sub.s64 %rd3, %rd3, 4; ld.global.v4.u32 {%r1,%r2,%r3,%r4}, [%rd3+8];"
        ),
        Space::Global
    );
}

#[test]
fn accesses_are_aligned_to_their_whole_length() {
    let misaligned = |body: &str| matches!(fault(32, body).kind, FaultKind::Misaligned { .. });
    assert!(misaligned("ld.global.u32 %r1, [%rd1+2];"));
    assert!(misaligned("ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%rd1+8];"));
    assert!(misaligned("st.shared.u64 [%tile+4], %rd1;"));
    assert!(misaligned("cp.async.cg.shared.global [%tile+8], [%rd1], 16;"));
    assert!(misaligned("cp.async.cg.shared.global [%tile], [%rd1+8], 16;"));
    assert!(misaligned("red.global.add.u32 [%rd1+1], 1;"));
    sound(32, "ld.global.v2.u32 {%r1, %r2}, [%rd1+8];");
}

#[test]
fn bytes_never_written_are_not_read() {
    let space = |body: &str| match fault(32, body).kind {
        FaultKind::UninitialisedMemory { space, .. } => space,
        other => panic!("{other}"),
    };
    assert_eq!(space("ld.shared.u32 %r1, [%own];"), Space::Shared);
    // Half of the word was written.
    assert_eq!(space("mov.u16 %h1, 1; st.shared.u16 [%own], %h1; ld.shared.u32 %r1, [%own];"), Space::Shared);
    sound(32, "st.shared.u32 [%own], 1; ld.shared.u16 %h1, [%own+2];");
    let text = format!(
        "{HEAD}.visible .entry k(.param .u64 p) {{ .reg .b64 %rd<2>; .reg .b32 %r<2>; ld.param.u64 %rd1, [p];
         ld.global.u32 %r1, [%rd1]; ret; }}"
    );
    let module = Module::parse(&text).unwrap();
    let mut memory = Memory::new();
    let address = memory.allocate(16);
    let config = LaunchConfig::new([1, 1, 1], [1, 1, 1], 0);
    let error = launch(&module, "k", config, &[address.into()], &mut memory).unwrap_err();
    assert!(
        error.to_string().ends_with("4 bytes at 0x1000000000 in global memory are read but were never all written")
    );
    memory.write(address, &[0; 4]).unwrap();
    launch(&module, "k", config, &[address.into()], &mut memory).unwrap();
    // A freed allocation is gone for good.
    memory.free(address).unwrap();
    memory.allocate(16);
    assert!(launch(&module, "k", config, &[address.into()], &mut memory).is_err());
}

#[test]
fn shared_memory_is_fresh_in_each_block() {
    let body =
        "mov.u32 %r1, %ctaid.x; setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [%own], 1; ld.shared.u32 %r2, [%own];";
    let module = crate::module(body);
    let mut memory = Memory::new();
    let address = memory.allocate(4);
    let config = LaunchConfig::new([2, 1, 1], [32, 1, 1], 0);
    match launch(&module, "k", config, &[address.into()], &mut memory).unwrap_err() {
        LaunchError::Fault(fault) => assert_eq!(fault.cta, [1, 0, 0]),
        other => panic!("{other}"),
    }
}

#[test]
fn constants_are_read_only() {
    let text = format!(
        "{HEAD}.const .align 4 .u32 c = 5; .visible .entry k() {{ .reg .b64 %rd<2>; mov.u64 %rd1, c;
         st.global.u32 [%rd1], 1; ret; }}"
    );
    let module = Module::parse(&text).unwrap();
    let config = LaunchConfig::new([1, 1, 1], [1, 1, 1], 0);
    let error = launch(&module, "k", config, &[], &mut Memory::new()).unwrap_err();
    assert!(matches!(error, LaunchError::Fault(fault) if matches!(fault.kind, FaultKind::ReadOnly { .. })));
}

#[test]
fn geometry_and_arguments_have_to_fit() {
    let text = format!(
        "{HEAD}.visible .entry exact(.param .u64 p) .reqntid 64, 2, 1 {{ ret; }}
         .visible .entry most(.param .u32 p) .maxntid 128, 1, 1 .minnctapersm 2 {{ ret; }}"
    );
    let module = Module::parse(&text).unwrap();
    let mut memory = Memory::new();
    let mut reason = |kernel: &str,
                      grid: [u32; 3],
                      block: [u32; 3],
                      shared: u32,
                      argument: llmc_ptx_emulator::Argument| {
        match launch(&module, kernel, LaunchConfig::new(grid, block, shared), &[argument], &mut memory) {
            Err(LaunchError::Setup { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    };
    let one = [1, 1, 1];
    assert_eq!(
        reason("exact", one, [128, 1, 1], 0, 0u64.into()),
        "a block of [128, 1, 1] threads; the kernel demands [64, 2, 1] (.reqntid)"
    );
    assert_eq!(
        reason("most", one, [64, 4, 1], 0, 0u32.into()),
        "256 threads per block; the kernel allows 128 (.maxntid)"
    );
    assert_eq!(reason("most", one, one, 0, 0u64.into()), "argument 0 has 8 bytes; `p` takes 4");
    assert_eq!(reason("none", one, one, 0, 0u64.into()), "the module has no such kernel; it has exact, most");
    assert!(reason("most", [0, 1, 1], one, 0, 0u32.into()).starts_with("a grid of [0, 1, 1] blocks"));
    assert!(reason("most", one, [2048, 1, 1], 0, 0u32.into()).starts_with("a block of [2048, 1, 1] threads"));
    assert!(reason("most", one, one, 300_000, 0u32.into()).starts_with("300000 bytes of shared memory"));
    assert!(launch(&module, "exact", LaunchConfig::new(one, [64, 2, 1], 0), &[], &mut memory).is_err());
    launch(&module, "exact", LaunchConfig::new(one, [64, 2, 1], 0), &[0u64.into()], &mut memory).unwrap();
}

#[test]
fn traps_and_endless_loops_end_the_launch() {
    assert_eq!(fault(32, "setp.eq.u32 %p1, %t, 3; @%p1 trap;").lane, Some(3));
    assert_eq!(fault(32, "L: bra L;").kind, FaultKind::InstructionLimit { limit: 100_000 });
    let partial = "mov.u32 %r1, 6; cp.async.ca.shared.global [%tile], [%rd1], 4, %r1;";
    assert_eq!(fault(1, partial).kind, FaultKind::Operand("cp.async reads 6 bytes of a copy of 4".to_string()));
    assert!(run(1, &partial.replace(" 6;", " 4;")).is_ok());
}

#[test]
fn wild_addresses_are_faults_and_no_panic() {
    for address in
        ["0xffffffffffffffff", "0xfffffffffffffff0", "0x7f0000000000", "0x7effffffffff", "0x8000000000000000"]
    {
        for access in ["ld.u8 %r1, [%rd3];", "st.global.v4.u32 [%rd3], {%t, %t, %t, %t};", "red.u32 [%rd3], 1;"] {
            let access = access.replace("red.u32", "red.add.u32");
            fault(32, &format!("mov.u64 %rd3, {address}; {access}"));
        }
        fault(32, &format!("mov.u64 %rd3, {address}; st.shared.u32 [%rd3], 1;"));
        fault(32, &format!("mov.u64 %rd3, {address}; cp.async.ca.shared.global [%own], [%rd3], 4;"));
        fault(32, &format!("mov.u64 %rd3, {address}; ld.param.u64 %rd4, [%rd3];"));
    }
}
