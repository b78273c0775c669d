//! Streams and events. Work is done when it is handed over, so there is never anything to wait for.

use super::{Handle, call, put};
use std::ffi::{c_int, c_uint};

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamCreate(stream: *mut Handle, _flags: c_uint) -> c_uint {
    // SAFETY: the caller's pointer.
    call(|driver| unsafe { put(stream, driver.create_stream()) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamCreateWithPriority(stream: *mut Handle, flags: c_uint, _priority: c_int) -> c_uint {
    // SAFETY: as above.
    unsafe { cuStreamCreate(stream, flags) }
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(stream: Handle) -> c_uint {
    call(|driver| driver.destroy_stream(stream))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(stream: Handle) -> c_uint {
    call(|driver| driver.synchronize(stream))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamWaitEvent(_stream: Handle, event: Handle, _flags: c_uint) -> c_uint {
    call(|driver| driver.wait_event(event))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventCreate(event: *mut Handle, _flags: c_uint) -> c_uint {
    // SAFETY: the caller's pointer.
    call(|driver| unsafe { put(event, driver.create_event()) })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventDestroy_v2(event: Handle) -> c_uint {
    call(|driver| driver.destroy_event(event))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(event: Handle, stream: Handle) -> c_uint {
    call(|driver| driver.record_event(event, stream))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventSynchronize(event: Handle) -> c_uint {
    call(|driver| driver.wait_event(event))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventQuery(event: Handle) -> c_uint {
    call(|driver| driver.wait_event(event))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventElapsedTime(milliseconds: *mut f32, start: Handle, end: Handle) -> c_uint {
    // SAFETY: the caller's pointer.
    call(|driver| unsafe { put(milliseconds, driver.elapsed(start, end)?) })
}
