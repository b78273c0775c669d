//! The driver's promises, with a kernel that adds 1 to each of so many numbers.

use super::{CaptureMode, Driver, Work};
use crate::settings::Settings;
use crate::status::Status;
use llmc_ptx_emulator::Argument;

const PTX: &str = "
.version 7.8
.target sm_80
.address_size 64
.visible .entry increment(.param .u64 numbers, .param .u64 count) {
    .reg .pred %p;
    .reg .b32 %r<5>;
    .reg .b64 %n<6>;
    ld.param.u64 %n1, [numbers];
    ld.param.u64 %n2, [count];
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %tid.x;
    mad.lo.u32 %r3, %r1, 32, %r2;
    cvt.u64.u32 %n3, %r3;
    setp.ge.u64 %p, %n3, %n2;
    @%p ret;
    shl.b64 %n4, %n3, 2;
    add.u64 %n5, %n1, %n4;
    ld.global.u32 %r4, [%n5];
    add.u32 %r4, %r4, 1;
    st.global.u32 [%n5], %r4;
    ret;
}";

fn driver() -> Driver {
    Driver::new(Settings { memory: 1 << 20, ..Settings::default() })
}

/// A driver with 64 numbers in device memory, all 5, and the launch that increments so many.
fn with_numbers(count: u64) -> (Driver, u64, Work) {
    let mut driver = driver();
    let numbers = driver.allocate(256).unwrap();
    driver.copy_in(0, numbers, &[5, 0, 0, 0].repeat(64)).unwrap();
    let module = driver.load_module(PTX).unwrap();
    let function = driver.function(module, "increment").unwrap();
    let arguments = vec![Argument::from(numbers), Argument::from(count)];
    let launch = driver.launch(function, [4, 1, 1], [32, 1, 1], 0, arguments).unwrap();
    (driver, numbers, Work::Kernel(launch))
}

fn numbers(driver: &mut Driver, address: u64) -> Vec<u8> {
    let mut bytes = [0; 256];
    driver.copy_out(0, address, &mut bytes).unwrap();
    bytes.chunks(4).map(|number| number[0]).collect()
}

#[test]
fn kernels_run_at_once_and_graphs_again_and_again() {
    let (mut driver, address, work) = with_numbers(64);
    let stream = driver.create_stream();
    driver.submit(stream, work.clone()).unwrap();
    assert_eq!(numbers(&mut driver, address), [6; 64]);
    driver.begin_capture(stream, CaptureMode::Global).unwrap();
    assert!(driver.is_capturing(stream).unwrap());
    driver.submit(stream, work.clone()).unwrap();
    driver.submit(stream, work).unwrap();
    assert_eq!(driver.synchronize(stream), Err(Status::STREAM_CAPTURE_UNSUPPORTED));
    assert_eq!(driver.allocate(4), Err(Status::STREAM_CAPTURE_UNSUPPORTED));
    let graph = driver.end_capture(stream).unwrap();
    assert_eq!(numbers(&mut driver, address), [6; 64], "recording does nothing");
    let ready = driver.instantiate(graph).unwrap();
    driver.destroy_graph(graph).unwrap();
    driver.launch_graph(ready, stream).unwrap();
    driver.launch_graph(ready, stream).unwrap();
    assert_eq!(numbers(&mut driver, address), [10; 64]);
    let counts = &driver.counts;
    assert_eq!((counts.launches, counts.graphs, counts.graph_launches), (5, 1, 2));
    assert_eq!(counts.kernels["increment"].launches, 5);
    assert_eq!(counts.kernels["increment"].counters.global_stores.requested_bytes, 5 * 256);
    assert_eq!(counts.total, counts.kernels["increment"].counters);
}

#[test]
fn a_thread_that_records_need_not_stop_the_others() {
    let mut driver = driver();
    let stream = driver.create_stream();
    driver.begin_capture(stream, CaptureMode::ThreadLocal).unwrap();
    assert_eq!(driver.allocate(4), Err(Status::STREAM_CAPTURE_UNSUPPORTED));
    std::thread::scope(|scope| scope.spawn(|| driver.allocate(4)).join().unwrap().unwrap());
}

#[test]
fn after_a_fault_nothing_works_any_more() {
    let (mut driver, _, work) = with_numbers(65);
    assert_eq!(driver.check(), Ok(()));
    assert_eq!(driver.submit(0, work), Ok(()), "the call itself succeeds: kernels run later than they are launched");
    assert_eq!(driver.check(), Err(Status::ILLEGAL_ADDRESS));
}

#[test]
fn a_kernel_can_be_told_to_fail() {
    let (mut driver, _, work) = with_numbers(64);
    driver.settings.fault = Some("incr".to_owned());
    driver.submit(0, work).unwrap();
    assert_eq!(driver.check(), Err(Status::LAUNCH_FAILED));
}

#[test]
fn memory_is_as_large_as_it_is() {
    let mut driver = driver();
    let first = driver.allocate(1 << 19).unwrap();
    assert_eq!(driver.allocate((1 << 19) + 1), Err(Status::OUT_OF_MEMORY));
    let second = driver.allocate(1 << 19).unwrap();
    assert_eq!(driver.free_memory(), 0);
    driver.free(first).unwrap();
    assert_eq!((driver.free_memory(), driver.free(first)), (1 << 19, Err(Status::INVALID_VALUE)));
    driver.free(second).unwrap();
    assert_eq!(driver.allocate(0), Err(Status::INVALID_VALUE));
}

#[test]
fn what_was_never_written_is_not_to_be_read() {
    let mut driver = driver();
    let address = driver.allocate(8).unwrap();
    driver.copy_in(0, address, &[1; 7]).unwrap();
    driver.copy_out(0, address, &mut [0; 7]).unwrap();
    assert_eq!(driver.check(), Ok(()));
    driver.copy_out(0, address, &mut [0; 8]).unwrap();
    assert_eq!(driver.check(), Err(Status::ILLEGAL_ADDRESS));
    assert_eq!(driver.copy_in(0, address, &[0; 9]), Err(Status::INVALID_VALUE));
}

#[test]
fn modules_must_suit_driver_and_device() {
    let refused = |settings: Settings, text: &str| Driver::new(settings).load_module(text).unwrap_err();
    let (status, log) = refused(Settings::default(), &PTX.replace("add.u32", "add.u33"));
    assert!(status == Status::INVALID_PTX && log.contains("line 20"), "{log}");
    let (status, log) = refused(Settings { driver: 11040, ..Settings::default() }, &PTX.replace("7.8", "8.2"));
    assert!(status == Status::UNSUPPORTED_PTX_VERSION && log.contains("8.2"), "{log}");
    for (target, device) in [("sm_90", (8, 9)), ("sm_90a", (10, 0)), ("sm_80", (7, 5))] {
        let settings = Settings { capability: device, ..Settings::default() };
        assert_eq!(refused(settings, &PTX.replace("sm_80", target)).0, Status::NO_BINARY_FOR_GPU);
    }
    let hopper = Settings { capability: (9, 0), ..Settings::default() };
    for target in ["sm_80", "sm_90", "sm_90a"] {
        Driver::new(hopper.clone()).load_module(&PTX.replace("sm_80", target)).unwrap();
    }
    let jit = Settings { jit: Some("out of registers".to_owned()), ..Settings::default() };
    assert!(refused(jit, PTX).1.contains("out of registers"));
}

#[test]
fn large_shared_memory_has_to_be_asked_for() {
    let mut driver = driver();
    let module = driver.load_module(PTX).unwrap();
    assert_eq!(driver.function(module, "decrement"), Err(Status::NOT_FOUND));
    let function = driver.function(module, "increment").unwrap();
    let launch = |driver: &Driver, threads, shared| {
        driver.launch(function, [1, 1, 1], [threads, 1, 1], shared, Vec::new()).err()
    };
    assert_eq!(launch(&driver, 32, 48 << 10), None);
    assert_eq!(launch(&driver, 32, (48 << 10) + 1), Some(Status::INVALID_VALUE));
    assert_eq!(driver.allow_shared(function, 164 << 10), Err(Status::INVALID_VALUE));
    driver.allow_shared(function, 163 << 10).unwrap();
    assert_eq!(launch(&driver, 32, 163 << 10), None);
    assert_eq!(launch(&driver, 1025, 0), Some(Status::LAUNCH_OUT_OF_RESOURCES));
}
