//! Elementary functions on scalars and vectors, made of plain arithmetic so that compiled code needs no
//! library and gives the same bits everywhere.

use super::text::{F32, FunctionText, I16, I32, Scalar, Ty, Value, float_of, int_of};

/// `a * b + c`, fused where the target can, else rounded twice.
pub fn fma(f: &mut FunctionText, fused: Fma, a: &Value, b: &Value, c: &Value) -> Value {
    match fused {
        Fma::Fused => f.intrinsic("fma", &[a.clone(), b.clone(), c.clone()]),
        Fma::Separate => {
            let product = f.binary("fmul", a, b);
            f.binary("fadd", &product, c)
        }
    }
}

/// Whether the target has fused multiply-add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fma {
    /// One rounding.
    Fused,
    /// Two roundings.
    Separate,
}

/// Evaluates a polynomial, coefficients from the highest power down (Horner).
fn polynomial(f: &mut FunctionText, fused: Fma, x: &Value, coefficients: &[f64]) -> Value {
    let mut sum = float_of(x.ty, coefficients[0]);
    for &coefficient in &coefficients[1..] {
        sum = fma(f, fused, &sum, x, &float_of(x.ty, coefficient));
    }
    sum
}

/// `e^r` by powers of r from the highest down, for |r| up to ln 2 / 2: of all such polynomials that are exact at 0, nearly
/// those whose largest relative error is smallest (found by reweighted least squares): 1.0e-7 and 3.1e-9.
const EXP_5: [f64; 6] = [8.312_525_12e-3, 4.189_011_4e-2, 0.166_671_144_66, 0.499_992_317_86, 1.0, 1.0];
const EXP_6: [f64; 7] =
    [1.381_461_335_8e-3, 8.368_709_936_8e-3, 4.166_838_736_9e-2, 0.166_665_206_89, 0.499_999_934_52, 1.0, 1.0];

/// Adding this rounds an f32 to the nearest whole number, which is then in the lowest bits.
pub const ROUNDER: f64 = 12_582_912.0;

/// x rounded to a whole number, as f32 and as what a fraction is multiplied by to raise it to that power of 2: both of
/// `shifted`, which is x plus [`ROUNDER`]. The number must be in -127..=127; -127 gives the factor 0.
fn whole_power(f: &mut FunctionText, shifted: &Value) -> [Value; 2] {
    let ints = shifted.ty.with_scalar(Scalar::I32);
    let whole = f.binary("fsub", shifted, &float_of(shifted.ty, ROUNDER));
    let bits = f.cast("bitcast", shifted, ints);
    let biased = f.binary("add", &bits, &int_of(ints, 127));
    let exponent = f.binary("shl", &biased, &int_of(ints, 23));
    [whole, f.cast("bitcast", &exponent, shifted.ty)]
}

/// `2^x` for f32 below 127, exactly 0 from -127 down and 1 at 0; relative error below 3e-7 where it is a normal number, and NaN
/// stays NaN. `2^x = 2^n e^(r ln 2)`, `n = round(x)`.
pub fn exp2(f: &mut FunctionText, fused: Fma, x: &Value) -> Value {
    let clamped = larger(f, &float_of(x.ty, -127.0), x);
    let shifted = f.binary("fadd", &clamped, &float_of(x.ty, ROUNDER));
    let [n, factor] = whole_power(f, &shifted);
    let r = f.binary("fsub", &clamped, &n);
    let highest = EXP_5.len() as i32 - 1;
    let coefficients: Vec<f64> =
        (0..).zip(EXP_5).map(|(place, c)| c * std::f64::consts::LN_2.powi(highest - place)).collect();
    let fraction = polynomial(f, fused, &r, &coefficients);
    f.binary("fmul", &fraction, &factor)
}

/// `2^r` by powers of r from the highest down, for r in 0..1: of all such polynomials that are exact at 0 that whose largest
/// relative error is smallest (found by linear programming): 2.9e-6.
const EXP2_4: [f64; 5] = [0.013_427_390_64, 0.052_241_232_63, 0.241_280_800_27, 0.693_044_792_84, 1.0];

/// `2^x` for 16 f32 where it is to be rounded to bf16: relative error below 3e-6, which is less than the square of
/// rounding's. NaN stays NaN. `2^x = 2^floor(x) 2^r`: AVX-512 takes the fraction r of a number, and scales by a number's power.
pub fn exp2_within_bf16(f: &mut FunctionText, x: &Value) -> Value {
    // Rounds down, and reports nothing.
    let down = int_of(I32, 0b1001);
    let everywhere = int_of(I16, -1);
    let current_rounding = int_of(I32, 4);
    let none = float_of(x.ty, 0.0);
    let avx512 = |name: &str, f: &mut FunctionText, operands: [Value; 2]| {
        let arguments = [&operands[..], &[none.clone(), everywhere.clone(), current_rounding.clone()]].concat();
        f.call(&format!("llvm.x86.avx512.mask.{name}.ps.512"), Some(x.ty), &arguments).expect("a vector")
    };
    let r = avx512("reduce", f, [x.clone(), down]);
    let fraction = polynomial(f, Fma::Fused, &r, &EXP2_4);
    avx512("scalef", f, [fraction, x.clone()])
}

/// ln 2 as a sum: products of the first part with numbers of up to 9 bits are exact.
const LN_2_HIGH: f64 = 0.693_359_375;
const LN_2_LOW: f64 = std::f64::consts::LN_2 - LN_2_HIGH;

/// `e^x` of numbers between this and its negative is a normal f32.
const LARGEST_POWER: f64 = 87.336_54;

/// `e^x` for f32: `x = n ln 2 + r` with ln 2 in two parts (Cody and Waite, 1980), then `2^n e^r`.
pub fn exp(f: &mut FunctionText, fused: Fma, x: &Value) -> Value {
    let (low, high) = (float_of(x.ty, -LARGEST_POWER), float_of(x.ty, 88.722_84));
    let above = f.intrinsic("maxnum", &[x.clone(), low.clone()]);
    let clamped = f.intrinsic("minnum", &[above, high.clone()]);
    let turns = f.binary("fmul", &clamped, &float_of(x.ty, std::f64::consts::LOG2_E));
    let n = f.intrinsic("rint", &[turns]);
    let r = fma(f, fused, &n, &float_of(x.ty, -LN_2_HIGH), &clamped);
    let r = fma(f, fused, &n, &float_of(x.ty, -LN_2_LOW), &r);
    let fraction = polynomial(f, fused, &r, &EXP_6);
    let scaled = scale_by_power(f, &fraction, &n);
    let nan = f.compare("fcmp uno", x, x);
    let scaled = f.select(&nan, x, &scaled);
    let underflow = f.compare("fcmp olt", x, &low);
    let scaled = f.select(&underflow, &float_of(x.ty, 0.0), &scaled);
    let overflow = f.compare("fcmp ogt", x, &high);
    f.select(&overflow, &float_of(x.ty, f64::INFINITY), &scaled)
}

/// `x * 2^n` for integral `n` in -126..=128, in two steps so that 2^128 is never needed as a factor.
fn scale_by_power(f: &mut FunctionText, x: &Value, n: &Value) -> Value {
    let ints = x.ty.with_scalar(Scalar::I32);
    let n = f.cast("fptosi", n, ints);
    let first = f.binary("ashr", &n, &int_of(ints, 1));
    let second = f.binary("sub", &n, &first);
    let mut result = x.clone();
    for part in [first, second] {
        let biased = f.binary("add", &part, &int_of(ints, 127));
        let bits = f.binary("shl", &biased, &int_of(ints, 23));
        let factor = f.cast("bitcast", &bits, x.ty);
        result = f.binary("fmul", &result, &factor);
    }
    result
}

/// `1 / (1 + e^-x)`, exactly 0 where it would be below 2^-126. `e^-x = 2^n e^-r`, `n = round(-x log2 e)`, `r = x + n ln 2` with
/// ln 2 in two parts (Cody and Waite, 1980). Where e^-x is below 2^-126, it counts as that.
pub fn sigmoid(f: &mut FunctionText, fused: Fma, x: &Value) -> Value {
    let (low, high) = (float_of(x.ty, -LARGEST_POWER), float_of(x.ty, LARGEST_POWER));
    let below = f.compare("fcmp olt", x, &low);
    let clamped = f.select(&below, &low, x);
    let above = f.compare("fcmp ogt", &clamped, &high);
    let clamped = f.select(&above, &high, &clamped);
    let turns = float_of(x.ty, -std::f64::consts::LOG2_E);
    let shifted = fma(f, fused, &clamped, &turns, &float_of(x.ty, ROUNDER));
    let [n, factor] = whole_power(f, &shifted);
    let r = fma(f, fused, &n, &float_of(x.ty, LN_2_HIGH), &clamped);
    let r = fma(f, fused, &n, &float_of(x.ty, LN_2_LOW), &r);
    let highest = EXP_6.len() - 1;
    let alternating: Vec<f64> =
        EXP_6.iter().enumerate().map(|(place, c)| if (highest - place) % 2 == 1 { -c } else { *c }).collect();
    let fraction = polynomial(f, fused, &r, &alternating);
    let power = f.binary("fmul", &fraction, &factor);
    let one = float_of(x.ty, 1.0);
    let sum = f.binary("fadd", &power, &one);
    let result = f.binary("fdiv", &one, &sum);
    f.select(&below, &float_of(x.ty, 0.0), &result)
}

/// Hyperbolic tangent: `1 - 2 / (e^2x + 1)`, and its Taylor series where that would cancel.
pub fn tanh(f: &mut FunctionText, fused: Fma, x: &Value) -> Value {
    let one = float_of(x.ty, 1.0);
    let magnitude = f.intrinsic("fabs", std::slice::from_ref(x));
    let doubled = f.binary("fadd", &magnitude, &magnitude);
    let power = exp(f, fused, &doubled);
    let sum = f.binary("fadd", &power, &one);
    let quotient = f.binary("fdiv", &float_of(x.ty, 2.0), &sum);
    let large = f.binary("fsub", &one, &quotient);
    let large = f.intrinsic("copysign", &[large, x.clone()]);
    let square = f.binary("fmul", x, x);
    let series = [-1382.0 / 155_925.0, 62.0 / 2835.0, -17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0];
    let factor = polynomial(f, fused, &square, &series);
    let small = f.binary("fmul", x, &factor);
    let is_small = f.compare("fcmp olt", &magnitude, &float_of(x.ty, 0.3));
    f.select(&is_small, &small, &large)
}

/// Natural logarithm of normal positive numbers (others: NaN below 0, -infinity at 0 and for subnormals).
/// `x = 2^n m`, `m` in [sqrt(1/2), sqrt(2)); `ln m = 2 artanh((m - 1) / (m + 1))`.
pub fn log(f: &mut FunctionText, fused: Fma, x: &Value) -> Value {
    let ints = x.ty.with_scalar(Scalar::I32);
    let bits = f.cast("bitcast", x, ints);
    let sqrt_half = int_of(ints, i64::from(std::f32::consts::FRAC_1_SQRT_2.to_bits()));
    let above = f.binary("sub", &bits, &sqrt_half);
    let n = f.binary("ashr", &above, &int_of(ints, 23));
    let exponent = f.binary("shl", &n, &int_of(ints, 23));
    let mantissa_bits = f.binary("sub", &bits, &exponent);
    let m = f.cast("bitcast", &mantissa_bits, x.ty);
    let one = float_of(x.ty, 1.0);
    let (below, over) = (f.binary("fsub", &m, &one), f.binary("fadd", &m, &one));
    let s = f.binary("fdiv", &below, &over);
    let square = f.binary("fmul", &s, &s);
    let series = [2.0 / 11.0, 2.0 / 9.0, 2.0 / 7.0, 2.0 / 5.0, 2.0 / 3.0, 2.0];
    let factor = polynomial(f, fused, &square, &series);
    let mantissa_log = f.binary("fmul", &s, &factor);
    let n = f.cast("sitofp", &n, x.ty);
    let result = fma(f, fused, &n, &float_of(x.ty, std::f64::consts::LN_2), &mantissa_log);
    let zero = float_of(x.ty, 0.0);
    let tiny = f.compare("fcmp olt", x, &float_of(x.ty, f64::from(f32::MIN_POSITIVE)));
    let result = f.select(&tiny, &float_of(x.ty, f64::NEG_INFINITY), &result);
    let negative = f.compare("fcmp olt", x, &zero);
    let result = f.select(&negative, &float_of(x.ty, f64::NAN), &result);
    let infinite = f.compare("fcmp ueq", x, &float_of(x.ty, f64::INFINITY));
    f.select(&infinite, x, &result)
}

/// Which of the two circular functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circular {
    /// Sine.
    Sin,
    /// Cosine.
    Cos,
}

/// pi/2 as a sum. The first two parts have 23 bits each, so that their products with any q below 2^30 are exact, fused
/// or not; the last one is rounded.
const HALF_PI: [f64; 3] = [
    f64::from_bits(0x3FF9_21FB_4000_0000),
    f64::from_bits(0x3E74_442D_0000_0000),
    f64::from_bits(0x3CF8_4698_98CC_5170),
];

/// Angles beyond this have no sine or cosine: NaN. Positions are far below.
const LARGEST_ANGLE: f64 = 1e9;

/// Sine or cosine of f32 radians up to [`LARGEST_ANGLE`], computed in f64 and exact to f32 rounding: `x = q pi/2 + r`
/// with pi/2 in three parts (Cody and Waite, 1980), then Taylor series in `r`.
pub fn circular(f: &mut FunctionText, fused: Fma, which: Circular, x: &Value) -> Value {
    if x.ty.lanes > 8 {
        let halves = [0, 1].map(|upper| f.half(x, upper));
        let results = halves.map(|half| circular(f, fused, which, &half));
        return join(f, &results[0], &results[1]);
    }
    let doubles = x.ty.with_scalar(Scalar::F64);
    let ints = x.ty.with_scalar(Scalar::I64);
    let magnitude = f.intrinsic("fabs", std::slice::from_ref(x));
    let in_range = f.compare("fcmp ole", &magnitude, &float_of(x.ty, LARGEST_ANGLE));
    // What is out of range must not reach the conversion of q to an integer.
    let x = f.select(&in_range, x, &float_of(x.ty, 0.0));
    let x64 = f.cast("fpext", &x, doubles);
    let turns = f.binary("fmul", &x64, &float_of(doubles, std::f64::consts::FRAC_2_PI));
    let q = f.intrinsic("rint", &[turns]);
    let mut r = x64;
    for part in HALF_PI {
        r = fma(f, fused, &q, &float_of(doubles, -part), &r);
    }
    let square = f.binary("fmul", &r, &r);
    let sine_series = [-1.0 / 39_916_800.0, 1.0 / 362_880.0, -1.0 / 5040.0, 1.0 / 120.0, -1.0 / 6.0, 1.0];
    let cosine_series = [1.0 / 479_001_600.0, -1.0 / 3_628_800.0, 1.0 / 40_320.0, -1.0 / 720.0, 1.0 / 24.0, -0.5, 1.0];
    let sine = polynomial(f, fused, &square, &sine_series);
    let sine = f.binary("fmul", &r, &sine);
    let cosine = polynomial(f, fused, &square, &cosine_series);
    let mut quadrant = f.cast("fptosi", &q, ints);
    if which == Circular::Cos {
        quadrant = f.binary("add", &quadrant, &int_of(ints, 1));
    }
    let odd = f.binary("and", &quadrant, &int_of(ints, 1));
    let odd = f.compare("icmp ne", &odd, &int_of(ints, 0));
    let value = f.select(&odd, &cosine, &sine);
    let half_turn = f.binary("and", &quadrant, &int_of(ints, 2));
    let half_turn = f.compare("icmp ne", &half_turn, &int_of(ints, 0));
    let negated = f.negate(&value);
    let value = f.select(&half_turn, &negated, &value);
    let value = f.cast("fptrunc", &value, x.ty);
    f.select(&in_range, &value, &float_of(x.ty, f64::NAN))
}

fn join(f: &mut FunctionText, low: &Value, high: &Value) -> Value {
    let lanes = low.ty.lanes * 2;
    let ty = low.ty.with_lanes(lanes);
    let mut joined = Value { text: "poison".into(), ty };
    for lane in 0..lanes {
        let half = if lane < lanes / 2 { low } else { high };
        let scalar = f.extract(half, lane % (lanes / 2));
        joined = f.insert(&joined, &scalar, lane);
    }
    joined
}

/// An f32 rounded to the nearest bf16 (ties to even, NaN stays NaN), still as f32. Where a CPU has an instruction for it,
/// denormal numbers become zero.
pub fn round_to_bf16(f: &mut FunctionText, x: &Value) -> Value {
    if f.instructions().round_to_bf16 {
        let rounded = f.cast("fptrunc", x, x.ty.with_scalar(Scalar::BF16));
        let bits = f.cast("bitcast", &rounded, x.ty.with_scalar(Scalar::I16));
        return bf16_to_f32(f, &bits);
    }
    let ints = x.ty.with_scalar(Scalar::I32);
    let bits = f.cast("bitcast", x, ints);
    let upper = f.binary("lshr", &bits, &int_of(ints, 16));
    let odd = f.binary("and", &upper, &int_of(ints, 1));
    let bias = f.binary("add", &odd, &int_of(ints, 0x7FFF));
    let rounded = f.binary("add", &bits, &bias);
    let cut = f.binary("and", &rounded, &int_of(ints, -0x1_0000));
    let nan = f.compare("fcmp uno", x, x);
    let quiet = f.binary("or", &bits, &int_of(ints, 0x40_0000));
    let quiet = f.binary("and", &quiet, &int_of(ints, -0x1_0000));
    let result = f.select(&nan, &quiet, &cut);
    f.cast("bitcast", &result, x.ty)
}

/// Twice 16 f32 rounded to bf16 side by side, as [`round_to_bf16`] does.
pub fn pair_to_bf16(f: &mut FunctionText, low: &Value, high: &Value) -> Value {
    if f.instructions().round_to_bf16 {
        let pair = low.ty.with_scalar(Scalar::BF16).with_lanes(2 * low.ty.lanes);
        let halves = [high.clone(), low.clone()];
        return f.call("llvm.x86.avx512bf16.cvtne2ps2bf16.512", Some(pair), &halves).expect("a vector");
    }
    let [low, high] = [low, high].map(|half| {
        let rounded = round_to_bf16(f, half);
        bf16_bits(f, &rounded)
    });
    join(f, &low, &high)
}

/// The bf16 bits (`i16`) of an f32 that [`round_to_bf16`] returned.
pub fn bf16_bits(f: &mut FunctionText, x: &Value) -> Value {
    let ints = x.ty.with_scalar(Scalar::I32);
    let bits = f.cast("bitcast", x, ints);
    let upper = f.binary("lshr", &bits, &int_of(ints, 16));
    f.cast("trunc", &upper, x.ty.with_scalar(Scalar::I16))
}

/// The f32 of bf16 bits (`i16`).
pub fn bf16_to_f32(f: &mut FunctionText, bits: &Value) -> Value {
    let ints = bits.ty.with_scalar(Scalar::I32);
    let wide = f.cast("zext", bits, ints);
    let shifted = f.binary("shl", &wide, &int_of(ints, 16));
    f.cast("bitcast", &shifted, bits.ty.with_scalar(Scalar::F32))
}

/// The even and the odd elements as f32 of pairs of bf16, the even one in the lower half of each `i32`.
pub fn bf16_pairs_to_f32(f: &mut FunctionText, pairs: &Value) -> [Value; 2] {
    [("shl", 16), ("and", -0x1_0000)].map(|(operation, by)| {
        let bits = f.binary(operation, pairs, &int_of(pairs.ty, by));
        f.cast("bitcast", &bits, pairs.ty.with_scalar(Scalar::F32))
    })
}

/// Sum of all lanes in a fixed order: halves are added until one lane is left.
pub fn sum_lanes(f: &mut FunctionText, vector: &Value) -> Value {
    fold_lanes(f, vector, |f, a, b| f.binary("fadd", a, b))
}

/// The largest lane, NaN if there is one.
pub fn maximum_lanes(f: &mut FunctionText, vector: &Value) -> Value {
    fold_lanes(f, vector, |f, a, b| f.intrinsic("maximum", &[a.clone(), b.clone()]))
}

/// The larger of two numbers, the second if the first is NaN.
pub fn larger(f: &mut FunctionText, a: &Value, b: &Value) -> Value {
    let is_larger = f.compare("fcmp ogt", a, b);
    f.select(&is_larger, a, b)
}

/// The largest of lanes without NaN.
pub fn max_lanes(f: &mut FunctionText, vector: &Value) -> Value {
    fold_lanes(f, vector, larger)
}

/// Whether one of 16 lanes is set.
pub fn any(f: &mut FunctionText, lanes: &Value) -> Value {
    let bits = f.cast("bitcast", lanes, I16);
    f.compare("icmp ne", &bits, &int_of(I16, 0))
}

/// All lanes in a fixed order: halves are combined until one lane is left.
pub fn fold_lanes(
    f: &mut FunctionText,
    vector: &Value,
    combine: impl Fn(&mut FunctionText, &Value, &Value) -> Value,
) -> Value {
    let mut rest = vector.clone();
    while rest.ty.lanes > 1 {
        let (low, high) = (f.half(&rest, 0), f.half(&rest, 1));
        rest = combine(f, &low, &high);
    }
    rest
}

/// `f32` with the given number of lanes.
pub fn floats(lanes: usize) -> Ty {
    F32.with_lanes(lanes)
}

/// `i32` with the given number of lanes.
pub fn ints(lanes: usize) -> Ty {
    I32.with_lanes(lanes)
}
