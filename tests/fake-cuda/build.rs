//! Names the shared object as the driver's is named: a program that has it loaded gets it when it asks for `libcuda.so`.

fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so");
    println!("cargo:rerun-if-changed=build.rs");
}
