//! `llmc calibrate`, quickly: what it measures is sane. How fast a machine is, no test can say.

use llmc::calibrate::{Calibration, Effort, Hardware, Limit, Measurement, Place, calibrate, describe};
use llmc_ir::machine::Machine;

/// Enough rounds for one to be undisturbed.
const QUICK: Effort = Effort { rounds: 9, seconds: 1e-3, memory_bytes: Some(32 << 20), model_bytes: Some(2 << 20) };

fn measured() -> Calibration {
    let hardware = Hardware::here();
    let hardware = Hardware { threads: hardware.threads.min(2), ..hardware };
    calibrate(&hardware, &QUICK, &mut |_, _| true).unwrap()
}

#[test]
fn measurements_are_sane() {
    let calibration = measured();
    // A CPU without AMX leaves its instructions untried, which whoever reads the tests' output should know.
    calibration.skipped.iter().for_each(|skipped| eprintln!("not measured: {skipped}"));
    let all = &calibration.measurements;
    for limit in [Limit::Reads, Limit::F32Products, Limit::Bf16Products, Limit::Elementwise, Limit::Barrier] {
        assert!(all.iter().any(|known| known.limit == limit), "{limit:?}");
    }
    for known in all {
        assert_eq!(known.values.len(), QUICK.rounds);
        assert!(known.values.iter().all(|value| value.is_finite() && *value > 0.0), "{known:?}");
        assert!(known.values.contains(&known.median), "{known:?}");
    }
    // A cache that is nearer is not slower. Others share the machine, so its best round counts, and the worst of the other one.
    for near in all.iter().filter(|known| known.place == Place::FirstLevel) {
        let same =
            |far: &&Measurement| far.place == Place::SecondLevel && (far.limit, far.how) == (near.limit, near.how);
        let far = all.iter().find(same).unwrap();
        let best = near.values.iter().copied().fold(0.0, f64::max);
        let worst = far.values.iter().copied().fold(f64::INFINITY, f64::min);
        assert!(best >= 0.5 * worst, "{near:?} {far:?}");
    }
}

#[test]
fn a_measured_machine_is_one_that_the_cost_model_takes() {
    let machine = describe(&measured());
    assert_eq!(Machine::parse(&serde_json::to_string(&machine).unwrap()), Ok(machine.clone()));
    assert!(machine.source.contains("reads of 0.00 GB"), "the model's size decides: {}", machine.source);
}

#[test]
fn an_interruption_ends_it() {
    let mut events = 0;
    let outcome = calibrate(&Hardware::here(), &QUICK, &mut |done, total| {
        events += 1;
        assert!(done <= total);
        events < 3
    });
    assert!(outcome.is_err() && events == 3);
}
