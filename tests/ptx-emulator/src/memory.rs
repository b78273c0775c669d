//! Device memory: allocations at addresses of their own, every byte of which knows whether it was written.

use std::collections::BTreeMap;

use crate::error::{FaultKind, Space};
use crate::module::Module;
use crate::shadow::Shadow;

/// Where shared memory lies in the generic address space.
pub(crate) const SHARED_WINDOW: u64 = 0x7f00_0000_0000;
/// Where local memory lies in the generic address space.
pub(crate) const LOCAL_WINDOW: u64 = 0x7e00_0000_0000;
/// Where kernel parameters lie in the generic address space.
pub(crate) const PARAMETER_WINDOW: u64 = 0x7d00_0000_0000;
/// Bytes of the generic address space that each window covers.
pub(crate) const WINDOW_BYTES: u64 = 1 << 32;

/// The first address handed out.
const FIRST_ADDRESS: u64 = 0x10_0000_0000;
/// Addresses are multiples of this, as those of the CUDA driver.
const ALIGNMENT: u64 = 256;
/// Unused addresses behind each allocation, so that running over its end cannot hit the next one.
const GAP: u64 = 4096;
/// What fresh memory holds: as floats NaN, as integers -1.
const POISON: u8 = 0xff;

/// An access of the host that device memory cannot serve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// The bytes are not all inside of one allocation.
    #[error("{bytes} bytes at {address:#x} are not inside of one allocation")]
    Outside {
        /// First byte of the access.
        address: u64,
        /// Length of the access.
        bytes: u64,
    },
    /// `free` of something that is no allocation's first byte.
    #[error("{address:#x} is not the start of an allocation")]
    NotAllocated {
        /// The address to be freed.
        address: u64,
    },
}

/// The memory of a device. Addresses are never handed out twice, so that a use after a free is found.
#[derive(Debug, Clone)]
pub struct Memory {
    allocations: Vec<Allocation>,
    next: u64,
    /// Where the variables of the modules launched so far are.
    variables: BTreeMap<(u64, String), u64>,
    /// The allocation that the last access hit.
    recent: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Allocation {
    pub base: u64,
    pub data: Vec<u8>,
    pub defined: Shadow,
    pub read_only: bool,
}

impl Allocation {
    #[inline]
    fn holds(&self, address: u64, bytes: u64) -> bool {
        address.wrapping_sub(self.base).checked_add(bytes).is_some_and(|end| end <= self.data.len() as u64)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Memory::new()
    }
}

impl Memory {
    /// Memory without any allocation.
    pub fn new() -> Self {
        Memory { allocations: Vec::new(), next: FIRST_ADDRESS, variables: BTreeMap::new(), recent: 0 }
    }

    /// Reserves `bytes` bytes, which nothing was written to yet, and returns the address of the first.
    pub fn allocate(&mut self, bytes: u64) -> u64 {
        let base = self.next;
        self.next = (base + bytes + GAP).next_multiple_of(ALIGNMENT);
        self.allocations.push(Allocation {
            base,
            data: vec![POISON; bytes as usize],
            defined: Shadow::undefined(bytes),
            read_only: false,
        });
        base
    }

    /// Gives an allocation back; later uses of its addresses are faults.
    ///
    /// # Errors
    ///
    /// `address` is not what [`allocate`](Memory::allocate) returned, or was freed before.
    pub fn free(&mut self, address: u64) -> Result<(), MemoryError> {
        match self.allocations.binary_search_by_key(&address, |allocation| allocation.base) {
            Ok(at) => {
                self.allocations.remove(at);
                self.recent = 0;
                Ok(())
            }
            Err(_) => Err(MemoryError::NotAllocated { address }),
        }
    }

    /// First address and length of the allocation that holds `address`.
    pub fn allocation(&self, address: u64) -> Option<(u64, u64)> {
        let at = self.find(address, 1)?;
        Some((self.allocations[at].base, self.allocations[at].data.len() as u64))
    }

    /// Bytes in all allocations.
    pub fn allocated_bytes(&self) -> u64 {
        self.allocations.iter().map(|allocation| allocation.data.len() as u64).sum()
    }

    /// Copies from the host.
    ///
    /// # Errors
    ///
    /// The bytes do not lie inside of one allocation.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let (allocation, at) = self.host_mut(address, bytes.len() as u64)?;
        allocation.data[at..at + bytes.len()].copy_from_slice(bytes);
        allocation.defined.define(at as u64, bytes.len() as u64);
        Ok(())
    }

    /// Sets `length` bytes to `value`.
    ///
    /// # Errors
    ///
    /// The bytes do not lie inside of one allocation.
    pub fn fill(&mut self, address: u64, value: u8, length: u64) -> Result<(), MemoryError> {
        let (allocation, at) = self.host_mut(address, length)?;
        allocation.data[at..at + length as usize].fill(value);
        allocation.defined.define(at as u64, length);
        Ok(())
    }

    /// Copies to the host, also what was never written; [`undefined_bytes`](Memory::undefined_bytes) tells.
    ///
    /// # Errors
    ///
    /// The bytes do not lie inside of one allocation.
    pub fn read(&self, address: u64, length: u64) -> Result<&[u8], MemoryError> {
        let (allocation, at) = self.host(address, length)?;
        Ok(&allocation.data[at..at + length as usize])
    }

    /// How many of the bytes nothing was ever written to.
    ///
    /// # Errors
    ///
    /// The bytes do not lie inside of one allocation.
    pub fn undefined_bytes(&self, address: u64, length: u64) -> Result<u64, MemoryError> {
        let (allocation, at) = self.host(address, length)?;
        Ok(allocation.defined.undefined_bytes(at as u64, length))
    }

    /// Copies inside of the device, as `memmove` does; bytes that hold nothing stay so.
    ///
    /// # Errors
    ///
    /// Source or destination do not lie inside of one allocation.
    pub fn copy(&mut self, to: u64, from: u64, length: u64) -> Result<(), MemoryError> {
        let bytes = self.read(from, length)?.to_vec();
        let (source, source_at) = self.host(from, length)?;
        let defined = source.defined.is_defined(source_at as u64, length);
        let undefined: Vec<u64> = (0..if defined { 0 } else { length })
            .filter(|byte| !source.defined.is_defined(source_at as u64 + byte, 1))
            .collect();
        self.write(to, &bytes)?;
        let (allocation, at) = self.host_mut(to, length)?;
        for byte in undefined {
            allocation.defined.forget(at as u64 + byte, 1);
        }
        Ok(())
    }

    /// The address of a module's `.global` or `.const` variable, which is placed here on first use.
    pub fn variable(&mut self, module: &Module, name: &str) -> Option<u64> {
        self.place_variables(module);
        self.variables.get(&(module.identity, name.to_string())).copied()
    }

    pub(crate) fn place_variables(&mut self, module: &Module) {
        for variable in &module.variables {
            let key = (module.identity, variable.name.clone());
            if self.variables.contains_key(&key) {
                continue;
            }
            self.next = self.next.next_multiple_of(variable.align.max(ALIGNMENT));
            let address = self.allocate(variable.bytes.len() as u64);
            self.write(address, &variable.bytes).expect("freshly allocated");
            self.variables.insert(key, address);
        }
        for variable in &module.variables {
            let Some(address) = self.variables.get(&(module.identity, variable.name.clone())).copied() else {
                continue;
            };
            for (offset, target) in &variable.references {
                let target = self.variables.get(&(module.identity, target.clone())).copied().unwrap_or(0);
                let _ = self.write(address + offset, &target.to_le_bytes());
            }
            if let Some(at) = self.find(address, 0) {
                self.allocations[at].read_only = variable.read_only;
            }
        }
    }

    fn host(&self, address: u64, bytes: u64) -> Result<(&Allocation, usize), MemoryError> {
        let at = self.find(address, bytes).ok_or(MemoryError::Outside { address, bytes })?;
        let allocation = &self.allocations[at];
        Ok((allocation, (address - allocation.base) as usize))
    }

    fn host_mut(&mut self, address: u64, bytes: u64) -> Result<(&mut Allocation, usize), MemoryError> {
        let at = self.find(address, bytes).ok_or(MemoryError::Outside { address, bytes })?;
        let allocation = &mut self.allocations[at];
        let offset = (address - allocation.base) as usize;
        Ok((allocation, offset))
    }

    fn find(&self, address: u64, bytes: u64) -> Option<usize> {
        let at = self.allocations.partition_point(|allocation| allocation.base <= address).checked_sub(1)?;
        self.allocations[at].holds(address, bytes).then_some(at)
    }

    /// The allocation that holds an access of a kernel, and the offset into it.
    #[inline]
    pub(crate) fn locate(&mut self, address: u64, bytes: u64) -> Result<(&mut Allocation, usize), FaultKind> {
        let hit = self.allocations.get(self.recent).is_some_and(|allocation| allocation.holds(address, bytes));
        if !hit {
            self.recent = self.find(address, bytes).ok_or_else(|| self.outside(address, bytes))?;
        }
        let allocation = &mut self.allocations[self.recent];
        let offset = (address - allocation.base) as usize;
        Ok((allocation, offset))
    }

    #[cold]
    fn outside(&self, address: u64, bytes: u64) -> FaultKind {
        let at = self.allocations.partition_point(|allocation| allocation.base <= address).saturating_sub(1);
        let nearest = match self.allocations.get(at) {
            None => "nothing is allocated".to_string(),
            Some(allocation) => {
                let (base, length) = (allocation.base, allocation.data.len() as u64);
                if address < base {
                    format!("{} bytes before the {length} bytes at {base:#x}", base - address)
                } else {
                    format!("at offset {} of the {length} bytes at {base:#x}", address - base)
                }
            }
        };
        FaultKind::OutOfBounds { space: Space::Global, address, bytes, nearest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_are_apart_and_know_what_was_written() {
        let mut memory = Memory::new();
        let (a, b) = (memory.allocate(100), memory.allocate(64));
        assert!(a % 256 == 0 && b % 256 == 0 && b >= a + 100 + 4096);
        memory.write(a + 10, &[1, 2, 3]).unwrap();
        assert_eq!(memory.read(a + 11, 2).unwrap(), [2, 3]);
        assert_eq!(memory.undefined_bytes(a, 100).unwrap(), 97);
        memory.copy(b, a + 8, 5).unwrap();
        assert_eq!(memory.read(b + 2, 3).unwrap(), [1, 2, 3]);
        assert_eq!(memory.undefined_bytes(b, 5).unwrap(), 2);
        assert_eq!(memory.write(a + 99, &[0; 2]), Err(MemoryError::Outside { address: a + 99, bytes: 2 }));
        memory.free(a).unwrap();
        assert_eq!(memory.free(a), Err(MemoryError::NotAllocated { address: a }));
        assert!(memory.read(a, 1).is_err());
    }
}
