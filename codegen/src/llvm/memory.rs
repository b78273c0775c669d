//! Loads and stores of tensor elements in their memory layouts.

use super::compressed;
use super::index::{Index, linear, linear_align};
use super::math::{self, floats};
use super::text::{F32, FunctionText, I16, I32, I64, Machine, Scalar, Ty, Value, int, int_of};
use crate::kernel::common_divisor;
use llmc_ir::dtype::DType;
use llmc_ir::plan::WeightLayout;
use llmc_ir::shape::TensorType;

/// What operands of device kernels are aligned to, in bytes: what one load can take.
pub const DEVICE_ALIGNMENT: usize = 16;

/// Loads the element at `at`, or `lanes` elements where one of the indices has lanes.
pub fn load(
    f: &mut FunctionText,
    base: &Value,
    ty: &TensorType,
    layout: WeightLayout,
    at: &[Index],
    lanes: usize,
) -> Result<Value, String> {
    match layout {
        WeightLayout::RowMajor => {}
        WeightLayout::Panels | WeightLayout::Compressed => return load_from_panels(f, base, (ty, layout), at, lanes),
        WeightLayout::Rounded => return Err("rounded weights have no elements".into()),
    }
    let (position, varies) = linear(f, &ty.shape, at)?;
    let lanes = if varies { lanes } else { 1 };
    let bytes = ty.dtype.bytes();
    let address = f.element(base, &position, bytes as i64);
    let align = alignment(f, ty, at, lanes);
    match ty.dtype {
        DType::F32 => Ok(f.load(floats(lanes), &address, align)),
        DType::I32 => Ok(f.load(I32.with_lanes(lanes), &address, align)),
        DType::BF16 => {
            let bits = f.load(I16.with_lanes(lanes), &address, align);
            Ok(math::bf16_to_f32(f, &bits))
        }
        DType::Bool => {
            let byte = Ty { scalar: Scalar::I8, lanes };
            let value = f.load(byte, &address, align);
            Ok(f.compare("icmp ne", &value, &int_of(byte, 0)))
        }
        DType::F16 => Err("f16 has no host code; compile for bf16 or f32".into()),
    }
}

/// Stores what [`load`] returned, `value` having the element type's range.
pub fn store(f: &mut FunctionText, value: &Value, base: &Value, ty: &TensorType, at: &[Index]) -> Result<(), String> {
    let (position, _) = linear(f, &ty.shape, at)?;
    let bytes = ty.dtype.bytes();
    let address = f.element(base, &position, bytes as i64);
    let align = alignment(f, ty, at, value.ty.lanes);
    let value = match ty.dtype {
        DType::F32 | DType::I32 => value.clone(),
        DType::BF16 => math::bf16_bits(f, value),
        DType::Bool => f.cast("zext", value, value.ty.with_scalar(Scalar::I8)),
        DType::F16 => return Err("f16 has no host code; compile for bf16 or f32".into()),
    };
    f.store(&value, &address, align);
    Ok(())
}

/// The bytes that lanes at `at` are aligned to. A CPU does not care; a GPU reads several lanes at once only where all are
/// aligned, and there every operand begins at a multiple of [`DEVICE_ALIGNMENT`].
fn alignment(f: &FunctionText, ty: &TensorType, at: &[Index], lanes: usize) -> usize {
    let bytes = ty.dtype.bytes();
    match f.machine() {
        Machine::Host => bytes,
        Machine::Device => common_divisor(
            common_divisor(linear_align(&ty.shape, at), lanes.next_power_of_two()) * bytes,
            DEVICE_ALIGNMENT,
        ),
    }
}

/// One row of a panel-packed matrix, element by element: only embeddings read weights this way.
fn load_from_panels(
    f: &mut FunctionText,
    base: &Value,
    (ty, layout): (&TensorType, WeightLayout),
    at: &[Index],
    lanes: usize,
) -> Result<Value, String> {
    let columns = ty.shape.0[1].as_fixed().ok_or("a weight has fixed sizes")?;
    let (row, first) = (at[0].first(f), at[1].first(f));
    let lanes = if at[1].has_lanes() { lanes } else { 1 };
    let panel = f.binary("ashr", &row, &int(5));
    let in_panel = f.binary("and", &row, &int(31));
    let mut result = Value { text: "poison".into(), ty: floats(lanes) };
    for lane in 0..lanes {
        let k = f.add(&first, &int(lane as i64));
        let value = match ty.dtype {
            DType::F32 => {
                let line = f.scale(&panel, columns as i64);
                let line = f.add(&line, &k);
                let address = f.element(base, &line, 128);
                let address = f.element(&address, &in_panel, 4);
                f.load(F32, &address, 4)
            }
            DType::BF16 if layout == WeightLayout::Compressed => {
                let bits = compressed::element(f, base, columns, [&row, &k]);
                math::bf16_to_f32(f, &bits)
            }
            DType::BF16 => {
                let block = f.binary("ashr", &k, &int(5));
                let pair = f.binary("and", &k, &int(31));
                let line = f.scale(&panel, columns.div_ceil(32) as i64);
                let line = f.add(&line, &block);
                let address = f.element(base, &line, 2048);
                let tile = f.binary("ashr", &in_panel, &int(4));
                let address = f.element(&address, &tile, 1024);
                let column = f.binary("and", &in_panel, &int(15));
                let address = f.element(&address, &column, 4);
                let odd = f.binary("and", &pair, &int(1));
                let address = f.element(&address, &odd, 2);
                let line = f.binary("ashr", &pair, &int(1));
                let address = f.element(&address, &line, 64);
                let bits = f.load(I16, &address, 2);
                math::bf16_to_f32(f, &bits)
            }
            other => return Err(format!("{other} weights have no panel layout")),
        };
        result = f.insert(&result, &value, lane);
    }
    Ok(result)
}

/// The address of a constant tensor.
pub fn constant(f: &mut FunctionText, dtype: DType, values: &[f64]) -> Value {
    match dtype {
        DType::I32 => {
            let values: Vec<_> = values.iter().map(|&value| (value as i32).to_string()).collect();
            f.constant("i32", &values)
        }
        DType::Bool => {
            let values: Vec<_> = values.iter().map(|&value| u8::from(value != 0.0).to_string()).collect();
            f.constant("i8", &values)
        }
        _ => {
            let bits = |&value: &f64| format!("0x{:016X}", f64::from(dtype.round(value) as f32).to_bits());
            let values: Vec<_> = values.iter().map(bits).collect();
            f.constant("float", &values)
        }
    }
}

/// The type that [`constant`] stores values of type `ty` in.
pub fn constant_type(ty: &TensorType) -> TensorType {
    let dtype = if ty.dtype.is_float() { DType::F32 } else { ty.dtype };
    TensorType { dtype, shape: ty.shape.clone() }
}

/// An `i32` from memory as `i64`.
pub fn load_index(f: &mut FunctionText, base: &Value, index: &Value) -> Value {
    let address = f.element(base, index, 4);
    let value = f.load(I32, &address, 4);
    f.cast("sext", &value, I64)
}
