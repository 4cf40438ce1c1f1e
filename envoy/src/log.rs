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
//! does that, and who has something to say goes on. After [`divert_log`] that thread asks somebody else
//! first whether he takes a line.

use std::borrow::Cow;
use std::fs::File;
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
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
    let _ = ENVOYS.set(write_by_envoy);
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
    begin_to_wait()
}

/// Makes standard error the log of a process that is no Envoy, from `level` on. Nobody waits for it either. Another call
/// changes the level.
///
/// # Errors
///
/// As of [`log_without_waiting`].
pub fn log_to_stderr(level: LevelFilter) -> std::io::Result<()> {
    let is_first = log::set_logger(&StderrLog).is_ok();
    log::set_max_level(level);
    if is_first {
        begin_to_wait()?;
    }
    Ok(())
}

/// What lines look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum LogForm {
    /// As Envoy writes its own, by its logger. Elsewhere than in Envoy it is `Text`.
    Envoys,
    /// Time, level and text.
    Text,
    /// Likewise, with the level in colour.
    Colored,
    /// An object each: `timestamp` (RFC 3339), `level`, `logger` and `message`.
    Json,
}

/// Has lines look like `form` from now on.
pub fn set_log_form(form: LogForm) {
    FORM.store(form as u8, Ordering::Relaxed);
}

/// Somebody who may take a line, of this level and text. Says whether he has. Called on the thread of the log alone.
pub type Diversion = dyn Fn(Level, &str) -> bool + Send + Sync;

/// Offers what is logged to somebody else first from now on.
///
/// # Errors
///
/// If there is no thread that could wait for him. Then he is offered nothing.
pub fn divert_log(to: Arc<Diversion>) -> std::io::Result<()> {
    if QUEUE.get().is_none() {
        begin_to_wait()?;
    }
    *diversion() = Some(to);
    Ok(())
}

/// Offers nothing to [`divert_log`]'s any more, once he has had what was logged until now; but that is waited for no longer
/// than `limit`.
pub fn end_diversion(limit: Duration) {
    if diversion().is_some()
        && let Some(queue) = QUEUE.get()
    {
        queue.flush(limit);
    }
    *diversion() = None;
}

/// Logs without asking [`divert_log`]'s, under the name of a `logger`.
pub fn log_directly(level: Level, logger: &str, message: &str) {
    if !is_forked() {
        post(Line {
            level,
            logger: logger.to_owned().into(),
            message: message.to_owned().into(),
            file: file!(),
            number: line!(),
            is_direct: true,
        });
    }
}

/// Whether lines are offered to somebody.
pub fn is_log_diverted() -> bool {
    diversion().is_some()
}

fn begin_to_wait() -> std::io::Result<()> {
    let queue = Queue::start(offer)?;
    // A second call has been of no use, and its queue ends.
    let _ = QUEUE.set(queue);
    Ok(())
}

/// Waits until what was logged is written, but not for long. From now on nobody is asked to take a line.
pub(crate) fn flush() {
    if let Some(queue) = QUEUE.get() {
        *diversion() = None;
        queue.flush(FLUSH_TIME);
    }
}

static QUEUE: OnceLock<Queue> = OnceLock::new();

static FORM: AtomicU8 = AtomicU8::new(LogForm::Envoys as u8);

static DIVERSION: Mutex<Option<Arc<Diversion>>> = Mutex::new(None);

/// Writes a line by Envoy's logger, where there is an Envoy.
static ENVOYS: OnceLock<fn(&Line)> = OnceLock::new();

fn diversion() -> std::sync::MutexGuard<'static, Option<Arc<Diversion>>> {
    DIVERSION.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records that may wait.
const MOST: usize = 1024;
const FLUSH_TIME: Duration = Duration::from_millis(200);

/// The logger that the lines of the `log` macros are of, as Python knows it.
const LOGGER: &str = "aiovoy.error";

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
        post(Line::of(record));
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
        post(Line::of(record));
    }

    fn flush(&self) {
        flush();
    }
}

/// Has a thread write a line; without one, that is done now.
fn post(line: Line) {
    match QUEUE.get() {
        Some(queue) => queue.post(line),
        None => write(&line),
    }
}

/// Writes a line that nobody else takes.
fn offer(line: &Line) {
    let taker = diversion().clone().filter(|_| !line.is_direct);
    if !taker.is_some_and(|take| take(line.level, &line.message)) {
        write(line);
    }
}

fn write(line: &Line) {
    let form = FORM.load(Ordering::Relaxed);
    if form == LogForm::Envoys as u8
        && let Some(write) = ENVOYS.get()
    {
        return write(line);
    }
    let (level, message) = (level_name(line.level), &line.message);
    let text = if form == LogForm::Json as u8 {
        let [time, level, logger, message] =
            [&universal_time(), level, &line.logger, message].map(serde_json::Value::from);
        format!(
            "{{\"timestamp\": {time}, \"level\": {level}, \"logger\": {logger}, \"message\": {message}}}\n"
        )
    } else if form == LogForm::Colored as u8 {
        let color = match line.level {
            Level::Error => 31,
            Level::Warn => 33,
            Level::Info => 32,
            Level::Debug | Level::Trace => 36,
        };
        format!(
            "[{}] [\x1b[{color}m{level}\x1b[0m] {message}\n",
            local_time()
        )
    } else {
        format!("[{}] [{level}] {message}\n", local_time())
    };
    // At once, since others write there, too. Where nobody reads, there is nobody to tell.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// What Envoy and Python call a level.
pub fn level_name(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// As Envoy's lines have it.
fn local_time() -> String {
    written_time(libc::localtime_r, " ", "")
}

/// As in RFC 3339.
fn universal_time() -> String {
    written_time(libc::gmtime_r, "T", "Z")
}

/// A function of time(3) that breaks a time down; null if it can't.
type BreakDown = unsafe extern "C" fn(*const libc::time_t, *mut libc::tm) -> *mut libc::tm;

/// The time of now as `break_down` has it, empty if it can't.
fn written_time(break_down: BreakDown, between: &str, end: &str) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = libc::time_t::try_from(now.as_secs()).unwrap_or_default();
    let mut parts = MaybeUninit::<libc::tm>::uninit();
    // SAFETY: both pointers are valid during the call.
    if unsafe { break_down(&raw const seconds, parts.as_mut_ptr()) }.is_null() {
        return String::new();
    }
    // SAFETY: filled above.
    let parts = unsafe { parts.assume_init() };
    format!(
        "{}-{:02}-{:02}{between}{:02}:{:02}:{:02}.{:03}{end}",
        parts.tm_year + 1900,
        parts.tm_mon + 1,
        parts.tm_mday,
        parts.tm_hour,
        parts.tm_min,
        parts.tm_sec,
        now.subsec_millis(),
    )
}

/// What is logged.
struct Line {
    level: Level,
    logger: Cow<'static, str>,
    message: Cow<'static, str>,
    file: &'static str,
    number: u32,
    /// Nobody else is asked to take it.
    is_direct: bool,
}

impl Line {
    fn of(record: &Record<'_>) -> Self {
        Self {
            level: record.level(),
            logger: LOGGER.into(),
            message: match record.args().as_str() {
                Some(message) => Cow::Borrowed(message),
                None => Cow::Owned(record.args().to_string()),
            },
            file: record.file_static().unwrap_or_default(),
            number: record.line().unwrap_or_default(),
            is_direct: false,
        }
    }
}

fn write_by_envoy(line: &Line) {
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
                logger: LOGGER.into(),
                message: format!("{dropped} lines of the log are missing: nobody has read it")
                    .into(),
                file: file!(),
                number: line!(),
                is_direct: true,
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
            logger: LOGGER.into(),
            message: number.to_string().into(),
            file: "",
            number: 0,
            is_direct: false,
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
