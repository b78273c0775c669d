//! Graphs: a stream's work, recorded once and done again and again.

use super::{Handle, call, put};
use crate::driver::CaptureMode;
use crate::status::Status;
use std::ffi::{c_int, c_uint, c_ulonglong};

#[unsafe(no_mangle)]
extern "C" fn cuStreamBeginCapture_v2(stream: Handle, mode: c_uint) -> c_uint {
    call(|driver| match mode {
        0 => driver.begin_capture(stream, CaptureMode::Global),
        1 => driver.begin_capture(stream, CaptureMode::ThreadLocal),
        _ => Err(Status::INVALID_VALUE),
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamEndCapture(stream: Handle, graph: *mut Handle) -> c_uint {
    // SAFETY: the caller's pointer.
    call(|driver| unsafe { put(graph, driver.end_capture(stream)?) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamIsCapturing(stream: Handle, capturing: *mut c_int) -> c_uint {
    // SAFETY: the caller's pointer.
    call(|driver| unsafe { put(capturing, c_int::from(driver.is_capturing(stream)?)) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphInstantiateWithFlags(ready: *mut Handle, graph: Handle, _flags: c_ulonglong) -> c_uint {
    // SAFETY: the caller's pointer.
    call(|driver| unsafe { put(ready, driver.instantiate(graph)?) })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphUpload(_ready: Handle, _stream: Handle) -> c_uint {
    call(|_| Ok(()))
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphLaunch(ready: Handle, stream: Handle) -> c_uint {
    call(|driver| driver.launch_graph(ready, stream))
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphExecDestroy(ready: Handle) -> c_uint {
    call(|driver| driver.destroy_graph(ready))
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphDestroy(graph: Handle) -> c_uint {
    call(|driver| driver.destroy_graph(graph))
}
