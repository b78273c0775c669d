//! Functions: their attributes, how many blocks fit beside each other, and launches.

use super::{Handle, call, put};
use crate::driver::{FunctionFacts, Work};
use crate::settings::Settings;
use crate::status::Status;
use llmc_ptx_emulator::Argument;
use std::ffi::{c_int, c_uint, c_void};
use std::slice;

/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
const DYNAMIC_SHARED: c_uint = 8;
/// `CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT`: a wish, which changes nothing here.
const CARVEOUT: c_uint = 9;

#[unsafe(no_mangle)]
unsafe extern "C" fn cuFuncGetAttribute(value: *mut c_int, attribute: c_uint, function: Handle) -> c_uint {
    call(|driver| {
        let FunctionFacts { threads, static_shared, dynamic_shared, local } = driver.facts(function)?;
        let (major, minor) = driver.settings.capability;
        let found = match attribute {
            0 => threads,
            1 => static_shared,
            3 => local,
            5 | 6 => 10 * major + minor,
            DYNAMIC_SHARED => dynamic_shared,
            _ => return Err(Status::INVALID_VALUE),
        };
        // SAFETY: the caller's pointer.
        unsafe { put(value, found as c_int) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetAttribute(function: Handle, attribute: c_uint, value: c_int) -> c_uint {
    call(|driver| match (attribute, u32::try_from(value)) {
        (DYNAMIC_SHARED, Ok(bytes)) => driver.allow_shared(function, bytes),
        (CARVEOUT, _) => Ok(()),
        _ => Err(Status::INVALID_VALUE),
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetCacheConfig(_function: Handle, _config: c_uint) -> c_uint {
    call(|_| Ok(()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    blocks: *mut c_int,
    function: Handle,
    threads: c_int,
    shared: usize,
) -> c_uint {
    call(|driver| {
        let facts = driver.facts(function)?;
        let count = beside_each_other(&driver.settings, facts, threads.max(1) as u32, shared as u32);
        // SAFETY: the caller's pointer.
        unsafe { put(blocks, count as c_int) }
    })
}

/// Blocks that fit on a multiprocessor by threads and shared memory; registers are not known here.
fn beside_each_other(settings: &Settings, facts: FunctionFacts, threads: u32, shared: u32) -> u32 {
    let used = facts.static_shared + shared + 1024;
    (2048 / threads.next_multiple_of(32)).min(settings.shared_per_multiprocessor() / used).min(32)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuLaunchKernel(
    function: Handle,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared: c_uint,
    stream: Handle,
    parameters: *const *const c_void,
    _extra: *mut *mut c_void,
) -> c_uint {
    call(|driver| {
        let sizes = driver.parameters(function)?;
        if parameters.is_null() && !sizes.is_empty() {
            return Err(Status::INVALID_VALUE);
        }
        let argument = |(at, &bytes): (usize, &u64)| {
            // SAFETY: the caller has a pointer for each of the function's parameters, to as many bytes as that has.
            Argument::from_bytes(unsafe { slice::from_raw_parts((*parameters.add(at)).cast::<u8>(), bytes as usize) })
        };
        let arguments = sizes.iter().enumerate().map(argument).collect();
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let launch = driver.launch(function, grid, block, shared, arguments)?;
        driver.submit(stream, Work::Kernel(launch))
    })
}
