//! How large the KV pool is unless told otherwise.

use llmc_ir::plan::{KV_BLOCK_POSITIONS, Plan};
use llmc_limits::free_memory;

/// The part of the free memory that the pool may take: half, as one over this.
const SHARE_OF_FREE_MEMORY: u64 = 2;

/// The most blocks that a pool can have: slots are 32-bit.
pub(super) const MAX_KV_BLOCKS: usize = i32::MAX as usize / KV_BLOCK_POSITIONS;

/// Blocks for `max_batch` sequences of `max_context` positions, or as many as fit into half of the
/// memory that is free. The memory is taken only as sequences grow.
pub fn default_kv_blocks(plan: &Plan) -> usize {
    default_kv_blocks_within(plan, free_memory().map_or(u64::MAX, |bytes| bytes / SHARE_OF_FREE_MEMORY))
}

/// Blocks for `max_batch` sequences of `max_context` positions, or as many as fit into so many bytes.
pub fn default_kv_blocks_within(plan: &Plan, bytes: u64) -> usize {
    let per_sequence = plan.model.max_context.div_ceil(KV_BLOCK_POSITIONS);
    let wanted = plan.model.max_batch.saturating_mul(per_sequence);
    let fitting = bytes / (plan.kv.block_bytes() as u64).max(1);
    wanted.min(usize::try_from(fitting).unwrap_or(usize::MAX)).min(MAX_KV_BLOCKS)
}
