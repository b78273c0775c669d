//! Weights that are computed while compiling: regions of weights leave the programs, and what they make becomes
//! weights with a recipe.

use crate::canonicalize::sweep;
use crate::rebuild::rebuild;
use llmc_ir::graph::NodeId;
use llmc_ir::module::{Function, Module};
use llmc_ir::op::Op;
use llmc_ir::region::{Anchor, FusedFunction, FusedModule, FusedProgram, Region, Source};
use llmc_ir::text::function_text;
use std::collections::BTreeMap;

/// Recipes by the names of the weights that they make, both relative to the scope of a call.
#[derive(Debug, Default)]
pub(super) struct Recipes {
    by_name: BTreeMap<String, Function>,
    names: BTreeMap<String, String>,
}

impl Recipes {
    /// Takes the regions of weights out of programs. Their outputs are weights from then on, equal ones the same.
    pub fn lift(&mut self, programs: &mut [FusedProgram]) {
        for program in programs {
            let module = &mut program.module;
            module.functions = module.functions.iter().map(|function| self.lift_function(function)).collect();
        }
    }

    fn lift_function(&mut self, function: &FusedFunction) -> FusedFunction {
        let mut moved: BTreeMap<Source, Source> = BTreeMap::new();
        let mut regions: Vec<Region> = Vec::new();
        for (index, region) in function.regions.iter().enumerate() {
            let source = |region, output| Source::Output { region, output };
            for (output, &node) in region.outputs.iter().enumerate() {
                let to = match region.anchor {
                    Anchor::Weights => Source::Weight(self.name(recipe(region, node))),
                    _ => source(regions.len(), output),
                };
                moved.insert(source(index, output), to);
            }
            if region.anchor != Anchor::Weights {
                let mut region = region.clone();
                region.inputs.iter_mut().for_each(|input| *input = moved.get(input).unwrap_or(input).clone());
                regions.push(region);
            }
        }
        let results = function.results.iter().map(|source| moved.get(source).unwrap_or(source).clone()).collect();
        FusedFunction { name: function.name.clone(), params: function.params.clone(), regions, results }
    }

    /// The name of what a recipe makes: the names of what it is made of, and a number where that is not enough.
    fn name(&mut self, recipe: Function) -> String {
        let text = function_text(&recipe);
        if let Some(name) = self.names.get(&text) {
            return name.clone();
        }
        let mut parts: Vec<&str> = Vec::new();
        for node in recipe.graph.topological() {
            if let Op::Weight { name, .. } = recipe.graph.op(node)
                && !parts.contains(&name.as_str())
            {
                parts.push(name);
            }
        }
        // What is made of absolute names alone is the same in every scope.
        let root = if parts.iter().all(|name| name.starts_with('/')) { "/" } else { "" };
        let parts: Vec<&str> = parts.into_iter().map(|name| name.trim_start_matches('/')).collect();
        let base = format!("{root}{}", parts.join("+"));
        let numbered = (1..).map(|number| format!("{base}#{number}"));
        let name = numbered.into_iter().find(|name| !self.by_name.contains_key(name));
        let name = name.expect("there are more numbers than names");
        self.names.insert(text, name.clone());
        self.by_name.insert(name.clone(), recipe);
        name
    }

    /// The recipes that the calls of some programs need, by the full names of what they make, reading full names.
    pub fn of_calls<'p>(&self, modules: impl Iterator<Item = &'p FusedModule>) -> BTreeMap<String, Function> {
        let mut recipes = BTreeMap::new();
        for module in modules {
            for call in &module.calls {
                let regions = module.function(&call.function).map_or(&[][..], |function| &function.regions);
                for source in regions.iter().flat_map(|region| &region.inputs) {
                    let Source::Weight(name) = source else { continue };
                    if let Some(recipe) = self.by_name.get(name) {
                        let key = Module::weight_key(&call.scope, name);
                        recipes.entry(key).or_insert_with(|| in_scope(recipe, &call.scope));
                    }
                }
            }
        }
        recipes
    }
}

/// What one output of a region of weights is made of.
fn recipe(region: &Region, output: NodeId) -> Function {
    let mut recipe =
        Function { name: "recipe".to_owned(), params: Vec::new(), graph: region.body.clone(), results: vec![output] };
    replace_leaves(&mut recipe, |op| match op {
        Op::Input { index, ty } => match &region.inputs[index] {
            Source::Weight(name) => Op::Weight { name: name.clone(), ty },
            // The verifier has refused anything else.
            _ => Op::Input { index, ty },
        },
        op => op,
    });
    sweep(&mut recipe).expect("a copy of a well-typed graph is well-typed");
    recipe
}

/// A recipe whose weights have their full names.
fn in_scope(recipe: &Function, scope: &str) -> Function {
    let mut recipe = recipe.clone();
    replace_leaves(&mut recipe, |op| match op {
        Op::Weight { name, ty } => Op::Weight { name: Module::weight_key(scope, &name), ty },
        op => op,
    });
    recipe
}

/// Replaces operations by others of the same type.
fn replace_leaves(recipe: &mut Function, replace: impl Fn(Op) -> Op) {
    let rebuilt = rebuild(recipe, |graph, op, operands| graph.add(replace(op), operands));
    rebuilt.expect("a copy of a well-typed graph is well-typed");
}
