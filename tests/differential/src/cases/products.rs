//! Products alone: a table's rows, a pair with a gate, and one with a bias.

use crate::case::{Build, Case, Limits, Target, random_weight, weight_types};
use crate::check::Tokens;
use llmc_ir::builder::{Bias, FunctionBuilder, Numerics};
use llmc_ir::dim::{Dim, Symbol};
use llmc_ir::eval::Tensor;
use llmc_ir::module::{LOGITS, Module};
use llmc_ir::shape::Type;
use llmc_ir::testing::{Random, head_function, plain_call, table_function};
use llmc_passes::fuse::Epilogues;

const ROWS: usize = 43;

/// `x [tokens, inputs]` times a pair of `[inner, inputs]` with a gate, times `[outputs, inner]` with a bias.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Columns of the rows.
    pub inputs: usize,
    /// Columns of the first products.
    pub inner: usize,
    /// Columns of the logits.
    pub outputs: usize,
}

fn module(sizes: Sizes, numerics: Numerics) -> Module {
    let Sizes { inputs, inner, outputs } = sizes;
    let dtype = numerics.matrix;
    let mut b = FunctionBuilder::new("gated", numerics);
    let x = b.param("x", Type::tensor(dtype, &[Dim::from(Symbol::Tokens), inputs.into()]));
    let gate = b.linear(x, "gate", (inputs, inner), Bias::Absent);
    let up = b.linear(x, "up", (inputs, inner), Bias::Absent);
    let gate = b.silu(gate);
    let product = b.times(gate, up);
    let product = b.to_matrix_type(product);
    let gated = b.finish(&[product]).expect("products are well-typed");

    let embed = table_function(numerics, ROWS, inputs);
    let head = head_function(numerics, inner, |b, x| b.linear(x, "down", (inner, outputs), Bias::Present));
    let calls =
        vec![plain_call("embed", &[], "x"), plain_call("gated", &["x"], "y"), plain_call("head", &["y"], LOGITS)];
    Module { name: "Products".into(), functions: vec![embed, gated, head], calls }
}

/// The same with some elements that are so small that compressed weights write their exponents out.
fn with_rare_exponents(weight: &Tensor) -> Tensor {
    let mut random = Random::new(weight.data().len() as u64);
    let mut scaled = |value: f64| if random.below(1500) == 0 { weight.dtype().round(value * 1e-9) } else { value };
    let data = weight.data().iter().map(|&value| scaled(value)).collect();
    Tensor::new(weight.dtype(), weight.sizes().to_vec(), data).expect("as many numbers as elements")
}

/// A case of such products, and steps of so many new tokens of sequences that appear in order.
///
/// # Panics
/// If there are no such products.
pub fn case(
    sizes: Sizes,
    numerics: Numerics,
    target: Target,
    limits: Limits,
    counts: &[&[usize]],
) -> (Case, Vec<Tokens>) {
    let module = module(sizes, numerics);
    let mut random = Random::new(sizes.inputs as u64);
    let weights = weight_types(&module).into_iter().map(|(name, ty)| {
        let columns = if name == "rows" { 1 } else { ty.shape.0.last().and_then(|dim| dim.as_fixed()).unwrap_or(1) };
        let weight = random_weight(&mut random, &ty, 1.7 / (columns as f64).sqrt());
        (name, with_rare_exponents(&weight))
    });
    let weights = weights.collect();
    let epilogues = if sizes.outputs.is_multiple_of(2) { Epilogues::Fused } else { Epilogues::Separate };
    // Narrow weights are widened in the product, or while compiling; some are compressed.
    let left_out = [("dequant", !sizes.inner.is_multiple_of(2)), ("compress", sizes.outputs % 3 == 1)];
    let without = left_out.iter().filter(|(_, is_left_out)| *is_left_out).map(|(pass, _)| (*pass).to_owned()).collect();
    let case = Case { module, weights, limits, build: Build { target, without, epilogues, method: None } };
    let mut tokens = |count: usize| (0..count).map(|_| random.below(ROWS) as i32).collect();
    let steps = counts.iter().map(|counts| (0..).zip(*counts).map(|(id, &count)| (id, tokens(count))).collect());
    (case, steps.collect())
}
