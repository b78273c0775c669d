//! Parses functions, regions and nodes.

use super::lex::Token;
use super::parse::{ParseError, Parser};
use super::print::{source_text, source_type};
use crate::graph::{Graph, NodeId};
use crate::module::Function;
use crate::op::Op;
use crate::plan::StepInput;
use crate::region::{Anchor, FusedFunction, Region, Source};
use crate::shape::Type;
use std::collections::{BTreeMap, BTreeSet};

/// The nodes of a graph by name, without `%`.
type Nodes = BTreeMap<String, NodeId>;

impl Parser<'_> {
    /// A function behind its name.
    pub(super) fn function(&mut self, name: String) -> Result<Function, ParseError> {
        let (params, results, position) = self.signature()?;
        let (mut graph, mut nodes) = (Graph::default(), Nodes::new());
        for (index, param) in params.iter().enumerate() {
            let node = self.input(&mut graph, index, &param.ty)?;
            nodes.insert(param.name.clone(), node);
        }
        self.mark("{")?;
        while let Token::Value(_) = self.peek() {
            self.node(&mut graph, &mut nodes)?;
        }
        if !self.take_word("return") {
            return Err(self.unexpected("a value such as `%0` or `return`"));
        }
        let returned = self.values(&nodes)?;
        let types: Vec<_> = returned.iter().map(|&node| Some(graph.ty(node).clone())).collect();
        self.check_results(&results, &types, position)?;
        self.mark("}")?;
        Ok(Function { name, params, graph, results: returned })
    }

    /// A function of regions behind its name.
    pub(super) fn fused_function(&mut self, name: String) -> Result<FusedFunction, ParseError> {
        let (params, results, position) = self.signature()?;
        let mut function = FusedFunction { name, params, regions: Vec::new(), results: Vec::new() };
        let mut names = Names::default();
        for (index, param) in function.params.iter().enumerate() {
            names.params.insert(param.name.clone(), index);
        }
        self.mark("{")?;
        while self.take_word("region") {
            let start = self.position();
            let region = self.region(&function, &names)?;
            if names.regions.insert(region.name.clone(), function.regions.len()).is_some() {
                return Err(self.error_at(start, format!("`@{}` is there already", region.name)));
            }
            function.regions.push(region);
        }
        if !self.take_word("return") {
            return Err(self.unexpected("`region` or `return`"));
        }
        if self.peek() != Token::Mark("}") {
            function.results.push(self.source(&function, &names)?);
            while self.take_mark(",") {
                function.results.push(self.source(&function, &names)?);
            }
        }
        let types: Vec<_> = function.results.iter().map(|source| source_type(&function, source)).collect();
        self.check_results(&results, &types, position)?;
        self.mark("}")?;
        Ok(function)
    }

    fn region(&mut self, function: &FusedFunction, names: &Names) -> Result<Region, ParseError> {
        let name = self.new_symbol("a region", &mut BTreeSet::new())?;
        self.mark(":")?;
        let anchor = self.variant(&Anchor::ALL, Anchor::name)?;
        self.mark("{")?;
        let (mut body, mut nodes, mut inputs) = (Graph::default(), Nodes::new(), Vec::new());
        while let Token::Value(value) = self.peek() {
            if is_input_name(value) {
                let expected = format!("in{}", inputs.len());
                if value != expected {
                    return Err(self.unexpected(&format!("`%{expected}`")));
                }
                self.advance();
                self.mark("=")?;
                let source = self.source(function, names)?;
                self.mark(":")?;
                let position = self.position();
                let ty = self.ty()?;
                let is_weight = matches!(source, Source::Weight(_));
                let actual = if is_weight { None } else { source_type(function, &source) };
                if let Some(actual) = actual.filter(|actual| *actual != ty) {
                    let message = format!("{} is {actual}, not {ty}", source_text(function, &source));
                    return Err(self.error_at(position, message));
                }
                nodes.insert(expected, self.input(&mut body, inputs.len(), &ty)?);
                inputs.push(source);
            } else {
                self.node(&mut body, &mut nodes)?;
            }
        }
        if !self.take_word("yield") {
            return Err(self.unexpected("a value such as `%0` or `yield`"));
        }
        let outputs = self.values(&nodes)?;
        self.mark("}")?;
        Ok(Region { name, anchor, body, inputs, outputs })
    }

    fn source(&mut self, function: &FusedFunction, names: &Names) -> Result<Source, ParseError> {
        if self.take_word("weight") {
            return Ok(Source::Weight(self.quoted()?));
        }
        if self.take_word("step") {
            return Ok(Source::Step(self.variant(&StepInput::ALL, StepInput::name)?));
        }
        let Token::Value(value) = self.peek() else {
            return Err(self.unexpected("a value, `weight` or `step`"));
        };
        let source = match value.rsplit_once('#') {
            None => names.params.get(value).map(|&index| Source::Param(index)),
            Some((region, output)) => names.regions.get(region).and_then(|&region| {
                let output = output.parse().ok()?;
                function.regions[region].outputs.get(output)?;
                Some(Source::Output { region, output })
            }),
        };
        let Some(source) = source else {
            return Err(self.unexpected("a parameter, or an output of a region above such as `%norm#0`"));
        };
        self.advance();
        Ok(source)
    }

    fn input(&self, graph: &mut Graph, index: usize, ty: &Type) -> Result<NodeId, ParseError> {
        let input = Op::Input { index, ty: ty.clone() };
        graph.add(input, &[]).map_err(|message| self.error_at(self.position(), message))
    }

    /// `%name = operation : type`
    fn node(&mut self, graph: &mut Graph, nodes: &mut Nodes) -> Result<(), ParseError> {
        let Token::Value(name) = self.peek() else { return Err(self.unexpected("a value such as `%0`")) };
        if nodes.contains_key(name) || name.contains('#') {
            return Err(self.unexpected("a name that no value has yet, without `#`"));
        }
        self.advance();
        self.mark("=")?;
        let start = self.position();
        let (mut op, operands) = self.operation(nodes)?;
        self.mark(":")?;
        let position = self.position();
        let ty = self.ty()?;
        set_type(&mut op, &ty).map_err(|message| self.error_at(position, message))?;
        let node = graph.add(op, &operands).map_err(|message| self.error_at(start, message))?;
        if *graph.ty(node) != ty {
            let message = format!("the operands make this {}, not {ty}", graph.ty(node));
            return Err(self.error_at(position, message));
        }
        nodes.insert(name.to_owned(), node);
        Ok(())
    }

    /// Values that exist, separated by commas; there may be none.
    pub(super) fn values(&mut self, nodes: &Nodes) -> Result<Vec<NodeId>, ParseError> {
        let mut values = Vec::new();
        if !matches!(self.peek(), Token::Value(_)) {
            return Ok(values);
        }
        loop {
            let Token::Value(name) = self.peek() else { return Err(self.unexpected("a value")) };
            let Some(&node) = nodes.get(name) else { return Err(self.unexpected("a value that is defined above")) };
            values.push(node);
            self.advance();
            if !self.take_mark(",") {
                return Ok(values);
            }
        }
    }

    fn check_results(&self, header: &[Type], actual: &[Option<Type>], position: usize) -> Result<(), ParseError> {
        if header.len() != actual.len() {
            let message = format!("{} result types, but {} values are returned", header.len(), actual.len());
            return Err(self.error_at(position, message));
        }
        for (index, (header, actual)) in header.iter().zip(actual).enumerate() {
            if Some(header) != actual.as_ref() {
                let actual = actual.as_ref().map_or("of unknown type".to_owned(), |ty| ty.to_string());
                return Err(self.error_at(position, format!("result {index} is {actual}, not {header}")));
            }
        }
        Ok(())
    }
}

/// What sources of a fused function may refer to.
#[derive(Default)]
struct Names {
    params: BTreeMap<String, usize>,
    regions: BTreeMap<String, usize>,
}

/// `in0`, `in1`, ...: these name the inputs of a region and nothing else.
fn is_input_name(name: &str) -> bool {
    name.strip_prefix("in").is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// Gives an operation what its text leaves to the type.
fn set_type(op: &mut Op, ty: &Type) -> Result<(), String> {
    let Some(tensor) = ty.as_tensor() else {
        return match op {
            Op::KvWrite { .. } => Ok(()),
            _ => Err(format!("expected a tensor type, found {ty}")),
        };
    };
    match op {
        Op::Weight { ty: slot, .. } => *slot = ty.clone(),
        Op::Constant { dtype, shape, .. } => (*dtype, *shape) = (tensor.dtype, tensor.shape.clone()),
        Op::Iota { shape, .. } | Op::Reshape { shape } | Op::Broadcast { shape } => *shape = tensor.shape.clone(),
        Op::Convert { to } => *to = tensor.dtype,
        _ => {}
    }
    Ok(())
}
