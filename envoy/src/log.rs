//! Runs on: any thread.
//!
//! The `log` backend that writes to Envoy's logger `dynamic_modules`.
//!
//! `log`'s own maximum stays at `trace`: Envoy's level can change while it runs (`/logging` of its
//! admin interface), so Envoy is asked for each record.
//!
//! Elsewhere than in Envoy, [`log_to_stderr`] is the backend.
//!
//! Envoy's logger waits for whoever reads its log. After [`log_without_waiting`] a thread of its own
//! does that, and who has something to say goes on.

use std::borrow::Cow;
use std::fs::File;
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, Builder};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::{is_forked, sys};

/// Makes Envoy's logger the one of the `log` macros. Does nothing if there is one already, as when
/// Envoy initialises a module again that stayed mapped.
pub(crate) fn install() {
    if log::set_logger(&EnvoyLog).is_ok() {
        log::set_max_level(LevelFilter::Trace);
    }
}

/// From now on nobody waits for a log that is not read: up to 1,024 records wait themselves, more
/// are counted and dropped. [`exit_now`](crate::exit_now) gives those that wait a moment. A standard
/// error that is a file is written to at once, since nobody has to read that.
///
/// # Errors
///
/// If there is no thread for it. Then the log is waited for as before.
pub fn log_without_waiting() -> std::io::Result<()> {
    let stderr = std::io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .map(File::from);
    if stderr.is_ok_and(|file| file.metadata().is_ok_and(|metadata| metadata.is_file())) {
        return Ok(());
    }
    begin_to_wait(write)
}

/// Makes standard error the log of a process that is no Envoy, from `level` on. Nobody waits for it either.
///
/// # Errors
///
/// As of [`log_without_waiting`].
pub fn log_to_stderr(level: LevelFilter) -> std::io::Result<()> {
    if log::set_logger(&StderrLog).is_err() {
        return Ok(());
    }
    log::set_max_level(level);
    begin_to_wait(write_to_stderr)
}

fn begin_to_wait(write: fn(&Line)) -> std::io::Result<()> {
    let queue = Queue::start(write)?;
    // A second call has been of no use, and its queue ends.
    let _ = QUEUE.set(queue);
    Ok(())
}

/// Waits until what was logged is written, but not for long.
pub(crate) fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_TIME);
    }
}

static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Records that may wait.
const MOST: usize = 1024;
const FLUSH_TIME: Duration = Duration::from_millis(200);

struct EnvoyLog;

impl Log for EnvoyLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // SAFETY: `log_enabled` may be called from any thread and has no pointer arguments.
        unsafe { sys::log_enabled(metadata.level().into()) }
    }

    fn log(&self, record: &Record<'_>) {
        // A child has no Envoy. The macros ask `log::max_level` only.
        if is_forked() || !self.enabled(record.metadata()) {
            return;
        }
        post(record, write);
    }

    fn flush(&self) {
        flush();
    }
}

struct StderrLog;

impl Log for StderrLog {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        post(record, write_to_stderr);
    }

    fn flush(&self) {
        flush();
    }
}

/// Has a thread write a line; without one, `write` does it now.
fn post(record: &Record<'_>, write: fn(&Line)) {
    let line = Line {
        level: record.level(),
        message: match record.args().as_str() {
            Some(message) => Cow::Borrowed(message),
            None => Cow::Owned(record.args().to_string()),
        },
        file: record.file_static().unwrap_or_default(),
        number: record.line().unwrap_or_default(),
    };
    match QUEUE.get() {
        Some(queue) => queue.post(line),
        None => write(&line),
    }
}

fn write_to_stderr(line: &Line) {
    let level = match line.level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    let time = local_time();
    // At once, since others write there, too.
    let text = format!("[{time}] [{level}] {}\n", line.message);
    // Where nobody reads, there is nobody to tell.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// As Envoy's lines have it.
fn local_time() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = libc::time_t::try_from(now.as_secs()).unwrap_or_default();
    let mut parts = MaybeUninit::<libc::tm>::uninit();
    // SAFETY: both pointers are valid during the call.
    if unsafe { libc::localtime_r(&raw const seconds, parts.as_mut_ptr()) }.is_null() {
        return String::new();
    }
    // SAFETY: filled above.
    let parts = unsafe { parts.assume_init() };
    format!(
        "{}-{:02}-{:02} {:02}:{:02}:{:02}.{:03}",
        parts.tm_year + 1900,
        parts.tm_mon + 1,
        parts.tm_mday,
        parts.tm_hour,
        parts.tm_min,
        parts.tm_sec,
        now.subsec_millis(),
    )
}

/// What Envoy's logger is told.
struct Line {
    level: Level,
    message: Cow<'static, str>,
    file: &'static str,
    number: u32,
}

fn write(line: &Line) {
    let (level, message) = (line.level.into(), &*line.message);
    // SAFETY: `log_v2` may be called from any thread; it copies `message` and `file`, which
    // outlive the call.
    unsafe { sys::log_v2(level, message.into(), line.file.into(), line.number) };
}

/// Lines on their way to the thread that writes them.
struct Queue {
    lines: SyncSender<Line>,
    counts: &'static Counts,
}

#[derive(Default)]
struct Counts {
    /// Lines that are posted and not written.
    waiting: AtomicUsize,
    /// Lines that nobody will see.
    dropped: AtomicUsize,
}

impl Queue {
    /// Starts a thread that calls `write` for each line.
    fn start(write: impl Fn(&Line) + Send + 'static) -> std::io::Result<Self> {
        let (lines, posted) = sync_channel(MOST);
        // As long as the process, as its thread is.
        let counts: &'static Counts = Box::leak(Box::default());
        let run = move || write_all(&posted, counts, write);
        Builder::new().name("module-log".into()).spawn(run)?;
        Ok(Self { lines, counts })
    }

    fn post(&self, line: Line) {
        self.counts.waiting.fetch_add(1, Ordering::SeqCst);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.lines.try_send(line)
        {
            self.counts.waiting.fetch_sub(1, Ordering::SeqCst);
            self.counts.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn flush(&self, limit: Duration) {
        let begin = Instant::now();
        while self.counts.waiting.load(Ordering::SeqCst) > 0 && begin.elapsed() < limit {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn write_all(posted: &Receiver<Line>, counts: &Counts, write: impl Fn(&Line)) {
    for line in posted {
        write(&line);
        let dropped = counts.dropped.swap(0, Ordering::SeqCst);
        if dropped > 0 {
            write(&Line {
                level: Level::Warn,
                message: format!("{dropped} lines of the log are missing: nobody has read it")
                    .into(),
                file: file!(),
                number: line!(),
            });
        }
        counts.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl From<Level> for sys::LogLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::Error,
            Level::Warn => Self::Warn,
            Level::Info => Self::Info,
            Level::Debug => Self::Debug,
            Level::Trace => Self::Trace,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn line(number: usize) -> Line {
        Line {
            level: Level::Info,
            message: number.to_string().into(),
            file: "",
            number: 0,
        }
    }

    #[test]
    fn lines_are_written_in_their_order() {
        let (written, seen) = channel();
        let queue = Queue::start(move |line| written.send(line.message.to_string()).expect("seen"));
        let queue = queue.expect("a thread");
        for number in 0..3 {
            queue.post(line(number));
        }
        queue.flush(Duration::from_secs(10));
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), ["0", "1", "2"]);
    }

    #[test]
    fn nobody_waits_for_a_log_that_is_not_read() {
        let (written, seen) = channel();
        let (read, reads) = channel::<()>();
        let queue = Queue::start(move |line| {
            // Until the other end is dropped.
            let _ = reads.recv();
            written.send(line.message.to_string()).expect("seen");
        });
        let queue = queue.expect("a thread");
        let posted = 2 * MOST;
        for number in 0..posted {
            queue.post(line(number));
        }
        queue.flush(Duration::from_millis(1));
        assert!(seen.try_recv().is_err());
        drop(read);
        queue.flush(Duration::from_secs(10));
        let seen: Vec<_> = seen.try_iter().collect();
        let missing = seen.iter().find(|line| line.contains("are missing"));
        let missing = missing.expect("told").split(' ').next().expect("a number");
        let missing: usize = missing.parse().expect("a number");
        assert!(missing > 0);
        assert_eq!(seen.len() - 1, posted - missing);
    }
}
