//! How large the KV pool is unless told otherwise.

use llmc_ir::plan::{KV_BLOCK_POSITIONS, Plan};
use std::fs;

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

/// Bytes that the system, and this process's control group, can still give.
fn free_memory() -> Option<u64> {
    let system = fs::read_to_string("/proc/meminfo").ok().and_then(|info| available(&info));
    match (system, free_in_group()) {
        (Some(system), Some(group)) => Some(system.min(group)),
        (system, group) => system.or(group),
    }
}

/// What the control group's limit (version 2) leaves; cached files do not count as used.
fn free_in_group() -> Option<u64> {
    let read = |file: &str| fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok();
    let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
    let cached = read("memory.stat")?.lines().find_map(|line| line.strip_prefix("file ")?.parse::<u64>().ok())?;
    Some(number("memory.max")?.saturating_sub(number("memory.current")?.saturating_sub(cached)))
}

/// `MemAvailable` of /proc/meminfo, in bytes.
fn available(info: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read() {
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        assert_eq!(available("MemTotal: 9 kB\n"), None);
    }
}
