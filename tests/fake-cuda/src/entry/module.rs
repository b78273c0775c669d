//! Modules: PTX text that the driver compiles, and what is found in them.

use super::{Handle, call, put, put_text};
use crate::status::Status;
use std::ffi::{CStr, c_char, c_uint, c_void};

/// `CU_JIT_ERROR_LOG_BUFFER`.
const ERROR_LOG: c_uint = 5;
/// `CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES`.
const ERROR_LOG_BYTES: c_uint = 6;

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadData(module: *mut Handle, image: *const c_void) -> c_uint {
    // SAFETY: the caller's pointers, and no options.
    unsafe { cuModuleLoadDataEx(module, image, 0, std::ptr::null(), std::ptr::null()) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadDataEx(
    module: *mut Handle,
    image: *const c_void,
    count: c_uint,
    options: *const c_uint,
    values: *const *mut c_void,
) -> c_uint {
    call(|driver| {
        // SAFETY: text ends with a null; whatever else an image may be has no text at its start either.
        let text = unsafe { CStr::from_ptr(image.cast()) }.to_str().map_err(|_| Status::INVALID_PTX)?;
        match driver.load_module(text) {
            // SAFETY: the caller's pointer.
            Ok(handle) => unsafe { put(module, handle) },
            Err((status, log)) => {
                let (mut buffer, mut length) = (std::ptr::null_mut(), 0);
                for at in 0..count as usize {
                    // SAFETY: both lists have `count` entries.
                    match unsafe { (*options.add(at), *values.add(at)) } {
                        (ERROR_LOG, value) => buffer = value,
                        (ERROR_LOG_BYTES, value) => length = value as usize,
                        _ => {}
                    }
                }
                if !buffer.is_null() {
                    // SAFETY: the options say how long the buffer is.
                    unsafe { put_text(&log, buffer.cast(), length) };
                }
                Err(status)
            }
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleUnload(module: Handle) -> c_uint {
    call(|driver| driver.unload_module(module))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleGetFunction(function: *mut Handle, module: Handle, name: *const c_char) -> c_uint {
    call(|driver| {
        // SAFETY: the caller's text, with a null at its end.
        let name = unsafe { CStr::from_ptr(name) }.to_str().map_err(|_| Status::NOT_FOUND)?;
        // SAFETY: the caller's pointer.
        unsafe { put(function, driver.function(module, name)?) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleGetGlobal_v2(
    address: *mut u64,
    bytes: *mut usize,
    module: Handle,
    name: *const c_char,
) -> c_uint {
    call(|driver| {
        // SAFETY: the caller's text, with a null at its end.
        let name = unsafe { CStr::from_ptr(name) }.to_str().map_err(|_| Status::NOT_FOUND)?;
        let (start, length) = driver.variable(module, name)?;
        // SAFETY: each is null or the caller's pointer.
        unsafe {
            if !address.is_null() {
                put(address, start)?;
            }
            if bytes.is_null() { Ok(()) } else { put(bytes, length as usize) }
        }
    })
}
