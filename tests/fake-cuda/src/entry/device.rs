//! Devices: how many there are, and what each can do.

use super::{ask, put, put_text};
use crate::settings::Settings;
use crate::status::Status;
use std::ffi::{c_char, c_int, c_uint};

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_uint {
    // SAFETY: the caller's pointer.
    ask(|driver| unsafe { put(count, driver.settings.devices as c_int) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> c_uint {
    ask(|driver| match (0..driver.settings.devices as c_int).contains(&ordinal) {
        // SAFETY: the caller's pointer.
        true => unsafe { put(device, ordinal) },
        false => Err(Status::INVALID_DEVICE),
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, length: c_int, _device: c_int) -> c_uint {
    ask(|driver| {
        // SAFETY: the caller's buffer.
        unsafe { put_text(&driver.settings.device_name(), name, length.max(0) as usize) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, _device: c_int) -> c_uint {
    // SAFETY: the caller's pointer.
    ask(|driver| unsafe { put(bytes, driver.settings.memory as usize) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetUuid(uuid: *mut [u8; 16], device: c_int) -> c_uint {
    // SAFETY: the caller's pointer.
    ask(|_| unsafe { put(uuid, [device as u8; 16]) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], device: c_int) -> c_uint {
    // SAFETY: as above.
    unsafe { cuDeviceGetUuid(uuid, device) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_uint, _device: c_int) -> c_uint {
    // SAFETY: the caller's pointer.
    ask(|driver| unsafe { put(value, find(&driver.settings, attribute)? as c_int) })
}

/// Attributes under their numbers in the driver's interface.
fn find(settings: &Settings, attribute: c_uint) -> Result<u32, Status> {
    let value = match attribute {
        // Threads of a block, in all and along x, y and z.
        1..=3 => 1024,
        4 => 64,
        // Blocks along x, y and z.
        5 => 0x7fff_ffff,
        6 | 7 => 0xffff,
        // Shared memory of a block without asking.
        8 => 48 << 10,
        // Threads of a warp.
        10 => 32,
        // Registers of a block, and of a multiprocessor.
        12 | 82 => 65536,
        // Clock in kHz.
        13 => 1_410_000,
        16 => settings.multiprocessors(),
        // Integrated; exclusive to one process.
        18 | 20 => 0,
        // Concurrent kernels, unified addresses, cooperative launches.
        31 | 41 | 95 => 1,
        // Bytes of the second-level cache.
        38 => 40 << 20,
        // Threads of a multiprocessor.
        39 => 2048,
        75 => settings.capability.0,
        76 => settings.capability.1,
        81 => settings.shared_per_multiprocessor(),
        97 => settings.shared_per_block(),
        // Memory pools.
        115 => 1,
        _ => {
            eprintln!("fake-cuda: device attribute {attribute} is not known here");
            return Err(Status::INVALID_VALUE);
        }
    };
    Ok(value)
}
