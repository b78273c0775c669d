//! Items that threads deal out among themselves: each begins with a share of its own, in ascending order, and who is done takes
//! from the ends of others' shares. No two cores are equally fast at any moment, and between two barriers all wait for the
//! slowest.
//!
//! A share has a counter in its thread's working memory: which call of the step it counts for, how many items its own thread
//! has taken, and how many others have. So no counter is set back between two launches: one that counts for an earlier call
//! counts for nothing. A step begins with counters of no call.

use super::KernelParams;
use super::step_args::{integer, share};
use super::text::{FunctionText, I64, Value, int};
use llmc_ir::abi::StepArgs;
use std::mem::offset_of;

/// Bytes of a counter, with what CPUs fetch along with it.
pub const COUNTER_BYTES: usize = 128;

/// Items that can be dealt out, at most.
pub const MOST_ITEMS: usize = (1 << BITS) - 1;

/// Bits of a number of items. In a counter the own thread's is behind the others', and the call's number is behind both.
const BITS: i64 = 16;

/// Threads that a thread helps at most, the next ones: looking into a counter takes as long as some memory.
const HELPED: i64 = 3;

/// Visits `count` items together with the other threads, each by one of them.
pub fn for_each(
    f: &mut FunctionText,
    params: &KernelParams,
    count: &Value,
    body: impl FnOnce(&mut FunctionText, &Value),
) {
    let stride = integer(f, &params.args, offset_of!(StepArgs, scratch_stride));
    let most = f.min(&params.threads, &int(HELPED + 1));
    f.repeat(&[params.thread.clone(), int(0)], |f, state| {
        let [thread, others] = [&state[0], &state[1]];
        let (start, end) = share(f, count, thread, &params.threads);
        let length = f.binary("sub nsw", &end, &start);
        let before = f.binary("mul nsw", thread, &stride);
        let counter = f.offset(&params.counters, &before);
        let is_own = f.compare("icmp eq", others, &int(0));
        let item = take(f, &counter, &params.call, &length, &is_own);
        let exists = f.compare("icmp sge", &item, &int(0));
        f.when(&exists, |f| {
            let item = f.add(&start, &item);
            body(f, &item);
        });
        let next = f.add(thread, &int(1));
        let is_behind = f.compare("icmp eq", &next, &params.threads);
        let next = f.select(&is_behind, &int(0), &next);
        let more = f.add(others, &int(1));
        let state = [(thread, &next), (others, &more)].map(|(same, next)| f.select(&exists, same, next));
        let again = f.compare("icmp slt", &state[1], &most);
        (state.into(), again)
    });
}

/// Takes an item of a share of `length`, or -1 if there is none: its own thread the first, another one the last.
fn take(f: &mut FunctionText, counter: &Value, call: &Value, length: &Value, is_own: &Value) -> Value {
    let seen = f.load_shared(counter);
    let none = int((1 << BITS) - 1);
    let one = f.select(is_own, &int(1 << BITS), &int(1));
    let of_call = f.binary("shl", call, &int(2 * BITS));
    let taken = f.repeat(&[seen, int(0)], |f, state| {
        let seen = &state[0];
        let its_call = f.binary("lshr", seen, &int(2 * BITS));
        let counts = f.compare("icmp eq", &its_call, call);
        let seen_counts = f.select(&counts, seen, &of_call);
        let by_others = f.binary("and", &seen_counts, &none);
        let by_own = f.binary("lshr", &seen_counts, &int(BITS));
        let by_own = f.binary("and", &by_own, &none);
        let left = f.binary("sub nsw", length, &by_others);
        let exists = f.compare("icmp slt", &by_own, &left);
        let last = f.add(&left, &int(-1));
        let item = f.select(is_own, &by_own, &last);
        let item = f.select(&exists, &item, &int(-1));
        let next = f.binary("add", &seen_counts, &one);
        // One that is used up is only looked at.
        let outcome = f.choose(
            &exists,
            |f| {
                let [seen, is_done] = f.replace_shared(counter, seen, &next);
                vec![seen, f.cast("zext", &is_done, I64)]
            },
            |_| vec![seen.clone(), int(1)],
        );
        let again = f.compare("icmp eq", &outcome[1], &int(0));
        (vec![outcome[0].clone(), item], again)
    });
    taken[1].clone()
}
