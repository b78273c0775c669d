//! Races in shared memory, also those with copies in flight; and the orders that are none.

use crate::{fault, sound};
use llmc_ptx_emulator::FaultKind;

/// Whether the kernel races.
fn races(threads: u32, body: &str) -> bool {
    matches!(fault(threads, body).kind, FaultKind::SharedRace { .. })
}

/// Warp 1, which runs after warp 0, reads the words of warp 0.
const READ_OTHER: &str = "mov.u32 %r3, 0; setp.ge.u32 %p8, %t, 32; @%p8 ld.shared.u32 %r3, [%own+-128];";

#[test]
fn reads_and_writes_need_a_barrier_between() {
    let exchange = format!("st.shared.u32 [%own], %t; bar.sync 0; {READ_OTHER} bar.sync 0; st.shared.u32 [%own], %r3;");
    sound(64, &exchange);
    assert!(races(64, &exchange.replacen("bar.sync 0;", "", 1)));
    let last = exchange.rfind("bar.sync 0;").unwrap();
    assert!(races(64, &format!("{}{}", &exchange[..last], &exchange[last + 11..])));
    let detail = fault(64, &format!("st.shared.u32 [%own], %t;\n{READ_OTHER}")).to_string();
    assert!(
        detail.contains("warp 1, lane 0: shared-memory race at 0x0: warp 1 reads what warp 0 wrote (PTX line 8)"),
        "{detail}"
    );
}

#[test]
fn writes_of_different_values_race_and_of_equal_ones_do_not() {
    assert!(races(64, "st.shared.u32 [tile], %t;"));
    assert!(races(32, "st.shared.u32 [tile], %t;"));
    assert!(races(64, "mov.u32 %r1, %warpid; st.shared.u32 [tile], %r1;"));
    sound(64, "st.shared.u32 [tile], 7; bar.sync 0; ld.shared.u32 %r1, [tile];");
    // Within a warp the program's order holds.
    sound(32, "st.shared.u32 [%own], %t; xor.b32 %r1, %t, 1; mad.lo.u32 %r2, %r1, 4, %tile; ld.shared.u32 %r3, [%r2];");
}

#[test]
fn neighbouring_bytes_are_apart() {
    sound(
        64,
        "cvt.u16.u32 %h1, %t; add.u32 %r1, %tile, %t; st.shared.u8 [%r1], %h1; bar.sync 0; ld.shared.u32 %r2, [tile+60];",
    );
    // Warps write alternating halves of words.
    let halves = "and.b32 %r1, %t, 31; shl.b32 %r1, %r1, 2; shr.u32 %r2, %t, 5; mad.lo.u32 %r1, %r2, 2, %r1; add.u32 %r1, %r1, %tile;
        cvt.u16.u32 %h1, %t; st.shared.u16 [%r1], %h1; bar.sync 0; setp.ge.u32 %p8, %t, 32; @%p8 ld.shared.u32 %r3, [%tile];";
    sound(64, halves);
    assert!(races(64, &halves.replace("bar.sync 0;", "")));
}

#[test]
fn a_barrier_of_others_orders_nothing() {
    // Warps 0 and 1 meet; warp 2 reads without meeting anybody.
    let body = "setp.ge.u32 %p1, %t, 64; @%p1 bra READ; st.shared.u32 [%own], %t; bar.sync 1, 64; bra END;
        READ: ld.shared.u32 %r1, [tile]; END:";
    let kind = fault(96, body).kind;
    assert!(matches!(kind, FaultKind::SharedRace { .. }), "{kind}");
    // Order is handed on: 0 meets 1, then 1 meets 2.
    let chain = "shr.u32 %r5, %t, 5; setp.eq.u32 %p0, %r5, 0; setp.eq.u32 %p2, %r5, 2; @%p2 bra TWO; @%p0 st.shared.u32 [%own], %t;
        bar.sync 1, 64; @%p0 bra END; bar.sync 2, 64; bra END; TWO: bar.sync 2, 64; ld.shared.u32 %r1, [tile]; END:";
    sound(96, chain);
    // An arrival hands on what came before it, not what comes after.
    let arrive = "setp.lt.u32 %p1, %t, 32; @!%p1 bra READ; FIRST bar.arrive 1, 64; THEN bra END;
        READ: bar.sync 1, 64; ld.shared.u32 %r1, [%own+-128]; END:";
    let store = "st.shared.u32 [%own], %t;";
    sound(64, &arrive.replace("FIRST", store).replace("THEN", ""));
    assert!(races(64, &arrive.replace("FIRST", "").replace("THEN", store)));
}

#[test]
fn atomics_race_with_plain_accesses_only() {
    let init = "setp.eq.u32 %p1, %t, 0; @%p1 st.shared.u32 [tile], 0; bar.sync 0;";
    sound(64, &format!("{init} red.shared.add.u32 [tile], 1; bar.sync 0; ld.shared.u32 %r1, [tile];"));
    assert!(races(64, &format!("{init} red.shared.add.u32 [tile], 1; ld.shared.u32 %r1, [tile];")));
    assert!(races(64, &init.replace("bar.sync 0;", "red.shared.add.u32 [tile], 1;")));
}

const COPY: &str = "cp.async.ca.shared.global [%own], [%rd2], 4; cp.async.commit_group;";

#[test]
fn copies_in_flight_are_not_touched() {
    let in_flight = |threads, body: &str| matches!(fault(threads, body).kind, FaultKind::InFlight { .. });
    let wait = "cp.async.wait_group 0;";
    sound(64, &format!("{COPY} {wait} bar.sync 0; {READ_OTHER}"));
    // No wait: neither the own warp nor, after a barrier, another one may read.
    assert!(in_flight(32, &format!("{COPY} ld.shared.u32 %r1, [%own];")));
    assert!(in_flight(64, &format!("{COPY} bar.sync 0; {READ_OTHER}")));
    // The wait leaves the latest group in flight.
    assert!(in_flight(32, &format!("{COPY} cp.async.wait_group 1; ld.shared.u32 %r1, [%own];")));
    // Not committed: no wait_group covers it, wait_all does.
    assert!(in_flight(
        32,
        &format!("{} {wait} ld.shared.u32 %r1, [%own];", &COPY[..COPY.find(" cp.async.commit").unwrap()])
    ));
    sound(32, &format!("{COPY} cp.async.wait_all; ld.shared.u32 %r1, [%own];"));
    // A wait is for the waiting warp only.
    assert!(races(64, &format!("{COPY} {wait} {READ_OTHER}")));
    // Writes over a copy in flight, plain or by another copy.
    assert!(in_flight(32, &format!("{COPY} st.shared.u32 [%own], 1;")));
    assert!(in_flight(32, &format!("{COPY} {COPY} {wait}")));
    sound(32, &format!("{COPY} {wait} {COPY} {wait} ld.shared.u32 %r1, [%own];"));
}

#[test]
fn a_copy_over_what_another_warp_still_reads() {
    let body = format!(
        "st.shared.u32 [%own], %t; bar.sync 0; {READ_OTHER} bar.sync 0; {COPY} cp.async.wait_group 0; ld.shared.u32 %r1, [%own];"
    );
    sound(64, &body);
    let last = body.rfind("bar.sync 0;").unwrap();
    assert!(races(64, &format!("{}{}", &body[..last], &body[last + 11..])));
}
