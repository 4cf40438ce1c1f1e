//! Runs on: a thread of its own; network threads give it lines.
//!
//! Writes lines to who may not read them: nobody here waits for that, nor for Python's lock. So it is not the launcher's
//! `relay.py`, which keeps to the same bounds with what other processes write.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, poll};

/// Bytes that may wait; once there are more, lines are dropped until all of these are written.
const LIMIT: usize = 1024 * 1024;
/// Bytes that are written at a time.
const PIECE: usize = 64 * 1024;
/// How long the first line waits for others, unless they are as many.
const GATHER: Duration = Duration::from_millis(20);
/// How long the end waits for who takes nothing.
const STUCK: Duration = Duration::from_secs(2);

/// A thread that writes lines.
///
/// Invariant: what waits is written in its order, and no line is written in part, unless the end comes before.
pub(super) struct LogWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// Bytes of these, and of those that are being written.
    bytes: usize,
    /// Lines, likewise.
    lines: usize,
    /// Lines that were not taken.
    dropped: usize,
    ended: bool,
    over: bool,
}

impl LogWriter {
    /// Writes to `output`, which is called that in messages.
    pub(super) fn start(output: File) -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let thread = Builder::new().name("aiovoy-log".into()).spawn({
            let shared = shared.clone();
            move || shared.write(output)
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Takes whole lines, or drops them. `lines` is empty then.
    pub(super) fn put(&self, lines: &mut Vec<u8>) {
        let mut state = self.shared.state.lock();
        let new = count(lines);
        if state.dropped > 0 || (state.bytes > 0 && state.bytes + lines.len() > LIMIT) {
            state.dropped += new;
            return lines.clear();
        }
        let before = state.waiting.len();
        state.bytes += lines.len();
        state.lines += new;
        match before {
            0 => std::mem::swap(&mut state.waiting, lines),
            _ => state.waiting.append(lines),
        }
        let is_due = before < PIECE && state.waiting.len() >= PIECE;
        drop(state);
        if before == 0 || is_due {
            self.shared.changed.notify_all();
        }
    }
}

impl Drop for LogWriter {
    /// Waits until all is written, but not for who takes nothing.
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.ended = true;
        self.shared.changed.notify_all();
        let mut left = usize::MAX;
        while !state.over && state.bytes < left {
            left = state.bytes;
            self.shared.changed.wait_for(&mut state, STUCK);
        }
        let is_over = state.over;
        let lost = state.lines + state.dropped;
        drop(state);
        if is_over {
            if let Some(thread) = self.thread.take() {
                // One that has panicked has ended.
                let _ = thread.join();
            }
        } else {
            tell_of(lost);
        }
    }
}

impl Shared {
    fn write(&self, mut output: File) {
        let mut lines = Vec::new();
        let (mut failed, mut lost) = (false, 0);
        while self.next(&mut lines) {
            for piece in lines.chunks(PIECE) {
                match write_all(&mut output, piece) {
                    Ok(()) => failed = false,
                    Err(error) => {
                        if !std::mem::replace(&mut failed, true) {
                            log::warn!("cannot write the access log: {}", error.kind());
                        }
                        lost += count(piece);
                    }
                }
                lost += self.has_written(piece);
                if lost > 0 && !failed {
                    tell_of(std::mem::take(&mut lost));
                }
            }
            lines.clear();
        }
        if lost > 0 {
            tell_of(lost);
        }
        self.state.lock().over = true;
        self.changed.notify_all();
    }

    /// The next lines; false at the end.
    fn next(&self, lines: &mut Vec<u8>) -> bool {
        let mut state = self.state.lock();
        let nothing = |state: &mut State| state.waiting.is_empty() && !state.ended;
        self.changed.wait_while(&mut state, nothing);
        if !state.ended {
            let goes_on = |state: &mut State| !state.ended && state.waiting.len() < PIECE;
            self.changed.wait_while_for(&mut state, goes_on, GATHER);
        }
        std::mem::swap(&mut state.waiting, lines);
        !lines.is_empty()
    }

    /// `piece` was written. Returns how many lines were dropped, once nothing waits any more.
    fn has_written(&self, piece: &[u8]) -> usize {
        let mut state = self.state.lock();
        state.bytes -= piece.len();
        state.lines -= count(piece);
        let dropped = match state.bytes {
            0 => std::mem::take(&mut state.dropped),
            _ => 0,
        };
        drop(state);
        self.changed.notify_all();
        dropped
    }
}

/// Writes all, and waits as long as that takes, whether or not others have made it non-blocking.
fn write_all(output: &mut File, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match output.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(&output.as_fd(), PollFlags::OUT)], None)?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn count(lines: &[u8]) -> usize {
    lines.iter().filter(|byte| **byte == b'\n').count()
}

fn tell_of(lost: usize) {
    let many = if lost == 1 { "" } else { "s" };
    log::warn!("dropped {lost} line{many} of the access log: standard output took no more");
}
