//! Runs on: any thread that is attached; a thread of its own for lines of threads that are not.
//!
//! The log of the server, for Python, and Python's `logging`, for the server: see
//! `aiovoy/embedded/logs.py`.
//!
//! Who has something to say on a thread that is attached calls [`error`]. What others log goes to
//! `logging` only where its handlers take it, by a thread that attaches for that. It may have to
//! wait, for the GIL or for a handler. So the log waits for it no longer than [`PATIENCE`], and goes on
//! by itself until that line is done with.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Weak};
use std::thread::Builder;
use std::time::{Duration, Instant};

use envoy::LogForm;
use log::Level;
use parking_lot::Mutex;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use super::traceback;
use crate::config::Config;

/// How long a line waits for `logging` to take it.
const PATIENCE: Duration = Duration::from_secs(1);
/// How soon it hears that nothing is to wait for `logging` any more.
const STEP: Duration = Duration::from_millis(50);

/// The logger of what the server has to say.
const SERVERS: &str = "aiovoy.error";
/// The logger of what the application has done.
const OF_THE_APPLICATION: &str = "aiovoy.asgi";

/// What the application has made of `logging`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Logging {
    /// Handlers take requests.
    pub(crate) takes_requests: bool,
    /// Lines are objects of JSON.
    pub(crate) is_json: bool,
}

/// Sets the log up in Python.
pub(crate) fn set_up(py: Python<'_>, config: &Config) -> PyResult<()> {
    let write = PyCFunction::new_closure(py, None, None, write)?;
    let logs = py.import(intern!(py, "aiovoy.embedded.logs"))?;
    let arguments = (write, &config.log_level);
    logs.call_method1(intern!(py, "set_up"), arguments)
        .map(drop)
}

/// Configures `logging` as `config` says. The modules of the application can be imported by now.
pub(crate) fn configure(py: Python<'_>, config: &Config) -> PyResult<()> {
    let Some(source) = &config.log_config else {
        return Ok(());
    };
    let logs = py.import(intern!(py, "aiovoy.embedded.logs"))?;
    logs.call_method1(intern!(py, "configure"), (source,))
        .map(drop)
}

/// Level, logger and text, for the log itself.
fn write(args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
    let (level, logger, text): (String, String, String) = args.extract()?;
    let level = match level.as_str() {
        "critical" | "error" => Level::Error,
        "warning" => Level::Warn,
        "info" => Level::Info,
        "debug" => Level::Debug,
        _ => Level::Trace,
    };
    envoy::log_directly(level, &logger, &text);
    Ok(())
}

/// Logs what the application has done wrong, with what it has raised.
pub(crate) fn error(py: Python<'_>, text: &str, raised: Option<&PyErr>) {
    let emit = || -> PyResult<bool> {
        let logs = py.import(intern!(py, "aiovoy.embedded.logs"))?;
        let raised = raised.map(|error| {
            let value = error.value(py);
            // Before Python 3.12 the traceback need not be in the exception yet.
            if let Some(traceback) = error.traceback(py) {
                let _ = value.setattr(intern!(py, "__traceback__"), traceback);
            }
            value
        });
        let arguments = (OF_THE_APPLICATION, "error", text, raised);
        logs.call_method1(intern!(py, "emit"), arguments)?.extract()
    };
    let write = |text: &str| envoy::log_directly(Level::Error, OF_THE_APPLICATION, text);
    match (emit(), raised) {
        (Ok(true), _) => {}
        (_, None) => write(text),
        (_, Some(error)) => write(&format!("{text}\n{}", traceback::format(py, error))),
    }
}

/// Logs a request that is answered with `status`.
pub(crate) fn access(py: Python<'_>, [client, method, target, version]: [&str; 4], status: u16) {
    let access = || {
        let logs = py.import(intern!(py, "aiovoy.embedded.logs"))?;
        let arguments = (client, method, target, version, status);
        logs.call_method1(intern!(py, "access"), arguments)
    };
    if let Err(error) = access() {
        log::error!("a request is not logged: {error}");
    }
}

/// Looks at what the application has made of `logging`, by which the log goes from now on.
pub(crate) fn look(py: Python<'_>) -> Logging {
    let look = || -> PyResult<(bool, bool, bool)> {
        let logs = py.import(intern!(py, "aiovoy.embedded.logs"))?;
        logs.call_method0(intern!(py, "look"))?.extract()
    };
    let (takes, takes_requests, is_json) = look().unwrap_or_else(|error| {
        log::warn!("what `logging` is like is not known: {error}");
        Default::default()
    });
    if is_json {
        envoy::set_log_form(LogForm::Json);
    }
    if takes && let Err(error) = begin() {
        log::warn!("no thread for `logging`, which has less of the log by that: {error}");
    }
    Logging {
        takes_requests,
        is_json,
    }
}

/// A line that waits for `logging`.
struct Said {
    level: Level,
    text: String,
    /// Somebody writes it, one or the other.
    is_taken: AtomicBool,
    /// Says whether `logging` has it.
    done: Sender<bool>,
}

/// The thread that gives lines to `logging`.
///
/// Invariants: a line is written by who has set its `is_taken`. Who attaches to Python here holds `python_ends`, and
/// finds it unset: so Python, which sets it before its end, does not end under anybody.
#[derive(Default)]
struct Giver {
    python_ends: Mutex<bool>,
}

static GIVER: Mutex<Option<Arc<Giver>>> = Mutex::new(None);

/// From now on lines go to `logging`.
fn begin() -> std::io::Result<()> {
    let mut giver = GIVER.lock();
    if giver.is_some() {
        return Ok(());
    }
    let new = Arc::<Giver>::default();
    let (lines, said) = mpsc::channel();
    let of_thread = Arc::downgrade(&new);
    Builder::new()
        .name("aiovoy-logging".into())
        .spawn(move || give_all(&said, &of_thread))?;
    // The one that has not been taken in time.
    let late: Mutex<Option<Receiver<bool>>> = Mutex::default();
    let divert = move |level: Level, text: &str| offer(&lines, &late, level, text);
    envoy::divert_log(Arc::new(divert))?;
    *giver = Some(new);
    Ok(())
}

/// Python is about to end: no line goes to `logging` from now on. Waits for the one that does, but not longer than
/// `limit`. The calling thread must not be attached to Python.
pub(crate) fn end(limit: Duration) {
    envoy::end_diversion(2 * PATIENCE);
    let giver = GIVER.lock().take();
    if let Some(mut python_ends) = giver
        .as_ref()
        .and_then(|giver| giver.python_ends.try_lock_for(limit))
    {
        *python_ends = true;
    }
}

/// Offers a line to `logging`. Says whether it has it.
fn offer(
    lines: &Sender<Arc<Said>>,
    late: &Mutex<Option<Receiver<bool>>>,
    level: Level,
    text: &str,
) -> bool {
    let mut late = late.lock();
    if let Some(done) = late.take()
        && done.try_recv() == Err(mpsc::TryRecvError::Empty)
    {
        *late = Some(done);
        return false;
    }
    let (sender, done) = mpsc::channel();
    let said = Arc::new(Said {
        level,
        text: text.to_owned(),
        is_taken: AtomicBool::new(false),
        done: sender,
    });
    if lines.send(said.clone()).is_err() {
        return false;
    }
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE && envoy::is_log_diverted() {
        if let Ok(has) = done.recv_timeout(STEP) {
            return has;
        }
    }
    *late = Some(done);
    said.is_taken.swap(true, Ordering::SeqCst)
}

fn give_all(said: &Receiver<Arc<Said>>, giver: &Weak<Giver>) {
    for said in said {
        let giver = giver.upgrade();
        let python_ends = giver.as_ref().map(|giver| giver.python_ends.lock());
        // Whoever waited may have gone on.
        let _ = match python_ends {
            Some(python_ends) if !*python_ends => {
                Python::attach(|py| give(py, &said));
                said.done.send(true)
            }
            _ => said.done.send(false),
        };
    }
}

/// Gives a line to `logging`, unless it has taken too long to get here.
fn give(py: Python<'_>, said: &Said) {
    if said.is_taken.swap(true, Ordering::SeqCst) {
        return;
    }
    let emit = || -> PyResult<bool> {
        let logs = py.import(intern!(py, "aiovoy.embedded.logs"))?;
        let arguments = (
            SERVERS,
            envoy::level_name(said.level),
            &said.text,
            py.None(),
        );
        logs.call_method1(intern!(py, "emit"), arguments)?.extract()
    };
    if !emit().unwrap_or_default() {
        envoy::log_directly(said.level, SERVERS, &said.text);
    }
}
