//! Memory of the device and pinned memory of the host, and copies between them.

use super::{Handle, call, put};
use crate::driver::Work;
use crate::status::Status;
use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeMap;
use std::ffi::{c_int, c_uint, c_void};
use std::slice;
use std::sync::Mutex;

/// Pinned allocations: where they are, and of which layout.
static PINNED: Mutex<BTreeMap<usize, Layout>> = Mutex::new(BTreeMap::new());

/// Alignment of pinned memory: a page.
const PAGE: usize = 4096;

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> c_uint {
    // SAFETY: the caller's pointers.
    call(|driver| unsafe {
        put(free, driver.free_memory() as usize)?;
        put(total, driver.settings.memory as usize)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> c_uint {
    // SAFETY: the caller's pointer.
    call(|driver| unsafe { put(address, driver.allocate(bytes as u64)?) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAllocAsync(address: *mut u64, bytes: usize, _stream: Handle) -> c_uint {
    // SAFETY: the caller's pointer.
    unsafe { cuMemAlloc_v2(address, bytes) }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(address: u64) -> c_uint {
    call(|driver| driver.free(address))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeAsync(address: u64, _stream: Handle) -> c_uint {
    cuMemFree_v2(address)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemHostAlloc(pointer: *mut *mut c_void, bytes: usize, _flags: c_uint) -> c_uint {
    call(|_| {
        let layout = Layout::from_size_align(bytes, PAGE).map_err(|_| Status::INVALID_VALUE)?;
        if bytes == 0 {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc(layout) };
        if memory.is_null() {
            return Err(Status::OUT_OF_MEMORY);
        }
        PINNED.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(memory as usize, layout);
        // SAFETY: the caller's pointer.
        unsafe { put(pointer, memory.cast()) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(pointer: *mut c_void) -> c_uint {
    let known = PINNED.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(&(pointer as usize));
    call(|_| {
        let layout = known.ok_or(Status::INVALID_VALUE)?;
        // SAFETY: allocated with this layout and taken off the list just now.
        unsafe { dealloc(pointer.cast(), layout) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: Handle) -> c_uint {
    // SAFETY: the caller vouches for so many bytes.
    call(|driver| driver.copy_in(stream, to, unsafe { slice::from_raw_parts(from.cast(), bytes) }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) -> c_uint {
    // SAFETY: as above.
    unsafe { cuMemcpyHtoDAsync_v2(to, from, bytes, 0) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: Handle) -> c_uint {
    // SAFETY: the caller vouches for so many bytes.
    call(|driver| driver.copy_out(stream, from, unsafe { slice::from_raw_parts_mut(to.cast(), bytes) }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) -> c_uint {
    // SAFETY: as above.
    unsafe { cuMemcpyDtoHAsync_v2(to, from, bytes, 0) }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: Handle) -> c_uint {
    call(|driver| driver.submit(stream, Work::Copy { to, from, bytes: bytes as u64 }))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) -> c_uint {
    cuMemcpyDtoDAsync_v2(to, from, bytes, 0)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8Async(address: u64, value: u8, bytes: usize, stream: Handle) -> c_uint {
    call(|driver| driver.submit(stream, Work::Fill { address, value, bytes: bytes as u64 }))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8_v2(address: u64, value: u8, bytes: usize) -> c_uint {
    cuMemsetD8Async(address, value, bytes, 0)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetDefaultMemPool(pool: *mut Handle, _device: c_int) -> c_uint {
    // SAFETY: the caller's pointer.
    call(|_| unsafe { put(pool, 1) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetMemPool(pool: *mut Handle, device: c_int) -> c_uint {
    // SAFETY: as above.
    unsafe { cuDeviceGetDefaultMemPool(pool, device) }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolSetAttribute(_pool: Handle, _attribute: c_uint, _value: *mut c_void) -> c_uint {
    call(|_| Ok(()))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolTrimTo(_pool: Handle, _bytes: usize) -> c_uint {
    call(|_| Ok(()))
}
