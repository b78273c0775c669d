//! Signals that would end a process in the middle of what an error message explains better.

/// Makes writing beyond the process's file size limit (`ulimit -f`) an error like a full disk, where the signal SIGXFSZ
/// would end the process without a word.
pub fn report_file_size_limit() {
    // SAFETY: ignoring a signal installs no handler, so nothing of this program can run at a bad moment.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}
