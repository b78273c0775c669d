//! Functions as graphs that can be drawn: before fusion, as regions, and as launches.

use super::report::{Graph, Node, Price, Region, View};
use llmc_ir::graph::NodeId;
use llmc_ir::machine::Machines;
use llmc_ir::module::{Call, Function, SpecializedModule};
use llmc_ir::op::Op;
use llmc_ir::plan::{Launch, Operand, Plan, Program};
use llmc_ir::region::{FusedFunction, FusedProgram, Kernel, PlannedModel, Source};
use llmc_ir::shape::Type;
use llmc_ir::text::function_text;
use llmc_passes::eqsat::analysis::Dependence;
use llmc_passes::eqsat::cost::{Bound, Target, Term, dependence};
use llmc_passes::pass::State;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A function drawn, and what its nodes are recognised by in the next state.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// The program; `None` before there are programs.
    pub program: Option<String>,
    /// The function.
    pub function: String,
    /// How often a step calls it.
    pub calls: usize,
    /// The graph; origins are not known yet.
    pub graph: Graph,
    /// Per node what it computes.
    pub identities: Vec<Identity>,
}

/// What a node is recognised by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Of the whole term: equal for nodes that compute the same from the same.
    pub term: u64,
    /// Of the operation and its type alone.
    pub operation: u64,
}

/// What a node has for an origin until that is known.
const UNKNOWN: &str = "definition";

/// Every function of a state, in its order. Prices are at the typical sizes of the function's program, on its machine.
///
/// # Errors
/// If there is no machine for a program.
pub fn draw(state: &State, machines: &Machines) -> Result<Vec<Drawn>, String> {
    Ok(match state {
        State::Module(module) => {
            let draw = |function| drawn(None, function, &module.calls, None);
            module.functions.iter().map(draw).collect()
        }
        State::Programs(programs) => {
            let of_program = |program: &SpecializedModule| {
                let target = Target::of(machines.of(program.processor)?, &program.bounds);
                let draw = |function| drawn(Some(&program.name), function, &program.module.calls, Some(&target));
                Ok(program.module.functions.iter().map(draw).collect())
            };
            all(programs.iter().map(of_program))?
        }
        State::Fused(programs) => {
            let of_program = |program: &FusedProgram| {
                let target = Target::of(machines.of(program.processor)?, &program.bounds);
                let draw = |function| fused(program, function, &target);
                Ok(program.module.functions.iter().map(draw).collect())
            };
            all(programs.iter().map(of_program))?
        }
        State::Planned(planned) => planned_functions(planned),
    })
}

fn all(programs: impl Iterator<Item = Result<Vec<Drawn>, String>>) -> Result<Vec<Drawn>, String> {
    Ok(programs.collect::<Result<Vec<_>, _>>()?.concat())
}

impl Drawn {
    /// As the report refers to it, the graph having that index.
    pub fn view(&self, graph: usize) -> View {
        View { program: self.program.clone(), function: self.function.clone(), calls: self.calls, graph }
    }
}

fn count(calls: &[Call], function: &str) -> usize {
    calls.iter().filter(|call| call.function == function).count()
}

fn drawn(program: Option<&String>, function: &Function, calls: &[Call], target: Option<&Target<'_>>) -> Drawn {
    let mut drawing = Drawing::default();
    drawing.body(function, None, &BTreeMap::new(), target);
    for result in &function.results {
        let index = drawing.index[&(None, *result)];
        drawing.graph.nodes[index].result = true;
    }
    drawing.finish(program, &function.name, count(calls, &function.name))
}

fn fused(program: &FusedProgram, function: &FusedFunction, target: &Target<'_>) -> Drawn {
    let mut drawing = Drawing::default();
    let mut sources: BTreeMap<Source, usize> = BTreeMap::new();
    for (number, region) in function.regions.iter().enumerate() {
        let types = region.input_types();
        let mut inputs = BTreeMap::new();
        for (index, (source, ty)) in region.inputs.iter().zip(types).enumerate() {
            let node = match sources.get(source) {
                Some(&node) => node,
                None => drawing.source(function, source, ty),
            };
            sources.insert(source.clone(), node);
            inputs.insert(index, node);
        }
        let params = (0..region.inputs.len()).map(|index| llmc_ir::module::Param {
            name: drawing.graph.nodes[inputs[&index]].name.trim_start_matches('%').to_owned(),
            ty: region.input_types()[index].clone(),
        });
        let body = Function {
            name: region.name.clone(),
            params: params.collect(),
            graph: region.body.clone(),
            results: region.outputs.clone(),
        };
        drawing.graph.regions.push(Region { name: region.name.clone(), anchor: region.anchor.name() });
        drawing.body(&body, Some(number), &inputs, Some(target));
        for (output, node) in region.outputs.iter().enumerate() {
            let index = drawing.index[&(Some(number), *node)];
            sources.insert(Source::Output { region: number, output }, index);
        }
    }
    for result in &function.results {
        if let Some(&index) = sources.get(result) {
            drawing.graph.nodes[index].result = true;
        }
    }
    drawing.finish(Some(&program.name), &function.name, count(&program.module.calls, &function.name))
}

/// A graph that grows.
#[derive(Default)]
struct Drawing {
    graph: Graph,
    identities: Vec<Identity>,
    dependences: Vec<Dependence>,
    index: BTreeMap<(Option<usize>, NodeId), usize>,
}

impl Drawing {
    fn finish(self, program: Option<&String>, function: &str, calls: usize) -> Drawn {
        let (program, function) = (program.cloned(), function.to_owned());
        Drawn { program, function, calls, graph: self.graph, identities: self.identities }
    }

    /// A node outside of all regions: where a region's input comes from.
    fn source(&mut self, function: &FusedFunction, source: &Source, ty: Type) -> usize {
        let (name, text, op) = match source {
            Source::Param(index) => {
                let name = function.params.get(*index).map_or("?", |param| param.name.as_str());
                (format!("%{name}"), "parameter".to_owned(), Op::Input { index: *index, ty: ty.clone() })
            }
            Source::Weight(name) => {
                (name.clone(), format!("weight {name:?}"), Op::Weight { name: name.clone(), ty: ty.clone() })
            }
            Source::Step(input) => (input.name().to_owned(), format!("step {}", input.name()), Op::Step(*input)),
            // Regions come in order of execution, so theirs are known.
            Source::Output { .. } => ("?".to_owned(), "missing".to_owned(), Op::Select),
        };
        let term = match &op {
            Op::Input { .. } => parameter(name.trim_start_matches('%')),
            op => term(op, &[]),
        };
        self.dependences.push(dependence(&op, std::iter::empty()));
        self.identities.push(Identity { term, operation: operation(&op, &ty) });
        let kind = kind(&op);
        let node =
            Node { name, text, ty: ty.to_string(), kind, origin: UNKNOWN, price: None, region: None, result: false };
        self.graph.nodes.push(node);
        self.graph.nodes.len() - 1
    }

    /// The nodes of a function, or of a region whose inputs are nodes already.
    fn body(
        &mut self,
        function: &Function,
        region: Option<usize>,
        inputs: &BTreeMap<usize, usize>,
        target: Option<&Target<'_>>,
    ) {
        let text = function_text(function);
        let mut lines = text.lines().filter(|line| line.trim_start().starts_with('%'));
        for node in function.graph.topological() {
            let (op, ty) = (function.graph.op(node), function.graph.ty(node));
            if let Op::Input { index, .. } = op
                && let Some(&known) = inputs.get(index)
            {
                self.index.insert((region, node), known);
                continue;
            }
            let operands: Vec<usize> =
                function.graph.operands(node).iter().map(|operand| self.index[&(region, *operand)]).collect();
            let known = dependence(op, operands.iter().map(|&operand| self.dependences[operand]));
            let (name, text) = match op {
                Op::Input { index, .. } => (format!("%{}", function.params[*index].name), "parameter".to_owned()),
                _ => lines.next().map(name_and_operation).unwrap_or_default(),
            };
            let own = match op {
                Op::Input { index, .. } => parameter(&function.params[*index].name),
                op => term(op, &operands.iter().map(|&operand| self.identities[operand].term).collect::<Vec<_>>()),
            };
            let price = target.and_then(|target| price(function, node, known, target));
            let number = self.graph.nodes.len();
            self.graph.edges.extend(operands.iter().map(|&operand| [operand, number]));
            self.identities.push(Identity { term: own, operation: operation(op, ty) });
            self.dependences.push(known);
            let (ty, kind) = (ty.to_string(), kind(op));
            self.graph.nodes.push(Node { name, text, ty, kind, origin: UNKNOWN, price, region, result: false });
            self.index.insert((region, node), number);
        }
    }
}

/// `%3` and `mul %1, %2` of a line `%3 = mul %1, %2 : f32[8]`.
fn name_and_operation(line: &str) -> (String, String) {
    let (name, rest) = line.trim().split_once(" = ").unwrap_or(("", line));
    let operation = rest.rsplit_once(" : ").map_or(rest, |(operation, _)| operation);
    (name.to_owned(), operation.trim_end().to_owned())
}

fn price(function: &Function, node: NodeId, known: Dependence, target: &Target<'_>) -> Option<Price> {
    let graph = &function.graph;
    let operands: Vec<&Type> = graph.operands(node).into_iter().map(|operand| graph.ty(operand)).collect();
    let term = Term { op: graph.op(node), operands, ty: graph.ty(node), dependence: known };
    let (work, price) = (term.work(&target.sizes), term.price(target));
    (price.bound != Bound::Free).then(|| Price {
        bytes: work.bytes,
        flops: work.matrix_flops + work.vector_flops,
        seconds: price.seconds,
        bound: price.bound.to_string(),
    })
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn term(op: &Op, operands: &[u64]) -> u64 {
    hash((op, operands))
}

fn parameter(name: &str) -> u64 {
    hash(("parameter", name))
}

fn operation(op: &Op, ty: &Type) -> u64 {
    match op {
        // Its position may change when parameters are added.
        Op::Input { .. } => hash(("parameter", ty.to_string())),
        op => hash((op, ty.to_string())),
    }
}

/// What sort of operation it is, for colours.
fn kind(op: &Op) -> &'static str {
    match op {
        Op::Input { .. } | Op::Step(_) => "input",
        Op::Weight { .. } => "weight",
        Op::Constant { .. } | Op::Iota { .. } => "constant",
        Op::Dot { .. } => "dot",
        Op::Attend(_) => "attend",
        Op::KvWrite { .. } => "cache",
        Op::Reduce { .. } => "reduce",
        Op::Gather => "gather",
        op if op.is_leaf() => "constant",
        Op::Reshape { .. } | Op::Permute { .. } | Op::Broadcast { .. } | Op::Slice { .. } | Op::Concat { .. } => "move",
        _ => "map",
    }
}

fn planned_functions(planned: &PlannedModel) -> Vec<Drawn> {
    let mut all = Vec::new();
    for (program, kernels) in planned.plan.programs.iter().zip(&planned.kernels) {
        for index in 0..program.functions.len() {
            all.push(launches(&planned.plan, program, index, kernels));
        }
    }
    all
}

/// A function's launches; an edge where one reads what another wrote last.
fn launches(plan: &Plan, program: &Program, index: usize, kernels: &[Kernel]) -> Drawn {
    let function = &program.functions[index];
    let call = program.calls.iter().find(|call| call.function == index);
    let mut graph = Graph::default();
    for (number, launch) in function.launches.iter().enumerate() {
        for input in launch.inputs.iter().filter(|input| matches!(input, Operand::Arena { .. } | Operand::Kv)) {
            let earlier = function.launches[..number].iter().rposition(|other| other.outputs.contains(input));
            graph.edges.extend(earlier.map(|earlier| [earlier, number]));
        }
        let kernel = kernels.iter().find(|kernel| kernel.name == launch.kernel);
        let text = operands(plan, launch, call.map(|call| &call.weights[..]).unwrap_or_default());
        graph.nodes.push(Node {
            name: launch.kernel.clone(),
            text,
            ty: if launch.barrier { "after a barrier".to_owned() } else { "no barrier before it".to_owned() },
            kind: kernel.map_or("map", |kernel| launch_kind(kernel.region.anchor)),
            origin: "plan",
            price: None,
            region: None,
            result: launch.outputs.contains(&Operand::Logits),
        });
    }
    graph.edges.sort_unstable();
    graph.edges.dedup();
    let identities = graph.nodes.iter().map(|node| hash(&node.text)).map(|term| Identity { term, operation: term });
    let calls = program.calls.iter().filter(|call| call.function == index).count();
    let identities = identities.collect();
    Drawn { program: Some(program.name.clone()), function: function.name.clone(), calls, graph, identities }
}

fn launch_kind(anchor: llmc_ir::region::Anchor) -> &'static str {
    match anchor {
        llmc_ir::region::Anchor::Rows => "reduce",
        llmc_ir::region::Anchor::Dot => "dot",
        llmc_ir::region::Anchor::Attend => "attend",
        llmc_ir::region::Anchor::Weights => "weight",
    }
}

fn operands(plan: &Plan, launch: &Launch, weights: &[usize]) -> String {
    let text = |operand: &Operand| match operand {
        Operand::Arena { offset, bytes } => format!("arena[{offset} +{bytes}]"),
        Operand::Weight { slot } => {
            let weight = weights.get(*slot).and_then(|&index| plan.weights.get(index));
            weight.map_or_else(|| format!("weight {slot}"), |weight| weight.name.clone())
        }
        Operand::Step { input } => input.name().to_owned(),
        Operand::Kv => "kv".to_owned(),
        Operand::Logits => "logits".to_owned(),
    };
    let list = |operands: &[Operand]| operands.iter().map(text).collect::<Vec<_>>().join(", ");
    format!("{} = {}({})", list(&launch.outputs), launch.kernel, list(&launch.inputs))
}
