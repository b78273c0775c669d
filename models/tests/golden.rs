//! The definitions are right: interpreted, the tiny checkpoints give the logits that an independent implementation
//! computed for them in float32.

use llmc_ir::builder::Numerics;
use llmc_ir::dtype::DType;
use llmc_ir::eval::{KvState, Mode, StepInputs, Tensor, eval_module};
use llmc_ir::module::Module;
use llmc_models::checkpoint::Checkpoint;
use llmc_models::config::ModelConfig;
use llmc_models::weights::check_checkpoint;
use serde_json::Value;
use std::path::PathBuf;

struct Fixture {
    config: ModelConfig,
    checkpoint: Checkpoint,
    golden: Value,
}

impl Fixture {
    fn open(name: &str) -> Fixture {
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny").join(name);
        let golden = std::fs::read_to_string(directory.join("golden.json")).unwrap();
        Fixture {
            config: ModelConfig::load(&directory).unwrap().config,
            checkpoint: Checkpoint::open(&directory).unwrap(),
            golden: serde_json::from_str(&golden).unwrap(),
        }
    }

    fn weight(&self, key: &str) -> Option<Tensor> {
        let view = self.checkpoint.tensor(key)?;
        let mut values = Vec::new();
        view.read_f32(0..view.elements(), &mut values).unwrap();
        Some(Tensor::new(DType::F32, view.shape.clone(), values.into_iter().map(f64::from).collect()).unwrap())
    }

    /// Logits of the last row when the ids are fed in steps of the given sizes.
    fn logits(&self, module: &Module, ids: &[i32], steps: &[usize], mode: Mode) -> Vec<f64> {
        let mut state = KvState::default();
        let mut start = 0;
        let mut logits = Vec::new();
        for size in steps {
            let step = StepInputs::one_sequence(start, &ids[start..start + size]);
            logits = eval_module(module, &|key| self.weight(key), &mut state, &step, mode).unwrap().into_data();
            start += size;
        }
        assert_eq!(start, ids.len());
        logits
    }

    fn prompts(&self) -> Vec<(Vec<i32>, Vec<f64>)> {
        let prompts = self.golden["prompts"].as_array().unwrap();
        let numbers = |value: &Value| value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>();
        prompts
            .iter()
            .map(|p| (numbers(&p["ids"]).iter().map(|&id| id as i32).collect(), numbers(&p["logits"])))
            .collect()
    }
}

fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    difference / norm(&mut expected.iter().copied())
}

/// The fixtures print six digits; agreement beyond that shows nothing.
const TOLERANCE: f64 = 1e-5;

#[track_caller]
fn agrees(name: &str, lengths: &[usize]) {
    let fixture = Fixture::open(name);
    let module = llmc_models::build(&fixture.config, Numerics::new(DType::F32)).unwrap();
    assert_eq!(check_checkpoint(&fixture.config, &module, &fixture.checkpoint), Ok(vec![]));
    for (ids, expected) in fixture.prompts().iter().filter(|(ids, _)| lengths.contains(&ids.len())) {
        for mode in [Mode::Wide, Mode::AsTyped] {
            let error = relative_error(&fixture.logits(&module, ids, &[ids.len()], mode), expected);
            assert!(error <= TOLERANCE, "{name}, {} tokens, {mode:?}: relative error {error:.2e}", ids.len());
        }
    }
}

#[test]
fn llama() {
    agrees("llama", &[5, 40, 150]);
}

#[test]
fn llama_with_stretched_rope() {
    agrees("llama_rope_llama3", &[5, 40, 150]);
}

#[test]
fn llama_with_biases_and_tied_embeddings() {
    agrees("llama_tied", &[5, 40]);
}

#[test]
fn mistral_with_a_sliding_window() {
    agrees("mistral", &[5, 40, 150]);
}

#[test]
fn qwen2() {
    agrees("qwen2", &[5, 40]);
}

#[test]
fn steps_of_any_size_give_the_same_logits() {
    let fixture = Fixture::open("mistral");
    let module = llmc_models::build(&fixture.config, Numerics::new(DType::F32)).unwrap();
    let (ids, expected) = &fixture.prompts()[1];
    for steps in [&[39, 1][..], &[1, 30, 8, 1]] {
        let error = relative_error(&fixture.logits(&module, ids, steps, Mode::Wide), expected);
        assert!(error <= TOLERANCE, "{steps:?}: relative error {error:.2e}");
    }
}

/// Changing a field moves the logits exactly as far as the fixtures say: fields have the right effect also with other
/// values, such as another window or layers of two kinds.
#[test]
fn fields_have_the_effect_that_the_fixtures_state() {
    for name in ["llama", "llama_rope_llama3", "llama_tied", "mistral", "qwen2"] {
        let fixture = Fixture::open(name);
        let path = fixture.checkpoint.directory().join("config.json");
        let original: serde_json::Map<String, Value> =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for (change, effects) in fixture.golden["mutations"].as_object().unwrap() {
            let mut object = original.clone();
            object.extend(serde_json::from_str::<serde_json::Map<String, Value>>(change).unwrap());
            let config = ModelConfig::parse(&serde_json::to_string(&object).unwrap(), &path).unwrap().config;
            let module = llmc_models::build(&config, Numerics::new(DType::F32)).unwrap();
            for (ids, expected) in &fixture.prompts() {
                let stated = effects[ids.len().to_string()].as_f64().unwrap();
                let logits = fixture.logits(&module, ids, &[ids.len()], Mode::Wide);
                let found = logits.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                let close = (found - stated).abs() <= 0.01 * stated + 2e-5;
                assert!(close, "{name} with {change}, {} tokens: moved by {found:.3e}, stated {stated:.3e}", ids.len());
            }
        }
    }
}
