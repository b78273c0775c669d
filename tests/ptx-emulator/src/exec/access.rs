//! Loads, stores, atomics and asynchronous copies of a warp, with all their checks and counts.

use super::atomic::combine;
use super::block::Block;
use super::copies::Batch;
use super::shared::{Actor, active, transfer};
use super::warp::{Defect, Lanes64, Mask, Warp, lanes};
use crate::error::{FaultKind, Space};
use crate::instruction::{Address, AddressSpace, Atomic, CopyAsync, Extend, Load, Register, Store};
use crate::memory::{LOCAL_WINDOW, PARAMETER_WINDOW, SHARED_WINDOW, WINDOW_BYTES};

/// The longest access of one lane in bytes.
const LONGEST: usize = 64;

/// The address in each lane.
pub(super) fn addresses(warp: &Warp, block: &Block, address: &Address, mask: Mask) -> Result<Lanes64, Defect> {
    warp.demand(address.base, mask, block.kernel)?;
    let mut lanes = warp.get(address.base);
    // Sums of 32-bit addresses have 32 bits.
    let bits = match address.base {
        Register::Narrow(_) => u64::from(u32::MAX),
        Register::Wide(_) => u64::MAX,
    };
    for lane in &mut lanes {
        *lane = lane.wrapping_add_signed(address.offset) & bits;
    }
    Ok(lanes)
}

/// The lanes of `mask` by the memory they address; generic addresses become offsets into their memory.
pub(super) fn split(space: AddressSpace, addresses: &mut Lanes64, mask: Mask) -> [(Space, Mask); 4] {
    let one = |space| [(space, mask), (Space::Shared, 0), (Space::Local, 0), (Space::Parameter, 0)];
    match space {
        AddressSpace::Global => one(Space::Global),
        AddressSpace::Shared => one(Space::Shared),
        AddressSpace::Local => one(Space::Local),
        AddressSpace::Parameter => one(Space::Parameter),
        AddressSpace::Generic => {
            let mut masks = [(Space::Global, 0), (Space::Shared, 0), (Space::Local, 0), (Space::Parameter, 0)];
            for lane in lanes(mask) {
                let (space, offset) = generic(addresses[lane]);
                addresses[lane] = offset;
                let at = masks.iter().position(|(known, _)| *known == space).unwrap_or(0);
                masks[at].1 |= 1 << lane;
            }
            masks
        }
    }
}

/// The memory that a generic address lies in, and the offset in it.
pub(super) fn generic(address: u64) -> (Space, u64) {
    let windows = [(Space::Shared, SHARED_WINDOW), (Space::Local, LOCAL_WINDOW), (Space::Parameter, PARAMETER_WINDOW)];
    for (space, start) in windows {
        let offset = address.wrapping_sub(start);
        if offset < WINDOW_BYTES {
            return (space, offset);
        }
    }
    (Space::Global, address)
}

pub(super) fn check_alignment(lane: usize, space: Space, address: u64, bytes: u64) -> Result<(), Defect> {
    if address.is_multiple_of(bytes) {
        return Ok(());
    }
    Err(Defect::lane(lane as u32, FaultKind::Misaligned { space, address, bytes }))
}

fn at_lane(lane: usize) -> impl Fn(FaultKind) -> Defect {
    move |kind| Defect::lane(lane as u32, kind)
}

pub(super) fn load(warp: &mut Warp, block: &mut Block, load: &Load, mask: Mask, line: u32) -> Result<(), Defect> {
    let mut addresses = addresses(warp, block, &load.address, mask)?;
    let bytes = u64::from(load.element) * load.targets.len() as u64;
    let actor = Actor { warp: warp.index, line };
    // Lanes whose local memory was not written whole, with the bits that were.
    let mut in_part = Vec::new();
    for (space, mask) in split(load.address.space, &mut addresses, mask) {
        if mask == 0 {
            continue;
        }
        for lane in lanes(mask) {
            let address = addresses[lane];
            match space {
                Space::Global => {
                    check_alignment(lane, space, address, bytes)?;
                    let source = global(block, lane, address, bytes)?;
                    place(warp, load, lane, source);
                }
                Space::Shared => {
                    let source = block.shared.read(actor, lane, address, bytes)?;
                    place(warp, load, lane, source);
                }
                Space::Local => {
                    check_alignment(lane, space, address, bytes)?;
                    let (mut value, mut known) = ([0; LONGEST], [0; LONGEST]);
                    let (source, written) = warp.local.read(lane, address, bytes).map_err(at_lane(lane))?;
                    value[..source.len()].copy_from_slice(source);
                    known[..source.len()].copy_from_slice(written);
                    place(warp, load, lane, &value[..bytes as usize]);
                    if known[..bytes as usize].iter().any(|bits| *bits != u8::MAX) {
                        in_part.push((lane, known));
                    }
                }
                Space::Parameter => {
                    check_alignment(lane, space, address, bytes)?;
                    let end = address.saturating_add(bytes);
                    if end > block.parameters.len() as u64 {
                        let nearest = format!("the kernel has {} bytes of parameters", block.parameters.len());
                        let kind = FaultKind::OutOfBounds { space, address, bytes, nearest };
                        return Err(Defect::lane(lane as u32, kind));
                    }
                    place(warp, load, lane, &block.parameters[address as usize..end as usize]);
                }
            }
        }
        count(block, space, &addresses, mask, bytes, Direction::Load);
    }
    for target in load.targets.iter().flatten() {
        warp.mark(target.register, mask);
    }
    for (lane, known) in in_part {
        place_marks(warp, load, lane, &known);
    }
    Ok(())
}

/// Marks the bits of a lane's registers that were written, by those of its memory; what extends a value is known with it.
fn place_marks(warp: &mut Warp, load: &Load, lane: usize, known: &[u8]) {
    for (target, known) in load.targets.iter().zip(known.chunks_exact(load.element as usize)) {
        let Some(target) = target else { continue };
        let unused = 64 - 8 * load.element;
        let known = number(known) << unused;
        let known = match load.extend {
            Extend::Zero => known >> unused | !(u64::MAX >> unused),
            Extend::Sign => (known as i64 >> unused) as u64,
        };
        warp.mark_bits(target.register, lane, known);
    }
}

/// Global bytes that a kernel reads.
pub(super) fn global<'b>(block: &'b mut Block, lane: usize, address: u64, bytes: u64) -> Result<&'b [u8], Defect> {
    let (allocation, at) = block.memory.locate(address, bytes).map_err(at_lane(lane))?;
    if !allocation.defined.is_defined(at as u64, bytes) {
        return Err(Defect::lane(lane as u32, FaultKind::UninitialisedMemory { space: Space::Global, address, bytes }));
    }
    Ok(&allocation.data[at..at + bytes as usize])
}

/// Writes the elements of a lane's load into its registers.
#[inline(always)]
fn place(warp: &mut Warp, load: &Load, lane: usize, source: &[u8]) {
    if load.element == 4 && load.extend == Extend::Zero {
        for (target, element) in load.targets.iter().zip(source.chunks_exact(4)) {
            if let Some(target) = target {
                let value = u32::from_le_bytes([element[0], element[1], element[2], element[3]]);
                warp.set_lane(target.register, lane, u64::from(value));
            }
        }
        return;
    }
    for (target, element) in load.targets.iter().zip(source.chunks_exact(load.element as usize)) {
        let Some(target) = target else { continue };
        let mut value = number(element);
        if load.extend == Extend::Sign {
            let unused = 64 - 8 * load.element;
            value = ((value << unused) as i64 >> unused) as u64 & (u64::MAX >> (64 - target.bits));
        }
        warp.set_lane(target.register, lane, value);
    }
}

/// Up to 8 little-endian bytes.
#[inline(always)]
pub(super) fn number(bytes: &[u8]) -> u64 {
    match *bytes {
        [a] => u64::from(a),
        [a, b] => u64::from(u16::from_le_bytes([a, b])),
        [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
        _ => {
            let mut all = [0; 8];
            let length = bytes.len().min(8);
            all[..length].copy_from_slice(&bytes[..length]);
            u64::from_le_bytes(all)
        }
    }
}

pub(super) enum Direction {
    Load,
    Store,
}

/// Counts an access whose lanes have all passed their checks.
pub(super) fn count(
    block: &mut Block,
    space: Space,
    addresses: &Lanes64,
    mask: Mask,
    bytes: u64,
    direction: Direction,
) {
    let mut packed = [0; 32];
    let count = active(addresses, mask, &mut packed);
    let counters = &mut block.counters;
    match (space, direction) {
        (Space::Global, Direction::Load) => counters.global_loads.add(&packed[..count], bytes),
        (Space::Global, Direction::Store) => counters.global_stores.add(&packed[..count], bytes),
        (Space::Shared, Direction::Load) => counters.shared_loads.add(&packed[..count], bytes),
        (Space::Shared, Direction::Store) => counters.shared_stores.add(&packed[..count], bytes),
        _ => {}
    }
}

pub(super) fn store(warp: &mut Warp, block: &mut Block, store: &Store, mask: Mask, line: u32) -> Result<(), Defect> {
    let mut addresses = addresses(warp, block, &store.address, mask)?;
    let element = store.element as usize;
    let bytes = (element * store.sources.len()) as u64;
    let actor = Actor { warp: warp.index, line };
    block.shared.begin_store();
    for (space, mask) in split(store.address.space, &mut addresses, mask) {
        if mask == 0 {
            continue;
        }
        if space == Space::Global {
            for &source in &store.sources {
                warp.demand(source, mask, block.kernel)?;
            }
        }
        for lane in lanes(mask) {
            let address = addresses[lane];
            let mut buffer = [0; LONGEST];
            for (place, &source) in buffer.chunks_exact_mut(element).zip(&store.sources) {
                transfer(place, &warp.get_lane(source, lane).to_le_bytes()[..element]);
            }
            let value = &buffer[..bytes as usize];
            match space {
                Space::Global => {
                    check_alignment(lane, space, address, bytes)?;
                    transfer(global_mut(block, lane, address, bytes)?, value);
                }
                Space::Shared => block.shared.write(actor, lane, address, value)?,
                Space::Local => {
                    check_alignment(lane, space, address, bytes)?;
                    let known = known(warp, store, lane);
                    warp.local.write(lane, address, value, &known[..value.len()]).map_err(at_lane(lane))?;
                }
                Space::Parameter => return Err(Defect::lane(lane as u32, FaultKind::ReadOnly { address })),
            }
            // Shared memory too remembers what was never written.
            if space == Space::Shared && store.sources.iter().any(|&source| warp.defined(source) >> lane & 1 == 0) {
                for (at, bits) in known(warp, store, lane)[..value.len()].iter().enumerate() {
                    if *bits != u8::MAX {
                        block.shared.forget(address + at as u64, 1);
                    }
                }
            }
        }
        count(block, space, &addresses, mask, bytes, Direction::Store);
    }
    Ok(())
}

/// The bits of a lane's values that were written, as they lie in memory.
fn known(warp: &Warp, store: &Store, lane: usize) -> [u8; LONGEST] {
    let mut all = [0; LONGEST];
    for (place, &source) in all.chunks_exact_mut(store.element as usize).zip(&store.sources) {
        place.copy_from_slice(&warp.known(source, lane).to_le_bytes()[..store.element as usize]);
    }
    all
}

/// Global bytes that a kernel writes, which count as written from here on.
pub(super) fn global_mut<'b>(
    block: &'b mut Block,
    lane: usize,
    address: u64,
    bytes: u64,
) -> Result<&'b mut [u8], Defect> {
    let (allocation, at) = block.memory.locate(address, bytes).map_err(at_lane(lane))?;
    if allocation.read_only {
        return Err(Defect::lane(lane as u32, FaultKind::ReadOnly { address }));
    }
    allocation.defined.define(at as u64, bytes);
    Ok(&mut allocation.data[at..at + bytes as usize])
}

pub(super) fn atomic(warp: &mut Warp, block: &mut Block, atomic: &Atomic, mask: Mask, line: u32) -> Result<(), Defect> {
    let mut addresses = addresses(warp, block, &atomic.address, mask)?;
    warp.demand(atomic.b, mask, block.kernel)?;
    if let Some(c) = atomic.c {
        warp.demand(c, mask, block.kernel)?;
    }
    let bytes = u64::from(atomic.bytes);
    let actor = Actor { warp: warp.index, line };
    block.shared.begin_store();
    for (space, mask) in split(atomic.address.space, &mut addresses, mask) {
        if mask == 0 {
            continue;
        }
        for lane in lanes(mask) {
            let address = addresses[lane];
            let (b, c) = (warp.get_lane(atomic.b, lane), atomic.c.map_or(0, |c| warp.get_lane(c, lane)));
            let old = match space {
                Space::Global => {
                    check_alignment(lane, space, address, u64::from(atomic.align))?;
                    let old = number(global(block, lane, address, bytes)?);
                    let new = combine(atomic.op, bytes, old, b, c).to_le_bytes();
                    global_mut(block, lane, address, bytes)?.copy_from_slice(&new[..bytes as usize]);
                    old
                }
                Space::Shared => {
                    let old = number(block.shared.read_atomic(actor, lane, address, bytes)?);
                    let new = combine(atomic.op, bytes, old, b, c).to_le_bytes();
                    block.shared.replace(address, &new[..bytes as usize]);
                    old
                }
                Space::Local | Space::Parameter => {
                    let reason = format!("an atomic operation on {space} memory");
                    return Err(Defect::lane(lane as u32, FaultKind::Operand(reason)));
                }
            };
            if let Some(d) = atomic.d {
                warp.set_lane(d.register, lane, old);
            }
        }
        let direction = if atomic.d.is_some() { Direction::Load } else { Direction::Store };
        count(block, space, &addresses, mask, bytes, direction);
    }
    if let Some(d) = atomic.d {
        warp.mark(d.register, mask);
    }
    Ok(())
}

pub(super) fn copy_async(
    warp: &mut Warp,
    block: &mut Block,
    copy: &CopyAsync,
    mask: Mask,
    line: u32,
) -> Result<(), Defect> {
    let destinations = addresses(warp, block, &copy.destination, mask)?;
    let sources = addresses(warp, block, &copy.source, mask)?;
    if let Some(register) = copy.source_bytes {
        warp.demand32(register, mask, block.kernel)?;
    }
    let bytes = u64::from(copy.bytes);
    let actor = Actor { warp: warp.index, line };
    let mut reading = 0;
    let mut batch =
        Box::new(Batch { lanes: mask, bytes: copy.bytes as usize, addresses: destinations, data: [[0; 16]; 32] });
    for lane in lanes(mask) {
        let length = copy.source_bytes.map_or(bytes, |register| u64::from(warp.get32(register)[lane]));
        if length > bytes {
            let reason = format!("cp.async reads {length} bytes of a copy of {bytes}");
            return Err(Defect::lane(lane as u32, FaultKind::Operand(reason)));
        }
        block.shared.launch_copy(actor, lane, destinations[lane], bytes)?;
        if length > 0 {
            reading |= 1 << lane;
            check_alignment(lane, Space::Global, sources[lane], bytes)?;
            transfer(&mut batch.data[lane][..length as usize], global(block, lane, sources[lane], length)?);
        }
    }
    warp.copies.push(batch);
    count(block, Space::Shared, &destinations, mask, bytes, Direction::Store);
    if reading != 0 {
        count(block, Space::Global, &sources, reading, bytes, Direction::Load);
    }
    Ok(())
}

/// Lands the copies that a wait completes.
pub(super) fn copy_wait(warp: &mut Warp, block: &mut Block, mask: Mask, pending: u32) {
    let warp_index = warp.index;
    warp.copies.wait(mask, pending, |batch, done| {
        for lane in lanes(done) {
            block.shared.land_copy(warp_index, batch.addresses[lane], &batch.data[lane][..batch.bytes]);
        }
    });
}
