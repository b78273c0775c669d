//! The arena over a step: which value is where, from the launch that writes it to the last one that reads it.
//!
//! Layers are called many times and look alike each time, so the time axis shows each function once. A value that comes
//! from an earlier call, or stays for a later one, reaches to the border of its function.

use super::report::{Arena, ArenaFunction, Buffer};
use llmc_ir::plan::{Operand, Program};
use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};

/// A value in a step as it runs, calls unrolled.
struct Live {
    /// Call and launch that write it.
    written: (usize, usize),
    /// Call and launch that read it last.
    read: (usize, usize),
    writer: String,
}

/// The arena of a program.
pub fn arena(program: &Program) -> Arena {
    let mut functions: Vec<ArenaFunction> = Vec::new();
    let mut first_launch: BTreeMap<usize, usize> = BTreeMap::new();
    let mut launches = Vec::new();
    for call in &program.calls {
        let function = &program.functions[call.function];
        if let Entry::Vacant(entry) = first_launch.entry(call.function) {
            entry.insert(launches.len());
            functions.push(ArenaFunction {
                name: function.name.clone(),
                calls: program.calls.iter().filter(|other| other.function == call.function).count(),
                first: launches.len(),
                launches: function.launches.len(),
            });
            launches.extend(function.launches.iter().map(|launch| launch.kernel.clone()));
        }
    }
    let mut buffers: BTreeSet<Buffer> = BTreeSet::new();
    for ((offset, bytes), live) in lives(program) {
        let Live { written, read, writer } = live;
        let [from, to] = [written.0, read.0].map(|call| program.calls[call].function);
        let (start, end) = (first_launch[&from] + written.1, first_launch[&to] + read.1);
        let mut show = |first, last| buffers.insert(Buffer { first, last, offset, bytes, writer: writer.clone() });
        if written.0 == read.0 {
            show(start, end);
            continue;
        }
        // It outlives its call: to the end of its function, and in the reader's from the start on.
        show(start, first_launch[&from] + program.functions[from].launches.len() - 1);
        show(first_launch[&to], end);
        for call in written.0 + 1..read.0 {
            let between = program.calls[call].function;
            let first = first_launch[&between];
            show(first, (first + program.functions[between].launches.len()).saturating_sub(1));
        }
    }
    Arena { bytes: program.arena_bytes, functions, launches, buffers: joined(buffers) }
}

/// The values of a step by place, in order of writing.
fn lives(program: &Program) -> Vec<((u64, u64), Live)> {
    let mut done = Vec::new();
    let mut open: BTreeMap<(u64, u64), Live> = BTreeMap::new();
    for (number, call) in program.calls.iter().enumerate() {
        for (position, launch) in program.functions[call.function].launches.iter().enumerate() {
            let now = (number, position);
            for input in &launch.inputs {
                if let Operand::Arena { offset, bytes } = input
                    && let Some(live) = open.get_mut(&(*offset, *bytes))
                {
                    live.read = now;
                }
            }
            for output in &launch.outputs {
                if let Operand::Arena { offset, bytes } = output {
                    let live = Live { written: now, read: now, writer: launch.kernel.clone() };
                    let before = open.insert((*offset, *bytes), live);
                    done.extend(before.map(|live| ((*offset, *bytes), live)));
                }
            }
        }
    }
    done.extend(open);
    done
}

/// One buffer for those of one writer at one place that touch or overlap in time.
fn joined(buffers: BTreeSet<Buffer>) -> Vec<Buffer> {
    let mut by_place: Vec<Buffer> = buffers.into_iter().collect();
    by_place.sort_by(|a, b| (a.offset, a.bytes, &a.writer, a.first).cmp(&(b.offset, b.bytes, &b.writer, b.first)));
    let mut joined: Vec<Buffer> = Vec::new();
    for buffer in by_place {
        match joined.last_mut() {
            Some(last)
                if (last.offset, last.bytes, &last.writer) == (buffer.offset, buffer.bytes, &buffer.writer)
                    && buffer.first <= last.last + 1 =>
            {
                last.last = last.last.max(buffer.last);
            }
            _ => joined.push(buffer),
        }
    }
    joined.sort();
    joined
}
