//! Fusion: cuts each function into regions by iteration space; a region becomes one kernel.
//!
//! No pattern of any model is known here. Nodes are taken in topological order, and each joins the region that
//! its operands are in if the result is still one loop nest over rows (`space`); anything else starts a region.
//! What is only indexing (reshapes, broadcasts, slices, conversions of values in memory) belongs to no region: it
//! is repeated wherever it is used. Products that were merged for one launch (`merged`) end in one region.

mod body;
mod extract;
mod grow;
mod merged;
mod name;
#[cfg(test)]
pub(crate) mod random;
#[cfg(test)]
pub(crate) mod sample;
mod space;
#[cfg(test)]
mod tests;

pub(crate) use body::Body;
pub(crate) use name::unique as unique_name;

use crate::pass::{Context, State};
use llmc_ir::module::{Function, SpecializedModule};
use llmc_ir::region::{FusedFunction, FusedModule, FusedProgram, Region};

/// Whether matrix products take the elementwise work behind them into their kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Epilogues {
    /// They do.
    #[default]
    Fused,
    /// Each product is a kernel of its own, for comparison.
    Separate,
}

/// The pass: regions with fused epilogues for all programs.
pub fn fuse(state: State, _: &Context) -> Result<State, String> {
    let State::Programs(programs) = state else {
        return Err(format!("it takes specialised modules, found {}; run `specialize` first", state.kind()));
    };
    Ok(State::Fused(programs.iter().map(|program| fuse_program(program, Epilogues::Fused)).collect()))
}

/// Fuses every function of a program.
pub fn fuse_program(program: &SpecializedModule, epilogues: Epilogues) -> FusedProgram {
    let functions = program.module.functions.iter().map(|function| fuse_function(function, epilogues)).collect();
    let module = FusedModule { name: program.module.name.clone(), functions, calls: program.module.calls.clone() };
    FusedProgram { name: program.name.clone(), processor: program.processor, bounds: program.bounds, module }
}

/// Cuts one function into regions. Every function can be cut; whether there is a kernel for each region is
/// [`check_region`]'s to say.
pub fn fuse_function(function: &Function, epilogues: Epilogues) -> FusedFunction {
    let (function, merged) = merged::split(function);
    extract::extract(&function, &grow::grow(&function, epilogues, &merged))
}

/// Whether a region is of a form that kernels can be made of. The error names the operation at fault.
pub fn check_region(region: &Region) -> Result<(), String> {
    space::check_body(region)
}
