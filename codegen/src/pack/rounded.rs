//! Weights rounded to 8 bits, with rigorous bounds on what that does to a product: how the largest logits are found
//! without computing all of them.

use super::{PANEL_ROWS, bf16_bits};

/// What is added to rounded numbers, so that they have no sign.
pub const ZERO: u8 = 128;

/// The largest rounded number.
const LARGEST: i64 = 127;

/// What a panel begins with: scales, errors and sizes in f32.
pub const HEAD_BYTES: usize = 3 * PANEL_ROWS * 4;

/// Lengths of the other factor below this are not told from zero: products of denormal numbers, which some instructions take for
/// zero, do not matter above it.
pub const LEAST_LENGTH: f64 = 1e-6;

/// Sizes are larger than this, so that [`rounding`] covers products of denormal numbers: `k` of them are less than
/// `rounding(k) LEAST_SIZE LEAST_LENGTH`.
const LEAST_SIZE: f64 = (1 << 22) as f64 * f32::MIN_POSITIVE as f64 / LEAST_LENGTH;

/// The largest error of a rounded number in its steps: half a one, and what dividing loses.
pub const MOST_LOST: f64 = 0.501;

/// Bytes of a panel of a matrix `[n, k]`.
pub fn panel_bytes(k: usize) -> usize {
    HEAD_BYTES + k.div_ceil(4) * 4 * PANEL_ROWS
}

/// Rounding errors of a product of rows of length `k` in f32, relative to the lengths of both: at most
/// `k 2^-24 / (1 - k 2^-24)` (Higham, "Accuracy and Stability of Numerical Algorithms", 3.1). Four times as much is reckoned with, and
/// 16 more elements, for those who compute with bounds.
pub fn rounding(k: usize) -> f64 {
    2.0 * (k + 16) as f64 * f64::from(f32::EPSILON)
}

/// What belongs to a rounded row `w = scale (u - 128) + e`.
///
/// Let `y` be whole steps near `x`, and `w x` the product as a kernel takes it, in f32 and in any order. Let some elements of `x` be
/// large. For `|x|` from [`LEAST_LENGTH`] on `|w x - scale (u - 128) y|` is at most
///
/// ```text
/// scale MOST_LOST sum |large x| + error |other x| + size (|x - y| + rounding(k) |x|)
/// ```
///
/// with Euclidean norms: rounding `w` moves the product by `e x`, in which no element of `e` exceeds [`MOST_LOST`] steps, and which is
/// at most `|e| |x|` by Cauchy and Schwarz; rounding `x` moves it by `|w - e| |x - y|` at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoundedRow {
    /// What a step of the rounded numbers is worth.
    pub scale: f32,
    /// At least `|e|`.
    pub error: f32,
    /// At least `|w| + |e|`.
    pub size: f32,
}

impl RoundedRow {
    /// What stands for a row that there is not: less than all others.
    const NONE: RoundedRow = RoundedRow { scale: 0.0, error: 0.0, size: f32::NEG_INFINITY };

    /// Rounds a row of finite values, as they are in bf16. `rounded` gets a number per element.
    pub fn of(values: &[f32], mut rounded: impl FnMut(usize, u8)) -> RoundedRow {
        let values = || values.iter().map(|&value| f32::from_bits(u32::from(bf16_bits(value)) << 16));
        let largest = values().fold(0.0, |largest: f32, value| largest.max(value.abs()));
        // Scales below that would lose their digits.
        let scale = (largest / LARGEST as f32).max(f32::MIN_POSITIVE);
        let [mut lost, mut all] = [0.0_f64; 2];
        for (index, value) in values().enumerate() {
            let number = (value / scale).round_ties_even().clamp(-LARGEST as f32, LARGEST as f32);
            rounded(index, (number as i16 + i16::from(ZERO)) as u8);
            lost += (f64::from(value) - f64::from(number) * f64::from(scale)).powi(2);
            all += f64::from(value).powi(2);
        }
        // In f32 they must not be smaller.
        let up = |value: f64| (value * (1.0 + 1e-6)) as f32;
        let (lost, all) = (lost.sqrt(), all.sqrt());
        RoundedRow { scale, error: up(lost), size: up(all + lost + LEAST_SIZE) }
    }
}

/// Packs a panel of rows of `k` values: see [`llmc_ir::plan::WeightLayout::Rounded`].
pub(super) fn panel(values: &[f32], k: usize, bytes: &mut [u8]) {
    assert!(values.len() <= PANEL_ROWS * k && bytes.len() == panel_bytes(k));
    let (head, numbers) = bytes.split_at_mut(HEAD_BYTES);
    numbers.fill(ZERO);
    let mut rows = values.chunks_exact(k);
    for row in 0..PANEL_ROWS {
        let place = row / 16 * 64 + row % 16 * 4;
        let rounded = match rows.next() {
            Some(values) => RoundedRow::of(values, |k, number| numbers[k / 4 * 128 + place + k % 4] = number),
            None => RoundedRow::NONE,
        };
        let RoundedRow { scale, error, size } = rounded;
        for (floats, value) in head.chunks_exact_mut(PANEL_ROWS * 4).zip([scale, error, size]) {
            floats[row * 4..][..4].copy_from_slice(&value.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Products with rounded weights and rounded `x` lie within the bounds, which are not much wider than they must be.
    #[test]
    fn products_lie_within_the_errors() {
        let mut state = 1u32;
        let mut unit = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8) / f64::from(1 << 23) - 1.0
        };
        for (k, spread) in [(5, 1e-20), (64, 1e3), (576, 1.0), (1000, 1e30)] {
            let bf16 = |value: f64| f32::from_bits(u32::from(bf16_bits(value as f32)) << 16);
            let mut tightest: f64 = 0.0;
            for _ in 0..200 {
                let w: Vec<f32> = (0..k).map(|_| bf16(spread * unit().powi(3))).collect();
                let x: Vec<f32> = (0..k).map(|_| bf16(unit().powi(5) * 30.0)).collect();
                let mut numbers = vec![0; k];
                let row = RoundedRow::of(&w, |k, number| numbers[k] = number);
                let x: Vec<f64> = x.into_iter().map(f64::from).collect();
                let step = x.iter().map(|x| x.abs()).sum::<f64>() / k as f64 / 32.0;
                let y: Vec<f64> = x.iter().map(|x| (x / step).round() * step).collect();
                let scale = f64::from(row.scale);
                let numbers = numbers.iter().map(|&u| f64::from(u) - f64::from(ZERO));
                let product: f64 = numbers.zip(&y).map(|(v, y)| scale * v * y).sum();
                let exact: f64 = w.iter().zip(&x).map(|(&w, x)| f64::from(w) * x).sum();
                let length = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x.powi(2)).sum::<f64>().sqrt();
                let (large, other): (Vec<f64>, Vec<f64>) = x.iter().partition(|x| x.abs() > 127.0 * step);
                let lost = length(&mut x.iter().zip(&y).map(|(x, y)| x - y));
                let all = length(&mut x.iter().copied());
                let bound = scale * MOST_LOST * large.iter().map(|x| x.abs()).sum::<f64>()
                    + f64::from(row.error) * length(&mut other.into_iter())
                    + f64::from(row.size) * (lost + rounding(k) * all);
                let share = (product - exact).abs() / bound;
                assert!(share <= 1.0, "k {k}: {share}");
                tightest = tightest.max(share);
            }
            assert!(tightest > 0.02, "k {k}: bounds that nothing comes near to: {tightest}");
        }
    }

    #[test]
    fn every_number_is_where_the_layout_says() {
        let (n, k) = (20, 6);
        let values: Vec<f32> = (0..n * k).map(|i| (i % 17) as f32 - 8.0).collect();
        let mut bytes = vec![0; panel_bytes(k)];
        panel(&values, k, &mut bytes);
        let float = |at: usize| f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        for row in 0..PANEL_ROWS {
            let [scale, error, size] = [0, 1, 2].map(|which| float((which * PANEL_ROWS + row) * 4));
            assert!(error >= 0.0 && (row < n) == size.is_finite(), "row {row}: {error}, {size}");
            for i in 0..8 {
                let number = bytes[HEAD_BYTES + i / 4 * 128 + row / 16 * 64 + row % 16 * 4 + i % 4];
                let expected = if row < n && i < k { values[row * k + i] } else { 0.0 };
                assert!((f32::from(number) - 128.0 - expected / scale.max(1e-9)).abs() <= 0.5, "row {row}, k {i}");
            }
        }
    }
}
