//! Prints modules and programs.

use crate::dim::{Bounds, Symbol};
use crate::graph::{Graph, NodeId};
use crate::machine::Processor;
use crate::module::{Argument, Call, Function, Module, Param, SpecializedModule};
use crate::op::{AttendMethod, DotMethod, Number, Op};
use crate::region::{FusedFunction, FusedModule, FusedProgram, Region, Source};
use crate::shape::Type;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Columns before ` : type`, unless what stands there is longer.
const TYPE_COLUMN: usize = 68;

/// The text form of a module.
pub fn print_module(module: &Module) -> String {
    let mut out = format!("module @{}\n", module.name);
    for function in &module.functions {
        print_function(&mut out, function);
    }
    print_step(&mut out, &module.calls);
    out
}

/// The text form of one function, as it stands in its module's.
pub fn function_text(function: &Function) -> String {
    let mut out = String::new();
    print_function(&mut out, function);
    out
}

/// The text form of specialised modules, each under its header.
pub fn print_specialized(programs: &[SpecializedModule]) -> String {
    let texts =
        programs.iter().map(|p| format!("{}\n{}", header(&p.name, p.processor, &p.bounds), print_module(&p.module)));
    texts.collect::<Vec<_>>().join("\n")
}

/// The text form of fused programs, each under its header.
pub fn print_fused(programs: &[FusedProgram]) -> String {
    let texts = programs
        .iter()
        .map(|p| format!("{}\n{}", header(&p.name, p.processor, &p.bounds), print_fused_module(&p.module)));
    texts.collect::<Vec<_>>().join("\n")
}

/// The text form of a fused module.
pub fn print_fused_module(module: &FusedModule) -> String {
    let mut out = format!("fused module @{}\n", module.name);
    for function in &module.functions {
        print_fused_function(&mut out, function);
    }
    print_step(&mut out, &module.calls);
    out
}

/// What the nodes of a graph are called: `%` and a number in print order, inputs by their own name.
#[derive(Debug)]
pub(crate) struct NodeNames(BTreeMap<NodeId, String>);

impl NodeNames {
    /// Names for a function's graph.
    pub(crate) fn of_function(function: &Function) -> NodeNames {
        let param = |index: usize| function.params.get(index).map(|param| format!("%{}", param.name));
        NodeNames::new(&function.graph, |index| param(index).unwrap_or(format!("%?{index}")))
    }

    /// Names for a region's body.
    pub(crate) fn of_region(region: &Region) -> NodeNames {
        NodeNames::new(&region.body, |index| format!("%in{index}"))
    }

    fn new(graph: &Graph, input: impl Fn(usize) -> String) -> NodeNames {
        let mut next = 0;
        let name = |node: NodeId| {
            let name = match graph.op(node) {
                Op::Input { index, .. } => input(*index),
                _ => {
                    next += 1;
                    format!("%{}", next - 1)
                }
            };
            (node, name)
        };
        NodeNames(graph.topological().into_iter().map(name).collect())
    }

    /// The name of `node`.
    pub(crate) fn get(&self, node: NodeId) -> &str {
        self.0.get(&node).map_or("%?", String::as_str)
    }

    fn list(&self, nodes: &[NodeId]) -> String {
        nodes.iter().map(|&node| self.get(node)).collect::<Vec<_>>().join(", ")
    }
}

/// Whether `name` can stand behind `%` or `@`: a letter or underscore, then letters, digits, `_`, `.`, `-` and `+`.
pub(crate) fn is_name(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '+'))
}

fn header(name: &str, processor: Processor, bounds: &Bounds) -> String {
    let limits = Symbol::ALL.map(|symbol| format!("{symbol} <= {}", bounds.max.get(symbol))).join(", ");
    let promise = if bounds.one_token_per_sequence { ", one_token_per_sequence" } else { "" };
    let processor = if processor == Processor::default() { String::new() } else { format!(" on {processor}") };
    format!("program @{name}{processor} {{{limits}{promise}}}\n")
}

fn signature(out: &mut String, name: &str, params: &[Param], results: &[String]) {
    let params: Vec<_> = params.iter().map(|param| format!("%{}: {}", param.name, param.ty)).collect();
    line(out, format_args!("\nfunc @{name}({}) -> ({}) {{", params.join(", "), results.join(", ")));
}

fn print_function(out: &mut String, function: &Function) {
    let graph = &function.graph;
    let result_type = |&node: &NodeId| type_text(graph.contains(node).then(|| graph.ty(node)));
    let results: Vec<_> = function.results.iter().map(result_type).collect();
    signature(out, &function.name, &function.params, &results);
    let names = NodeNames::of_function(function);
    print_nodes(out, graph, &names, "  ");
    line(out, format_args!("{}\n}}", list_statement("  return", &names.list(&function.results))));
}

fn print_nodes(out: &mut String, graph: &Graph, names: &NodeNames, indent: &str) {
    for node in graph.topological() {
        let op = graph.op(node);
        if !matches!(op, Op::Input { .. }) {
            let operands = names.list(&graph.operands(node));
            let left = format!("{indent}{} = {}", names.get(node), operation(op, &operands));
            typed_line(out, &left, Some(graph.ty(node)));
        }
    }
}

/// Everything of a node but its name and type.
fn operation(op: &Op, operands: &str) -> String {
    let words = match op {
        Op::Step(input) => format!("step {}", input.name()),
        Op::Weight { name, .. } => format!("weight {}", quoted(name)),
        Op::Constant { values, dtype, .. } => {
            let texts: Vec<_> = values.iter().map(|&value| number(value, dtype.is_float())).collect();
            match &texts[..] {
                [one] => format!("const {one}"),
                all => format!("const [{}]", all.join(", ")),
            }
        }
        _ => list_statement(op.name(), operands),
    };
    let attributes = match op {
        Op::Iota { axis, .. } | Op::Concat { axis } => format!(" {{axis = {axis}}}"),
        Op::Reduce { op, axis } => format!(" {{op = {}, axis = {axis}}}", op.name()),
        Op::Dot { left, right, batch, method } => {
            let batch = if *batch == 0 { String::new() } else { format!(", batch = {batch}") };
            let by = if *method == DotMethod::Gemm { String::new() } else { format!(", by = {}", method.name()) };
            format!(" {{contract = [{left}] x [{right}]{batch}{by}}}")
        }
        Op::Permute { order } => format!(" {{order = {order:?}}}"),
        Op::Slice { axis, start, end } => format!(" {{axis = {axis}, range = {start}..{end}}}"),
        Op::KvWrite { part } => format!(" {{part = {}}}", part.name()),
        Op::Attend(attention) => {
            let mask = match attention.window {
                None => "causal".to_owned(),
                Some(window) => format!("window {window}"),
            };
            let (heads, kv_heads, scale) = (attention.heads, attention.kv_heads, attention.scale);
            let by = match attention.method {
                AttendMethod::Whole => String::new(),
                method => format!(", by = {}", method.name()),
            };
            format!(" {{heads = {heads}, kv_heads = {kv_heads}, scale = {scale}, mask = {mask}{by}}}")
        }
        _ => String::new(),
    };
    words + &attributes
}

fn print_fused_function(out: &mut String, function: &FusedFunction) {
    let types: Vec<_> = function.results.iter().map(|source| source_type(function, source)).collect();
    let types: Vec<_> = types.iter().map(|ty| type_text(ty.as_ref())).collect();
    signature(out, &function.name, &function.params, &types);
    for region in &function.regions {
        print_region(out, region, function);
    }
    let results: Vec<_> = function.results.iter().map(|source| source_text(function, source)).collect();
    line(out, format_args!("{}\n}}", list_statement("  return", &results.join(", "))));
}

fn print_region(out: &mut String, region: &Region, function: &FusedFunction) {
    line(out, format_args!("  region @{}: {} {{", region.name, region.anchor.name()));
    let types = input_types(region);
    for (index, source) in region.inputs.iter().enumerate() {
        let left = format!("    %in{index} = {}", source_text(function, source));
        typed_line(out, &left, types.get(&index));
    }
    let names = NodeNames::of_region(region);
    print_nodes(out, &region.body, &names, "    ");
    line(out, format_args!("{}\n  }}", list_statement("    yield", &names.list(&region.outputs))));
}

/// The types of those inputs of a region that occur in its body.
pub(crate) fn input_types(region: &Region) -> BTreeMap<usize, Type> {
    let body = &region.body;
    let inputs = body.topological().into_iter().filter_map(|node| match body.op(node) {
        Op::Input { index, ty } => Some((*index, ty.clone())),
        _ => None,
    });
    inputs.collect()
}

/// The type of what `source` refers to, if that exists. A weight's is what the regions take it for.
pub(crate) fn source_type(function: &FusedFunction, source: &Source) -> Option<Type> {
    match source {
        Source::Param(index) => function.params.get(*index).map(|param| param.ty.clone()),
        Source::Output { region, output } => {
            let region = function.regions.get(*region)?;
            let node = region.outputs.get(*output).filter(|&&node| region.body.contains(node));
            node.map(|&node| region.body.ty(node).clone())
        }
        Source::Step(input) => Some(crate::infer::step_type(*input)),
        Source::Weight(_) => function.regions.iter().find_map(|region| {
            let index = region.inputs.iter().position(|input| input == source)?;
            input_types(region).remove(&index)
        }),
    }
}

/// How a source is written; a `?` stands where it refers to nothing.
pub(crate) fn source_text(function: &FusedFunction, source: &Source) -> String {
    match source {
        Source::Param(index) => match function.params.get(*index) {
            Some(param) => format!("%{}", param.name),
            None => format!("%?{index}"),
        },
        Source::Output { region, output } => match function.regions.get(*region) {
            Some(producer) => format!("%{}#{output}", producer.name),
            None => format!("%?{region}#{output}"),
        },
        Source::Weight(name) => format!("weight {}", quoted(name)),
        Source::Step(input) => format!("step {}", input.name()),
    }
}

fn print_step(out: &mut String, calls: &[Call]) {
    out.push_str("\nstep {\n");
    for call in calls {
        let results: Vec<_> = call.results.iter().map(|name| format!("%{name}")).collect();
        let arguments: Vec<_> = call.arguments.iter().map(argument).collect();
        let assign = if results.is_empty() { "" } else { " = " };
        let scope = if call.scope.is_empty() { String::new() } else { format!(" in {}", quoted(&call.scope)) };
        let (results, arguments) = (results.join(", "), arguments.join(", "));
        line(out, format_args!("  {results}{assign}call @{}({arguments}){scope}", call.function));
    }
    out.push_str("}\n");
}

fn argument(argument: &Argument) -> String {
    match argument {
        Argument::Value(name) => format!("%{name}"),
        Argument::Kv(layer) => format!("kv {layer}"),
    }
}

/// Integers without a fraction where the element type has none.
fn number(value: Number, is_float: bool) -> String {
    let whole = value.get() as i64;
    if !is_float && Number::from(whole as f64) == value && whole.unsigned_abs() < 1 << 53 {
        whole.to_string()
    } else {
        value.to_string()
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{{{:x}}}", c as u32);
            }
            c => out.push(c),
        }
    }
    out + "\""
}

fn list_statement(word: &str, list: &str) -> String {
    if list.is_empty() { word.to_owned() } else { format!("{word} {list}") }
}

fn typed_line(out: &mut String, left: &str, ty: Option<&Type>) {
    line(out, format_args!("{left:<TYPE_COLUMN$} : {}", type_text(ty)));
}

fn type_text(ty: Option<&Type>) -> String {
    ty.map_or_else(|| "unknown".to_owned(), ToString::to_string)
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    let written = out.write_fmt(text);
    debug_assert!(written.is_ok(), "writing to a string succeeds");
    out.push('\n');
}
