//! The CUDA driver whose GPU is an emulator, for this process or for one that is started.

use super::binaries::assert_current;
use std::ffi::CString;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Lets a command find the driver, with a device as the settings say (tests/fake-cuda/src/settings.rs).
pub fn with_gpu<'a>(command: &'a mut Command, settings: &str) -> &'a mut Command {
    command.env("LD_LIBRARY_PATH", directory()).env("LLMC_FAKE_CUDA", settings)
}

/// Loads the driver into this process: who asks for `libcuda.so` from now on gets it.
pub fn load() {
    static LOADED: OnceLock<()> = OnceLock::new();
    LOADED.get_or_init(|| {
        let path = CString::new(directory().join("libcuda.so").as_os_str().as_bytes()).unwrap();
        // SAFETY: the library runs nothing on loading.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        assert!(!handle.is_null(), "{path:?} does not load");
    });
}

/// A directory that holds the driver under its name and nothing else.
fn directory() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let library = Path::new(env!("CARGO_BIN_EXE_llmc")).with_file_name("libllmc_fake_cuda.so");
        assert_current(&library, "llmc-fake-cuda");
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fake-cuda");
        std::fs::create_dir_all(&directory).unwrap();
        let lock = File::create(directory.with_extension("lock")).unwrap();
        lock.lock().unwrap();
        let link = directory.join("libcuda.so");
        if std::fs::read_link(&link).ok().as_deref() != Some(&library) {
            let _ = std::fs::remove_file(&link);
            symlink(&library, &link).unwrap();
        }
        directory
    })
}
