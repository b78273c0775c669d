//! Weights rounded to 8 bits, with rigorous bounds on what that does to a product: how the largest logits are found
//! without computing all of them.

use super::{PANEL_ROWS, bf16_bits};

/// What is added to rounded numbers, so that they have no sign.
pub const ZERO: u8 = 128;

/// The largest rounded number.
pub const LARGEST: i64 = 127;

/// The other factor is rounded to so many steps between zero and its largest element.
pub const STEPS: i64 = 16000;

/// What a panel begins with: scales and errors in f32.
pub const HEAD_BYTES: usize = 2 * PANEL_ROWS * 4;

/// Lengths of the other factor below this are not told from zero: products of denormal numbers, which some instructions take for
/// zero, do not matter above it.
pub const LEAST_LENGTH: f64 = 1e-6;

/// Bytes of a panel of a matrix `[n, k]`.
pub fn panel_bytes(k: usize) -> usize {
    HEAD_BYTES + k.div_ceil(4) * 4 * PANEL_ROWS
}

/// What belongs to a rounded row `w = scale (u - 128) + e`.
///
/// Let `y` be `x` rounded to multiples of at most `|x| / STEPS`, and `w x` the product as a kernel takes it, in f32 and in
/// any order. For `|x|` from [`LEAST_LENGTH`] on `|w x - scale (u - 128) y| <= error |x|` with Euclidean norms: by Cauchy and Schwarz rounding
/// `w` moves the product by `|e| |x|` at most, and rounding `x`, half a step in each component, by `|w - e| sqrt(k) |x| / (2 STEPS)`;
/// rounding errors in f32 are at most `k 2^-24 / (1 - k 2^-24) |w| |x|` (Higham, "Accuracy and Stability of Numerical Algorithms", 3.1), of
/// which four times as much is reckoned with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoundedRow {
    /// What a step of the rounded numbers is worth.
    pub scale: f32,
    /// See above.
    pub error: f32,
}

impl RoundedRow {
    /// Rounds a row of finite values, as they are in bf16. `rounded` gets a number per element.
    pub fn of(values: &[f32], mut rounded: impl FnMut(usize, u8)) -> RoundedRow {
        let values = || values.iter().map(|&value| f32::from_bits(u32::from(bf16_bits(value)) << 16));
        let largest = values().fold(0.0, |largest: f32, value| largest.max(value.abs()));
        // Scales below that would lose their digits.
        let scale = (largest / LARGEST as f32).max(f32::MIN_POSITIVE);
        let [mut lost, mut all, mut k] = [0.0_f64; 3];
        for (index, value) in values().enumerate() {
            let number = (value / scale).round_ties_even().clamp(-LARGEST as f32, LARGEST as f32);
            rounded(index, (number as i16 + i16::from(ZERO)) as u8);
            lost += (f64::from(value) - f64::from(number) * f64::from(scale)).powi(2);
            all += f64::from(value).powi(2);
            k += 1.0;
        }
        let (lost, all) = (lost.sqrt(), all.sqrt());
        // The last 2 % of a step are rounding errors of those who round.
        let rounding =
            (all + lost) * (k.sqrt() * 1.02 / (2 * STEPS) as f64 + 2.0 * (k + 16.0) * f64::from(f32::EPSILON));
        let denormal = k * f64::from(f32::MIN_POSITIVE) / LEAST_LENGTH;
        // In f32 it must not be smaller.
        RoundedRow { scale, error: ((lost + rounding + denormal) * (1.0 + 1e-6)) as f32 }
    }
}

/// Packs a panel of rows of `k` values: see [`llmc_ir::plan::WeightLayout::Rounded`].
pub(super) fn panel(values: &[f32], k: usize, bytes: &mut [u8]) {
    assert!(values.len() <= PANEL_ROWS * k && bytes.len() == panel_bytes(k));
    let (head, numbers) = bytes.split_at_mut(HEAD_BYTES);
    let (scales, errors) = head.split_at_mut(HEAD_BYTES / 2);
    numbers.fill(ZERO);
    let mut rows = values.chunks_exact(k);
    for row in 0..PANEL_ROWS {
        let place = row / 16 * 64 + row % 16 * 4;
        let rounded = match rows.next() {
            Some(values) => RoundedRow::of(values, |k, number| numbers[k / 4 * 128 + place + k % 4] = number),
            None => RoundedRow { scale: 0.0, error: f32::NAN },
        };
        scales[row * 4..][..4].copy_from_slice(&rounded.scale.to_le_bytes());
        errors[row * 4..][..4].copy_from_slice(&rounded.error.to_le_bytes());
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
                let step = f64::from(x.iter().fold(0.0f32, |most, x| most.max(x.abs()))) / STEPS as f64;
                let products = numbers.iter().zip(&x).map(|(&u, &x)| {
                    (f64::from(u) - f64::from(ZERO)) * (f64::from(x) / step).round() * step * f64::from(row.scale)
                });
                let exact: f64 = w.iter().zip(&x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
                let length = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                let share = (products.sum::<f64>() - exact).abs() / (f64::from(row.error) * length);
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
            let (scale, error) = (float(row * 4), float((PANEL_ROWS + row) * 4));
            assert_eq!(row < n, error.is_finite(), "row {row}");
            for i in 0..8 {
                let number = bytes[HEAD_BYTES + i / 4 * 128 + row / 16 * 64 + row % 16 * 4 + i % 4];
                let expected = if row < n && i < k { values[row * k + i] } else { 0.0 };
                assert!((f32::from(number) - 128.0 - expected / scale.max(1e-9)).abs() <= 0.5, "row {row}, k {i}");
            }
        }
    }
}
