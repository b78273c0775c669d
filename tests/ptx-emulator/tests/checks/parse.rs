//! What the emulator does not know is an error with its line, never skipped.

use crate::HEAD;
use llmc_ptx_emulator::Module;

fn message(statement: &str) -> String {
    let text = format!(
        "{HEAD}.visible .entry k(.param .u64 p) {{ .reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .b16 %h<9>; .reg .pred %p<9>;\n{statement}\nret; }}"
    );
    match Module::parse(&text) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("`{statement}` was accepted"),
    }
}

#[test]
fn unknown_things_are_named() {
    let cases = [
        ("wgmma.fence.sync.aligned;", "PTX line 5: the instruction `wgmma` is not implemented"),
        ("add.foo.s32 %r1, %r2, %r3;", "PTX line 5: `add`: the modifier `.foo` is not implemented"),
        ("ld.global.v3.u32 {%r1, %r2, %r3}, [%rd1];", "PTX line 5: `ld`: the modifier `.v3` is not implemented"),
        ("cp.async.bulk.commit_group;", "PTX line 5: `cp`: the modifier `.bulk` is not implemented"),
        (
            "mov.u32 %r1, %clock;",
            "PTX line 5: `%clock` is neither declared nor a special register that the emulator has",
        ),
        ("mov.u32 %r9, 1;", "PTX line 5: `%r9` is not declared"),
        ("add.s32 %r1, %rd2, %r3;", "PTX line 5: `%rd2` has 64 bits, the instruction wants 32 bits"),
        ("add.u16 %h1, %r2, %h3;", "PTX line 5: `%r2` has 32 bits, the instruction wants 16 bits"),
        ("@%r1 bra L;", "PTX line 5: `%r1` has 32 bits, the instruction wants a predicate"),
        ("bra L;", "PTX line 5: no label `L`"),
        ("L: L: bra L;", "PTX line 5: the label `L` is there twice"),
        ("add.s32 %r1, %r2;", "PTX line 5: `add` takes 3 operands, found 2"),
        ("call.uni foo, (%r1);", "PTX line 5: `call` of `foo`, which has no body here"),
        ("call.uni foo;", "PTX line 5: `call` of `foo`, which has no body here"),
        ("call %rd1, (%r1), prototype;", "PTX line 5: `call` of a function by its address is not implemented"),
        (
            "brx.idx %r1, T;",
            "PTX line 5: `brx.idx` takes a register and a list of labels that `.branchtargets` gave a name",
        ),
        ("cvt.s32.f32 %r1, %r2;", "PTX line 5: `cvt` from F32 to Signed(32) needs a rounding"),
        (
            "mma.sync.aligned.m16n8k4.row.col.f32.bf16.bf16.f32 {%r1}, {%r1}, {%r1}, {%r1};",
            "PTX line 5: `mma.m16n8k4` of Bf16 and Bf16 into F32 does not exist",
        ),
        ("ld.global.u32 %r1, [%r2];", "PTX line 5: `%r2` has not the width of an address in this memory"),
        ("add.s32 %r1, %r2, %r3", "PTX line 6: expected `,`, found `ret`"),
        (".maxnreg 5;", "PTX line 5: the directive `.maxnreg` is not implemented inside of a kernel"),
    ];
    for (statement, expected) in cases {
        assert_eq!(message(statement), expected);
    }
}

#[test]
fn functions_that_cannot_be_put_in_place_are_named() {
    let kernel = ".visible .entry k() { .param .b32 a; call f, (a); ret; }";
    let function = |body: &str| format!("{HEAD}.func f(.param .b32 x) {{ {body} }}\n{kernel}");
    let error = |body: &str| Module::parse(&function(body)).unwrap_err().to_string();
    assert!(Module::parse(&function("ret;")).is_ok());
    assert!(error(".param .b32 a; call f, (a); ret;").ends_with("`call` of `f` from itself is not implemented"));
    assert!(error("wgmma.fence.sync.aligned; ret;").ends_with("the instruction `wgmma` is not implemented"));
    let wider = function("ret;").replace(".param .b32 x", ".param .b64 x");
    assert!(Module::parse(&wider).unwrap_err().to_string().ends_with("`a` is no `.param` variable of 8 bytes"));
}

#[test]
fn modules_without_a_kernel_or_an_end() {
    assert!(Module::parse("hello").unwrap_err().to_string().contains("expected a directive, found `hello`"));
    assert!(
        Module::parse(&format!("{HEAD}.visible .entry k() {{ ret;"))
            .unwrap_err()
            .to_string()
            .contains("without its closing")
    );
    let module = Module::parse(HEAD).unwrap();
    assert_eq!((module.version(), module.target(), module.kernels().count()), ((8, 5), "sm_80", 0));
}

#[test]
fn a_kernel_says_what_a_launch_needs() {
    let text = format!(
        "{HEAD}.global .align 4 .b8 g[12]; .visible .entry k(.param .u64 .ptr .global .align 16 a, .param .f32 b, .param .align 8 .b8 c[24])
         .maxntid 256 {{ .shared .align 4 .b8 s[20]; .local .align 8 .b8 l[16]; .reg .b64 %rd<3>; .reg .b32 %r<3>;
         {{ .reg .b32 %r<3>; mov.u32 %r1, s; }} mov.u64 %rd1, l; ret; }}"
    );
    let module = Module::parse(&text).unwrap();
    let kernel = module.kernel("k").unwrap();
    assert_eq!(kernel.parameters().collect::<Vec<_>>(), [8, 4, 24]);
    assert_eq!((kernel.static_shared_bytes(), kernel.local_bytes(), kernel.maximum_threads()), (20, 16, Some(256)));
    assert_eq!((kernel.name(), kernel.required_block(), kernel.instructions()), ("k", None, 4));
    assert_eq!(module.variables().collect::<Vec<_>>(), [("g", 12)]);
}

#[test]
fn damaged_text_is_an_error_and_no_panic() {
    let texts = [
        include_str!("../triton/flash_d64.sm80.ptx"),
        include_str!("../triton/q8gemv.sm80.ptx"),
        include_str!("../cuda/kernels.sm80.ptx"),
        include_str!("../llvm/loop.sm80.ptx"),
    ];
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for text in texts {
        for _ in 0..60 {
            let words: Vec<&str> = text.split_inclusive([' ', '\t', '\n', ',', '.']).collect();
            let mut damaged: Vec<&str> = words.clone();
            for _ in 0..3 {
                let (at, from) = (random(damaged.len()), random(words.len()));
                match random(3) {
                    0 => drop(damaged.remove(at)),
                    1 => damaged.insert(at, words[from]),
                    _ => damaged[at] = words[from],
                }
            }
            let _ = Module::parse(&damaged.concat());
        }
        for _ in 0..20 {
            let _ = Module::parse(&text[..random(text.len())]);
        }
    }
    for odd in [".param .pred x", ".param .u64 x[2000000000][2000000000]", ".param .align 0 .b8 x[4]"] {
        let _ = Module::parse(&format!("{HEAD}.visible .entry k({odd}) {{ ret; }}"));
    }
    assert!(message("ld.global.pred %p1, [%rd1];").ends_with("a predicate has no place in memory"));
    assert!(message(".local .b8 l[1000000]; mov.u64 %rd1, l;").ends_with("524288 are the most"));
}
