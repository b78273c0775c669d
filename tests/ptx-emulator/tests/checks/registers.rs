//! Registers that nothing was written to: moving them about is fine, depending on them is not.

use crate::{fault, sound};
use llmc_ptx_emulator::FaultKind;

fn culprit(body: &str) -> String {
    match fault(32, body).kind {
        FaultKind::UninitialisedRegister { register } => register,
        other => panic!("{other}"),
    }
}

#[test]
fn values_that_were_never_written_reach_nothing() {
    assert_eq!(culprit("st.global.u32 [%rd2], %r7;"), "%r7");
    assert_eq!(culprit("add.s32 %r1, %r7, 1; st.global.u32 [%rd2], %r1;"), "%r1");
    assert_eq!(culprit("ld.global.u32 %r1, [%rd7];"), "%rd7");
    assert_eq!(culprit("@%p3 add.s32 %r1, %t, 1;"), "%p3");
    assert_eq!(culprit("setp.eq.s32 %p1, %r7, 0; @%p1 bra END; END:"), "%p1");
    assert_eq!(culprit("red.global.add.u32 [%rd2], %r7;"), "%r7");
    assert_eq!(culprit("bar.sync %r7;"), "%r7");
    assert_eq!(culprit("vote.sync.any.pred %p1, %p2, -1;"), "%p2");
    assert_eq!(culprit("cp.async.ca.shared.global [%own], [%rd2], 4, %r7;"), "%r7");
    assert_eq!(
        culprit(
            "mov.u32 %r1, 0; mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%r2, %r3, %r4, %r5}, {%r1, %r9}, {%r1},
             {%r1, %r1, %r1, %r1};"
        ),
        "%r9"
    );
}

#[test]
fn a_lane_that_was_left_out_is_found() {
    let body = "setp.lt.u32 %p1, %t, 30; @%p1 mov.u32 %r1, 5; st.global.u32 [%rd2], %r1;";
    assert_eq!(fault(32, body).lane, Some(30));
    sound(32, &body.replace("st.global", "@%p1 st.global"));
}

#[test]
fn a_shuffle_hands_the_mark_on() {
    // Lanes below 16 take the value of lanes that never wrote it.
    let body = "setp.lt.u32 %p1, %t, 16; @%p1 mov.u32 %r1, 5; shfl.sync.bfly.b32 %r2, %r1, 16, 31, -1; st.global.u32 [%rd2], %r2;";
    assert_eq!(fault(32, body).lane, Some(0));
    sound(32, &body.replace("st.global", "@!%p1 st.global"));
}

#[test]
fn shared_memory_hands_the_mark_on() {
    let body = "setp.lt.u32 %p1, %t, 30; @%p1 mov.u32 %r1, 5; st.shared.u32 [%own], %r1; ld.shared.u32 %r2, [%own];";
    assert!(matches!(fault(32, body).kind, FaultKind::UninitialisedMemory { .. }));
    sound(32, &body.replace("ld.shared", "@%p1 ld.shared"));
}

/// 16 bytes of local memory at `%rd3`.
const LOCAL: &str = ".local .align 8 .b8 l[16]; mov.u64 %rd3, l;";

#[test]
fn local_memory_hands_the_mark_on() {
    let own = |body: &str| culprit(&format!("{LOCAL} {body}"));
    let fine = |body: &str| sound(32, &format!("{LOCAL} {body}"));
    // What was never written may be loaded and copied, also through generic addresses.
    fine("ld.local.u32 %r1, [%rd3]; mov.b32 %r2, %r1; st.local.u32 [%rd3+4], %r2; ld.local.v2.u32 {%r3, %r4}, [%rd3];");
    fine("st.local.u32 [%rd3], %r7; cvta.local.u64 %rd4, %rd3; ld.u32 %r1, [%rd4]; st.u32 [%rd4+4], %r1;");
    // It is never written in every other respect.
    assert_eq!(own("ld.local.u32 %r1, [%rd3]; st.global.u32 [%rd2], %r1;"), "%r1");
    assert_eq!(own("ld.local.u32 %r1, [%rd3]; add.s32 %r2, %r1, 1; st.global.u32 [%rd2], %r2;"), "%r2");
    assert_eq!(own("ld.local.u64 %rd4, [%rd3]; ld.global.u32 %r1, [%rd4];"), "%rd4");
    assert_eq!(own("ld.local.u32 %r1, [%rd3]; setp.eq.s32 %p1, %r1, 0; @%p1 bra END; END:"), "%p1");
    // A load takes the place of what the register held.
    assert_eq!(own("mov.u32 %r1, 1; ld.local.u32 %r1, [%rd3]; st.global.u32 [%rd2], %r1;"), "%r1");
    // Through a copy in local memory, and back.
    let copied = "ld.local.u32 %r1, [%rd3]; st.local.u32 [%rd3+4], %r1; ld.local.u32 %r2, [%rd3+4];";
    assert_eq!(own(&format!("{copied} st.global.u32 [%rd2], %r2;")), "%r2");
    assert_eq!(
        own("st.local.u32 [%rd3], 1; st.local.u32 [%rd3], %r7; ld.local.u32 %r1, [%rd3]; st.global.u32 [%rd2], %r1;"),
        "%r1"
    );
    fine("st.local.u32 [%rd3], %r7; st.local.u32 [%rd3], 1; ld.local.u32 %r1, [%rd3]; st.global.u32 [%rd2], %r1;");
    // Only some elements, some bytes, some lanes.
    let half = "st.local.u32 [%rd3], 1; ld.local.v2.u32 {%r1, %r2}, [%rd3];";
    fine(&format!("{half} st.global.u32 [%rd2], %r1;"));
    assert_eq!(own(&format!("{half} st.global.u32 [%rd2], %r2;")), "%r2");
    assert_eq!(
        own("mov.u16 %h1, 1; st.local.u16 [%rd3], %h1; ld.local.u32 %r1, [%rd3]; st.global.u32 [%rd2], %r1;"),
        "%r1"
    );
    // Halves of a word that was copied whole, and bits that a mask sets whatever the others hold.
    let whole = "st.local.u32 [%rd3], 1; ld.local.u64 %rd4, [%rd3]; st.local.u64 [%rd3+8], %rd4;";
    fine(&format!("{whole} ld.local.u32 %r1, [%rd3+8]; st.global.u32 [%rd2], %r1;"));
    assert_eq!(own(&format!("{whole} ld.local.u32 %r1, [%rd3+12]; st.global.u32 [%rd2], %r1;")), "%r1");
    let moved = whole.replace("st.local.u64 [%rd3+8], %rd4", "mov.b64 %rd5, %rd4; st.local.u64 [%rd3+8], %rd5");
    fine(&format!("{moved} ld.local.u32 %r1, [%rd3+8]; st.global.u32 [%rd2], %r1;"));
    let field = "ld.local.u32 %r1, [%rd3]; and.b32 %r2, %r1, -2; or.b32 %r3, %r2, 4; st.local.u32 [%rd3], %r3;
                 ld.local.u32 %r4, [%rd3];";
    fine(&format!("{field} and.b32 %r5, %r4, 5; st.global.u32 [%rd2], %r5;"));
    assert_eq!(own(&format!("{field} and.b32 %r5, %r4, 2; st.global.u32 [%rd2], %r5;")), "%r5");
    // Another value of which nothing is known takes the place of one that was known in part.
    assert_eq!(own(&format!("{field} add.u32 %r4, %r7, 1; and.b32 %r5, %r4, 5; st.global.u32 [%rd2], %r5;")), "%r5");
    let lanes = "setp.lt.u32 %p1, %t, 30; @%p1 st.local.u32 [%rd3], 1; ld.local.u32 %r1, [%rd3];";
    fine(&format!("{lanes} @%p1 st.global.u32 [%rd2], %r1;"));
    assert_eq!(fault(32, &format!("{LOCAL} {lanes} st.global.u32 [%rd2], %r1;")).lane, Some(30));
}

#[test]
fn copies_and_choices_that_cannot_matter_are_fine() {
    sound(32, "mov.b32 %r1, %r7; mov.b64 %rd3, {%r7, %t}; add.s32 %r1, %r1, 1;");
    sound(32, "setp.lt.u32 %p1, %t, 99; selp.b32 %r1, %t, %r7, %p1; st.global.u32 [%rd2], %r1;");
    // A conjunction with something false is false whatever the other side is.
    sound(32, "setp.gt.u32 %p1, %t, 99; and.pred %p2, %p1, %p7; @%p2 bra END; END:");
    sound(32, "setp.lt.u32 %p1, %t, 99; or.pred %p2, %p7, %p1; @%p2 bra END; END:");
}
