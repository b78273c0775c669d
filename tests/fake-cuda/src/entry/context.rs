//! Contexts: each device has its primary one, and every thread a current one.

use super::{Handle, ask, call, put};
use crate::status::Status;
use std::cell::Cell;
use std::ffi::{c_int, c_uint};

thread_local! {
    static CURRENT: Cell<Handle> = const { Cell::new(0) };
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut Handle, device: c_int) -> c_uint {
    // SAFETY: the caller's pointer.
    ask(|_| unsafe { put(context, device as Handle + 1) })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(_device: c_int) -> c_uint {
    ask(|_| Ok(()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuCtxGetCurrent(context: *mut Handle) -> c_uint {
    // SAFETY: the caller's pointer.
    ask(|_| unsafe { put(context, CURRENT.get()) })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(context: Handle) -> c_uint {
    ask(|driver| match context <= Handle::from(driver.settings.devices) {
        true => {
            CURRENT.set(context);
            Ok(())
        }
        false => Err(Status::INVALID_CONTEXT),
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSynchronize() -> c_uint {
    call(|driver| driver.synchronize(0))
}
