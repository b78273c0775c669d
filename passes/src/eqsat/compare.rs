//! Forms of one function side by side: a row for whatever takes time, a column for each step, and in each cell the way that
//! was chosen, what it costs and why, and what the other ways would have cost.

use super::cost::{Price, Target, Term, Work};
use super::explain::{duration, quantity};
use super::form::{prices, term_of};
use llmc_ir::graph::NodeId;
use llmc_ir::infer::infer;
use llmc_ir::module::Function;
use llmc_ir::op::{AttendMethod, Attention, DotMethod, Op};
use std::collections::BTreeSet;

/// A form of the function for a step.
#[derive(Clone, Debug)]
pub struct Column<'a> {
    /// What heads the column, a line each.
    pub title: Vec<String>,
    /// The form.
    pub form: &'a Function,
    /// The step that it was chosen for.
    pub target: Target<'a>,
}

/// What takes time: its name, and per column the lines of its cell.
struct Row {
    name: String,
    cells: Vec<Vec<String>>,
}

/// The table. Nodes that are the same in several columns share a row; a product of joined weights has a row of its own.
pub fn side_by_side(columns: &[Column<'_>]) -> String {
    let mut rows: Vec<Row> = Vec::new();
    for (index, column) in columns.iter().enumerate() {
        let mut next = 0;
        for (name, cell) in cells(column) {
            let position = rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
                rows.insert(next, Row { name, cells: vec![Vec::new(); columns.len()] });
                next
            });
            rows[position].cells[index] = cell;
            next = position + 1;
        }
    }
    let head = Row { name: String::new(), cells: columns.iter().map(|column| column.title.clone()).collect() };
    rows.insert(0, head);
    table(&rows)
}

fn table(rows: &[Row]) -> String {
    let width = |lines: &[String]| lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let columns = rows.first().map_or(0, |row| row.cells.len());
    let widths: Vec<usize> =
        (0..columns).map(|column| rows.iter().map(|row| width(&row.cells[column])).max().unwrap_or(0)).collect();
    let first = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let rule = |widths: &[usize]| {
        let parts: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
        format!("{}|{}\n", "-".repeat(first + 1), parts.join("|"))
    };
    let mut out = String::new();
    for row in rows {
        let height = row.cells.iter().map(Vec::len).max().unwrap_or(0);
        for line in 0..height {
            let name = if line == 0 { &row.name[..] } else { "" };
            let cells: Vec<String> = row
                .cells
                .iter()
                .zip(&widths)
                .map(|(cell, &width)| format!(" {:<width$} ", cell.get(line).map_or("", String::as_str)))
                .collect();
            let text = format!("{name:<first$} |{}", cells.join("|"));
            out += text.trim_end();
            out.push('\n');
        }
        out += &rule(&widths);
    }
    out
}

/// What takes time in a form, in its order; everything that no kernel is made for comes last, together.
fn cells(column: &Column<'_>) -> Vec<(String, Vec<String>)> {
    let Column { form, target, .. } = column;
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let mut cells: Vec<(String, Vec<String>)> = Vec::new();
    let mut rest = 0.0;
    for (node, work, price) in prices(form, target) {
        let op = form.graph.op(node);
        let name = match op {
            Op::Dot { .. } => weights(form, form.graph.operands(node)[1]).unwrap_or_else(|| "product".to_owned()),
            Op::Attend(_) => "attention".to_owned(),
            Op::Reduce { op, .. } => format!("{} of rows", op.name()),
            Op::Gather => "gather of rows".to_owned(),
            _ => {
                rest += price.seconds;
                continue;
            }
        };
        // What costs nothing while a step runs is no line of its bill.
        if work == Work::default() || work.stored_bytes > 0.0 {
            continue;
        }
        cells.push((crate::fuse::unique_name(&name, '.', &mut taken), cell(column, node, &work, &price)));
    }
    cells.push(("elementwise, cache".to_owned(), vec![duration(rest)]));
    cells
}

fn cell(column: &Column<'_>, node: NodeId, work: &Work, price: &Price) -> Vec<String> {
    let op = column.form.graph.op(node);
    let way = way(op).map(|way| format!("{way}: ")).unwrap_or_default();
    let mut lines = vec![
        format!("{way}{}, {}", duration(price.seconds), price.bound),
        format!("  {}, {}", quantity(work.bytes, "B"), quantity(work.matrix_flops + work.vector_flops, "FLOP")),
    ];
    let mut others: Vec<String> = Vec::new();
    let is_choice =
        !matches!(op, Op::Dot { .. }) || weights(column.form, column.form.graph.operands(node)[1]).is_some();
    for other in other_ways(op).into_iter().filter(|_| is_choice) {
        let seconds = Term { op: &other, ..term_of(column.form, node) }.price(&column.target).seconds;
        if let (Some(way), true) = (self::way(&other), seconds.is_finite()) {
            others.push(format!("{way} {}", duration(seconds)));
        }
    }
    if let Some(apart) = apart(column, node) {
        others.push(format!("apart {}", duration(apart)));
    }
    if !others.is_empty() {
        lines.push(format!("  not {}", others.join(", ")));
    }
    lines
}

/// How an operation divides its work, if there is a choice.
pub fn way(op: &Op) -> Option<&'static str> {
    match op {
        Op::Dot { left: 1, right: 1, batch: 0, method } => Some(method.name()),
        Op::Attend(attention) => Some(attention.method.name()),
        _ => None,
    }
}

/// The same operation with its work divided otherwise: there is a choice for products with weights, and for attention.
pub fn other_ways(op: &Op) -> Vec<Op> {
    let all: Vec<Op> = match *op {
        Op::Dot { left: 1, right: 1, batch: 0, .. } => {
            let by = |&method: &DotMethod| Op::Dot { left: 1, right: 1, batch: 0, method };
            DotMethod::ALL.iter().map(by).collect()
        }
        Op::Attend(attention) => {
            let by = |&method: &AttendMethod| Op::Attend(Attention { method, ..attention });
            AttendMethod::ALL.iter().map(by).collect()
        }
        _ => Vec::new(),
    };
    all.into_iter().filter(|other| other != op).collect()
}

/// Seconds of a product of joined weights if each part were a product of its own, by the way that suits it.
fn apart(column: &Column<'_>, node: NodeId) -> Option<f64> {
    let graph = &column.form.graph;
    let &[_, joined] = &graph.operands(node)[..] else { return None };
    let (op @ Op::Dot { .. }, Op::Concat { axis: 0 }) = (graph.op(node), graph.op(joined)) else { return None };
    let whole = term_of(column.form, node);
    let mut seconds = 0.0;
    for part in graph.operands(joined) {
        let mut operands = whole.operands.clone();
        operands[1] = graph.ty(part);
        let ty = infer(op, &operands).ok()?;
        let ways = other_ways(op).into_iter().chain([op.clone()]);
        let price =
            |op: Op| Term { op: &op, operands: operands.clone(), ty: &ty, ..whole }.price(&column.target).seconds;
        seconds += ways.map(price).fold(f64::INFINITY, f64::min);
    }
    Some(seconds)
}

/// The weights behind a product's operand, as an expression; `None` if it is no weight.
fn weights(form: &Function, node: NodeId) -> Option<String> {
    let operands = form.graph.operands(node);
    let all = |between: &str| {
        let names: Option<Vec<String>> = operands.iter().map(|&operand| weights(form, operand)).collect();
        Some(names?.join(between))
    };
    match form.graph.op(node) {
        Op::Weight { name, .. } => {
            let name = name.trim_start_matches('/').trim_end_matches(".weight");
            Some(name.rsplit('.').next().unwrap_or(name).to_owned())
        }
        Op::Concat { .. } => all(" | "),
        Op::Dot { .. } => all(" x "),
        Op::Binary(_) => all(" + "),
        Op::Convert { .. } | Op::Reshape { .. } | Op::Permute { .. } => weights(form, operands[0]),
        _ => None,
    }
}
