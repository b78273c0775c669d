//! A small writer of LLVM IR text: typed values, structured loops, one function at a time.
//!
//! Kernels are written against this rather than against LLVM's own builder because text needs no
//! lifetimes, prints as it is in snapshots, and allows types that inkwell lacks (`x86_amx`). LLVM parses and
//! verifies the result ([`super::compile`]).

mod control;
mod module;
mod types;

use std::collections::BTreeMap;
use types::literal;

pub use module::ModuleText;
pub use types::*;

/// Writes the body of one function.
#[derive(Debug)]
pub struct FunctionText {
    name: String,
    header: String,
    body: String,
    block: String,
    next: usize,
    /// What of its module is declared or defined for it, by name.
    needs: BTreeMap<String, String>,
    constants: Vec<String>,
    machine: Machine,
    instructions: Instructions,
}

/// What runs a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// A CPU.
    Host,
    /// A GPU: some instructions of its own, and memory in address spaces.
    Device,
}

/// Instructions that some machines have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instructions {
    /// One rounds f32 to bf16.
    pub round_to_bf16: bool,
    /// One stores some of 32 lanes of 16 bits.
    pub store_some_halves: bool,
}

/// What a function is for, which decides who sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The entry point of a program: exported.
    Entry,
    /// A kernel, or what kernels call. A call is nothing beside what they do, and so listings and profilers show each once.
    Kernel,
    /// A kernel of a device, launched over a grid.
    DeviceKernel,
}

impl FunctionText {
    /// Starts a function returning nothing. Parameters are then `Value`s of the given names.
    pub fn new(role: Role, name: &str, params: &[(Ty, &str)]) -> (FunctionText, Vec<Value>) {
        let list: Vec<_> = params.iter().map(|(ty, name)| format!("{ty} %{name}")).collect();
        let (linkage, attribute) = match role {
            Role::Entry => ("dso_local", ""),
            Role::Kernel => ("hidden", " noinline"),
            Role::DeviceKernel => ("ptx_kernel", ""),
        };
        let machine = if role == Role::DeviceKernel { Machine::Device } else { Machine::Host };
        let header = format!("define {linkage} void @{name}({}) #0{attribute}", list.join(", "));
        let values = params.iter().map(|&(ty, name)| Value { text: format!("%{name}"), ty }).collect();
        let (name, body, block) = (name.to_owned(), String::new(), "entry".into());
        let (needs, constants) = (BTreeMap::new(), Vec::new());
        let instructions = Instructions { round_to_bf16: machine == Machine::Device, ..Instructions::default() };
        (FunctionText { name, header, body, block, next: 0, needs, constants, machine, instructions }, values)
    }

    /// The same function for a CPU that has these instructions.
    pub fn with_instructions(self, instructions: Instructions) -> FunctionText {
        FunctionText { instructions, ..self }
    }

    /// What it may use.
    pub fn instructions(&self) -> Instructions {
        self.instructions
    }

    /// What runs the function.
    pub fn machine(&self) -> Machine {
        self.machine
    }

    /// Ends the function.
    pub fn finish(mut self) -> FunctionText {
        self.line("ret void");
        self
    }

    fn line(&mut self, text: &str) {
        self.body += "  ";
        self.body += text;
        self.body += "\n";
    }

    fn fresh(&mut self) -> String {
        self.next += 1;
        format!("%v{}", self.next)
    }

    fn label(&mut self, kind: &str) -> String {
        self.next += 1;
        format!("{kind}{}", self.next)
    }

    fn start_block(&mut self, label: &str) {
        self.body += label;
        self.body += ":\n";
        self.block = label.to_owned();
    }

    fn define(&mut self, ty: Ty, text: &str) -> Value {
        let name = self.fresh();
        self.line(&format!("{name} = {text}"));
        Value { text: name, ty }
    }

    // ---- arithmetic

    /// An instruction of two operands of one type, such as `fadd` or `shl`.
    pub fn binary(&mut self, instruction: &str, a: &Value, b: &Value) -> Value {
        assert_eq!(a.ty, b.ty, "{instruction} {a}, {b}");
        self.define(a.ty, &format!("{instruction} {} {}, {}", a.ty, a.text, b.text))
    }

    /// Negation of floats.
    pub fn negate(&mut self, a: &Value) -> Value {
        self.define(a.ty, &format!("fneg {a}"))
    }

    /// `icmp` or `fcmp` with its predicate, such as `icmp ult`.
    pub fn compare(&mut self, predicate: &str, a: &Value, b: &Value) -> Value {
        assert_eq!(a.ty, b.ty, "{predicate} {a}, {b}");
        self.define(a.ty.with_scalar(Scalar::I1), &format!("{predicate} {} {}, {}", a.ty, a.text, b.text))
    }

    /// `condition ? a : b` per lane.
    pub fn select(&mut self, condition: &Value, a: &Value, b: &Value) -> Value {
        self.define(a.ty, &format!("select {condition}, {a}, {b}"))
    }

    /// A conversion instruction, such as `sitofp` or `bitcast`.
    pub fn cast(&mut self, instruction: &str, a: &Value, to: Ty) -> Value {
        self.define(to, &format!("{instruction} {a} to {to}"))
    }

    /// Calls an intrinsic or an external function and declares it. `result` `None`: returns nothing.
    pub fn call(&mut self, name: &str, result: Option<Ty>, arguments: &[Value]) -> Option<Value> {
        self.declare("", &result.map_or("void".to_owned(), |ty| ty.to_string()), name, arguments);
        self.call_text(&format!("@{name}"), result, arguments)
    }

    /// An instruction of the machine's own language that returns nothing.
    pub fn assembly(&mut self, instruction: &str, constraints: &str, arguments: &[Value]) {
        let list: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        self.line(&format!("call void asm sideeffect \"{instruction}\", \"{constraints}\"({})", list.join(", ")));
    }

    /// The block's dynamic shared memory.
    pub fn shared_memory(&mut self) -> Value {
        let line = "@shared = external addrspace(3) global [0 x i8], align 16";
        self.needs.insert("shared".to_owned(), line.to_owned());
        Value { text: "@shared".into(), ty: SHARED }
    }

    /// Calls an intrinsic that returns `count` values of one type.
    pub fn call_many(&mut self, name: &str, result: Ty, count: usize, arguments: &[Value]) -> Vec<Value> {
        let tuple = format!("{{ {} }}", vec![result.to_string(); count].join(", "));
        self.declare("", &tuple, name, arguments);
        let list: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        let all = self.define(result, &format!("call {tuple} @{name}({})", list.join(", ")));
        (0..count).map(|i| self.define(result, &format!("extractvalue {tuple} {}, {i}", all.text))).collect()
    }

    /// Calls a function that this module defines.
    pub fn call_local(&mut self, name: &str, arguments: &[Value]) {
        self.declare("hidden ", "void", name, arguments);
        self.call_text(&format!("@{name}"), None, arguments);
    }

    /// Calls through an address.
    pub fn call_pointer(&mut self, callee: &Value, arguments: &[Value]) {
        self.call_text(&callee.text, None, arguments);
    }

    fn declare(&mut self, visibility: &str, result: &str, name: &str, arguments: &[Value]) {
        let types: Vec<_> = arguments.iter().map(|argument| argument.ty.to_string()).collect();
        let line = format!("declare {visibility}{result} @{name}({})", types.join(", "));
        self.needs.insert(name.to_owned(), line);
    }

    fn call_text(&mut self, callee: &str, result: Option<Ty>, arguments: &[Value]) -> Option<Value> {
        let list: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        let list = list.join(", ");
        match result {
            Some(ty) => Some(self.define(ty, &format!("call {ty} {callee}({list})"))),
            None => {
                self.line(&format!("call void {callee}({list})"));
                None
            }
        }
    }

    /// An intrinsic of the name `llvm.<name>.<type suffix>` on operands of one type.
    pub fn intrinsic(&mut self, name: &str, arguments: &[Value]) -> Value {
        let ty = arguments[0].ty;
        self.call(&format!("llvm.{name}.{}", ty.suffix()), Some(ty), arguments).expect("intrinsics return a value")
    }

    // ---- integers of addresses and indices

    /// `a + b`, folded where one is a literal zero.
    pub fn add(&mut self, a: &Value, b: &Value) -> Value {
        match (literal(a), literal(b)) {
            (Some(x), Some(y)) => int_of(a.ty, x + y),
            (Some(0), None) => b.clone(),
            (None, Some(0)) => a.clone(),
            _ => self.binary("add nsw", a, b),
        }
    }

    /// `a / b` rounded up, of numbers that are not negative.
    pub fn div_ceil(&mut self, a: &Value, b: &Value) -> Value {
        let less = self.add(b, &int_of(b.ty, -1));
        let above = self.add(a, &less);
        self.binary("sdiv", &above, b)
    }

    /// `a * factor`, folded where it can be.
    pub fn scale(&mut self, a: &Value, factor: i64) -> Value {
        match (literal(a), factor) {
            (Some(x), _) => int_of(a.ty, x * factor),
            (None, 1) => a.clone(),
            (None, _) => self.binary("mul nsw", a, &int_of(a.ty, factor)),
        }
    }

    /// The smaller of two signed integers.
    pub fn min(&mut self, a: &Value, b: &Value) -> Value {
        self.intrinsic("smin", &[a.clone(), b.clone()])
    }

    /// The larger of two signed integers.
    pub fn max(&mut self, a: &Value, b: &Value) -> Value {
        self.intrinsic("smax", &[a.clone(), b.clone()])
    }

    // ---- memory

    /// `base` plus `bytes`.
    pub fn offset(&mut self, base: &Value, bytes: &Value) -> Value {
        if literal(bytes) == Some(0) {
            return base.clone();
        }
        self.define(base.ty, &format!("getelementptr inbounds i8, {base}, {bytes}"))
    }

    /// The address of element `index` of an array of `element_bytes` elements.
    pub fn element(&mut self, base: &Value, index: &Value, element_bytes: i64) -> Value {
        let bytes = self.scale(index, element_bytes);
        self.offset(base, &bytes)
    }

    /// The address of a constant array.
    pub fn constant(&mut self, element: &str, values: &[String]) -> Value {
        let list: Vec<_> = values.iter().map(|value| format!("{element} {value}")).collect();
        let array = format!("[{} x {element}] [{}]", values.len(), list.join(", "));
        let existing = self.constants.iter().position(|other| *other == array);
        let number = existing.unwrap_or(self.constants.len());
        let name = format!("{}.constant.{number}", self.name);
        if existing.is_none() {
            self.needs.insert(name.clone(), format!("@{name} = private unnamed_addr constant {array}, align 64"));
            self.constants.push(array);
        }
        Value { text: format!("@{name}"), ty: PTR }
    }

    /// Loads a value that is aligned to `align` bytes.
    pub fn load(&mut self, ty: Ty, address: &Value, align: usize) -> Value {
        self.define(ty, &format!("load {ty}, {address}, align {align}"))
    }

    /// Loads a value that nothing writes while the kernel runs.
    pub fn load_constant(&mut self, ty: Ty, address: &Value, align: usize) -> Value {
        self.define(ty, &format!("load {ty}, {address}, align {align}, !invariant.load !0"))
    }

    /// Loads a value that is neither kept nor moved: each load of it happens where it is written.
    pub fn load_anew(&mut self, ty: Ty, address: &Value, align: usize) -> Value {
        self.define(ty, &format!("load volatile {ty}, {address}, align {align}"))
    }

    /// Loads an integer that other threads write meanwhile.
    pub fn load_shared(&mut self, address: &Value) -> Value {
        self.define(I64, &format!("load atomic {I64}, {address} monotonic, align 8"))
    }

    /// Replaces an integer that other threads write, if it is still the one `expected`. Returns what it was, and whether it was
    /// that.
    pub fn replace_shared(&mut self, address: &Value, expected: &Value, next: &Value) -> [Value; 2] {
        let both = self.define(I64, &format!("cmpxchg {address}, {expected}, {next} monotonic monotonic, align 8"));
        [(I64, 0), (I1, 1)]
            .map(|(ty, part)| self.define(ty, &format!("extractvalue {{ {I64}, i1 }} {}, {part}", both.text)))
    }

    /// Stores a value at an address aligned to `align` bytes.
    pub fn store(&mut self, value: &Value, address: &Value, align: usize) {
        self.line(&format!("store {value}, {address}, align {align}"));
    }

    /// Brings the cache line at `address` close, for reading.
    pub fn prefetch(&mut self, address: &Value) {
        self.prefetch_with_locality(address, 3);
    }

    /// Brings the cache line at `address` into the second-level cache, for reading.
    pub fn prefetch_to_second_level(&mut self, address: &Value) {
        self.prefetch_with_locality(address, 2);
    }

    fn prefetch_with_locality(&mut self, address: &Value, locality: i64) {
        let hints = [int_of(I32, 0), int_of(I32, locality), int_of(I32, 1)];
        let [read, close, data] = hints;
        self.call("llvm.prefetch.p0", None, &[address.clone(), read, close, data]);
    }

    // ---- vectors

    /// The scalar in every lane; a scalar type gives the scalar itself.
    pub fn splat(&mut self, scalar: &Value, lanes: usize) -> Value {
        if lanes == 1 {
            return scalar.clone();
        }
        let ty = scalar.ty.with_lanes(lanes);
        let inserted = self.define(ty, &format!("insertelement {ty} poison, {scalar}, i64 0"));
        let zeros = format!("<{lanes} x i32> zeroinitializer");
        self.define(ty, &format!("shufflevector {ty} {}, {ty} poison, {zeros}", inserted.text))
    }

    /// One lane of a vector.
    pub fn extract(&mut self, vector: &Value, lane: usize) -> Value {
        if vector.ty.lanes == 1 {
            return vector.clone();
        }
        self.define(vector.ty.with_lanes(1), &format!("extractelement {vector}, i64 {lane}"))
    }

    /// Replaces one lane of a vector.
    pub fn insert(&mut self, vector: &Value, scalar: &Value, lane: usize) -> Value {
        if vector.ty.lanes == 1 {
            return scalar.clone();
        }
        self.define(vector.ty, &format!("insertelement {vector}, {scalar}, i64 {lane}"))
    }

    /// `0, 1, 2, ...` in the lanes of an integer vector.
    pub fn lane_numbers(&mut self, ty: Ty) -> Value {
        if ty.lanes == 1 {
            return int_of(ty, 0);
        }
        let list: Vec<_> = (0..ty.lanes).map(|lane| format!("{} {lane}", ty.with_lanes(1))).collect();
        Value { text: format!("<{}>", list.join(", ")), ty }
    }

    /// Lanes of two vectors of one type, those of the second one behind those of the first.
    pub fn shuffle(&mut self, a: &Value, b: &Value, lanes: impl Iterator<Item = usize>) -> Value {
        let list: Vec<_> = lanes.map(|lane| format!("i32 {lane}")).collect();
        let mask = format!("<{} x i32> <{}>", list.len(), list.join(", "));
        self.define(a.ty.with_lanes(list.len()), &format!("shufflevector {a}, {b}, {mask}"))
    }

    /// Vectors of one number of lanes, worked on so many lanes at a time: `body` gets a part of each and returns what becomes of
    /// it.
    pub fn in_parts<const N: usize>(
        &mut self,
        vectors: [&Value; N],
        lanes: usize,
        mut body: impl FnMut(&mut Self, [Value; N]) -> Value,
    ) -> Value {
        let all = vectors[0].ty.lanes;
        let part = |part: usize| {
            let own = vectors.map(|vector| self.shuffle(vector, vector, part * lanes..(part + 1) * lanes));
            body(self, own)
        };
        let mut parts: Vec<Value> = (0..all / lanes).map(part).collect();
        while parts.len() > 1 {
            let lanes = 2 * parts[0].ty.lanes;
            parts = parts.chunks(2).map(|pair| self.shuffle(&pair[0], &pair[1], 0..lanes)).collect();
        }
        parts.remove(0)
    }

    /// The lower (0) or upper (1) half of a vector's lanes.
    pub fn half(&mut self, vector: &Value, upper: usize) -> Value {
        let lanes = vector.ty.lanes / 2;
        if lanes == 1 {
            return self.extract(vector, upper);
        }
        let list: Vec<_> = (0..lanes).map(|lane| format!("i32 {}", lane + upper * lanes)).collect();
        let mask = format!("<{lanes} x i32> <{}>", list.join(", "));
        let result = vector.ty.with_lanes(lanes);
        self.define(result, &format!("shufflevector {vector}, {} poison, {mask}", vector.ty))
    }
}
