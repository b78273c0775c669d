//! From measurements to a machine as the cost model sees it.

use super::{Calibration, Limit, Measurement, Place};
use llmc_ir::machine::{Machine, MatrixFlops, Tile};
use llmc_limits::TILES;

/// Blocks of products that AMX takes: one row costs as much as the sixteen of a tile.
const BLOCKS_OF_TILES: Tile = Tile { rows: 256.0, columns: 32.0, least_rows: 16.0 };

/// The machine that was measured: the best means for each limit, all threads working, operands of arithmetic coming from
/// the first-level cache. Rates have three digits, because the next one differs from run to run.
pub fn describe(calibration: &Calibration) -> Machine {
    let best = |limit: Limit, place: Place| {
        let all = calibration.measurements.iter();
        let of =
            all.filter(|known| known.limit == limit && known.place == place && known.threads == calibration.threads);
        // Buffers come in the order of their importance.
        let bytes = of.clone().map(|known| known.bytes).next();
        of.filter(|known| Some(known.bytes) == bytes).max_by(|a, b| a.median.total_cmp(&b.median))
    };
    let rate = |found: Option<&Measurement>| found.map_or(f64::MIN_POSITIVE, |found| three_digits(found.median));
    let reads = best(Limit::Reads, Place::Memory);
    let [f32, bf16, elementwise] =
        [Limit::F32Products, Limit::Bf16Products, Limit::Elementwise].map(|limit| best(limit, Place::FirstLevel));
    let how = |found: Option<&Measurement>| found.map_or("nothing", |found| found.how);
    let source = format!(
        "measured by llmc calibrate on {} ({}), {} threads: reads of {:.2} GB {}; from the first-level cache f32 products \
         by {}, bf16 products by {}, elementwise work by {}; a spin barrier",
        calibration.cpu,
        calibration.target,
        calibration.threads,
        reads.map_or(0.0, |reads| reads.bytes as f64 / 1e9),
        how(reads),
        how(f32),
        how(bf16),
        how(elementwise),
    );
    // How kernels cut their work is no matter of measurement, but of the unit that multiplies.
    let of_the_code = Machine::named("host").expect("the host comes with the compiler");
    let by_tiles = bf16.is_some_and(|found| found.how == TILES);
    let gemm_tile = if by_tiles { BLOCKS_OF_TILES } else { of_the_code.gemm_tile };
    Machine {
        source,
        memory_bandwidth: rate(reads),
        matrix_flops: MatrixFlops { f32: rate(f32), bf16: rate(bf16) },
        vector_flops: rate(elementwise),
        launch_seconds: rate(best(Limit::Barrier, Place::Nowhere)),
        units: calibration.threads as f64,
        gemm_tile,
        ..of_the_code
    }
}

fn three_digits(value: f64) -> f64 {
    format!("{value:.2e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(limit: Limit, place: Place, [bytes, threads]: [u64; 2], median: f64) -> Measurement {
        let how = if median > 3.0e10 { "fast" } else { "slow" };
        Measurement { limit, how, place, bytes, threads: threads as usize, median, values: vec![median] }
    }

    #[test]
    fn the_best_means_of_all_threads_counts() {
        use Limit::{Barrier, Bf16Products, Elementwise, F32Products, Reads};
        let measurements = vec![
            measurement(Reads, Place::Memory, [100, 1], 9.9e10),
            measurement(Reads, Place::Memory, [100, 2], 2.0e10),
            measurement(Reads, Place::Memory, [100, 2], 2.34567e10),
            measurement(Reads, Place::Memory, [1000, 2], 8e10),
            measurement(F32Products, Place::FirstLevel, [1, 2], 1e11),
            measurement(F32Products, Place::SecondLevel, [2, 2], 9e11),
            measurement(Bf16Products, Place::FirstLevel, [1, 2], 1e10),
            measurement(Bf16Products, Place::FirstLevel, [1, 2], 3e12),
            measurement(Elementwise, Place::FirstLevel, [1, 2], 5e10),
            measurement(Barrier, Place::Nowhere, [0, 2], 1.5151e-7),
        ];
        let calibration = Calibration {
            cpu: "a CPU".to_owned(),
            target: "native:x".to_owned(),
            threads: 2,
            measurements,
            skipped: Vec::new(),
        };
        let machine = describe(&calibration);
        assert_eq!((machine.memory_bandwidth, machine.vector_flops, machine.launch_seconds), (2.35e10, 5e10, 1.52e-7));
        assert_eq!(machine.matrix_flops, MatrixFlops { f32: 1e11, bf16: 3e12 });
        assert!(
            machine.source.contains("a CPU (native:x), 2 threads") && machine.source.contains("bf16 products by fast")
        );
        assert_eq!(machine.gemm_tile.least_rows, 1.0);
        let mut with_tiles = calibration.clone();
        with_tiles.measurements.iter_mut().filter(|known| known.median == 3e12).for_each(|known| known.how = TILES);
        assert_eq!(describe(&with_tiles).gemm_tile, BLOCKS_OF_TILES);
        // It is what `--machine` reads.
        let text = serde_json::to_string(&machine).unwrap();
        assert_eq!(Machine::parse(&text), Ok(machine));
    }
}
