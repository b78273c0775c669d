//! A program in a terminal: what is typed goes through the line discipline, so that Ctrl-C is a signal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Longer than anything takes that is going to happen.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running program and the terminal's other end.
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    /// What has been shown and not been waited for.
    shown: String,
}

impl Terminal {
    /// Starts a command with all three streams in a new terminal.
    pub fn start(command: &mut Command) -> Terminal {
        let (mut outer, mut inner) = (0, 0);
        let none = std::ptr::null_mut();
        // SAFETY: both numbers are written; name, settings and size are optional.
        let result = unsafe { libc::openpty(&raw mut outer, &raw mut inner, none, none.cast(), none.cast()) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        // SAFETY: new descriptors that nothing else owns.
        let (outer, inner) = unsafe { (File::from_raw_fd(outer), OwnedFd::from_raw_fd(inner)) };
        let stream = || Stdio::from(inner.try_clone().unwrap());
        command.stdin(stream()).stdout(stream()).stderr(stream());
        // SAFETY: only two system calls between fork and exec: a new session, whose terminal is the standard input.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        let (sender, screen) = channel();
        let mut reader = outer.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Reading fails when the last program on the other side has ended.
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                let _ = sender.send(bytes[..count].to_vec());
            }
        });
        Terminal { child, keyboard: outer, screen, shown: String::new() }
    }

    /// Types text; `\r` is the return key, `\x03` Ctrl-C.
    pub fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until `text` is shown; returns what was shown since the last wait up to and with it.
    #[track_caller]
    pub fn shows(&mut self, text: &str) -> String {
        let start = Instant::now();
        loop {
            if let Some(at) = self.shown.find(text) {
                let rest = self.shown.split_off(at + text.len());
                return std::mem::replace(&mut self.shown, rest);
            }
            let left = PATIENCE.saturating_sub(start.elapsed());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.shown.push_str(&String::from_utf8_lossy(&bytes)),
                Err(error) => panic!("`{text}` is not shown ({error}): {}", self.shown),
            }
        }
    }

    /// Waits for the end.
    pub fn ends(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}
