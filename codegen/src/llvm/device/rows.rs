//! Rows of elementwise work and reductions: a row, or a group of one, belongs to a warp or to a block.

use super::thread::{LANES, Threads, WARP, special_wide};
use super::{DeviceContext, DeviceParams, Geometry, blocks};
use crate::kernel::domain::Domain;
use crate::llvm::expression::Tile;
use crate::llvm::rows::{Columns, Outputs, Position, emit_group};
use crate::llvm::step_args::size;
use crate::llvm::text::{FunctionText, Value, int};
use llmc_ir::graph::NodeId;
use llmc_ir::region::Part;

/// The most threads that share a row.
const MOST_MEMBERS: usize = 512;
/// Warps of a block whose rows belong to warps.
const TEAMS: usize = 4;

/// Emits the kernels of a rows region.
pub fn emit(context: &mut DeviceContext<'_>) -> Result<(), String> {
    for part in context.kernel.region.parts() {
        emit_part(context, &part, "rows", |_, _| Ends::default())?;
    }
    Ok(())
}

/// What a kernel's rows begin with and where they end, beside the region's own inputs and outputs.
#[derive(Default)]
pub struct Ends {
    /// Where products that rows use lie.
    pub tiles: Vec<(NodeId, Tile)>,
    /// Nodes that are stored though no outputs of the region, and where.
    pub outputs: Vec<(NodeId, Value)>,
}

/// Emits a kernel that computes a part of a region.
pub fn emit_part(
    context: &mut DeviceContext<'_>,
    part: &Part,
    stage: &str,
    ends: impl FnOnce(&mut FunctionText, &DeviceParams) -> Ends,
) -> Result<(), String> {
    let domain = Domain::of(&context.kernel.region, part)?;
    let members = (width(context, part, &domain) / LANES).next_multiple_of(WARP).clamp(WARP, MOST_MEMBERS);
    let teams = if members == WARP { TEAMS } else { 1 };
    let geometry = Geometry {
        blocks: blocks(domain.rows, teams, domain.groups)?,
        threads: members * teams,
        shared_bytes: Threads::exchange_bytes(members),
    };
    context.launch(stage, &geometry, |context, f, params| {
        let rows = size(f, &params.args, domain.rows)?;
        let block = special_wide(f, "ctaid.x");
        let thread = special_wide(f, "tid.x");
        let groups = int(domain.groups as i64);
        let (row_block, group) = divide(f, &block, &groups);
        let (team, member) = match teams {
            1 => (int(0), thread),
            _ => divide(f, &thread, &int(members as i64)),
        };
        let row = f.scale(&row_block, teams as i64);
        let row = f.add(&row, &team);
        let exchange = f.shared_memory();
        let team = Threads { member, members, lanes: LANES, exchange };
        let ends = ends(f, params);
        let kernel = context.kernel;
        let mut outputs = Outputs::of(kernel, part, &params.outputs, context.kv, &params.slots);
        let mut scope = context.scope(params);
        scope.tiles.extend(ends.tiles);
        for (node, address) in ends.outputs {
            outputs.nodes.push(node);
            outputs.addresses.push(address);
        }
        let inside = f.compare("icmp slt", &row, &rows);
        let mut result = Ok(());
        f.when(&inside, |f| {
            let columns = Columns::Groups(int(0), int(1));
            let position = Position { domain: &domain, row: &row, group: &group, columns: &columns, team: &team };
            result = emit_group(f, &mut scope, &outputs, &position);
        });
        result
    })
}

/// Columns of the widest node that shares the part's rows, per group.
fn width(context: &DeviceContext<'_>, part: &Part, domain: &Domain) -> usize {
    let body = &context.kernel.region.body;
    let of_rows = part.nodes.iter().filter_map(|&node| {
        let shape = &body.ty(node).as_tensor()?.shape;
        let (rows, rest) = shape.0.split_first()?;
        (*rows == domain.rows).then(|| rest.iter().map(|dim| dim.as_fixed().unwrap_or(1)).product::<usize>())
    });
    of_rows.max().unwrap_or(1) / domain.groups
}

/// Quotient and remainder of numbers that are not negative.
fn divide(f: &mut FunctionText, value: &Value, by: &Value) -> (Value, Value) {
    (f.binary("udiv", value, by), f.binary("urem", value, by))
}
