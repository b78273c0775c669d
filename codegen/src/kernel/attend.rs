//! What an attend region computes, and from which inputs.

use llmc_ir::op::{Attention, Op};
use llmc_ir::region::Region;
use llmc_ir::shape::TensorType;

/// Stands for the maximum of no scores: low enough, yet finite, so that differences never are NaN.
pub const NO_MAXIMUM: f64 = -1e30;

/// The attention of a region.
#[derive(Clone, Copy, Debug)]
pub struct AttendRegion<'r> {
    /// Heads, scale and window.
    pub attention: Attention,
    /// Type of the result.
    pub ty: &'r TensorType,
    /// Index of the queries among the region's inputs.
    pub query: usize,
    /// Index of the cache among them.
    pub cache: usize,
}

impl AttendRegion<'_> {
    /// The attention of a region, or why it is none that kernels can be made of.
    pub fn of(region: &Region) -> Result<AttendRegion<'_>, String> {
        let body = &region.body;
        let [node] = region.outputs[..] else { return Err("an attend region has one output".into()) };
        let Op::Attend(attention) = *body.op(node) else { return Err("an attend region yields its attend".into()) };
        let operands = body.operands(node);
        let (&Op::Input { index: query, .. }, &Op::Input { index: cache, .. }) =
            (body.op(operands[0]), body.op(operands[1]))
        else {
            return Err("attend reads the inputs of its region".into());
        };
        let ty = body.ty(node).as_tensor().ok_or("attention is a tensor")?;
        Ok(AttendRegion { attention, ty, query, cache })
    }
}
