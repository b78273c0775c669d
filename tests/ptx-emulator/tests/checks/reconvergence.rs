//! Diverged lanes take every path they should and meet again where all paths lead.

use crate::{fault, run, sound};
use llmc_ptx_emulator::FaultKind;

/// What each of 32 lanes leaves in its word.
fn words(body: &str) -> Vec<u32> {
    match run(32, &format!("{body} st.global.u32 [%rd2], %r1;")) {
        Ok((_, words)) => words[..32].to_vec(),
        Err(error) => panic!("{error}"),
    }
}

fn lanes(f: impl Fn(u32) -> u32) -> Vec<u32> {
    (0..32).map(f).collect()
}

/// Fails unless the whole warp is together.
const TOGETHER: &str = "shfl.sync.idx.b32 %r9, %t, 0, 31, -1;";

#[test]
fn both_sides_of_a_branch() {
    let body = format!(
        "and.b32 %r2, %t, 1; setp.eq.u32 %p1, %r2, 0; @%p1 bra EVEN; mul.lo.u32 %r1, %t, 3; bra JOIN;
         EVEN: add.u32 %r1, %t, 100; JOIN: {TOGETHER}"
    );
    assert_eq!(words(&body), lanes(|lane| if lane % 2 == 0 { lane + 100 } else { 3 * lane }));
}

#[test]
fn the_meeting_point_may_lie_before_the_branch_in_the_text() {
    let body = format!(
        "mov.u32 %r1, 0; bra START; JOIN: {TOGETHER} bra END;
         START: setp.lt.u32 %p1, %t, 9; @%p1 bra SIDE; add.u32 %r1, %r1, 1; bra JOIN; SIDE: add.u32 %r1, %r1, 2; bra JOIN; END:"
    );
    assert_eq!(words(&body), lanes(|lane| if lane < 9 { 2 } else { 1 }));
}

#[test]
fn branches_by_index() {
    let body = |lanes: u32| {
        format!(
            "T: .branchtargets ZERO, ONE, TWO, ONE; rem.u32 %r2, %t, {lanes}; brx.idx %r2, T;
             TWO: add.u32 %r1, %t, 7; bra JOIN; ONE: mul.lo.u32 %r1, %t, 5; bra JOIN; ZERO: mov.u32 %r1, 3; JOIN: {TOGETHER}"
        )
    };
    let wanted = |lane: u32| match lane % 4 {
        0 => 3,
        2 => lane + 7,
        _ => lane * 5,
    };
    assert_eq!(words(&body(4)), lanes(wanted));
    // An index without a label.
    assert!(matches!(fault(32, &body(5)).kind, FaultKind::Trap));
}

#[test]
fn loops_of_different_lengths() {
    let body = format!(
        "mov.u32 %r1, 0; mov.u32 %r2, 0; L: setp.ge.u32 %p1, %r2, %t; @%p1 bra OUT; add.u32 %r1, %r1, %r2; add.u32 %r2, %r2, 1;
         bra L; OUT: {TOGETHER}"
    );
    assert_eq!(words(&body), lanes(|lane| lane * lane.wrapping_sub(1) / 2));
    // The test at the end, with a way out in the middle.
    let body = format!(
        "mov.u32 %r1, 0; L: add.u32 %r1, %r1, 1; mul.lo.u32 %r2, %r1, %r1; setp.gt.u32 %p1, %r2, %t; @%p1 bra OUT;
         setp.lt.u32 %p2, %r1, 4; @%p2 bra L; add.u32 %r1, %r1, 50; OUT: {TOGETHER}"
    );
    let expected = |lane| (1..=4).find(|at| at * at > lane).unwrap_or(54);
    assert_eq!(words(&body), lanes(expected));
}

#[test]
fn branches_in_branches_in_loops() {
    let body = format!(
        "mov.u32 %r1, 0; mov.u32 %r2, 0;
         L: and.b32 %r3, %t, 3; setp.ne.u32 %p1, %r3, 0; @%p1 bra A; add.u32 %r1, %r1, 1; bra M;
         A: setp.eq.u32 %p2, %r3, 1; @%p2 bra B; add.u32 %r1, %r1, 10; bra N; B: add.u32 %r1, %r1, 100; N: add.u32 %r1, %r1, 1000;
         M: {TOGETHER} add.u32 %r2, %r2, 1; setp.lt.u32 %p3, %r2, 3; @%p3 bra L;"
    );
    assert_eq!(words(&body), lanes(|lane| 3 * [1, 1100, 1010, 1010][lane as usize % 4]));
}

#[test]
fn lanes_that_leave_early_do_not_hold_up_the_rest() {
    // An early return inside of a branch: the others still meet behind it.
    let body =
        "mov.u32 %r1, 1; setp.lt.u32 %p1, %t, 16; @!%p1 bra JOIN; setp.lt.u32 %p2, %t, 8; @%p2 bra RET; mov.u32 %r1, 2;
        JOIN: bar.warp.sync 0xffffff00; st.global.u32 [%rd2], %r1; RET:";
    let (_, out) = run(32, body).unwrap();
    assert_eq!(
        out[..32],
        lanes(|lane| if lane < 8 {
            0
        } else if lane < 16 {
            2
        } else {
            1
        })
    );
    let guarded = body.replace("@%p2 bra RET;", "@%p2 ret;");
    assert_eq!(run(32, &guarded).unwrap().1, out);
}

#[test]
fn a_loop_that_returns_at_its_end() {
    // The only way out of the last loop is the return itself; what comes before still meets.
    let body = "mov.u32 %r1, 0; setp.lt.u32 %p1, %t, 5; @%p1 bra A; mov.u32 %r1, 1; A: bar.sync 0;
        setp.ge.u32 %p2, %t, 20; @%p2 bra RET; L: add.u32 %r1, %r1, 1; st.global.u32 [%rd2], %r1; setp.lt.u32 %p3, %r1, %t;
        @%p3 bra L; RET:";
    let (_, out) = run(32, body).unwrap();
    assert_eq!(
        out[..32],
        lanes(|lane| if lane < 5 {
            lane.max(1)
        } else if lane < 20 {
            lane
        } else {
            0
        })
    );
}

#[test]
fn warps_of_different_lengths_and_partial_warps() {
    let body = "mov.u32 %r1, %warpid; L: add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 100; @%p1 bra L; bar.sync 0; st.global.u32 [%rd2], %r1;";
    let (counters, out) = run(200, body).unwrap();
    assert_eq!(out[..200], [100; 200]);
    assert_eq!(out[200], 0);
    assert_eq!((counters.warps, counters.divergent_branches), (7, 0));
    sound(5, "vote.sync.any.pred %p1, 1, 0x1f;");
}

#[test]
fn divergent_branches_are_counted() {
    let (counters, _) =
        run(64, "setp.lt.u32 %p1, %t, 16; @%p1 bra A; add.u32 %r1, %t, 1; A: add.u32 %r1, %t, 2;").unwrap();
    assert_eq!(counters.divergent_branches, 1);
    // Warp 0 splits: one more issue of what lies between than of what lies behind.
    assert_eq!(counters.instructions["bra"], 2);
    assert_eq!(counters.instructions["add.u32"], 4);
}

#[test]
fn failed_assertions_do_not_keep_the_others_apart() {
    // Two ways into the preparation of a trap, which no lane takes.
    let body = format!(
        "mov.u32 %r1, 0; setp.lt.u32 %p1, %t, 9; @!%p1 bra JOIN; setp.gt.u32 %p1, %t, 50; @%p1 bra FAIL;
         mov.u32 %r1, 5; setp.gt.u32 %p1, %t, 60; @%p1 bra OTHER; bra JOIN;
         OTHER: mov.u32 %r1, 8; bra FAIL; FAIL: mov.u32 %r1, 9; trap; JOIN: {TOGETHER}"
    );
    assert_eq!(words(&body), lanes(|lane| if lane < 9 { 5 } else { 0 }));
}
