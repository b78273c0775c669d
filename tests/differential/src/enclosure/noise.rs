//! Intervals by experience instead of proof: what rounding typically does to values of a kind, times a factor.

use super::{EnclosedCache, Enclosure, State};
use llmc_ir::dtype::DType;
use llmc_ir::eval::{KvCache, KvState};
use std::collections::BTreeMap;

/// Intervals around `typed` values, which are `columns` to a row, `wide` ones being the same without rounding.
pub fn around(typed: &[f64], wide: &[f64], columns: usize, factor: f64) -> Enclosure {
    let radius = factor * deviation([(typed, wide)]);
    let low = typed.iter().map(|x| x - radius).collect();
    let high = typed.iter().map(|x| x + radius).collect();
    Enclosure { dtype: DType::F32, sizes: vec![typed.len() / columns.max(1), columns], low, high }
}

/// The same for what is in the caches, keys and values of each layer apart.
pub fn caches(typed: &KvState, wide: &KvState, factor: f64) -> State {
    let layers = typed.layers.iter().zip(wide.layers.values());
    let enclosed = layers.map(|((&layer, typed), wide)| {
        let keys = stored(&typed.keys, &wide.keys, factor);
        let values = stored(&typed.values, &wide.values, factor);
        let low = KvCache { keys: keys.0, values: values.0 };
        let high = KvCache { keys: keys.1, values: values.1 };
        (layer, EnclosedCache { low, high })
    });
    enclosed.collect()
}

/// Rows by sequence.
type Rows = BTreeMap<u64, Vec<f64>>;

fn stored(typed: &Rows, wide: &Rows, factor: f64) -> (Rows, Rows) {
    let pairs = typed.values().zip(wide.values()).map(|(typed, wide)| (&typed[..], &wide[..]));
    let radius = factor * deviation(pairs);
    let moved = |by: f64| typed.iter().map(|(&id, row)| (id, row.iter().map(|x| x + by).collect())).collect();
    (moved(-radius), moved(radius))
}

/// The root of the mean square of the differences.
fn deviation<'a>(pairs: impl IntoIterator<Item = (&'a [f64], &'a [f64])>) -> f64 {
    let differences = pairs.into_iter().flat_map(|(a, b)| a.iter().zip(b).map(|(a, b)| a - b));
    let (count, sum) = differences.fold((0usize, 0.0), |(count, sum), x| (count + 1, sum + x * x));
    (sum / count.max(1) as f64).sqrt()
}
