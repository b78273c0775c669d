//! What a rewrite rule is, and how the table of rules becomes egg's rewrites.

use super::analysis::{Analysis, Dependence, Graph};
use super::language::Node;
use egg::{Applier, Id, PatternAst, Rewrite, SearchMatches, Searcher, Subst, Symbol, Var};
use llmc_ir::infer::infer;
use llmc_ir::module::Function;
use llmc_ir::op::Op;
use llmc_ir::shape::{TensorType, Type};
use std::fmt;
use std::str::FromStr;

/// A rewrite rule: terms that equal a node.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Unique; what reports and dumps call it.
    pub name: &'static str,
    /// What it is for.
    pub family: Family,
    /// What it does to numbers.
    pub numerics: Numerics,
    /// The equation, for people.
    pub equation: &'static str,
    /// Where the rule applies and what it finds.
    pub apply: Apply,
    /// A function in which the rule applies, for a seed: what the soundness tests feed it.
    pub example: fn(u64) -> Function,
}

/// Classes that equal a node of the given class; none where the rule does not apply.
pub type Apply = fn(&mut Terms<'_>, Id, &Node) -> Vec<Id>;

/// Rules by purpose: what `ablation` switches on and off together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Rows that nobody looks at are not computed.
    Prune,
    /// Products of one operand become one product.
    Merge,
    /// Scales before or behind a product.
    Factor,
    /// Products of products in another order.
    Reassociate,
    /// Narrow weights are widened where they are used, or once.
    Dequant,
    /// How kernels divide their work.
    Choose,
}

impl Family {
    /// Every family, in declaration order.
    pub const ALL: [Family; 6] =
        [Family::Prune, Family::Merge, Family::Factor, Family::Reassociate, Family::Dequant, Family::Choose];

    /// The name used in reports.
    pub fn name(self) -> &'static str {
        match self {
            Family::Prune => "prune",
            Family::Merge => "merge",
            Family::Factor => "factor",
            Family::Reassociate => "reassociate",
            Family::Dequant => "dequant",
            Family::Choose => "choose",
        }
    }
}

impl Family {
    /// One line for help texts.
    pub fn description(self) -> &'static str {
        match self {
            Family::Prune => "rows that nobody looks at are not computed",
            Family::Merge => "products of one operand become one product",
            Family::Factor => "scales before or behind a product, where there are fewer elements",
            Family::Reassociate => "products of products in another order; of weights alone, while compiling",
            Family::Dequant => "narrow weights are widened in the product that reads them, or once",
            Family::Choose => "gemm or gemv, attention whole or split over the context",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a rule does to the numbers that are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Numerics {
    /// Every element is the result of the same operations.
    Exact,
    /// Sums and products are taken in another order: equal over the real numbers, and rounded to narrow types at the same
    /// places.
    Reassociates,
    /// The same but for what products in block floating point lose, which is far less than what rounding to narrow types loses
    /// at those places: [`llmc_ir::block_float`].
    #[default]
    Blocks,
    /// Equal over the real numbers, but rounded to narrow types at other places.
    Rounds,
}

impl Numerics {
    /// Every class, the strictest first.
    pub const ALL: [Numerics; 4] = [Numerics::Exact, Numerics::Reassociates, Numerics::Blocks, Numerics::Rounds];

    /// The name used in flags and reports.
    pub fn name(self) -> &'static str {
        match self {
            Numerics::Exact => "exact",
            Numerics::Reassociates => "reassociates",
            Numerics::Blocks => "blocks",
            Numerics::Rounds => "rounds",
        }
    }
}

impl FromStr for Numerics {
    type Err = String;

    fn from_str(text: &str) -> Result<Numerics, String> {
        let known = Numerics::ALL.into_iter().find(|numerics| numerics.name() == text);
        known.ok_or_else(|| {
            format!("`{text}` is no class of rules, expected {}", Numerics::ALL.map(Numerics::name).join(", "))
        })
    }
}

/// Across which steps a sequence's logits have the same bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Invariance {
    /// Across those of one program: with any neighbours. Each program computes as suits it.
    #[default]
    Program,
    /// Across all: decode or prefill, in any company, in chunks of any size. All programs take every sum in one order.
    Batch,
}

impl Invariance {
    /// The name used in reports.
    pub fn name(self) -> &'static str {
        match self {
            Invariance::Program => "program",
            Invariance::Batch => "batch",
        }
    }
}

impl FromStr for Invariance {
    type Err = String;

    fn from_str(text: &str) -> Result<Invariance, String> {
        let known = [Invariance::Program, Invariance::Batch].into_iter().find(|known| known.name() == text);
        known.ok_or_else(|| format!("`{text}` is no invariance, expected program or batch"))
    }
}

/// An e-graph as rules see it: they read it and add terms.
pub struct Terms<'g> {
    graph: &'g mut Graph,
}

impl<'g> Terms<'g> {
    /// The terms of an e-graph.
    pub fn new(graph: &'g mut Graph) -> Terms<'g> {
        Terms { graph }
    }

    /// The class of an operation on classes; `None` if it is ill-typed.
    pub fn add(&mut self, op: Op, operands: &[Id]) -> Option<Id> {
        let types: Vec<&Type> = operands.iter().map(|&operand| &self.graph[operand].data.ty).collect();
        infer(&op, &types).ok()?;
        Some(self.graph.add(Node { op, operands: operands.to_vec() }))
    }

    /// The type of a class.
    pub fn ty(&self, class: Id) -> &Type {
        &self.graph[class].data.ty
    }

    /// The tensor type of a class; `None` for a cache.
    pub fn tensor(&self, class: Id) -> Option<&TensorType> {
        self.ty(class).as_tensor()
    }

    /// The axis along which the rows of a step lie in a class.
    pub fn row_axis(&self, class: Id) -> Option<usize> {
        self.graph[class].data.row_axis
    }

    /// What the values of a class depend on.
    pub fn dependence(&self, class: Id) -> Dependence {
        self.graph[class].data.dependence
    }

    /// The nodes of a class, in an order that only the e-graph's history determines.
    pub fn nodes(&self, class: Id) -> Vec<Node> {
        let mut nodes = self.graph[class].nodes.clone();
        nodes.sort();
        nodes
    }

    /// The nodes that have a class among their operands, each with its own class, in order of creation.
    pub fn users(&self, class: Id) -> Vec<(Id, Node)> {
        let mut users: Vec<(Id, Node)> = self.graph[class]
            .parents()
            .map(|parent| {
                let node = self.graph.id_to_node(parent).clone();
                let canonical = egg::Language::map_children(node, |child| self.graph.find(child));
                (self.graph.find(parent), canonical)
            })
            .collect();
        users.sort();
        users.dedup();
        users
    }

    /// The representative of a class.
    pub fn find(&self, class: Id) -> Id {
        self.graph.find(class)
    }
}

/// The rule for egg. Every class is a match; the work is in applying.
pub fn rewrite(rule: Rule) -> Rewrite<Node, Analysis> {
    let side = RuleSide(rule);
    Rewrite::new(rule.name, side, side).expect("a rule without pattern variables has no unbound ones")
}

#[derive(Clone, Copy)]
struct RuleSide(Rule);

impl Searcher<Node, Analysis> for RuleSide {
    fn search_eclass_with_limit(&self, graph: &Graph, class: Id, _: usize) -> Option<SearchMatches<'_, Node>> {
        Some(SearchMatches { eclass: graph.find(class), substs: vec![Subst::default()], ast: None })
    }

    fn vars(&self) -> Vec<Var> {
        Vec::new()
    }
}

impl Applier<Node, Analysis> for RuleSide {
    fn apply_one(
        &self,
        graph: &mut Graph,
        class: Id,
        _: &Subst,
        _: Option<&PatternAst<Node>>,
        rule: Symbol,
    ) -> Vec<Id> {
        let mut changed = Vec::new();
        let mut terms = Terms::new(graph);
        for node in terms.nodes(class) {
            for equal in (self.0.apply)(&mut terms, class, &node) {
                if terms.graph.union_trusted(class, equal, rule) {
                    changed.push(class);
                }
            }
        }
        changed
    }
}
