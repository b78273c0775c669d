//! Shuffles, votes, matches, reductions and barriers with a result.

use crate::run;

fn lanes(f: impl Fn(u64) -> u64) -> Vec<u64> {
    (0..32).map(f).collect()
}

fn shuffle(mode: &str, b: &str, c: &str) -> Vec<u64> {
    let body = format!(
        "add.u32 %r1, %r9, 100; shfl.sync.{mode}.b32 %r0|%p1, %r1, {b}, {c}, -1; selp.u32 %r2, 1000, 0, %p1;
         add.u32 %r0, %r0, %r2; cvt.u64.u32 %rd0, %r0;"
    );
    run(&body, &[])
}

#[test]
fn shuffles_in_all_modes() {
    // In range: the other lane's value plus 1000. Out of range: the own value.
    assert_eq!(shuffle("bfly", "5", "31"), lanes(|lane| 1100 + (lane ^ 5)));
    assert_eq!(shuffle("idx", "7", "31"), lanes(|_| 1107));
    assert_eq!(shuffle("up", "3", "0"), lanes(|lane| if lane >= 3 { 1100 + lane - 3 } else { 100 + lane }));
    assert_eq!(shuffle("down", "3", "31"), lanes(|lane| if lane + 3 <= 31 { 1100 + lane + 3 } else { 100 + lane }));
    // Segments of 8 lanes: the upper bits of c are ones above the segment.
    assert_eq!(
        shuffle("down", "3", "0x181f"),
        lanes(|lane| if lane % 8 + 3 < 8 { 1100 + lane + 3 } else { 100 + lane })
    );
    assert_eq!(shuffle("up", "3", "0x1800"), lanes(|lane| if lane % 8 >= 3 { 1100 + lane - 3 } else { 100 + lane }));
    assert_eq!(shuffle("idx", "2", "0x181f"), lanes(|lane| 1100 + (lane & !7) + 2));
    assert_eq!(
        shuffle("bfly", "9", "0x181f"),
        lanes(|lane| if lane ^ 9 <= (lane | 7) { 1100 + (lane ^ 9) } else { 100 + lane })
    );
}

#[test]
fn votes_and_ballots() {
    let ballot = "setp.lt.u32 %p1, %r9, 5; vote.sync.ballot.b32 %r0, %p1, -1; cvt.u64.u32 %rd0, %r0;";
    assert_eq!(run(ballot, &[]), lanes(|_| 31));
    let negated = ballot.replace("%r0, %p1", "%r0, !%p1");
    assert_eq!(run(&negated, &[]), lanes(|_| 0xffff_ffe0));
    let vote = |kind: &str, bound: u32| {
        let body =
            format!("setp.lt.u32 %p1, %r9, {bound}; vote.sync.{kind}.pred %p0, %p1, -1; selp.u64 %rd0, 1, 0, %p0;");
        run(&body, &[])[0]
    };
    assert_eq!([vote("all", 32), vote("all", 31), vote("any", 1), vote("any", 0)], [1, 0, 1, 0]);
    assert_eq!([vote("uni", 32), vote("uni", 0), vote("uni", 3)], [1, 1, 0]);
    assert_eq!(
        run("setp.lt.u32 %p1, %r9, 4; mov.u64 %rd0, 0; @%p1 activemask.b32 %r0; @%p1 cvt.u64.u32 %rd0, %r0;", &[])[3],
        15
    );
}

#[test]
fn matches_find_equal_lanes() {
    let any = "and.b32 %r1, %r9, 3; match.any.sync.b32 %r0, %r1, -1; cvt.u64.u32 %rd0, %r0;";
    assert_eq!(run(any, &[]), lanes(|lane| 0x1111_1111 << (lane % 4)));
    let all = "match.all.sync.b32 %r0|%p1, 7, -1; selp.u32 %r0, %r0, 5, %p1; cvt.u64.u32 %rd0, %r0;";
    assert_eq!(run(all, &[]), lanes(|_| 0xffff_ffff));
    assert_eq!(run(&all.replace(" 7,", " %r9,"), &[]), lanes(|_| 5));
}

#[test]
fn reductions_over_members() {
    let reduce =
        |op: &str| run(&format!("sub.s32 %r1, %r9, 3; redux.sync.{op} %r0, %r1, -1; cvt.u64.u32 %rd0, %r0;"), &[])[9];
    assert_eq!(reduce("add.s32"), 496 - 96);
    assert_eq!(reduce("min.s32"), 0xffff_fffd);
    assert_eq!(reduce("min.u32"), 0);
    assert_eq!(reduce("max.s32"), 28);
    assert_eq!(reduce("max.u32"), 0xffff_ffff);
    assert_eq!(reduce("or.b32"), 0xffff_ffff);
    // The lower half alone.
    let half = "setp.lt.u32 %p1, %r9, 16; mov.u64 %rd0, 0; @!%p1 bra END; redux.sync.add.u32 %r0, %r9, 0xffff;
        cvt.u64.u32 %rd0, %r0; END:";
    assert_eq!(run(half, &[]), lanes(|lane| if lane < 16 { 120 } else { 0 }));
    assert_eq!(run("elect.sync _|%p0, -1; selp.u64 %rd0, 1, 0, %p0;", &[]), lanes(|lane| u64::from(lane == 0)));
}

#[test]
fn barriers_reduce_predicates() {
    let count = "setp.lt.u32 %p1, %r9, 5; bar.red.popc.u32 %r0, 0, %p1; cvt.u64.u32 %rd0, %r0;";
    assert_eq!(run(count, &[]), lanes(|_| 5));
    let logic = |op: &str, bound: u32| {
        let body =
            format!("setp.lt.u32 %p1, %r9, {bound}; barrier.red.{op}.pred %p0, 1, 32, !%p1; selp.u64 %rd0, 1, 0, %p0;");
        run(&body, &[])[0]
    };
    assert_eq!([logic("and", 0), logic("and", 1), logic("or", 31), logic("or", 32)], [1, 0, 1, 0]);
}

#[test]
fn reductions_of_singles() {
    let reduce = |op: &str| {
        let body = format!(
            "cvt.rn.f32.u32 %r1, %r9; sub.f32 %r1, %r1, 0f41A00000; redux.sync.{op}.f32 %r0, %r1, -1; cvt.u64.u32 %rd0, %r0;"
        );
        f32::from_bits(run(&body, &[])[7] as u32)
    };
    // From -20 to 11.
    assert_eq!(["min", "max", "min.abs", "max.abs", "max.NaN"].map(reduce), [-20.0, 11.0, 0.0, 20.0, 11.0]);
    let nan = "mov.b32 %r1, 0f3F800000; setp.eq.u32 %p1, %r9, 3; @%p1 mov.b32 %r1, 0f7FC00000;";
    let bits = |op: &str| run(&format!("{nan} redux.sync.{op}.f32 %r0, %r1, -1; cvt.u64.u32 %rd0, %r0;"), &[])[0];
    assert_eq!([bits("max"), bits("max.NaN")], [0x3f80_0000, 0x7fff_ffff]);
}
