//! A lock on an open file between processes, and its holder. Must not depend on what the file is for.
//!
//! It is `flock`, used directly instead of the standard library's lock, because we rely on its semantics: the lock
//! belongs to the open file, a child that inherits the file shares it, and the kernel frees it when the last holder is
//! gone, however it ended.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::wait::until;

/// Takes the exclusive lock. `false` if another process held it until the limit.
pub(crate) fn exclusive(file: &File, limit: Duration) -> io::Result<bool> {
    let answer = until(limit, || match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Some(Ok(())),
        Err(Errno::WOULDBLOCK | Errno::INTR) => None,
        Err(other) => Some(Err(other)),
    });
    match answer {
        Some(taken) => taken.map(|()| true).map_err(io::Error::from),
        None => Ok(false),
    }
}

/// The process that holds the lock, if the file contains its id: a line with one number.
pub(crate) fn holder(file: &File) -> Option<u32> {
    let mut bytes = [0; 16];
    let length = file.read_at(&mut bytes, 0).ok()?;
    // Without a line end, the number may be incomplete.
    str::from_utf8(&bytes[..length]).ok()?.strip_suffix('\n')?.parse().ok()
}
