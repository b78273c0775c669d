//! The state of a warp: registers with a mark of which lanes ever wrote them, and the stack of diverged paths.
//!
//! Marks follow values through moves, arithmetic and local memory, so that copying a register that no path wrote (which compilers do where the
//! value cannot matter) is fine; it is an error where such a value decides an address, a branch, a store or a matrix product.

use crate::error::FaultKind;
use crate::instruction::{R32, R64, RP, Register};
use crate::module::{Kernel, Slots};

/// One value per lane.
pub(crate) type Lanes32 = [u32; 32];
/// One value per lane.
pub(crate) type Lanes64 = [u64; 32];
/// One bit per lane.
pub(crate) type Mask = u32;

/// A path that some lanes of a warp still have to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path {
    pub at: u32,
    /// Where this path meets the one below it on the stack.
    pub until: u32,
    pub lanes: Mask,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    AtBarrier,
    Done,
}

/// A warp.
#[derive(Debug, Clone)]
pub(crate) struct Warp {
    pub index: u32,
    /// Lanes that exist: the last warp of a block may have fewer than 32.
    pub lanes: Mask,
    /// Lanes that have not exited.
    pub live: Mask,
    pub state: State,
    pub paths: Vec<Path>,
    r32: Vec<Lanes32>,
    r64: Vec<Lanes64>,
    predicates: Vec<Mask>,
    defined32: Vec<Mask>,
    defined64: Vec<Mask>,
    defined_predicates: Vec<Mask>,
    /// The marks at the start: constants and special registers are there, nothing else.
    preset_marks: [Vec<Mask>; 3],
    partial: super::partial::Partial,
    pub local: super::local::LocalMemory,
    pub copies: super::copies::Copies,
}

impl Warp {
    /// A warp that no kernel was loaded into.
    pub fn new(kernel: &Kernel, index: u32) -> Self {
        let Slots { names32, names64, names_predicate, .. } = &kernel.slots;
        Warp {
            index,
            lanes: 0,
            live: 0,
            state: State::Done,
            paths: Vec::new(),
            r32: vec![[0; 32]; names32.len()],
            r64: vec![[0; 32]; names64.len()],
            predicates: vec![0; names_predicate.len()],
            defined32: vec![0; names32.len()],
            defined64: vec![0; names64.len()],
            defined_predicates: vec![0; names_predicate.len()],
            preset_marks: [names32, names64, names_predicate].map(|names| vec![0; names.len()]),
            partial: super::partial::Partial::default(),
            local: super::local::LocalMemory::new(kernel.local_bytes),
            copies: super::copies::Copies::default(),
        }
    }

    /// Back to the start of a kernel, with nothing in the registers.
    pub fn restart(&mut self, lanes: Mask, end: u32) {
        self.lanes = lanes;
        self.live = lanes;
        self.state = State::Running;
        self.paths.clear();
        self.paths.push(Path { at: 0, until: end, lanes });
        self.defined32.copy_from_slice(&self.preset_marks[0]);
        self.defined64.copy_from_slice(&self.preset_marks[1]);
        self.defined_predicates.copy_from_slice(&self.preset_marks[2]);
        self.partial.clear();
        self.local.clear();
        self.copies.clear();
    }

    /// Fills a register that no instruction writes; it keeps its value over restarts.
    pub fn preset32(&mut self, register: u16, value: Lanes32) {
        self.r32[register as usize] = value;
        self.preset_marks[0][register as usize] = Mask::MAX;
    }

    pub fn preset64(&mut self, register: u16, value: u64) {
        self.r64[register as usize] = [value; 32];
        self.preset_marks[1][register as usize] = Mask::MAX;
    }

    pub fn preset_predicate(&mut self, register: u16, value: Mask) {
        self.predicates[register as usize] = value;
        self.preset_marks[2][register as usize] = Mask::MAX;
    }

    #[inline(always)]
    pub fn get32(&self, register: R32) -> &Lanes32 {
        &self.r32[register.0 as usize]
    }

    #[inline(always)]
    pub fn get64(&self, register: R64) -> &Lanes64 {
        &self.r64[register.0 as usize]
    }

    #[inline(always)]
    pub fn get_predicate(&self, register: RP) -> Mask {
        self.predicates[register.0 as usize]
    }

    /// Lanes in which the register was written.
    #[inline(always)]
    pub fn defined32(&self, register: R32) -> Mask {
        self.defined32[register.0 as usize]
    }

    #[inline(always)]
    pub fn defined64(&self, register: R64) -> Mask {
        self.defined64[register.0 as usize]
    }

    #[inline(always)]
    pub fn defined_predicate(&self, register: RP) -> Mask {
        self.defined_predicates[register.0 as usize]
    }

    #[inline(always)]
    pub fn defined(&self, register: Register) -> Mask {
        match register {
            Register::Narrow(register) => self.defined32(register),
            Register::Wide(register) => self.defined64(register),
        }
    }

    /// The register's lanes as 64 bits, zero-extended.
    #[inline]
    pub fn get(&self, register: Register) -> Lanes64 {
        match register {
            Register::Narrow(register) => self.get32(register).map(u64::from),
            Register::Wide(register) => *self.get64(register),
        }
    }

    /// Writes the lanes of `mask`; `defined` are those whose value depends on written registers only.
    #[inline(always)]
    pub fn set32(&mut self, register: R32, value: &Lanes32, mask: Mask, defined: Mask) {
        let at = register.0 as usize;
        let marks = &mut self.defined32[at];
        *marks = (*marks & !mask) | (defined & mask);
        if mask & !defined != 0 {
            self.partial.forget(Register::Narrow(register), mask & !defined);
        }
        blend(&mut self.r32[at], value, mask);
    }

    #[inline(always)]
    pub fn set64(&mut self, register: R64, value: &Lanes64, mask: Mask, defined: Mask) {
        let at = register.0 as usize;
        let marks = &mut self.defined64[at];
        *marks = (*marks & !mask) | (defined & mask);
        if mask & !defined != 0 {
            self.partial.forget(Register::Wide(register), mask & !defined);
        }
        blend(&mut self.r64[at], value, mask);
    }

    #[inline(always)]
    pub fn set_predicate(&mut self, register: RP, value: Mask, mask: Mask, defined: Mask) {
        let at = register.0 as usize;
        let marks = &mut self.defined_predicates[at];
        *marks = (*marks & !mask) | (defined & mask);
        self.predicates[at] = (self.predicates[at] & !mask) | (value & mask);
    }

    /// Writes the lanes of `mask`, cut to the register's width.
    #[inline]
    pub fn set(&mut self, register: Register, value: &Lanes64, mask: Mask, defined: Mask) {
        match register {
            Register::Narrow(register) => self.set32(register, &value.map(|lane| lane as u32), mask, defined),
            Register::Wide(register) => self.set64(register, value, mask, defined),
        }
    }

    /// Writes one lane, cut to the register's width, without a mark; [`mark`](Warp::mark) follows.
    #[inline(always)]
    pub fn set_lane(&mut self, register: Register, lane: usize, value: u64) {
        match register {
            Register::Narrow(register) => self.r32[register.0 as usize][lane] = value as u32,
            Register::Wide(register) => self.r64[register.0 as usize][lane] = value,
        }
    }

    /// Marks lanes as written.
    #[inline(always)]
    pub fn mark(&mut self, register: Register, mask: Mask) {
        match register {
            Register::Narrow(register) => self.defined32[register.0 as usize] |= mask,
            Register::Wide(register) => self.defined64[register.0 as usize] |= mask,
        }
    }

    /// Marks the bits of a lane that were written.
    pub fn mark_bits(&mut self, register: Register, lane: usize, bits: u64) {
        let (marks, all) = match register {
            Register::Narrow(register) => (&mut self.defined32[register.0 as usize], u64::from(u32::MAX)),
            Register::Wide(register) => (&mut self.defined64[register.0 as usize], u64::MAX),
        };
        if bits & all == all {
            *marks |= 1 << lane;
        } else {
            *marks &= !(1 << lane);
            self.partial.insert(register, lane, bits);
        }
    }

    /// The bits of a lane that were written.
    pub fn known(&self, register: Register, lane: usize) -> u64 {
        if self.defined(register) >> lane & 1 == 1 { u64::MAX } else { self.partial.bits(register, lane) }
    }

    /// One lane, zero-extended.
    #[inline(always)]
    pub fn get_lane(&self, register: Register, lane: usize) -> u64 {
        match register {
            Register::Narrow(register) => u64::from(self.r32[register.0 as usize][lane]),
            Register::Wide(register) => self.r64[register.0 as usize][lane],
        }
    }

    /// Fails with the first lane of `mask` in which the register was never written.
    #[inline(always)]
    pub fn demand(&self, register: Register, mask: Mask, kernel: &Kernel) -> Result<(), Defect> {
        let missing = mask & !self.defined(register);
        if missing == 0 {
            return Ok(());
        }
        Err(undefined(
            missing,
            match register {
                Register::Narrow(register) => &kernel.slots.names32[register.0 as usize],
                Register::Wide(register) => &kernel.slots.names64[register.0 as usize],
            },
        ))
    }

    #[inline(always)]
    pub fn demand32(&self, register: R32, mask: Mask, kernel: &Kernel) -> Result<(), Defect> {
        self.demand(Register::Narrow(register), mask, kernel)
    }

    #[inline(always)]
    pub fn demand_predicate(&self, register: RP, mask: Mask, kernel: &Kernel) -> Result<(), Defect> {
        let missing = mask & !self.defined_predicate(register);
        if missing == 0 {
            return Ok(());
        }
        Err(undefined(missing, &kernel.slots.names_predicate[register.0 as usize]))
    }
}

#[inline(always)]
fn blend<T: Copy>(target: &mut [T; 32], value: &[T; 32], mask: Mask) {
    if mask == Mask::MAX {
        *target = *value;
        return;
    }
    for lane in 0..32 {
        if mask >> lane & 1 == 1 {
            target[lane] = value[lane];
        }
    }
}

#[cold]
fn undefined(missing: Mask, name: &str) -> Defect {
    Defect::lane(missing.trailing_zeros(), FaultKind::UninitialisedRegister { register: name.to_string() })
}

/// A fault whose place is still to be added.
#[derive(Debug, Clone)]
pub(crate) struct Defect {
    pub lane: Option<u32>,
    pub kind: Box<FaultKind>,
}

impl Defect {
    pub fn lane(lane: u32, kind: FaultKind) -> Self {
        Defect { lane: Some(lane), kind: Box::new(kind) }
    }

    pub fn warp(kind: FaultKind) -> Self {
        Defect { lane: None, kind: Box::new(kind) }
    }
}

/// The lanes of a mask, in order.
#[inline(always)]
pub(crate) fn lanes(mut mask: Mask) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let lane = mask.trailing_zeros() as usize;
        mask &= mask - 1;
        Some(lane)
    })
}
