//! A small writer of LLVM IR text: typed values, structured loops, one function at a time.
//!
//! Kernels are written against this rather than against LLVM's own builder because text needs no
//! lifetimes, prints as it is in snapshots, and allows types that inkwell lacks (`x86_amx`). LLVM parses and
//! verifies the result ([`super::compile`]).

mod control;

use std::fmt;

/// An element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// One bit.
    I1,
    /// 8-bit integer.
    I8,
    /// 16-bit integer; also the bits of a bf16.
    I16,
    /// 32-bit integer.
    I32,
    /// 64-bit integer.
    I64,
    /// binary32.
    F32,
    /// binary64.
    F64,
    /// bfloat16, the operands of instructions that multiply it.
    BF16,
    /// Address.
    Ptr,
    /// Address in a device's global memory.
    Global,
    /// Address in a block's shared memory.
    Shared,
}

/// A first-class type: `lanes` elements, 1 meaning a scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ty {
    /// Element type.
    pub scalar: Scalar,
    /// Number of lanes.
    pub lanes: usize,
}

/// Scalar `i32`.
pub const I32: Ty = Ty { scalar: Scalar::I32, lanes: 1 };
/// Scalar `i64`.
pub const I64: Ty = Ty { scalar: Scalar::I64, lanes: 1 };
/// Scalar `i8`.
pub const I8: Ty = Ty { scalar: Scalar::I8, lanes: 1 };
/// Scalar `i16`.
pub const I16: Ty = Ty { scalar: Scalar::I16, lanes: 1 };
/// Scalar `float`.
pub const F32: Ty = Ty { scalar: Scalar::F32, lanes: 1 };
/// Address.
pub const PTR: Ty = Ty { scalar: Scalar::Ptr, lanes: 1 };
/// Address in a device's global memory.
pub const GLOBAL: Ty = Ty { scalar: Scalar::Global, lanes: 1 };
/// Address in a block's shared memory.
pub const SHARED: Ty = Ty { scalar: Scalar::Shared, lanes: 1 };

impl Ty {
    /// The same element type with another number of lanes.
    pub fn with_lanes(self, lanes: usize) -> Ty {
        Ty { lanes, ..self }
    }

    /// The same number of lanes of another element type.
    pub fn with_scalar(self, scalar: Scalar) -> Ty {
        Ty { scalar, ..self }
    }

    /// The suffix of intrinsics' names, such as `v16f32`.
    pub fn suffix(self) -> String {
        let scalar = match self.scalar {
            Scalar::I1 => "i1",
            Scalar::I8 => "i8",
            Scalar::I16 => "i16",
            Scalar::I32 => "i32",
            Scalar::I64 => "i64",
            Scalar::F32 => "f32",
            Scalar::F64 => "f64",
            Scalar::BF16 => "bf16",
            Scalar::Ptr => "p0",
            Scalar::Global => "p1",
            Scalar::Shared => "p3",
        };
        if self.lanes == 1 { scalar.to_owned() } else { format!("v{}{scalar}", self.lanes) }
    }
}

impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scalar = match self.scalar {
            Scalar::I1 => "i1",
            Scalar::I8 => "i8",
            Scalar::I16 => "i16",
            Scalar::I32 => "i32",
            Scalar::I64 => "i64",
            Scalar::F32 => "float",
            Scalar::F64 => "double",
            Scalar::BF16 => "bfloat",
            Scalar::Ptr => "ptr",
            Scalar::Global => "ptr addrspace(1)",
            Scalar::Shared => "ptr addrspace(3)",
        };
        if self.lanes == 1 { f.write_str(scalar) } else { write!(f, "<{} x {scalar}>", self.lanes) }
    }
}

/// A value of the function being written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Value {
    /// How operands refer to it.
    pub text: String,
    /// Its type.
    pub ty: Ty,
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.ty, self.text)
    }
}

/// An `i64` literal.
pub fn int(value: i64) -> Value {
    Value { text: value.to_string(), ty: I64 }
}

/// An integer literal of any integer type; vectors hold it in every lane.
pub fn int_of(ty: Ty, value: i64) -> Value {
    let text = if ty.lanes == 1 { value.to_string() } else { format!("splat ({} {value})", ty.with_lanes(1)) };
    Value { text, ty }
}

/// A float literal of any float type; vectors hold it in every lane.
pub fn float_of(ty: Ty, value: f64) -> Value {
    let rounded = if ty.scalar == Scalar::F32 { f64::from(value as f32) } else { value };
    let literal = format!("0x{:016X}", rounded.to_bits());
    let text = if ty.lanes == 1 { literal } else { format!("splat ({} {literal})", ty.with_lanes(1)) };
    Value { text, ty }
}

/// The text of a module: functions, constants and the declarations they need.
#[derive(Debug, Default)]
pub struct ModuleText {
    functions: Vec<String>,
    names: std::collections::BTreeSet<String>,
    constants: Vec<String>,
    declarations: std::collections::BTreeSet<String>,
    annotations: Vec<String>,
}

impl ModuleText {
    /// Adds a constant array and returns its address.
    pub fn constant(&mut self, element: &str, values: &[String]) -> Value {
        let name = format!("@constant.{}", self.constants.len());
        let list: Vec<_> = values.iter().map(|value| format!("{element} {value}")).collect();
        let array = format!("[{} x {element}] [{}]", values.len(), list.join(", "));
        let existing = self.constants.iter().position(|line| line.ends_with(&format!("constant {array}, align 64")));
        match existing {
            Some(index) => Value { text: format!("@constant.{index}"), ty: PTR },
            None => {
                self.constants.push(format!("{name} = private unnamed_addr constant {array}, align 64"));
                Value { text: name, ty: PTR }
            }
        }
    }

    /// Says that blocks of a device kernel have this many threads, neither more nor less.
    pub fn set_block(&mut self, kernel: &str, threads: u32, resident: Option<u32>) {
        self.annotations.push(format!("!{{ptr @{kernel}, !\"reqntidx\", i32 {threads}}}"));
        if let Some(resident) = resident {
            self.annotations.push(format!("!{{ptr @{kernel}, !\"minctasm\", i32 {resident}}}"));
        }
    }

    /// Adds a finished function.
    pub fn add(&mut self, function: FunctionText) {
        self.declarations.extend(function.declarations);
        let FunctionText { header, body, .. } = function;
        self.functions.push(format!("{header} {{\nentry:\n{body}}}\n"));
    }

    /// Adds the function of a name that says all about it, unless it has it.
    pub fn add_once(&mut self, name: &str, write: impl FnOnce() -> FunctionText) {
        if self.names.insert(name.to_owned()) {
            self.add(write());
        }
    }

    /// The whole module; `attributes` become those of every function (attribute group 0).
    pub fn finish(self, triple: &str, attributes: &str) -> String {
        let mut text = format!("target triple = \"{triple}\"\n\n");
        for constant in &self.constants {
            text += constant;
            text += "\n";
        }
        for function in &self.functions {
            text += "\n";
            text += function;
        }
        text += "\n";
        for declaration in &self.declarations {
            text += declaration;
            text += "\n";
        }
        text += &format!("\nattributes #0 = {{ {attributes} }}\n!0 = !{{}}\n");
        if !self.annotations.is_empty() {
            let numbers: Vec<_> = (1..=self.annotations.len()).map(|number| format!("!{number}")).collect();
            text += &format!("!nvvm.annotations = !{{{}}}\n", numbers.join(", "));
        }
        for (index, annotation) in self.annotations.iter().enumerate() {
            text += &format!("!{} = {annotation}\n", index + 1);
        }
        text
    }
}

/// Writes the body of one function.
#[derive(Debug)]
pub struct FunctionText {
    header: String,
    body: String,
    block: String,
    next: usize,
    declarations: std::collections::BTreeSet<String>,
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
    /// A kernel: it stays a function of its own, so that profilers and listings show it.
    Kernel,
    /// Part of kernels.
    Inner,
    /// A kernel of a device, launched over a grid.
    DeviceKernel,
}

impl FunctionText {
    /// Starts a function returning nothing. Parameters are then `Value`s of the given names.
    pub fn new(role: Role, name: &str, params: &[(Ty, &str)]) -> (FunctionText, Vec<Value>) {
        let list: Vec<_> = params.iter().map(|(ty, name)| format!("{ty} %{name}")).collect();
        let (linkage, attribute) = match role {
            Role::Entry => ("dso_local", ""),
            Role::Kernel => ("internal", " noinline"),
            Role::Inner => ("internal", ""),
            Role::DeviceKernel => ("ptx_kernel", ""),
        };
        let machine = if role == Role::DeviceKernel { Machine::Device } else { Machine::Host };
        let header = format!("define {linkage} void @{name}({}) #0{attribute}", list.join(", "));
        let values = params.iter().map(|&(ty, name)| Value { text: format!("%{name}"), ty }).collect();
        let (body, block, declarations) = (String::new(), "entry".into(), Default::default());
        let instructions = Instructions { round_to_bf16: machine == Machine::Device, ..Instructions::default() };
        (FunctionText { header, body, block, next: 0, declarations, machine, instructions }, values)
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
        let types: Vec<_> = arguments.iter().map(|argument| argument.ty.to_string()).collect();
        let result_text = result.map_or("void".to_owned(), |ty| ty.to_string());
        self.declarations.insert(format!("declare {result_text} @{name}({})", types.join(", ")));
        self.call_text(&format!("@{name}"), result, arguments)
    }

    /// An instruction of the machine's own language that returns nothing.
    pub fn assembly(&mut self, instruction: &str, constraints: &str, arguments: &[Value]) {
        let list: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        self.line(&format!("call void asm sideeffect \"{instruction}\", \"{constraints}\"({})", list.join(", ")));
    }

    /// The block's dynamic shared memory.
    pub fn shared_memory(&mut self) -> Value {
        self.declarations.insert("@shared = external addrspace(3) global [0 x i8], align 16".to_owned());
        Value { text: "@shared".into(), ty: SHARED }
    }

    /// Calls an intrinsic that returns `count` values of one type.
    pub fn call_many(&mut self, name: &str, result: Ty, count: usize, arguments: &[Value]) -> Vec<Value> {
        let types: Vec<_> = arguments.iter().map(|argument| argument.ty.to_string()).collect();
        let tuple = format!("{{ {} }}", vec![result.to_string(); count].join(", "));
        self.declarations.insert(format!("declare {tuple} @{name}({})", types.join(", ")));
        let list: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        let all = self.define(result, &format!("call {tuple} @{name}({})", list.join(", ")));
        (0..count).map(|i| self.define(result, &format!("extractvalue {tuple} {}, {i}", all.text))).collect()
    }

    /// Calls a function that this module defines.
    pub fn call_local(&mut self, name: &str, arguments: &[Value]) {
        self.call_text(&format!("@{name}"), None, arguments);
    }

    /// Calls through an address.
    pub fn call_pointer(&mut self, callee: &Value, arguments: &[Value]) {
        self.call_text(&callee.text, None, arguments);
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

/// The value of an integer literal.
fn literal(value: &Value) -> Option<i64> {
    if value.ty.lanes == 1 { value.text.parse().ok() } else { None }
}
