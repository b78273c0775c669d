//! Barriers: a launch waits for those before it if it touches memory that they touch, unless all only read.

use llmc_ir::op::{KvPart, Op};
use llmc_ir::plan::{Launch, Operand, PlannedCall, PlannedFunction};
use llmc_ir::region::Kernel;
use std::collections::BTreeMap;

/// Memory that a launch reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access {
    at: Location,
    writes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Location {
    /// Bytes of the arena, the end excluded.
    Arena { start: u64, end: u64 },
    /// Keys or values of a layer: rows of different parts are different memory.
    Kv { layer: usize, part: KvPart },
    /// The logits.
    Logits,
}

impl Access {
    /// Whether the order of two accesses matters.
    pub fn clashes(&self, other: &Access) -> bool {
        let together = match (self.at, other.at) {
            (Location::Arena { start: a, end: a_end }, Location::Arena { start: b, end: b_end }) => {
                a < b_end && b < a_end
            }
            (a, b) => a == b,
        };
        together && (self.writes || other.writes)
    }
}

/// What a launch of `kernel` touches in a call with that layer of the cache. Weights and step inputs are never
/// written and do not matter.
pub(super) fn accesses(launch: &Launch, kernel: &Kernel, layer: usize) -> Vec<Access> {
    let access = |operand: &Operand, writes| match operand {
        Operand::Arena { offset, bytes } => {
            Some(Access { at: Location::Arena { start: *offset, end: offset.saturating_add(*bytes) }, writes })
        }
        Operand::Logits => Some(Access { at: Location::Logits, writes }),
        Operand::Weight { .. } | Operand::Step { .. } | Operand::Kv => None,
    };
    let mut accesses: Vec<Access> = launch.inputs.iter().filter_map(|operand| access(operand, false)).collect();
    accesses.extend(launch.outputs.iter().filter_map(|operand| access(operand, true)));
    let cache = |part, writes| Access { at: Location::Kv { layer, part }, writes };
    for node in kernel.region.body.topological() {
        match kernel.region.body.op(node) {
            Op::KvWrite { part } => accesses.push(cache(*part, true)),
            Op::Attend(_) => accesses.extend([KvPart::Key, KvPart::Value].map(|part| cache(part, false))),
            _ => {}
        }
    }
    accesses
}

/// Sets `barrier` wherever some call needs it. A barrier that one call needs all calls of the function have, which
/// never makes another one necessary.
pub(super) fn mark(functions: &mut [PlannedFunction], calls: &[PlannedCall], kernels: &[Kernel]) {
    let by_name: BTreeMap<&str, &Kernel> = kernels.iter().map(|kernel| (kernel.name.as_str(), kernel)).collect();
    let mut since: Vec<Access> = Vec::new();
    for call in calls {
        for launch in &mut functions[call.function].launches {
            let touched = accesses(launch, by_name[launch.kernel.as_str()], call.kv_layer);
            launch.barrier |= touched.iter().any(|access| since.iter().any(|before| access.clashes(before)));
            if launch.barrier {
                since.clear();
            }
            since.extend(touched);
        }
    }
}
