//! Who owns which block of the KV pool: block tables, shared prefixes, reuse. Pure bookkeeping.
//!
//! A sequence's positions live in blocks of [`KV_BLOCK_POSITIONS`]. A full block never changes, so
//! it is *published* under the tokens it holds and everything before them; a later prompt that
//! begins the same way shares it. When the last owner lets go, a published block stays reusable
//! until its memory is needed, least recently used first.

mod pool;
mod prefix;

use llmc_ir::plan::KV_BLOCK_POSITIONS;
use pool::Pool;
use prefix::{BlockTokens, Content, NodeId, Prefixes, ROOT};
use thiserror::Error;

/// No block is free and none is reusable: a sequence must give up its own first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the KV cache is full: {needed} blocks are needed, {available} are available")]
pub struct OutOfBlocks {
    /// Blocks that were asked for.
    pub needed: usize,
    /// Blocks that could be had.
    pub available: usize,
}

/// The blocks of one sequence. It must go back through [`KvCache::release`] or
/// [`KvCache::discard`].
#[derive(Debug, PartialEq, Eq)]
pub struct BlockTable {
    blocks: Vec<u32>,
    /// How many of the leading blocks have been published or met their like.
    published: usize,
    /// What the next block's content follows.
    node: NodeId,
}

impl BlockTable {
    /// The pool's block for each [`KV_BLOCK_POSITIONS`] positions.
    pub fn blocks(&self) -> &[u32] {
        &self.blocks
    }

    /// Positions that the blocks have room for.
    pub fn capacity(&self) -> usize {
        self.blocks.len() * KV_BLOCK_POSITIONS
    }
}

/// All blocks of a pool.
#[derive(Debug)]
pub struct KvCache {
    pool: Pool,
    prefixes: Prefixes,
}

impl KvCache {
    /// A pool of so many free blocks.
    pub fn new(blocks: usize) -> KvCache {
        KvCache { pool: Pool::new(blocks), prefixes: Prefixes::new(blocks) }
    }

    /// Blocks that [`KvCache::grow`] can hand out: free ones and reusable ones.
    pub fn available(&self) -> usize {
        self.pool.available()
    }

    /// Blocks that sequences own.
    pub fn owned(&self) -> usize {
        self.pool.len() - self.pool.available()
    }

    /// Blocks of `tokens` that [`KvCache::begin`] would share, and how many of those nobody owns
    /// at present (taking them lowers [`KvCache::available`]).
    pub fn reusable(&self, tokens: &[u32]) -> (usize, usize) {
        let blocks: Vec<u32> = self.matching(tokens).map(|(block, _)| block).collect();
        let unowned = blocks.iter().filter(|&&block| self.pool.owners(block) == 0).count();
        (blocks.len(), unowned)
    }

    /// A table for a sequence that begins with `tokens`: it shares the longest published prefix of
    /// full blocks, but leaves at least one token to compute.
    pub fn begin(&mut self, tokens: &[u32]) -> BlockTable {
        let matching: Vec<(u32, NodeId)> = self.matching(tokens).collect();
        for &(block, _) in &matching {
            self.pool.share(block);
        }
        BlockTable {
            published: matching.len(),
            node: matching.last().map_or(ROOT, |&(_, node)| node),
            blocks: matching.into_iter().map(|(block, _)| block).collect(),
        }
    }

    /// Adds blocks until there is room for `positions`. Does all or nothing.
    ///
    /// # Errors
    /// If too few blocks are available.
    pub fn grow(&mut self, table: &mut BlockTable, positions: usize) -> Result<(), OutOfBlocks> {
        let needed = positions.div_ceil(KV_BLOCK_POSITIONS).saturating_sub(table.blocks.len());
        let available = self.available();
        if needed > available {
            return Err(OutOfBlocks { needed, available });
        }
        for _ in 0..needed {
            let block = self.pool.take();
            self.prefixes.forget(block);
            table.blocks.push(block);
        }
        Ok(())
    }

    /// Publishes the blocks that are full now. `computed` are all tokens of the sequence whose keys
    /// and values are in its blocks.
    pub fn publish(&mut self, table: &mut BlockTable, computed: &[u32]) {
        let full = (computed.len() / KV_BLOCK_POSITIONS).min(table.blocks.len());
        for index in table.published..full {
            let tokens = block_tokens(computed, index);
            table.node = self.prefixes.publish(table.blocks[index], Content { parent: table.node, tokens });
        }
        table.published = table.published.max(full);
    }

    /// Takes a sequence's blocks back. Published ones stay reusable.
    pub fn release(&mut self, table: BlockTable) {
        // The last block first, so that the beginning of a prefix outlives its end.
        for &block in table.blocks.iter().rev() {
            match self.prefixes.is_published(block) {
                true => self.pool.release_reusable(block),
                false => self.pool.release(block),
            }
        }
    }

    /// Takes back the blocks of a sequence that went wrong: none of them is reused. Returns the
    /// blocks that nobody owns now, whose contents must be wiped before they are handed out.
    pub fn discard(&mut self, table: BlockTable) -> Vec<u32> {
        for &block in &table.blocks {
            self.prefixes.forget(block);
            self.pool.release(block);
        }
        table.blocks.into_iter().filter(|&block| self.pool.owners(block) == 0).collect()
    }

    /// Published blocks that continue each other and hold a beginning of `tokens`, the last token
    /// excepted.
    fn matching(&self, tokens: &[u32]) -> impl Iterator<Item = (u32, NodeId)> {
        let full = tokens.len().saturating_sub(1) / KV_BLOCK_POSITIONS;
        let mut parent = ROOT;
        (0..full).map_while(move |index| {
            let found = self.prefixes.find(&Content { parent, tokens: block_tokens(tokens, index) })?;
            parent = found.1;
            Some(found)
        })
    }
}

/// The tokens of block `index`, which must be full.
fn block_tokens(tokens: &[u32], index: usize) -> BlockTokens {
    let mut block = [0; KV_BLOCK_POSITIONS];
    block.copy_from_slice(&tokens[index * KV_BLOCK_POSITIONS..][..KV_BLOCK_POSITIONS]);
    block
}

#[cfg(test)]
mod tests;
