//! Which kernels, run by which steps.

use llmc_differential::case::{Case, Limits, Target};
use llmc_differential::cases::{attention, model, products, steps};
use llmc_differential::check::{Bounds, Tokens, run};
use llmc_differential::device::Device;
use llmc_differential::targets;
use llmc_differential::trial::Trial;
use llmc_ir::builder::Numerics;
use llmc_ir::dtype::DType;
use llmc_models::architecture::Architecture;

/// Some kernels and how to run them.
pub struct Subject {
    /// Program and kernel.
    pub kernels: &'static [(&'static str, &'static str)],
    /// Compiles them and makes steps that show what they do.
    pub prepare: fn() -> (Device, Vec<Trial>),
}

/// All of them.
pub const SUBJECTS: &[Subject] = &[
    Subject {
        kernels: &[("prefill", "attend__flash"), ("prefill", "key__rows"), ("prefill", "kv_write__rows")],
        prepare: sliding_attention,
    },
    Subject { kernels: &[("decode", "attend__split"), ("decode", "attend__combine")], prepare: split_attention },
    Subject { kernels: &[("prefill", "attend__attend"), ("decode", "attend__attend")], prepare: wide_attention },
    Subject {
        kernels: &[
            ("prefill", "gate_up__tile"),
            ("prefill", "down__tile"),
            ("decode_1", "gate_up__stream"),
            ("decode_16", "down__stream"),
        ],
        prepare: narrow_products,
    },
    Subject {
        kernels: &[("prefill", "gate__wide"), ("decode_16", "down__stream"), ("prefill", "mul__rows")],
        prepare: wide_products,
    },
    Subject {
        kernels: &[
            ("prefill", "cos_sin__rows"),
            ("prefill", "embed_tokens__rows"),
            ("prefill", "input_layernorm__rows"),
            ("prefill", "k_proj__tile"),
            ("decode", "q_proj__stream"),
        ],
        prepare: whole_model,
    },
];

fn prepare((case, steps): (Case, Vec<Tokens>), bounds: Bounds) -> (Device, Vec<Trial>) {
    let programs = case.usual_programs().expect("there are programs");
    let planned = case.plan(&programs).expect("there is a plan");
    let Target::Device(target) = &case.build.target else { panic!("these are for a device") };
    let device = Device::new(&case, planned, target).expect("there is code");
    let (_, trials) = run(&case, &programs, &device, &steps, bounds).expect("sound kernels do what they should");
    (device, trials)
}

const LIMITS: Limits = Limits { max_context: 600, max_batch: 5, prefill_chunk: 512 };
const MANY: Limits = Limits { max_batch: 40, ..LIMITS };

fn sliding_attention() -> (Device, Vec<Trial>) {
    // Windows so short that a position more or less shows.
    let kind = attention::Kind::full(4, 2, 64).sliding(20);
    let lengths: &[&[(u64, usize)]] = &[&[(2, 9), (0, 70), (1, 3)], &[(0, 90)]];
    prepare(attention::case(kind, DType::BF16, targets::device(), LIMITS, lengths), Bounds::Rigorous)
}

fn split_attention() -> (Device, Vec<Trial>) {
    let kind = attention::Kind::full(4, 2, 64);
    let lengths: &[&[(u64, usize)]] =
        &[&[(2, 9), (0, 300), (1, 3)], &[(1, 1), (0, 1), (2, 1)], &[(1, 1), (2, 1)], &[(2, 1), (1, 1)]];
    prepare(attention::case(kind, DType::BF16, targets::device(), LIMITS, lengths), Bounds::Rigorous)
}

fn wide_attention() -> (Device, Vec<Trial>) {
    let kind = attention::Kind::full(4, 2, 16).sliding(50);
    let lengths: &[&[(u64, usize)]] = &[&[(2, 2), (0, 70), (1, 3)], &[(1, 1), (0, 1), (2, 1)]];
    prepare(attention::case(kind, DType::F32, targets::device(), LIMITS, lengths), Bounds::Rigorous)
}

fn narrow_products() -> (Device, Vec<Trial>) {
    let sizes = products::Sizes { inputs: 160, inner: 96, outputs: 144 };
    let counts: &[&[usize]] = &[&[1], &[1; 13], &[1, 97, 2], &[128], &[193]];
    prepare(products::case(sizes, Numerics::new(DType::BF16), targets::device(), MANY, counts), Bounds::Rigorous)
}

fn wide_products() -> (Device, Vec<Trial>) {
    let sizes = products::Sizes { inputs: 97, inner: 64, outputs: 77 };
    let counts: &[&[usize]] = &[&[1], &[1; 13], &[5, 42]];
    prepare(products::case(sizes, Numerics::new(DType::F32), targets::device(), MANY, counts), Bounds::Rigorous)
}

fn whole_model() -> (Device, Vec<Trial>) {
    let sizes = model::Sizes {
        architecture: Architecture::Llama,
        // As many columns of keys as a block takes at once, so that none of its parts is idle.
        heads: (8, 8, 16),
        window: None,
        hidden: 64,
        intermediate: 96,
        vocab: 65,
        layers: 2,
    };
    // Without `merge` the products of a norm are several kernels, and the norm one of its own.
    let mut case = model::case(&sizes, DType::BF16, targets::device());
    case.build.without.push("merge".to_owned());
    let steps = steps(3, sizes.vocab, &[&[(2, 1), (0, 1), (1, 120)], &[(0, 1), (1, 1), (2, 1)]]);
    prepare((case, steps), Bounds::Noise(16.0))
}
