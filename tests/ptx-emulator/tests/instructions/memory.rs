//! Loads, stores, atomics, address spaces, asynchronous copies.

use crate::common::{download32, upload, upload32};
use crate::{HEAD, REGISTERS, run};
use llmc_ptx_emulator::{Argument, Counters, LaunchConfig, Memory, Module, launch};

/// Runs a kernel whose parameter `p` points to `words`, in one warp; returns the words afterwards.
fn over(words: &[u32], declarations: &str, body: &str) -> (Vec<u32>, Counters) {
    let mut memory = Memory::new();
    let address = upload32(&mut memory, words);
    let text = format!(
        "{HEAD}{declarations}.visible .entry k(.param .u64 p) {{ {REGISTERS} ld.param.u64 %rd1, [p];
         cvta.to.global.u64 %rd1, %rd1; mul.wide.u32 %rd2, %r9, 4; add.s64 %rd3, %rd1, %rd2;\n{body}\nret; }}"
    );
    let module = Module::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let config = LaunchConfig::new([1, 1, 1], [32, 1, 1], 256);
    let counters = launch(&module, "k", config, &[Argument::from(address)], &mut memory)
        .unwrap_or_else(|error| panic!("{error}\n{text}"));
    (download32(&memory, address, words.len()), counters)
}

fn count(words: u32) -> Vec<u32> {
    (0..words).collect()
}

#[test]
fn widths_signs_and_vectors() {
    let words: Vec<u32> = vec![0xfedc_ba98; 32];
    let (out, _) = over(&words, "", "ld.global.s8 %r0, [%rd3+1]; st.global.u32 [%rd3], %r0;");
    assert_eq!(out, [0xffff_ffba; 32]);
    let (out, _) = over(&words, "", "ld.global.u8 %r0, [%rd3+3]; st.global.u32 [%rd3], %r0;");
    assert_eq!(out, [0xfe; 32]);
    let (out, _) = over(&words, "", "ld.global.s16 %r0, [%rd3+2]; st.global.u32 [%rd3], %r0;");
    assert_eq!(out, [0xffff_fedc; 32]);
    let (out, _) = over(&words, "", "ld.global.u16 %h0, [%rd3]; st.global.b16 [%rd3+2], {%h0};");
    assert_eq!(out, [0xba98_ba98; 32]);
    let (out, _) = over(&words, "", "ld.global.nc.b32 %r0, [%rd3]; st.global.wt.u8 [%rd3], %r0;");
    assert_eq!(out, [0xfedc_ba98; 32]);
    let vector = "mul.wide.u32 %rd2, %r9, 16; add.s64 %rd3, %rd1, %rd2;
        ld.global.L1::evict_first.L2::128B.v4.u32 {%r1, _, %r3, %r4}, [%rd3];
        st.global.v2.u32 [%rd3+8], {%r1, %r4};";
    let (out, counters) = over(&count(128), "", vector);
    assert_eq!(out[..8], [0, 1, 0, 3, 4, 5, 4, 7]);
    assert_eq!(counters.global_loads.requested_bytes, 512);
    assert_eq!(counters.global_stores.sectors, 16);
}

#[test]
fn shared_memory_static_dynamic_and_generic() {
    let reverse = "mov.u32 %r1, tile; mad.lo.u32 %r2, %r9, 4, %r1; st.shared.u32 [%r2], %r9; bar.sync 0;
        sub.s32 %r3, 31, %r9; mad.lo.u32 %r3, %r3, 4, %r1; ld.shared.u32 %r0, [%r3]; st.global.u32 [%rd3], %r0;";
    let expected: Vec<u32> = (0..32).rev().collect();
    assert_eq!(over(&[0; 32], ".shared .align 16 .b8 tile[128];", reverse).0, expected);
    assert_eq!(over(&[0; 32], ".extern .shared .align 16 .b8 tile[];", reverse).0, expected);
    // A static variable in front moves the dynamic memory: filling it leaves the tile alone.
    let declarations = ".shared .align 4 .b8 front[12]; .extern .shared .align 16 .b8 tile[];";
    let behind = reverse.replace("bar.sync", "st.shared.u32 [front], 7; st.shared.u32 [front+8], 7; bar.sync");
    assert_eq!(over(&[0; 32], declarations, &behind).0, expected);
    let generic = "mov.u64 %rd4, tile; cvta.shared.u64 %rd5, %rd4; add.s64 %rd6, %rd5, %rd2; st.u32 [%rd6], %r9;
        isspacep.shared %p1, %rd6; selp.u32 %r1, 100, 0, %p1; cvta.to.shared.u64 %rd7, %rd6; ld.shared.u32 %r2, [%rd7];
        add.u32 %r0, %r1, %r2; st.u32 [%rd3], %r0;";
    let (out, _) = over(&[0; 32], ".shared .align 16 .b8 tile[128];", generic);
    assert_eq!(out, (100..132).collect::<Vec<_>>());
}

#[test]
fn local_memory_is_each_threads_own() {
    let body = ".local .align 4 .b8 depot[16]; mov.u64 %rd4, depot; cvta.local.u64 %rd5, %rd4;
        st.local.u32 [%rd4+4], %r9; ld.u32 %r0, [%rd5+4]; st.global.u32 [%rd3], %r0;";
    assert_eq!(over(&[9; 32], "", body).0, count(32));
}

#[test]
fn module_variables_and_parameters() {
    let declarations = ".const .align 4 .u32 table[4] = {10, 20, 30}; .global .align 8 .u64 link = table;";
    let body = "ld.global.u64 %rd4, [link]; ld.const.u32 %r1, [table+4]; ld.global.u32 %r2, [%rd4+8];
        ld.const.u32 %r3, [table+12]; add.u32 %r0, %r1, %r2; add.u32 %r0, %r0, %r3; st.global.u32 [%rd3], %r0;";
    assert_eq!(over(&[9; 32], declarations, body).0, [50; 32]);
    let text = format!(
        "{HEAD}.visible .entry k(.param .u8 a, .param .u64 p, .param .align 8 .b8 s[12]) {{ {REGISTERS}
         ld.param.u64 %rd1, [p]; ld.param.u8 %r1, [a]; ld.param.u32 %r2, [s+8]; mov.u64 %rd2, s; ld.param.u32 %r3, [%rd2+4];
         add.u32 %r0, %r1, %r2; add.u32 %r0, %r0, %r3; st.global.u32 [%rd1], %r0; ret; }}"
    );
    let module = Module::parse(&text).unwrap();
    let mut memory = Memory::new();
    let address = memory.allocate(4);
    let mut structure = vec![0u8; 12];
    (structure[4], structure[8]) = (5, 7);
    let arguments = [1u8.into(), address.into(), Argument::from_bytes(structure)];
    launch(&module, "k", LaunchConfig::new([1, 1, 1], [1, 1, 1], 0), &arguments, &mut memory).unwrap();
    assert_eq!(download32(&memory, address, 1), [13]);
}

#[test]
fn atomics_combine_all_lanes() {
    let cases: [(&str, u32, u32); 9] = [
        ("red.global.add.u32 [%rd1], %r9;", 5, 5 + 496),
        ("red.global.max.s32 [%rd1], %r9;", 0xffff_ff00, 31),
        ("red.global.max.u32 [%rd1], %r9;", 0xffff_ff00, 0xffff_ff00),
        ("red.global.min.s32 [%rd1], %r9;", 7, 0),
        ("red.global.or.b32 [%rd1], %r9;", 0x100, 0x11f),
        ("red.global.inc.u32 [%rd1], 10;", 0, 32 % 11),
        ("red.global.dec.u32 [%rd1], 10;", 0, 1),
        ("atom.global.gpu.relaxed.cas.b32 %r0, [%rd1], %r9, 100;", 3, 100),
        ("red.global.add.f32 [%rd1], 0f3F800000;", 0, 32f32.to_bits()),
    ];
    for (instruction, start, expected) in cases {
        assert_eq!(over(&[start], "", instruction).0, [expected], "{instruction}");
    }
    // The old values that the lanes receive are the partial sums in some order.
    let (out, _) = over(&[0; 33], "", "atom.global.add.u32 %r0, [%rd1+128], 1; st.global.u32 [%rd3], %r0;");
    let mut old = out[..32].to_vec();
    old.sort_unstable();
    assert_eq!(old, count(32));
    assert_eq!(out[32], 32);
    let shared =
        "setp.eq.u32 %p1, %r9, 0; @%p1 st.shared.u32 [sum], 0; bar.sync 0; red.shared.add.u32 [sum], %r9; bar.sync 0;
        ld.shared.u32 %r0, [sum]; st.global.u32 [%rd3], %r0;";
    assert_eq!(over(&[0; 32], ".shared .align 4 .b8 sum[4];", shared).0, [496; 32]);
    assert_eq!(over(&[0x3c00_3f80], "", "red.global.add.noftz.bf16x2 [%rd1], 0x00003f80;").0[0] & 0xffff, 0x4204);
}

#[test]
fn asynchronous_copies_land_at_the_wait_and_fill_with_zeros() {
    // Even lanes copy their word, odd ones ask for no bytes.
    let copy =
        "mov.u32 %r1, tile; mad.lo.u32 %r2, %r9, 4, %r1; and.b32 %r3, %r9, 1; xor.b32 %r3, %r3, 1; shl.b32 %r3, %r3, 2;
        cp.async.ca.shared.global [%r2], [%rd3], 4, %r3; cp.async.commit_group; cp.async.wait_group 0;
        ld.shared.u32 %r0, [%r2]; st.global.u32 [%rd3], %r0;";
    let tile = ".shared .align 16 .b8 tile[512];";
    let expected: Vec<u32> = (0..32).map(|lane| if lane % 2 == 0 { lane } else { 0 }).collect();
    assert_eq!(over(&count(32), tile, copy).0, expected);
    let wide = "shl.b32 %r1, %r9, 4; mov.u32 %r2, tile; add.u32 %r2, %r2, %r1; cvt.u64.u32 %rd4, %r1; add.s64 %rd4, %rd1, %rd4;
        cp.async.cg.shared.global.L2::128B [%r2], [%rd4], 16; cp.async.wait_all; ld.shared.v4.u32 {%r4, %r5, %r6, %r7}, [%r2];
        st.global.v4.u32 [%rd4], {%r7, %r6, %r5, %r4};";
    let (out, counters) = over(&count(128), tile, wide);
    assert_eq!(out[..8], [3, 2, 1, 0, 7, 6, 5, 4]);
    assert_eq!((counters.shared_stores.actual, counters.shared_stores.ideal), (4, 4));
    assert_eq!(counters.global_loads.sectors, 16);
}

#[test]
fn special_registers() {
    let lanes: Vec<u64> = (0..32).collect();
    let expect = |body: &str, f: &dyn Fn(u64) -> u64| {
        assert_eq!(run(body, &[]), lanes.iter().map(|&lane| f(lane)).collect::<Vec<_>>(), "{body}");
    };
    expect("mov.u32 %r0, %laneid; cvt.u64.u32 %rd0, %r0;", &|lane| lane);
    expect("mov.u32 %r0, %lanemask_lt; cvt.u64.u32 %rd0, %r0;", &|lane| (1 << lane) - 1);
    expect("mov.u32 %r0, %lanemask_ge; cvt.u64.u32 %rd0, %r0;", &|lane| !((1 << lane) - 1) & 0xffff_ffff);
    expect("mov.u32 %r0, %ntid.x; cvt.u64.u32 %rd0, %r0;", &|_| 32);
    expect("mov.u32 %r0, %ctaid.x; cvt.u64.u32 %rd0, %r0;", &|_| 0);
}

#[test]
fn threads_and_blocks_are_numbered_with_x_fastest() {
    let text = format!(
        "{HEAD}.visible .entry k(.param .u64 p) {{ {REGISTERS} ld.param.u64 %rd1, [p];
         mov.u32 %r1, %tid.y; mov.u32 %r2, %tid.z; mov.u32 %r3, %ntid.x; mov.u32 %r4, %ntid.y; mov.u32 %r5, %ntid.z;
         mad.lo.u32 %r6, %r2, %r4, %r1; mad.lo.u32 %r6, %r6, %r3, %r9; // thread
         mul.lo.u32 %r7, %r3, %r4; mul.lo.u32 %r7, %r7, %r5;
         mov.u32 %r10, %ctaid.x; mov.u32 %r11, %ctaid.y; mov.u32 %r12, %nctaid.x; mad.lo.u32 %r13, %r11, %r12, %r10;
         mad.lo.u32 %r14, %r13, %r7, %r6; mul.wide.u32 %rd2, %r14, 4; add.s64 %rd3, %rd1, %rd2;
         mov.u32 %r15, %warpid; mov.u32 %r16, %laneid; mad.lo.u32 %r17, %r15, 32, %r16; st.global.u32 [%rd3], %r17; ret; }}"
    );
    let module = Module::parse(&text).unwrap();
    let mut memory = Memory::new();
    let threads = 3 * 5 * 4;
    let address = memory.allocate(4 * threads * 6);
    let config = LaunchConfig::new([2, 3, 1], [3, 5, 4], 0);
    let counters = launch(&module, "k", config, &[address.into()], &mut memory).unwrap();
    let out = download32(&memory, address, threads as usize * 6);
    assert!(out.iter().enumerate().all(|(at, &value)| value == at as u32 % threads as u32));
    assert_eq!((counters.blocks, counters.warps), (6, 12));
}

#[test]
fn vectors_are_added_element_by_element() {
    let body = "cvt.rn.f32.u32 %r1, %r9; mov.b32 %r2, 0f3F800000;
        atom.global.add.v2.f32 {%r3, %r4}, [%rd1], {%r1, %r2}; red.global.add.v4.f32 [%rd1+16], {%r1, %r2, %r2, %r1};
        mov.b64 %rd0, {%r3, %r4};";
    let text = format!("{HEAD}.visible .entry k(.param .u64 p) {{ {REGISTERS} ld.param.u64 %rd1, [p]; {body} ret; }}");
    let module = Module::parse(&text).unwrap();
    let mut memory = Memory::new();
    let address = upload(&mut memory, &[0; 32]);
    let config = LaunchConfig::new([1, 1, 1], [32, 1, 1], 0);
    launch(&module, "k", config, &[address.into()], &mut memory).unwrap();
    let sums: Vec<f32> = download32(&memory, address, 8).into_iter().map(f32::from_bits).collect();
    assert_eq!(sums, [496.0, 32.0, 0.0, 0.0, 496.0, 32.0, 32.0, 496.0]);
    // The whole vector is aligned.
    let error = launch(&module, "k", config, &[(address + 4).into()], &mut memory).unwrap_err().to_string();
    assert!(error.contains("8 bytes") && error.contains("not aligned"), "{error}");
}

#[test]
fn addresses_of_32_bits_wrap_around() {
    let text = format!(
        "{HEAD}.shared .align 4 .b32 s[64]; .visible .entry k(.param .u64 p) {{ {REGISTERS} mov.u32 %r1, s;
         mad.lo.u32 %r1, %r9, 4, %r1; st.shared.u32 [%r1], %r9; sub.u32 %r2, %r1, 512; ld.shared.u32 %r3, [%r2+512];
         ld.param.u64 %rd1, [p]; mad.wide.u32 %rd1, %r9, 4, %rd1; st.global.u32 [%rd1], %r3; ret; }}"
    );
    let mut memory = Memory::new();
    let address = memory.allocate(128);
    let module = Module::parse(&text).unwrap();
    launch(&module, "k", LaunchConfig::new([1, 1, 1], [32, 1, 1], 0), &[address.into()], &mut memory).unwrap();
    assert_eq!(download32(&memory, address, 32), (0..32).collect::<Vec<_>>());
}

#[test]
fn clocks_stand_still() {
    assert_eq!(run("mov.u64 %rd0, %clock64; mov.u32 %r1, %clock;", &[]), vec![0; 32]);
}

#[test]
fn labels_are_known_in_their_block_only() {
    // The same label twice, and a branch out of a block.
    let body = "mov.u32 %r1, 0; { L: add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 5; @%p1 bra L; }
        { L: add.u32 %r1, %r1, 10; setp.lt.u32 %p1, %r1, 40; @%p1 bra L; bra END; } mov.u32 %r1, 0;
        END: cvt.u64.u32 %rd0, %r1;";
    assert_eq!(run(body, &[]), vec![45; 32]);
}
