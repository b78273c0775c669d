//! Rows of elementwise work and reductions: the whole of a rows region, and the epilogue of a dot region.

use super::expression::{Scope, breakpoints, combine, round, tensor};
use super::index::Index;
use super::kv::{self, RowPlace};
use super::math::{floats, maximum_lanes, sum_lanes};
use super::memory::{load_index, store};
use super::text::{F32, FunctionText, Value, float_of, int};
use crate::kernel::common_divisor;
use crate::kernel::domain::Domain;
use crate::kernel::dot::ComputedRows;
use llmc_ir::dim::Dim;
use llmc_ir::graph::NodeId;
use llmc_ir::op::{KvPart, Op, ReduceOp};
use llmc_ir::plan::KvLayout;
use llmc_ir::region::{Kernel, Part};
use llmc_ir::shape::Shape;
use std::collections::{BTreeMap, BTreeSet};

/// Lanes of the vectors that a CPU processes rows in.
pub const LANES: usize = 16;

/// Which columns to produce.
#[derive(Clone, Debug)]
pub enum Columns {
    /// Groups `start..end`, each whole. Without groups there is one: all columns.
    Groups(Value, Value),
    /// Columns `start..end` of a region without groups, `start` being a multiple of the lanes.
    Span(Value, Value),
}

/// Where the outputs of a region's part go.
#[derive(Clone, Debug)]
pub struct Outputs<'a> {
    /// Nodes of the body.
    pub nodes: Vec<NodeId>,
    /// Their addresses; of a KV cache, its layer's part of block 0.
    pub addresses: Vec<Value>,
    /// The row that lies at the address; `None`: the step's first.
    pub first_row: Option<Value>,
    /// What they are computed from.
    pub within: &'a BTreeSet<NodeId>,
    /// The layout of the KV cache.
    pub kv: &'a KvLayout,
    /// Address of the step's slot mapping.
    pub slots: &'a Value,
}

impl<'a> Outputs<'a> {
    /// The outputs of a part of a kernel's region.
    pub fn of(kernel: &Kernel, part: &'a Part, addresses: &[Value], kv: &'a KvLayout, slots: &'a Value) -> Outputs<'a> {
        Outputs {
            nodes: part.outputs.iter().map(|&output| kernel.region.outputs[output]).collect(),
            addresses: part.outputs.iter().map(|&output| addresses[output].clone()).collect(),
            first_row: None,
            within: &part.nodes,
            kv,
            slots,
        }
    }

    /// Rows that are multiplied next, the one of number `first_row` at an address.
    pub fn of_computed(
        computed: &'a ComputedRows,
        address: &Value,
        first_row: &Value,
        kv: &'a KvLayout,
        slots: &'a Value,
    ) -> Outputs<'a> {
        Outputs {
            nodes: vec![computed.node],
            addresses: vec![address.clone()],
            first_row: Some(first_row.clone()),
            within: &computed.part.nodes,
            kv,
            slots,
        }
    }
}

/// How a row's columns are dealt out.
pub trait Team {
    /// Lanes of the vectors that a member takes.
    fn lanes(&self) -> usize;
    /// This member's number, and how many there are; `None`: it is alone.
    fn member(&self) -> Option<(Value, usize)>;
    /// Combines a value of every member; all receive the same bits.
    fn combine(&self, f: &mut FunctionText, op: ReduceOp, value: Value) -> Value;
}

/// A CPU's thread, to which a row belongs alone.
pub struct Alone;

impl Team for Alone {
    fn lanes(&self) -> usize {
        LANES
    }

    fn member(&self) -> Option<(Value, usize)> {
        None
    }

    fn combine(&self, _: &mut FunctionText, _: ReduceOp, value: Value) -> Value {
        value
    }
}

/// Computes the outputs for rows `rows.0..rows.1`.
pub fn emit_rows(
    f: &mut FunctionText,
    scope: &mut Scope<'_>,
    domain: &Domain,
    outputs: &Outputs<'_>,
    rows: (&Value, &Value),
    columns: &Columns,
) -> Result<(), String> {
    let mut result = Ok(());
    f.for_each(rows.0, rows.1, 1, |f, row| {
        let (start, end) = match columns {
            Columns::Groups(start, end) => (start.clone(), end.clone()),
            Columns::Span(..) => (int(0), int(1)),
        };
        f.for_each(&start, &end, 1, |f, group| {
            let position = Position { domain, row, group, columns, team: &Alone };
            result = emit_group(f, scope, outputs, &position);
        });
    });
    result
}

/// One row and group while code is written.
pub struct Position<'a> {
    /// What rows there are.
    pub domain: &'a Domain,
    /// The row.
    pub row: &'a Value,
    /// The group in it; 0 without groups.
    pub group: &'a Value,
    /// Which columns of it.
    pub columns: &'a Columns,
    /// Who takes part.
    pub team: &'a dyn Team,
}

impl Position<'_> {
    /// Indices of a node of this shape whose last axis is at `last`. An axis of one element has no other place.
    fn at(&self, f: &mut FunctionText, shape: &Shape, last: &Index) -> Vec<Index> {
        let row = Index::Scalar(self.row.clone());
        let in_row = match (shape.rank(), self.domain.inner) {
            (0 | 1, _) => vec![],
            (3, _) => vec![Index::Scalar(self.group.clone()), last.clone()],
            (_, Some(size)) if self.domain.groups > 1 => vec![last.in_group(f, self.group, size)],
            _ => vec![last.clone()],
        };
        let single = |axis: usize| shape.0[axis] == Dim::fixed(1);
        let placed = in_row.into_iter().enumerate();
        let in_row = placed.map(|(axis, index)| if single(axis + 1) { Index::zero() } else { index });
        std::iter::once(row).take(shape.rank()).chain(in_row).collect()
    }
}

/// Computes the outputs in one row and group.
pub fn emit_group(
    f: &mut FunctionText,
    scope: &mut Scope<'_>,
    outputs: &Outputs<'_>,
    position: &Position<'_>,
) -> Result<(), String> {
    scope.reduced.clear();
    for node in scope.body.topological().into_iter().filter(|node| outputs.within.contains(node)) {
        if let Op::Reduce { op, axis } = scope.body.op(node) {
            let (op, axis) = (*op, *axis);
            let value = emit_reduce(f, scope, position, node, op, axis)?;
            scope.reduced.insert(node, value);
        }
    }
    // Outputs of one width share a loop, so that what they have in common is computed once.
    let mut by_width: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (output, &node) in outputs.nodes.iter().enumerate() {
        by_width.entry(width(scope, position.domain, value_of(scope, node))?).or_default().push(output);
    }
    for (width, members) in by_width {
        let mut cuts: Vec<usize> = members
            .iter()
            .flat_map(|&output| breakpoints(scope.body, value_of(scope, outputs.nodes[output]), 0, width))
            .collect();
        cuts.sort_unstable();
        cuts.dedup();
        for piece in cuts.windows(2) {
            emit_piece(f, scope, position, (piece[0], piece[1]), |f, scope, last| {
                for &output in &members {
                    emit_output(f, scope, outputs, position, output, last.clone())?;
                }
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// The tensor that an output stores: what a kv_write writes, or the node itself.
fn value_of(scope: &Scope<'_>, node: NodeId) -> NodeId {
    match scope.body.op(node) {
        Op::KvWrite { .. } => scope.body.operands(node)[1],
        _ => node,
    }
}

/// Columns per group of a node.
fn width(scope: &Scope<'_>, domain: &Domain, node: NodeId) -> Result<usize, String> {
    let shape = &tensor(scope.body, node)?.shape;
    let fixed =
        |axis: usize| shape.0[axis].as_fixed().ok_or_else(|| format!("axis {axis} of {shape} has no fixed size"));
    match (shape.rank(), domain.inner) {
        (0 | 1, _) => Ok(1),
        (2, None) => fixed(1),
        (2, Some(_)) if fixed(1)? == 1 => Ok(1),
        (2, Some(inner)) if fixed(1)? == domain.groups * inner => Ok(inner),
        (3, _) if fixed(1)? == domain.groups => fixed(2),
        _ => Err(format!("{shape} does not fit rows of {} groups of {:?}", domain.groups, domain.inner)),
    }
}

/// A loop over `piece` of the columns: vectors first, single elements for the rest; single elements only where the
/// body cannot be written for vectors.
fn emit_piece(
    f: &mut FunctionText,
    scope: &mut Scope<'_>,
    position: &Position<'_>,
    (low, high): (usize, usize),
    mut body: impl FnMut(&mut FunctionText, &mut Scope<'_>, &Index) -> Result<(), String>,
) -> Result<(), String> {
    let team = position.team;
    let widest = team.lanes();
    // What first lanes of vectors are multiples of; a span starts at a multiple of the lanes.
    let (start, middle, end, align) = match position.columns {
        Columns::Groups(..) => {
            let whole = (high - low) / widest * widest;
            let align = common_divisor(low, widest);
            (int(low as i64), int((low + whole) as i64), int(high as i64), align)
        }
        Columns::Span(start, end) => {
            let count = f.binary("sub nsw", end, start);
            let whole = f.binary("and", &count, &int(-(widest as i64)));
            (start.clone(), f.add(start, &whole), end.clone(), widest)
        }
    };
    let mut run =
        |f: &mut FunctionText, scope: &mut Scope<'_>, (from, to): (&Value, &Value), lanes: usize, known: bool| {
            let mut result = Ok(());
            if from == to {
                return result;
            }
            let (from, step) = own_share(f, team, from, lanes);
            f.for_each(&from, to, step, |f, column| {
                scope.lanes = lanes;
                scope.known.clear();
                let at = match known {
                    true => {
                        let align = if lanes == 1 { 1 } else { align };
                        Index::Lanes { base: column.clone(), low, high, align }
                    }
                    false => Index::Scalar(column.clone()),
                };
                result = body(f, scope, &at);
            });
            result
        };
    let vectors = f.attempt(|f| {
        run(f, scope, (&start, &middle), widest, true)?;
        run(f, scope, (&middle, &end), 1, true)
    });
    let result = vectors.or_else(|_| run(f, scope, (&start, &end), 1, false));
    scope.known.clear();
    result
}

/// Where a member of a team starts when vectors of `lanes` are dealt out from `from` on, and how far its next one is.
fn own_share(f: &mut FunctionText, team: &dyn Team, from: &Value, lanes: usize) -> (Value, i64) {
    let Some((member, members)) = team.member() else { return (from.clone(), lanes as i64) };
    let skipped = f.scale(&member, lanes as i64);
    (f.add(from, &skipped), (lanes * members) as i64)
}

fn emit_reduce(
    f: &mut FunctionText,
    scope: &mut Scope<'_>,
    position: &Position<'_>,
    node: NodeId,
    op: ReduceOp,
    axis: usize,
) -> Result<Value, String> {
    let operand = scope.body.operands(node)[0];
    let ty = tensor(scope.body, operand)?.clone();
    let rank = ty.shape.rank();
    let grouped = position.domain.inner.is_some();
    if axis + 1 != rank || rank != if grouped { 3 } else { 2 } || matches!(position.columns, Columns::Span(..)) {
        return Err(format!("a reduction of axis {axis} of {ty} does not fit the region's rows"));
    }
    let width = width(scope, position.domain, operand)?;
    let start = match op {
        ReduceOp::Sum => 0.0,
        ReduceOp::Max => f64::NEG_INFINITY,
    };
    let team = position.team;
    let widest = team.lanes();
    let run = |f: &mut FunctionText,
               scope: &mut Scope<'_>,
               (from, to): (usize, usize),
               lanes: usize,
               known: bool,
               first: Value| {
        let mut result = Ok(());
        let (start, step) = own_share(f, team, &int(from as i64), lanes);
        let sums = f.fold(&start, &int(to as i64), step, &[first], |f, column, sums| {
            scope.lanes = lanes;
            scope.known.clear();
            let last = match known {
                true => Index::Lanes { base: column.clone(), low: 0, high: width, align: lanes },
                false => Index::Scalar(column.clone()),
            };
            let at = position.at(f, &ty.shape, &last);
            match scope.evaluate_lanes(f, operand, &at) {
                Ok(value) => vec![combine(f, op, &sums[0], &value)],
                Err(error) => {
                    result = Err(error);
                    sums.to_vec()
                }
            }
        });
        result.map(|()| sums[0].clone())
    };
    let whole = width / widest * widest;
    let single = float_of(F32, start);
    let vectors = f.attempt(|f| {
        let mut total = single.clone();
        if whole > 0 {
            let vector = run(f, scope, (0, whole), widest, true, float_of(floats(widest), start))?;
            total = match op {
                ReduceOp::Sum => sum_lanes(f, &vector),
                ReduceOp::Max => maximum_lanes(f, &vector),
            };
        }
        if whole < width { run(f, scope, (whole, width), 1, true, total) } else { Ok(total) }
    });
    let total = match vectors {
        Ok(total) => total,
        // As in `emit_piece`.
        Err(_) => run(f, scope, (0, width), 1, false, single)?,
    };
    scope.known.clear();
    let total = team.combine(f, op, total);
    Ok(round(f, ty.dtype, total))
}

fn emit_output(
    f: &mut FunctionText,
    scope: &mut Scope<'_>,
    outputs: &Outputs<'_>,
    position: &Position<'_>,
    output: usize,
    last: Index,
) -> Result<(), String> {
    let node = outputs.nodes[output];
    let stored = value_of(scope, node);
    let ty = tensor(scope.body, stored)?.clone();
    let at = position.at(f, &ty.shape, &last);
    let value = scope.evaluate_lanes(f, stored, &at)?;
    match scope.body.op(node) {
        Op::KvWrite { part } => {
            let part: KvPart = *part;
            let slot = load_index(f, outputs.slots, position.row);
            let place = match position.domain.inner {
                Some(size) if (position.domain.groups, size) == (outputs.kv.heads, outputs.kv.head_dim) => {
                    RowPlace { head: Some(position.group.clone()), first: last.first(f), align: last.align() }
                }
                _ => RowPlace { head: None, first: at[1].first(f), align: at[1].align() },
            };
            kv::store(f, (outputs.kv, part), &outputs.addresses[output], &slot, &place, &value);
            Ok(())
        }
        _ => {
            let mut at = at;
            if let Some(first) = &outputs.first_row {
                at[0] = Index::Scalar(f.binary("sub nsw", position.row, first));
            }
            store(f, &value, &outputs.addresses[output], &ty, &at)
        }
    }
}
