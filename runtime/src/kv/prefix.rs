//! What full blocks hold, as a tree: a block's content is its tokens after those of its parent.
//!
//! Contents are looked up by value, parent and tokens, so that no hash needs to be trusted.
//! Numbers of nodes are never used twice, so a child whose parent was forgotten is never found.

use llmc_ir::plan::KV_BLOCK_POSITIONS;
use std::collections::HashMap;

/// The tokens of a full block.
pub(super) type BlockTokens = [u32; KV_BLOCK_POSITIONS];

/// A prefix of full blocks that was published once.
pub(super) type NodeId = u64;

/// The empty prefix.
pub(super) const ROOT: NodeId = 0;

/// What a full block holds: it depends on all tokens up to its last.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Content {
    pub parent: NodeId,
    pub tokens: BlockTokens,
}

/// Published blocks by content. The map is only ever asked for single entries.
#[derive(Debug)]
pub(super) struct Prefixes {
    nodes: HashMap<Content, (u32, NodeId)>,
    /// What each block was published as.
    contents: Vec<Option<Content>>,
    last_node: NodeId,
}

impl Prefixes {
    pub fn new(blocks: usize) -> Prefixes {
        Prefixes { nodes: HashMap::new(), contents: vec![None; blocks], last_node: ROOT }
    }

    /// The block that holds this, and its node.
    pub fn find(&self, content: &Content) -> Option<(u32, NodeId)> {
        self.nodes.get(content).copied()
    }

    /// Publishes a block. If another block holds the same already, this one remains private.
    /// Returns the content's node.
    pub fn publish(&mut self, block: u32, content: Content) -> NodeId {
        if let Some((_, node)) = self.find(&content) {
            return node;
        }
        self.last_node += 1;
        self.nodes.insert(content.clone(), (block, self.last_node));
        self.contents[block as usize] = Some(content);
        self.last_node
    }

    pub fn is_published(&self, block: u32) -> bool {
        self.contents[block as usize].is_some()
    }

    /// Makes a block private again: its memory will hold something else.
    pub fn forget(&mut self, block: u32) {
        if let Some(content) = self.contents[block as usize].take() {
            self.nodes.remove(&content);
        }
    }

    /// Panics unless nodes and contents mirror each other.
    #[cfg(test)]
    pub fn check(&self) {
        let published = self.contents.iter().flatten().count();
        assert_eq!(published, self.nodes.len());
        for (block, content) in self.contents.iter().enumerate() {
            if let Some(content) = content {
                assert_eq!(self.nodes[content].0 as usize, block);
            }
        }
    }
}
