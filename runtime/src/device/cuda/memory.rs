//! Memory of a GPU, and pinned memory of the host, which a GPU copies from and to while the CPU goes on.

use super::driver::Gpu;
use super::error::CudaError;
use cudarc::driver::{CudaContext, CudaSlice, DevicePtr, DriverError, result};
use std::ptr::NonNull;
use std::sync::Arc;

/// An allocation on a GPU, given back when dropped.
pub(super) struct DeviceMemory {
    address: u64,
    bytes: usize,
    _allocation: CudaSlice<u8>,
}

impl DeviceMemory {
    /// Reserves bytes that hold nothing yet; at least one.
    pub fn allocate(gpu: &Gpu, bytes: u64, action: &'static str) -> Result<DeviceMemory, CudaError> {
        let bytes = (bytes as usize).max(1);
        // SAFETY: nothing reads the bytes before something was written to them: kernels write what they read later,
        // and everything else is copied or set.
        let allocation = unsafe { gpu.stream.alloc::<u8>(bytes) }.map_err(gpu.failed(action))?;
        let address = allocation.device_ptr(&gpu.stream).0;
        Ok(DeviceMemory { address, bytes, _allocation: allocation })
    }

    /// Address of the first byte, on the device.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Copies bytes to this memory from `start` on, some time before later work of the stream.
    ///
    /// # Safety
    /// `from` must stay as it is until the stream has got that far.
    pub unsafe fn copy_from(&mut self, gpu: &Gpu, start: usize, from: &[u8]) -> Result<(), DriverError> {
        assert!(start.checked_add(from.len()).is_some_and(|end| end <= self.bytes), "a copy beyond device memory");
        // SAFETY: the range is inside the allocation, and the caller keeps the source.
        unsafe { result::memcpy_htod_async(self.address + start as u64, from, gpu.stream.cu_stream()) }
    }

    /// Copies bytes from `start` on to the host, some time before later work of the stream.
    ///
    /// # Safety
    /// `to` must be left alone until the stream has got that far.
    pub unsafe fn copy_to(&self, gpu: &Gpu, start: usize, to: &mut [u8]) -> Result<(), DriverError> {
        assert!(start.checked_add(to.len()).is_some_and(|end| end <= self.bytes), "a copy from beyond device memory");
        // SAFETY: the range is inside the allocation, and the caller keeps the destination.
        unsafe { result::memcpy_dtoh_async(to, self.address + start as u64, gpu.stream.cu_stream()) }
    }

    /// Zeroes a range, some time before later work of the stream.
    pub fn zero(&mut self, gpu: &Gpu, start: usize, count: usize) -> Result<(), DriverError> {
        assert!(start.checked_add(count).is_some_and(|end| end <= self.bytes), "range outside of device memory");
        // SAFETY: the range is inside the allocation.
        unsafe { result::memset_d8_async(self.address + start as u64, 0, count, gpu.stream.cu_stream()) }
    }
}

/// Pinned memory of the host, zero at first and given back when dropped.
pub(super) struct Pinned {
    start: NonNull<u8>,
    bytes: usize,
    context: Arc<CudaContext>,
}

// SAFETY: it is plain memory, owned by this value.
unsafe impl Send for Pinned {}

impl Pinned {
    /// Takes memory from the system; at least a byte.
    pub fn allocate(gpu: &Gpu, bytes: u64) -> Result<Pinned, CudaError> {
        let failed = gpu.failed("pinning memory of the host");
        let bytes = (bytes as usize).max(1);
        gpu.context.bind_to_thread().map_err(&failed)?;
        // SAFETY: no flags: ordinary memory that the device can copy from.
        let start = unsafe { result::malloc_host(bytes, 0) }.map_err(&failed)?;
        let out_of_memory = DriverError(cudarc::driver::sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY);
        let start = NonNull::new(start.cast::<u8>()).ok_or_else(|| failed(out_of_memory))?;
        // SAFETY: so many bytes were allocated just now.
        unsafe { start.as_ptr().write_bytes(0, bytes) };
        Ok(Pinned { start, bytes, context: Arc::clone(&gpu.context) })
    }

    /// All of it. Wait for the stream before looking at what a copy is writing.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: allocated with this size and initialised.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }

    /// All of it. Wait for the stream before changing what a copy is reading.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: allocated with this size and initialised, and `&mut self` is borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // A lost device cannot be told, and then the process has no use for the memory either.
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: exactly what `allocate` got, not used any more.
            let _ = unsafe { result::free_host(self.start.as_ptr().cast()) };
        }
    }
}

/// Bytes that a kernel wrote as floats.
///
/// # Panics
/// If they do not start at a multiple of four, or are no whole number of floats.
pub(super) fn as_floats(bytes: &[u8]) -> &[f32] {
    // SAFETY: every pattern of bits is a float.
    let (before, floats, behind) = unsafe { bytes.align_to::<f32>() };
    assert!(before.is_empty() && behind.is_empty(), "bytes that are no floats");
    floats
}

/// Bytes that a kernel wrote as 32-bit words.
///
/// # Panics
/// As [`as_floats`].
pub(super) fn as_words(bytes: &[u8]) -> &[u32] {
    // SAFETY: every pattern of bits is a word.
    let (before, words, behind) = unsafe { bytes.align_to::<u32>() };
    assert!(before.is_empty() && behind.is_empty(), "bytes that are no words");
    words
}

/// Bytes that a kernel wrote as 32-bit integers.
///
/// # Panics
/// As [`as_floats`].
pub(super) fn as_ids(bytes: &[u8]) -> &[i32] {
    // SAFETY: every pattern of bits is an integer.
    let (before, ids, behind) = unsafe { bytes.align_to::<i32>() };
    assert!(before.is_empty() && behind.is_empty(), "bytes that are no integers");
    ids
}
