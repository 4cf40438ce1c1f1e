//! Runs on: Python's main thread.
//!
//! The interpreter: one per process, started once, in the user's environment, and finalised on
//! the thread that started it. pyo3 has no safe way to CPython's initialisation API (PEP 587),
//! so this module has the bridge's unsafe code.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::{log, traceback};
use crate::config::Config;

/// The running interpreter. Not `Send`: it ends on the thread that started it.
#[derive(Debug)]
pub(crate) struct Interpreter {
    main_thread: NonNull<ffi::PyThreadState>,
}

impl Interpreter {
    /// Starts Python for `config` and prepares `sys` for its application.
    ///
    /// The error says which of the files that have to fit do not.
    pub(crate) fn start(config: &Config, app_dir: &Path) -> Result<Self, String> {
        let executable = executable(config)?;
        check_version(&executable)?;
        let interpreter = Self::initialize(&executable, &config.python_options)?;
        let prepared =
            Python::attach(|py| prepare(py, config, app_dir).map_err(|error| describe(py, &error)));
        prepared.map(|()| interpreter)
    }

    fn initialize(executable: &Path, options: &[String]) -> Result<Self, String> {
        let executable = CString::new(executable.as_os_str().as_bytes())
            .map_err(|_| format!("`{}` is not a path", executable.display()))?;
        let options: Result<Vec<_>, _> = options.iter().map(|one| CString::new(&**one)).collect();
        let options = options.map_err(|_| "`python_options` has a NUL in it")?;
        let mut config = MaybeUninit::<ffi::PyConfig>::uninit();
        // SAFETY: the function fills what it is given, whatever was there.
        unsafe { ffi::PyConfig_InitPythonConfig(config.as_mut_ptr()) };
        // SAFETY: the call above has initialised all of it.
        let mut config = unsafe { config.assume_init() };
        // Envoy's command line is not Python's, and signals are Envoy's.
        config.parse_argv = i32::from(!options.is_empty());
        config.install_signal_handlers = 0;
        // Options come first: some decide how strings are read.
        let status = set_options(&mut config, &executable, &options);
        let status = status.and_then(|()| set_executable(&mut config, &executable));
        let status = status.and_then(|()| {
            // SAFETY: `config` is initialised; Python copies what it needs of it.
            check(unsafe { ffi::Py_InitializeFromConfig(&raw const config) })
        });
        // SAFETY: `config` is initialised, and not used any more.
        unsafe { ffi::PyConfig_Clear(&raw mut config) };
        status.map_err(|error| {
            format!(
                "Python of `{}` does not start: {error}",
                executable.to_string_lossy()
            )
        })?;
        // SAFETY: the initialisation has attached this thread; no Python object is in use here.
        let main_thread = unsafe { ffi::PyEval_SaveThread() };
        let main_thread =
            NonNull::new(main_thread).ok_or("Python has started without a main thread")?;
        Ok(Self { main_thread })
    }

    /// Ends Python: runs `atexit` functions, waits for its non-daemon threads, flushes its files.
    /// No other thread of ours may be attached, or attach again.
    pub(crate) fn finalize(self) {
        // SAFETY: the pointer is what `PyEval_SaveThread` gave on this very thread, since `Self`
        // is not `Send`, and `self` is consumed.
        unsafe { ffi::PyEval_RestoreThread(self.main_thread.as_ptr()) };
        // SAFETY: this thread initialised Python and is attached.
        let status = unsafe { ffi::Py_FinalizeEx() };
        if status < 0 {
            ::log::warn!("Python could not flush its files at its end");
        }
    }
}

fn set_options(
    config: &mut ffi::PyConfig,
    executable: &CStr,
    options: &[CString],
) -> Result<(), String> {
    if options.is_empty() {
        return Ok(());
    }
    let words = std::iter::once(executable).chain(options.iter().map(|one| &**one));
    let mut words: Vec<_> = words.map(CStr::as_ptr).collect();
    // SAFETY: `config` is initialised; there are so many words, each ends with NUL, and Python copies them.
    check(unsafe {
        ffi::PyConfig_SetBytesArgv(config, words.len().cast_signed(), words.as_mut_ptr())
    })
}

fn set_executable(config: &mut ffi::PyConfig, executable: &CStr) -> Result<(), String> {
    let config: *mut ffi::PyConfig = config;
    // SAFETY: `config` is valid; only the address of the field is taken.
    let program_name = unsafe { &raw mut (*config).program_name };
    // SAFETY: `config` is initialised, the field is one of its own, the string ends with NUL.
    check(unsafe { ffi::PyConfig_SetBytesString(config, program_name, executable.as_ptr()) })?;
    // SAFETY: as above.
    let field = unsafe { &raw mut (*config).executable };
    // SAFETY: as above.
    check(unsafe { ffi::PyConfig_SetBytesString(config, field, executable.as_ptr()) })
}

fn check(status: ffi::PyStatus) -> Result<(), String> {
    // SAFETY: a plain function of its argument.
    if unsafe { ffi::PyStatus_Exception(status) } == 0 {
        return Ok(());
    }
    if status.err_msg.is_null() {
        return Err("no reason given".into());
    }
    // SAFETY: `err_msg` is a string literal of CPython's.
    let message = unsafe { CStr::from_ptr(status.err_msg) };
    Err(message.to_string_lossy().into_owned())
}

/// The Python of the environment to run in.
fn executable(config: &Config) -> Result<PathBuf, String> {
    if let Some(python) = &config.python {
        return if python.is_file() {
            Ok(python.clone())
        } else {
            Err(format!(
                "`python` is `{}`, and there is no such file",
                python.display()
            ))
        };
    }
    if let Some(environment) = std::env::var_os("VIRTUAL_ENV") {
        return Ok(Path::new(&environment).join("bin/python"));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join("python3"))
        .find(|python| python.is_file())
        .ok_or_else(|| {
            "no Python environment to run in\n\
             hint: set `python` in the extension_config to the environment's bin/python"
                .into()
        })
}

/// Refuses a virtual environment of another Python version than the one that is linked: its
/// packages would not be found, or worse, would be.
fn check_version(executable: &Path) -> Result<(), String> {
    let settings = executable
        .parent()
        .and_then(Path::parent)
        .map(|prefix| prefix.join("pyvenv.cfg"));
    let Some(text) = settings.and_then(|settings| std::fs::read_to_string(settings).ok()) else {
        return Ok(());
    };
    let linked = linked_version();
    match environment_version(&text) {
        Some(version) if !version.starts_with(&format!("{linked}.")) => Err(format!(
            "`{}` is an environment of Python {version}, but aiovoy runs {linked} from `{}`\n\
             hint: install aiovoy into that environment with its own pip, and use the module from there",
            executable.display(),
            loaded_libpython().as_deref().unwrap_or("the module itself"),
        )),
        _ => Ok(()),
    }
}

/// The version in the text of a `pyvenv.cfg`.
fn environment_version(text: &str) -> Option<&str> {
    let values = text.lines().filter_map(|line| line.split_once('='));
    values
        .map(|(key, value)| (key.trim(), value.trim()))
        .find(|(key, _)| matches!(*key, "version" | "version_info"))
        .map(|(_, value)| value)
}

/// Major and minor version of the libpython that is loaded, such as `3.11`.
fn linked_version() -> String {
    // SAFETY: may be called before the initialisation; gives a string literal.
    let version = unsafe { ffi::Py_GetVersion() };
    // SAFETY: a string literal of CPython's.
    let version = unsafe { CStr::from_ptr(version) }.to_string_lossy();
    version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}

/// The file of the libpython that is loaded, from the process's memory map.
fn loaded_libpython() -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines()
        .filter_map(|line| line.find('/').map(|path| &line[path..]))
        .find(|path| {
            path.rsplit('/')
                .next()
                .is_some_and(|file| file.starts_with("libpython"))
        })
        .map(str::to_owned)
}

fn prepare(py: Python<'_>, config: &Config, app_dir: &Path) -> PyResult<()> {
    order_path(py, &config.python_path)?;
    let module = py.import(intern!(py, "aiovoy.embedded.interpreter"))?;
    log::set_up(py, config)?;
    module.call_method1(
        intern!(py, "prepare"),
        (&config.mounts()[0].app, app_dir, loaded_libpython()),
    )?;
    log::configure(py, config)
}

/// Has modules looked for in `first`, in this order, before what else the interpreter has.
fn order_path(py: Python<'_>, first: &[PathBuf]) -> PyResult<()> {
    let path = py
        .import(intern!(py, "sys"))?
        .getattr(intern!(py, "path"))?
        .cast_into::<PyList>()?;
    let ordered = PyList::new(py, first.iter().map(|folder| folder.as_os_str()))?;
    for entry in &path {
        if !ordered.contains(&entry)? {
            ordered.append(entry)?;
        }
    }
    path.set_slice(0, path.len(), &ordered)
}

fn describe(py: Python<'_>, error: &PyErr) -> String {
    let hint = "hint: `python` in the extension_config is the environment that has aiovoy and the application";
    if error.is_instance_of::<pyo3::exceptions::PyModuleNotFoundError>(py) {
        return format!("{}\n{hint}", error.value(py));
    }
    if error.is_instance_of::<pyo3::exceptions::PyRuntimeError>(py) {
        return error.value(py).to_string();
    }
    traceback::format(py, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_version_of_an_environment() {
        for (text, version) in [
            ("home = /usr/bin\nversion = 3.11.7\n", Some("3.11.7")),
            (
                "home=/usr/bin\nversion_info=3.12.1.final.0",
                Some("3.12.1.final.0"),
            ),
            ("home = /usr/bin", None),
        ] {
            assert_eq!(environment_version(text), version);
        }
    }

    #[test]
    fn refuses_an_environment_of_another_version() {
        let prefix = std::env::temp_dir().join(format!("aiovoy-venv-{}", std::process::id()));
        std::fs::create_dir_all(prefix.join("bin")).expect("a directory");
        std::fs::write(prefix.join("pyvenv.cfg"), "version = 3.1.2").expect("a file");
        let error = check_version(&prefix.join("bin/python")).expect_err("3.1 is not supported");
        std::fs::remove_dir_all(&prefix).expect("the directory");
        assert!(
            error.contains("Python 3.1.2") && error.contains(&linked_version()),
            "{error}"
        );
    }
}
