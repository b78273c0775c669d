//! Barriers that not everybody reaches, and warp-wide instructions with lanes missing.

use crate::{fault, run, sound};
use llmc_ptx_emulator::FaultKind;

fn divergence(threads: u32, body: &str) -> String {
    match fault(threads, body).kind {
        FaultKind::DivergentBarrier { detail } => detail,
        other => panic!("{other}"),
    }
}

#[test]
fn half_a_warp_at_a_barrier() {
    let body = "setp.lt.u32 %p1, %t, 16; @%p1 bra SKIP; bar.sync 0; SKIP:";
    assert!(divergence(32, body).starts_with("lanes 0xffff0000 of the warp's 0xffffffff are here"));
    assert!(divergence(32, "setp.lt.u32 %p1, %t, 16; @%p1 bar.sync 0;").contains("lanes 0x0000ffff"));
    assert!(divergence(32, "setp.lt.u32 %p1, %t, 16; @%p1 exit; bar.sync 0;").contains("lanes 0x0000ffff have exited"));
}

#[test]
fn a_warp_that_never_comes() {
    let skip = "setp.lt.u32 %p1, %t, 32; @%p1 bra SKIP;\nbar.sync 0; SKIP:";
    assert_eq!(
        divergence(96, skip),
        "warp 1 waits at barrier 0 (PTX line 9), warp 2 waits at barrier 0 (PTX line 9); exited warps: 0"
    );
    let apart = "setp.lt.u32 %p1, %t, 32; @%p1 bra OTHER;\nbar.sync 0; bra END; OTHER:\nbar.sync 0; END:";
    assert_eq!(divergence(64, apart), "barrier 0 is awaited here and at PTX line 10 at once");
    let named = "setp.lt.u32 %p1, %t, 32; @%p1 bra OTHER; bar.sync 1; bra END; OTHER: bar.sync 2; END:";
    assert!(divergence(64, named).contains("barrier 1") && divergence(64, named).contains("barrier 2"));
}

#[test]
fn barriers_of_some_warps() {
    // Producer and consumer with a barrier of their own; the third warp takes no part.
    let body = "setp.ge.u32 %p3, %t, 64; @%p3 bra END; setp.ge.u32 %p1, %t, 32; @%p1 bra CONSUME;
        st.shared.u32 [%own], %t; bar.arrive 1, 64; bra END;
        CONSUME: bar.sync 1, 64; ld.shared.u32 %r1, [%own+-128]; st.global.u32 [%rd2], %r1; END:";
    let (counters, words) = run(96, body).unwrap();
    assert_eq!(words[32..64], (0..32).collect::<Vec<_>>());
    assert_eq!(counters.barriers, 1);
    assert!(matches!(fault(96, &body.replace("bar.sync 1, 64", "bar.sync 1, 60")).kind, FaultKind::Operand(_)));
    assert!(matches!(fault(64, "bar.sync 16;").kind, FaultKind::Operand(_)));
    assert!(matches!(
        fault(64, "mov.u32 %r1, %laneid; and.b32 %r1, %r1, 1; bar.sync %r1;").kind,
        FaultKind::Operand(_)
    ));
}

#[test]
fn barriers_in_loops() {
    let body = "mov.u32 %r1, 0; L: bar.sync 0; add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 10; @%p1 bra L;";
    assert_eq!(run(128, body).unwrap().0.barriers, 10);
    // One warp makes one round less.
    let uneven = "shr.u32 %r2, %t, 6; add.u32 %r2, %r2, 9; mov.u32 %r1, 0; L: bar.sync 0; add.u32 %r1, %r1, 1;
        setp.lt.u32 %p1, %r1, %r2; @%p1 bra L;";
    assert!(divergence(128, uneven).ends_with("exited warps: 0, 1"));
}

#[test]
fn warp_wide_instructions_need_the_lanes_they_name() {
    let missing = |body: &str| match fault(32, body).kind {
        FaultKind::DivergentWarp { missing, .. } => missing,
        other => panic!("{other}"),
    };
    let head = "setp.lt.u32 %p1, %t, 16; @%p1 bra SKIP;";
    assert_eq!(missing(&format!("{head} shfl.sync.idx.b32 %r1, %t, 0, 31, -1; SKIP: mov.u32 %r2, 1;")), 0xffff);
    assert_eq!(missing(&format!("{head} bar.warp.sync -1; SKIP: mov.u32 %r2, 1;")), 0xffff);
    assert_eq!(missing(&format!("{head} redux.sync.add.u32 %r1, %t, -1; SKIP: mov.u32 %r2, 1;")), 0xffff);
    assert_eq!(
        missing(&format!("{head} ldmatrix.sync.aligned.m8n8.x1.shared.b16 {{%r1}}, [%tile]; SKIP: mov.u32 %r2, 1;")),
        0xffff
    );
    sound(32, &format!("{head} shfl.sync.idx.b32 %r1, %t, 20, 31, 0xffff0000; SKIP: mov.u32 %r2, 1;"));
    // Lanes that have exited are excused, a lane that does not name itself is not.
    sound(32, "setp.lt.u32 %p1, %t, 16; @%p1 exit; vote.sync.any.pred %p2, %p1, -1;");
    assert!(matches!(fault(32, "vote.sync.any.pred %p2, 1, 0xffff;").kind, FaultKind::Operand(_)));
}
