//! Where diverged lanes meet again: the immediate post-dominator of each branch.
//!
//! A warp that splits at a branch runs one side up to the nearest instruction that every path from the branch passes, then the
//! other side, then goes on as one. Lanes that leave the kernel on the way do not keep the others from meeting: an edge to a bare
//! return, or to where nothing but a trap can follow, counts as no path, unless it is the only way out of a loop. The order of blocks in the text plays no part: compilers place a meeting point before, inside
//! or behind the code that leads to it.

use crate::instruction::{Code, Operation};

/// Sets [`Branch::reconverge`](crate::instruction::Branch) of every branch in `code`, whose last instruction has to be an exit.
///
/// A branch none of whose paths meet, or that never leads to an exit, gets the end of the code.
pub(crate) fn set_reconvergence(code: &mut [Code]) {
    let mut blocks = blocks(code);
    forget_early_exits(code, &mut blocks);
    let post_dominators = immediate_post_dominators(&blocks);
    for (block, &dominator) in blocks.iter().zip(&post_dominators) {
        let reconverge = dominator.map_or(code.len(), |at| blocks[at].start);
        if let Operation::Branch(branch) = &mut code[block.end - 1].operation {
            branch.reconverge = reconverge as u32;
        }
    }
}

#[derive(Debug)]
struct Block {
    start: usize,
    end: usize,
    successors: Vec<usize>,
    /// Whether lanes can leave the kernel at its end.
    exits: bool,
}

fn blocks(code: &[Code]) -> Vec<Block> {
    let mut leaders = vec![false; code.len() + 1];
    leaders[0] = true;
    for (at, instruction) in code.iter().enumerate() {
        match instruction.operation {
            Operation::Branch(branch) => {
                leaders[branch.target as usize] = true;
                leaders[at + 1] = true;
            }
            Operation::Exit | Operation::Trap => leaders[at + 1] = true,
            _ => {}
        }
    }
    let starts: Vec<usize> = (0..code.len()).filter(|&at| leaders[at]).collect();
    let block_of = |at: usize| starts.partition_point(|&start| start <= at) - 1;
    starts
        .iter()
        .enumerate()
        .map(|(index, &start)| {
            let end = starts.get(index + 1).copied().unwrap_or(code.len());
            let last = &code[end - 1];
            let mut successors = Vec::new();
            let mut exits = false;
            let falls = match last.operation {
                Operation::Branch(branch) => {
                    successors.push(block_of(branch.target as usize));
                    last.guard.is_some()
                }
                Operation::Exit | Operation::Trap => {
                    exits = true;
                    last.guard.is_some()
                }
                _ => true,
            };
            if falls && end < code.len() {
                let next = block_of(end);
                if !successors.contains(&next) {
                    successors.push(next);
                }
            }
            Block { start, end, successors, exits }
        })
        .collect()
}

/// Removes the edges by which lanes leave early, so that they do not decide where the others meet.
///
/// Restores those without which a loop would have no way out, from the end of the code on.
fn forget_early_exits(code: &[Code], blocks: &mut [Block]) {
    let trapped = trapped(code, blocks);
    let bare: Vec<bool> = blocks
        .iter()
        .map(|block| {
            let first = &code[block.start];
            first.guard.is_none() && matches!(first.operation, Operation::Exit | Operation::Trap)
        })
        .zip(trapped)
        .map(|(leaves, trapped)| leaves || trapped)
        .collect();
    let mut forgotten: Vec<Option<(Vec<usize>, bool)>> = vec![None; blocks.len()];
    for (block, forgotten) in blocks.iter_mut().zip(&mut forgotten) {
        if block.successors.iter().any(|&at| !bare[at]) {
            *forgotten = Some((block.successors.clone(), block.exits));
            block.successors.retain(|&at| !bare[at]);
            block.exits = false;
        }
    }
    loop {
        let reaching = reaching_exit(blocks);
        let stuck = (0..blocks.len()).rev().find(|&at| !reaching[at] && forgotten[at].is_some());
        let Some(at) = stuck else { return };
        if let Some((successors, exits)) = forgotten[at].take() {
            blocks[at].successors = successors;
            blocks[at].exits = exits;
        }
    }
}

/// Which blocks lead to a trap whatever happens, such as those that prepare the call of a failed assertion.
fn trapped(code: &[Code], blocks: &[Block]) -> Vec<bool> {
    let traps = |block: &Block| {
        let last = &code[block.end - 1];
        last.guard.is_none() && matches!(last.operation, Operation::Trap)
    };
    let mut trapped: Vec<bool> = blocks.iter().map(traps).collect();
    let mut changed = true;
    while changed {
        changed = false;
        for at in (0..blocks.len()).rev() {
            let Block { successors, exits, .. } = &blocks[at];
            if !trapped[at] && !exits && !successors.is_empty() && successors.iter().all(|&next| trapped[next]) {
                trapped[at] = true;
                changed = true;
            }
        }
    }
    trapped
}

/// Which blocks have a path to an exit.
fn reaching_exit(blocks: &[Block]) -> Vec<bool> {
    let mut reaching: Vec<bool> = blocks.iter().map(|block| block.exits).collect();
    let mut changed = true;
    while changed {
        changed = false;
        for at in (0..blocks.len()).rev() {
            if !reaching[at] && blocks[at].successors.iter().any(|&successor| reaching[successor]) {
                reaching[at] = true;
                changed = true;
            }
        }
    }
    reaching
}

/// The iterative algorithm of Cooper, Harvey and Kennedy ("A Simple, Fast Dominance Algorithm") on the reversed graph, with a
/// virtual exit that all exiting blocks lead to. `None` stands for that exit and for blocks that never reach it.
fn immediate_post_dominators(blocks: &[Block]) -> Vec<Option<usize>> {
    let exit = blocks.len();
    let mut predecessors = vec![Vec::new(); exit + 1];
    for (at, block) in blocks.iter().enumerate() {
        for &successor in &block.successors {
            predecessors[successor].push(at);
        }
        if block.exits {
            predecessors[exit].push(at);
        }
    }
    let order = post_order(&predecessors, exit);
    let mut number = vec![usize::MAX; exit + 1];
    for (at, &node) in order.iter().enumerate() {
        number[node] = at;
    }
    let mut dominator = vec![usize::MAX; exit + 1];
    dominator[exit] = exit;
    let mut changed = true;
    while changed {
        changed = false;
        for &node in order.iter().rev().filter(|&&node| node != exit) {
            let after = blocks[node].successors.iter().copied().chain(blocks[node].exits.then_some(exit));
            let mut new = usize::MAX;
            for successor in after.filter(|&successor| dominator[successor] != usize::MAX) {
                new = if new == usize::MAX { successor } else { meet(new, successor, &dominator, &number) };
            }
            if dominator[node] != new {
                dominator[node] = new;
                changed = true;
            }
        }
    }
    dominator[..exit].iter().map(|&at| (at < exit).then_some(at)).collect()
}

fn meet(mut a: usize, mut b: usize, dominator: &[usize], number: &[usize]) -> usize {
    while a != b {
        while number[a] < number[b] {
            a = dominator[a];
        }
        while number[b] < number[a] {
            b = dominator[b];
        }
    }
    a
}

fn post_order(edges: &[Vec<usize>], root: usize) -> Vec<usize> {
    let mut order = Vec::new();
    let mut seen = vec![false; edges.len()];
    let mut stack = vec![(root, 0)];
    seen[root] = true;
    while let Some((node, next)) = stack.last_mut() {
        let node = *node;
        if let Some(&successor) = edges[node].get(*next) {
            *next += 1;
            if !seen[successor] {
                seen[successor] = true;
                stack.push((successor, 0));
            }
        } else {
            order.push(node);
            stack.pop();
        }
    }
    order
}
