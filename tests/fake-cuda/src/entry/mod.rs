//! The C functions of the driver, by what they are about; here is what they share.
//!
//! Pointers come from the caller as the driver's interface demands them. A function that a program needs and that is not
//! here makes the program say so: `cudarc` panics with its name.

mod context;
mod device;
mod function;
mod graph;
mod memory;
mod module;
mod stream;

use crate::driver::Driver;
use crate::settings::Settings;
use crate::status::{SUCCESS, Status};
use std::ffi::{c_char, c_int, c_uint};
use std::sync::Mutex;

/// A handle that the caller sees as a pointer to something.
type Handle = u64;

static DRIVER: Mutex<Option<Driver>> = Mutex::new(None);

/// Calls the driver; fails if an earlier kernel did.
fn call(run: impl FnOnce(&mut Driver) -> Result<(), Status>) -> c_uint {
    ask(|driver| driver.check().and_then(|()| run(driver)))
}

/// Calls the driver for what can be had after a failure too.
fn ask(run: impl FnOnce(&mut Driver) -> Result<(), Status>) -> c_uint {
    let mut driver = DRIVER.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let result = driver.as_mut().ok_or(Status::NOT_INITIALIZED).and_then(run);
    result.err().map_or(SUCCESS, Status::code)
}

/// Stores a result where the caller wants it.
///
/// # Safety
/// `at` must be null or good for a write.
unsafe fn put<T>(at: *mut T, value: T) -> Result<(), Status> {
    if at.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    // SAFETY: as the caller promises.
    unsafe { at.write(value) };
    Ok(())
}

/// Copies text with the null behind it into a buffer, as much as fits.
///
/// # Safety
/// `buffer` must be good for writes of `length` bytes.
unsafe fn put_text(text: &str, buffer: *mut c_char, length: usize) {
    let count = text.len().min(length.saturating_sub(1));
    for (at, byte) in text.bytes().take(count).chain([0]).enumerate().take(length) {
        // SAFETY: `at` is below `length`.
        unsafe { buffer.add(at).write(byte as c_char) };
    }
}

extern "C" fn write_counts() {
    if let Ok(driver) = DRIVER.try_lock()
        && let Some(driver) = driver.as_ref()
    {
        driver.counts.write();
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuInit(_flags: c_uint) -> c_uint {
    let mut driver = DRIVER.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if driver.is_some() {
        return SUCCESS;
    }
    match Settings::from_environment() {
        Err(problem) => {
            eprintln!("fake-cuda: {problem}");
            Status::INVALID_VALUE.code()
        }
        Ok(settings) if settings.devices == 0 => Status::NO_DEVICE.code(),
        Ok(settings) => {
            *driver = Some(Driver::new(settings));
            // SAFETY: the function takes nothing and this library is never unloaded.
            unsafe { libc::atexit(write_counts) };
            SUCCESS
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> c_uint {
    let settings = Settings::from_environment().unwrap_or_default();
    // SAFETY: the caller's pointer.
    unsafe { put(version, settings.driver as c_int) }.err().map_or(SUCCESS, Status::code)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorName(code: c_uint, text: *mut *const c_char) -> c_uint {
    let name = Status::describe(code).map(|(name, _)| name.as_ptr());
    // SAFETY: the caller's pointer.
    let stored = name.ok_or(Status::INVALID_VALUE).and_then(|name| unsafe { put(text, name) });
    stored.err().map_or(SUCCESS, Status::code)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorString(code: c_uint, text: *mut *const c_char) -> c_uint {
    let found = Status::describe(code).map(|(_, text)| text.as_ptr());
    // SAFETY: the caller's pointer.
    let stored = found.ok_or(Status::INVALID_VALUE).and_then(|found| unsafe { put(text, found) });
    stored.err().map_or(SUCCESS, Status::code)
}
