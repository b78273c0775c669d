//! Properties of the KV cache under random use.

use super::*;
use proptest::prelude::*;

impl KvCache {
    /// Panics unless ownership counts are those of the given tables and all parts agree.
    pub(crate) fn check<'a>(&self, tables: impl IntoIterator<Item = &'a BlockTable>) {
        self.pool.check();
        self.prefixes.check();
        let mut owners = vec![0; self.pool.len()];
        for table in tables {
            for &block in table.blocks() {
                owners[block as usize] += 1;
            }
        }
        for (block, owners) in owners.into_iter().enumerate() {
            assert_eq!(self.pool.owners(block as u32), owners, "block {block}");
        }
    }
}

const B: usize = KV_BLOCK_POSITIONS;

fn tokens(count: usize, seed: u32) -> Vec<u32> {
    (0..count as u32).map(|i| i * 3 + seed).collect()
}

/// Computes all of `tokens` in a new table.
fn computed(kv: &mut KvCache, tokens: &[u32]) -> BlockTable {
    let mut table = kv.begin(tokens);
    kv.grow(&mut table, tokens.len()).unwrap();
    kv.publish(&mut table, tokens);
    table
}

#[test]
fn a_prompt_reuses_full_blocks_but_computes_a_token() {
    let mut kv = KvCache::new(10);
    let prompt = tokens(2 * B + 5, 0);
    let first = computed(&mut kv, &prompt);
    assert_eq!(kv.reusable(&prompt), (2, 0));
    let second = kv.begin(&prompt);
    assert_eq!(second.blocks(), &first.blocks()[..2]);
    assert_eq!(kv.begin(&prompt[..2 * B]).blocks(), &first.blocks()[..1], "the last token is left to compute");
    kv.check([&first, &second, &BlockTable { blocks: vec![first.blocks()[0]], published: 1, node: 1 }]);
}

#[test]
fn contents_depend_on_what_precedes_them() {
    let mut kv = KvCache::new(10);
    let mut prompt = tokens(3 * B, 0);
    let table = computed(&mut kv, &prompt);
    kv.release(table);
    assert_eq!(kv.available(), 10);
    assert_eq!(kv.reusable(&prompt), (2, 2));
    prompt[0] += 1;
    assert_eq!(kv.reusable(&prompt), (0, 0));
}

#[test]
fn the_least_recently_used_block_goes_first_and_ends_go_before_beginnings() {
    let mut kv = KvCache::new(4);
    let (old, new) = (tokens(2 * B + 1, 1), tokens(B + 1, 2));
    for prompt in [&old, &new] {
        let mut table = kv.begin(prompt);
        kv.grow(&mut table, prompt.len() - 1).unwrap();
        kv.publish(&mut table, &prompt[..prompt.len() - 1]);
        kv.release(table);
    }
    let mut table = kv.begin(&[9]);
    kv.grow(&mut table, 2 * B).unwrap();
    assert_eq!((kv.reusable(&old).0, kv.reusable(&new).0), (1, 1));
    kv.grow(&mut table, 3 * B).unwrap();
    assert_eq!((kv.reusable(&old).0, kv.reusable(&new).0), (0, 1));
    assert_eq!(kv.grow(&mut table, 5 * B), Err(OutOfBlocks { needed: 2, available: 1 }));
    kv.check([&table]);
}

#[test]
fn discarded_blocks_are_not_reused() {
    let mut kv = KvCache::new(8);
    let prompt = tokens(2 * B + 1, 0);
    let first = computed(&mut kv, &prompt);
    let second = kv.begin(&prompt);
    let last = first.blocks()[2];
    assert_eq!(kv.discard(first), [last], "the others are still owned");
    assert_eq!(kv.reusable(&prompt), (0, 0));
    assert_eq!(kv.discard(second).len(), 2);
    assert_eq!((kv.available(), kv.owned()), (8, 0));
    kv.check([]);
}

#[derive(Clone, Debug)]
enum Action {
    Begin { length: usize, family: u32 },
    Compute { table: usize, count: usize },
    Release { table: usize },
    Discard { table: usize },
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => (1..5 * B, 0..3u32).prop_map(|(length, family)| Action::Begin { length, family }),
        6 => (0..8usize, 1..2 * B).prop_map(|(table, count)| Action::Compute { table, count }),
        2 => (0..8usize).prop_map(|table| Action::Release { table }),
        1 => (0..8usize).prop_map(|table| Action::Discard { table }),
    ]
}

proptest! {
    /// Whatever happens: no block is lost or owned twice, and a shared block holds what its new
    /// owner expects (checked against a model of the memory).
    #[test]
    fn nothing_leaks_and_sharing_is_right(blocks in 1..20usize, actions in prop::collection::vec(action(), 1..120)) {
        let mut kv = KvCache::new(blocks);
        // Per block and position: the whole history that the position's key depends on.
        let mut memory: Vec<Vec<Vec<u32>>> = vec![vec![Vec::new(); B]; blocks];
        let mut live: Vec<(Vec<u32>, usize, BlockTable)> = Vec::new();
        for action in actions {
            match action {
                Action::Begin { length, family } => {
                    // Families share long prefixes and differ in places.
                    let sequence: Vec<u32> = (0..length).map(|i| if i % 50 == 49 { family } else { i as u32 % 7 }).collect();
                    let table = kv.begin(&sequence);
                    let reused = table.capacity();
                    prop_assert!(reused < sequence.len());
                    for position in 0..reused {
                        let held = &memory[table.blocks()[position / B] as usize][position % B];
                        prop_assert_eq!(held, &sequence[..=position]);
                    }
                    live.push((sequence, reused, table));
                }
                Action::Compute { table, count } if table < live.len() => {
                    let (sequence, done, table) = &mut live[table];
                    let end = (*done + count).min(sequence.len());
                    let before = kv.available();
                    if kv.grow(table, end).is_err() {
                        prop_assert_eq!(kv.available(), before);
                        continue;
                    }
                    for position in *done..end {
                        memory[table.blocks()[position / B] as usize][position % B] = sequence[..=position].to_vec();
                    }
                    *done = end;
                    kv.publish(table, &sequence[..end]);
                }
                Action::Release { table } if table < live.len() => {
                    let (_, _, table) = live.swap_remove(table);
                    kv.release(table);
                }
                Action::Discard { table } if table < live.len() => {
                    let (_, _, table) = live.swap_remove(table);
                    for block in kv.discard(table) {
                        memory[block as usize].fill(Vec::new());
                    }
                }
                _ => {}
            }
            kv.check(live.iter().map(|(_, _, table)| table));
        }
        for (_, _, table) in live {
            kv.release(table);
        }
        prop_assert_eq!(kv.owned(), 0);
        kv.check([]);
    }
}
