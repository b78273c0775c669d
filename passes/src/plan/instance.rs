//! One function with its parameters and results bound to places. Calls that bind alike share it, so a layer that
//! is called thirty times is planned once.

use super::barriers;
use super::kernels::Kernels;
use super::values::Values;
use super::{source_type, tensor_bytes};
use crate::buffers::{Buffer, aligned, place};
use llmc_ir::dim::Bounds;
use llmc_ir::plan::{Launch, Operand, PlannedCall, PlannedFunction, StepInput, WeightLayout};
use llmc_ir::region::{FusedFunction, Source};
use llmc_ir::shape::Type;
use std::collections::BTreeMap;

/// What a parameter or result is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The value of that name.
    Value(String),
    /// The cache of the call's layer.
    Kv,
    /// The result of the step.
    Logits,
}

/// A function and its places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binding {
    /// Index into the module's functions.
    pub function: usize,
    /// Per parameter.
    pub params: Vec<Place>,
    /// Per result.
    pub results: Vec<Place>,
}

/// A planned function, but for where the values between calls are.
pub(super) struct Instance {
    /// The function's name.
    pub name: String,
    /// Bytes of memory that only it needs, from the end of the values on.
    pub frame_bytes: u64,
    tasks: Vec<Task>,
    buffers: Vec<u64>,
    offsets: Vec<u64>,
}

struct Task {
    kernel: String,
    inputs: Vec<Spot>,
    outputs: Vec<Spot>,
}

/// An operand whose offset may still be open.
#[derive(Clone)]
enum Spot {
    Value(String, u64),
    Buffer(usize),
    Weight(usize),
    Step(StepInput),
    Kv,
    Logits,
}

/// Per weight of a function: its slot and layout.
pub(super) type Slots<'a> = BTreeMap<&'a str, (usize, WeightLayout)>;

impl Instance {
    /// Lays the function's values out. Values that are needed in one phase (between two barriers) never share
    /// memory, so that sharing costs no barrier.
    pub fn new(
        function: &FusedFunction,
        binding: &Binding,
        slots: &Slots<'_>,
        bounds: &Bounds,
        kernels: &mut Kernels,
    ) -> Instance {
        let mut buffers = Vec::new();
        let (outputs, copies) = output_spots(function, binding, bounds, &mut buffers);
        let spot = |source: &Source| match source {
            Source::Param(index) => match &binding.params[*index] {
                Place::Value(name) => Spot::Value(name.clone(), source_bytes(function, source, bounds)),
                Place::Kv => Spot::Kv,
                Place::Logits => Spot::Logits,
            },
            Source::Output { region, output } => outputs[*region][*output].clone(),
            Source::Weight(name) => Spot::Weight(slots[name.as_str()].0),
            Source::Step(input) => Spot::Step(*input),
        };
        let mut tasks: Vec<Task> = Vec::new();
        for (region, outputs) in function.regions.iter().zip(&outputs) {
            let layout = |source: &Source| match source {
                Source::Weight(name) => Some(slots[name.as_str()].1),
                _ => None,
            };
            let layouts = region.inputs.iter().map(layout).collect();
            let kernel = kernels.of_region(&function.name, region, layouts);
            tasks.push(Task { kernel, inputs: region.inputs.iter().map(spot).collect(), outputs: outputs.clone() });
        }
        for (source, to) in copies {
            if let Some(ty) = source_type(function, &source) {
                let kernel = kernels.of_copy(&function.name, ty);
                tasks.push(Task { kernel, inputs: vec![spot(&source)], outputs: vec![to] });
            }
        }
        let name = function.name.clone();
        let mut instance = Instance { name, frame_bytes: 0, tasks, offsets: apart(&buffers), buffers };
        let lifetimes = instance.lifetimes(kernels);
        (instance.offsets, instance.frame_bytes) = place(&lifetimes);
        instance
    }

    /// The launches, without barriers.
    pub fn launches(&self, values: &Values) -> Vec<Launch> {
        let operand = |spot: &Spot| match spot {
            Spot::Value(name, bytes) => Operand::Arena { offset: values.offsets[name], bytes: *bytes },
            Spot::Buffer(index) => {
                Operand::Arena { offset: values.bytes + self.offsets[*index], bytes: self.buffers[*index] }
            }
            Spot::Weight(slot) => Operand::Weight { slot: *slot },
            Spot::Step(input) => Operand::Step { input: *input },
            Spot::Kv => Operand::Kv,
            Spot::Logits => Operand::Logits,
        };
        let launch = |task: &Task| Launch {
            kernel: task.kernel.clone(),
            inputs: task.inputs.iter().map(operand).collect(),
            outputs: task.outputs.iter().map(operand).collect(),
            barrier: false,
        };
        self.tasks.iter().map(launch).collect()
    }

    /// When each buffer is needed, counted in phases: as many barriers as the data flow asks for if nothing
    /// shares memory.
    fn lifetimes(&self, kernels: &Kernels) -> Vec<Buffer> {
        let values = self.values_apart();
        let mut alone = [PlannedFunction { name: self.name.clone(), launches: self.launches(&values) }];
        barriers::mark(&mut alone, &[PlannedCall { function: 0, weights: Vec::new(), kv_layer: 0 }], &kernels.list);
        let mut lifetimes: Vec<Option<Buffer>> = vec![None; self.buffers.len()];
        let mut phase = 0;
        for (task, launch) in self.tasks.iter().zip(&alone[0].launches) {
            phase += usize::from(launch.barrier);
            for spot in task.inputs.iter().chain(&task.outputs) {
                if let Spot::Buffer(index) = spot {
                    let bytes = self.buffers[*index];
                    lifetimes[*index].get_or_insert(Buffer { bytes, first: phase, last: phase }).last = phase;
                }
            }
        }
        let unused = |(buffer, &bytes): (Option<Buffer>, &u64)| buffer.unwrap_or(Buffer { bytes, first: 0, last: 0 });
        lifetimes.into_iter().zip(&self.buffers).map(unused).collect()
    }

    /// Places for the values that the tasks name, for reckoning with this function alone.
    fn values_apart(&self) -> Values {
        let mut values = Values { offsets: BTreeMap::new(), bytes: 0 };
        for spot in self.tasks.iter().flat_map(|task| task.inputs.iter().chain(&task.outputs)) {
            if let Spot::Value(name, bytes) = spot
                && !values.offsets.contains_key(name)
            {
                values.offsets.insert(name.clone(), values.bytes);
                values.bytes += aligned(*bytes);
            }
        }
        values
    }
}

/// Where the outputs of each region go, and which results must be copied to their places at the end.
fn output_spots(
    function: &FusedFunction,
    binding: &Binding,
    bounds: &Bounds,
    buffers: &mut Vec<u64>,
) -> (Vec<Vec<Spot>>, Vec<(Source, Spot)>) {
    let mut copies = Vec::new();
    let mut spots = Vec::new();
    for (region, of) in function.regions.iter().enumerate() {
        let mut of_region = Vec::new();
        for (output, &node) in of.outputs.iter().enumerate() {
            let source = Source::Output { region, output };
            let Type::Tensor(tensor) = of.body.ty(node) else {
                of_region.push(Spot::Kv);
                continue;
            };
            let bytes = tensor_bytes(tensor, bounds);
            let result = function.results.iter().position(|result| *result == source);
            let place = result.map(|result| &binding.results[result]);
            let target = match place {
                Some(Place::Value(name)) => Some(Spot::Value(name.clone(), bytes)),
                Some(Place::Logits) => Some(Spot::Logits),
                Some(Place::Kv) | None => None,
            };
            match (target, place) {
                (Some(target), Some(place)) if may_write_early(function, binding, region, &source, place) => {
                    of_region.push(target);
                }
                (target, _) => {
                    of_region.push(Spot::Buffer(buffers.len()));
                    buffers.push(bytes);
                    copies.extend(target.map(|target| (source, target)));
                }
            }
        }
        spots.push(of_region);
    }
    (spots, copies)
}

/// Whether a region can write a result to its place at once: nothing may need the value that was there before,
/// and what the step returns is not read back.
fn may_write_early(function: &FusedFunction, binding: &Binding, region: usize, source: &Source, place: &Place) -> bool {
    let later = function.regions[region..].iter().flat_map(|region| &region.inputs);
    let mut clashes = later.filter(|input| match input {
        Source::Param(index) => binding.params[*index] == *place,
        input => *place == Place::Logits && *input == source,
    });
    clashes.next().is_none()
}

fn source_bytes(function: &FusedFunction, source: &Source, bounds: &Bounds) -> u64 {
    let tensor = source_type(function, source).and_then(Type::as_tensor);
    tensor.map_or(0, |tensor| tensor_bytes(tensor, bounds))
}

/// Offsets under which no two buffers share memory.
fn apart(buffers: &[u64]) -> Vec<u64> {
    let mut next = 0;
    let mut offset = |&bytes: &u64| {
        let offset = next;
        next += aligned(bytes);
        offset
    };
    buffers.iter().map(&mut offset).collect()
}
