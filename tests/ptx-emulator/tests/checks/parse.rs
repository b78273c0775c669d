//! What the emulator does not know is an error with its line, never skipped.

use crate::HEAD;
use llmc_ptx_emulator::Module;

fn message(statement: &str) -> String {
    let text = format!(
        "{HEAD}.func f() {{ ret; }} .visible .entry k(.param .u64 p) {{ .reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .b16 %h<9>; .reg .pred %p<9>;\n{statement}\nret; }}"
    );
    match Module::parse(&text) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("`{statement}` was accepted"),
    }
}

#[test]
fn unknown_things_are_named() {
    let cases = [
        ("wgmma.fence.sync.aligned;", "`wgmma.fence.sync.aligned`: the instruction is not implemented"),
        ("tex.1d.v4.f32.s32 {%r1, %r2, %r3, %r4}, [%rd1, {%r5}];", "`tex.1d.v4.f32.s32`: expected `]`, found `,`"),
        ("add.foo.s32 %r1, %r2, %r3;", "`add.foo.s32`: the modifier `.foo` is not implemented"),
        ("ld.global.v3.u32 {%r1, %r2, %r3}, [%rd1];", "`ld.global.v3.u32`: the modifier `.v3` is not implemented"),
        ("cp.async.bulk.commit_group;", "`cp.async.bulk.commit_group`: the modifier `.bulk` is not implemented"),
        ("mov.u32 %r1, %pm0;", "`mov.u32`: `%pm0` is neither declared nor a special register that the emulator has"),
        ("mov.u32 %r9, 1;", "`mov.u32`: `%r9` is not declared"),
        ("mov.u64 %rd1, f;", "`mov.u64`: the address of the function `f` is not implemented"),
        ("add.s32 %r1, %rd2, %r3;", "`add.s32`: `%rd2` has 64 bits, the instruction wants 32 bits"),
        ("add.u16 %h1, %r2, %h3;", "`add.u16`: `%r2` has 32 bits, the instruction wants 16 bits"),
        ("add.s32 {%r1, %r2}, %r3, %r4;", "`add.s32`: expected a register to write to, found {%r1, %r2}"),
        ("@%r1 bra L;", "`%r1` has 32 bits, the instruction wants a predicate"),
        ("bra L;", "no label `L`"),
        ("{ L: } bra L;", "no label `L`"),
        ("L: L: bra L;", "the label `L` is there twice"),
        ("add.s32 %r1, %r2;", "`add.s32`: `add` takes 3 operands, found 2"),
        ("call.uni foo, (%r1);", "`call` of `foo`, which has no body here"),
        ("call.uni foo;", "`call` of `foo`, which has no body here"),
        ("call %rd1, (%r1), prototype;", "`call` of a function by its address is not implemented"),
        (
            "brx.idx %r1, T;",
            "`brx.idx`: `brx.idx` takes a register and a list of labels that `.branchtargets` gave a name",
        ),
        ("cvt.s32.f32 %r1, %r2;", "`cvt.s32.f32`: `cvt` from .f32 to .s32 needs a rounding"),
        (
            "mma.sync.aligned.m16n8k4.row.col.f32.bf16.bf16.f32 {%r1}, {%r1}, {%r1}, {%r1};",
            "`mma.sync.aligned.m16n8k4.row.col.f32.bf16.bf16.f32`: `mma.m16n8k4` of .bf16 and .bf16 into .f32 does not exist",
        ),
        ("ld.global.u32 %r1, [%r2];", "`ld.global.u32`: `%r2` has not the width of an address in this memory"),
        ("add.rz.f16 %h1, %h2, %h3;", "`add.rz.f16`: arithmetic in 16 bits rounds with `.rn` only"),
        ("sub.u16x2 %r1, %r2, %r3;", "`sub.u16x2`: `sub` of .u16x2 does not exist"),
        ("div.f32x2 %rd1, %rd2, %rd3;", "`div.f32x2`: `div` of .f32x2 does not exist"),
        ("redux.sync.add.f32 %r1, %r2, %r3;", "`redux.sync.add.f32`: `redux` of .f32 is for `.min` and `.max` only"),
        (".maxnreg 5;", "the directive `.maxnreg` is not implemented inside of a kernel"),
    ];
    for (statement, expected) in cases {
        assert_eq!(message(statement), format!("PTX line 5: {expected}"));
    }
}

#[test]
fn a_statement_without_its_end_is_found_with_the_next_one() {
    assert_eq!(message("add.s32 %r1, %r2, %r3"), "PTX line 6: `add.s32`: expected `,`, found `ret`");
}

#[test]
fn functions_that_cannot_be_put_in_place_are_named() {
    let kernel = ".visible .entry k() { .param .b32 a; call f, (a); ret; }";
    let function = |body: &str| format!("{HEAD}.func f(.param .b32 x) {{ {body} }}\n{kernel}");
    let error = |body: &str| Module::parse(&function(body)).unwrap_err().to_string();
    assert!(Module::parse(&function("ret;")).is_ok());
    assert!(error(".param .b32 a; call f, (a); ret;").ends_with("`call` of `f` from itself is not implemented"));
    assert!(error("wgmma.fence.sync.aligned; ret;").ends_with("the instruction is not implemented"));
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
