//! Indices into tensors while code for a region is written: per axis, where an element (or a run of lanes) lies.

use super::text::{FunctionText, Value, int};
use crate::kernel::common_divisor;
use llmc_ir::shape::Shape;

/// A position along one axis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Index {
    /// The same for all lanes.
    Scalar(Value),
    /// Lane i is at `base + i`.
    Lanes {
        /// Position of the first lane.
        base: Value,
        /// All positions that the loop reaches are at least this ...
        low: usize,
        /// ... and less than this.
        high: usize,
        /// All first lanes are at multiples of this.
        align: usize,
    },
    /// `outer * size + inner`.
    Factored {
        /// The group.
        outer: Value,
        /// The position in the group.
        inner: Box<Index>,
        /// Positions per group.
        size: usize,
    },
}

impl Index {
    /// Position 0.
    pub fn zero() -> Index {
        Index::Scalar(int(0))
    }

    /// Whether lanes differ.
    pub fn has_lanes(&self) -> bool {
        match self {
            Index::Scalar(_) => false,
            Index::Lanes { .. } => true,
            Index::Factored { inner, .. } => inner.has_lanes(),
        }
    }

    /// The position in a row whose groups have `size` elements, if this is the position in one of them.
    pub fn in_group(&self, f: &mut FunctionText, group: &Value, size: usize) -> Index {
        match self {
            Index::Scalar(inner) => {
                let start = f.scale(group, size as i64);
                Index::Scalar(f.add(&start, inner))
            }
            inner => Index::Factored { outer: group.clone(), inner: Box::new(inner.clone()), size },
        }
    }

    /// The position of the first lane.
    pub fn first(&self, f: &mut FunctionText) -> Value {
        match self {
            Index::Scalar(value) => value.clone(),
            Index::Lanes { base, .. } => base.clone(),
            Index::Factored { outer, inner, size } => {
                let start = f.scale(outer, *size as i64);
                let inner = inner.first(f);
                f.add(&start, &inner)
            }
        }
    }

    /// The position `by` further on (or back).
    pub fn shifted(&self, f: &mut FunctionText, by: i64) -> Result<Index, String> {
        match self {
            Index::Scalar(value) => Ok(Index::Scalar(f.add(value, &int(by)))),
            Index::Lanes { base, low, high, align } => Ok(Index::Lanes {
                base: f.add(base, &int(by)),
                low: (*low as i64 + by) as usize,
                high: (*high as i64 + by) as usize,
                align: common_divisor(*align, by.unsigned_abs() as usize),
            }),
            Index::Factored { .. } => Err("slices and concats of grouped columns are not supported".into()),
        }
    }

    /// What all positions of first lanes are multiples of; 0 if there is only position 0.
    pub fn align(&self) -> usize {
        match self {
            Index::Scalar(value) => value.text.parse().unwrap_or(1),
            Index::Lanes { align, .. } => *align,
            Index::Factored { inner, size, .. } => common_divisor(*size, inner.align()),
        }
    }

    /// The positions it can reach: the whole axis of `size` if nothing narrower is known.
    pub fn reach(&self, size: usize) -> (usize, usize) {
        match self {
            Index::Lanes { low, high, .. } => (*low, *high),
            _ => (0, size),
        }
    }
}

/// Indices into the operand of a reshape, from indices into its result.
pub fn through_reshape(
    f: &mut FunctionText,
    result: &Shape,
    operand: &Shape,
    at: &[Index],
) -> Result<Vec<Index>, String> {
    match through_axes(f, result, operand, at) {
        Err(_) if !at.iter().any(Index::has_lanes) => through_elements(f, result, operand, at),
        indices => indices,
    }
}

/// By the element's number.
fn through_elements(f: &mut FunctionText, result: &Shape, operand: &Shape, at: &[Index]) -> Result<Vec<Index>, String> {
    let (mut rest, _) = linear(f, result, at)?;
    let mut indices = Vec::new();
    for axis in (1..operand.rank()).rev() {
        let size = operand.0[axis].as_fixed().ok_or_else(|| format!("axis {axis} of {operand} has no fixed size"))?;
        let size = int(size as i64);
        indices.push(Index::Scalar(f.binary("srem", &rest, &size)));
        rest = f.binary("sdiv", &rest, &size);
    }
    indices.extend((operand.rank() > 0).then_some(Index::Scalar(rest)));
    indices.reverse();
    Ok(indices)
}

/// Axis by axis: those of one side are those of the other, or two of them are one.
fn through_axes(f: &mut FunctionText, result: &Shape, operand: &Shape, at: &[Index]) -> Result<Vec<Index>, String> {
    let significant = |shape: &Shape| -> Vec<usize> {
        (0..shape.rank()).filter(|&axis| shape.0[axis].as_fixed() != Some(1)).collect()
    };
    let (mut to, mut from) = (significant(result).into_iter().peekable(), significant(operand).into_iter().peekable());
    let mut indices = vec![Index::zero(); operand.rank()];
    while let (Some(r), Some(o)) = (to.next(), from.next()) {
        let (have, want) = (result.0[r], operand.0[o]);
        if have == want {
            indices[o] = at[r].clone();
            continue;
        }
        let unsupported = || format!("reshape of {operand} to {result} is not supported here");
        // Two axes of the result are one of the operand: merge; or the other way round: split.
        if let Some(next) = to.peek().copied().filter(|&next| have.times(result.0[next]) == Some(want)) {
            let size = result.0[next].as_fixed().ok_or_else(unsupported)?;
            let Index::Scalar(outer) = &at[r] else { return Err(unsupported()) };
            indices[o] = at[next].in_group(f, outer, size);
            to.next();
        } else if let Some(next) = from.peek().copied().filter(|&next| want.times(operand.0[next]) == Some(have)) {
            let size = operand.0[next].as_fixed().ok_or_else(unsupported)?;
            let (outer, inner) = split(f, &at[r], size).ok_or_else(unsupported)?;
            indices[o] = Index::Scalar(outer);
            indices[next] = inner;
            from.next();
        } else {
            return Err(unsupported());
        }
    }
    Ok(indices)
}

fn split(f: &mut FunctionText, index: &Index, size: usize) -> Option<(Value, Index)> {
    match index {
        Index::Factored { outer, inner, size: known } if *known == size => Some((outer.clone(), (**inner).clone())),
        Index::Scalar(value) => {
            let size = int(size as i64);
            let (outer, inner) = (f.binary("sdiv", value, &size), f.binary("srem", value, &size));
            Some((outer, Index::Scalar(inner)))
        }
        _ => None,
    }
}

/// What the element numbers that [`linear`] returns are multiples of.
pub fn linear_align(shape: &Shape, at: &[Index]) -> usize {
    let mut stride = 1;
    let mut align = 0;
    for axis in (0..shape.rank()).rev() {
        align = common_divisor(align, at[axis].align() * stride);
        stride *= shape.0[axis].as_fixed().unwrap_or(1);
    }
    align
}

/// The row-major element number of the first lane at `at` in a tensor of `shape`, and whether lanes follow it.
pub fn linear(f: &mut FunctionText, shape: &Shape, at: &[Index]) -> Result<(Value, bool), String> {
    let mut position = int(0);
    let mut stride = 1i64;
    let mut lanes = false;
    for axis in (0..shape.rank()).rev() {
        if at[axis].has_lanes() {
            if stride != 1 {
                return Err(format!("lanes along axis {axis} of {shape} are not contiguous"));
            }
            lanes = true;
        }
        let first = at[axis].first(f);
        let scaled = f.scale(&first, stride);
        position = f.add(&scaled, &position);
        if axis > 0 {
            stride *=
                shape.0[axis].as_fixed().ok_or_else(|| format!("axis {axis} of {shape} has no fixed size"))? as i64;
        }
    }
    Ok((position, lanes))
}
