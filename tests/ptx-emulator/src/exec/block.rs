//! What the warps of a block share while they run: the kernel, the memories, the barriers and the counts.

use super::barrier::Barriers;
use super::shared::SharedMemory;
use crate::counters::Counters;
use crate::memory::Memory;
use crate::module::Kernel;

pub(crate) struct Block<'l> {
    pub kernel: &'l Kernel,
    pub memory: &'l mut Memory,
    pub shared: SharedMemory,
    pub parameters: Vec<u8>,
    pub barriers: Barriers,
    pub counters: Counters,
    /// How often each instruction was issued.
    pub executed: Vec<u64>,
    /// Warp instructions that the launch may still issue.
    pub remaining: u64,
}
