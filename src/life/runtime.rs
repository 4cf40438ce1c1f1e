//! Runs on: any thread.
//!
//! The process's tokio runtime. It carries the supervision of the server and whatever Rust offers
//! to Python as an awaitable; no request passes through it.

use std::sync::LazyLock;

use tokio::runtime::{Builder, Runtime};

/// The runtime, started at its first use.
pub(crate) fn get() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("aiovoy-tokio")
            .enable_all()
            .build()
            .expect("the process may start threads")
    });
    &RUNTIME
}

/// Makes the runtime that of `pyo3-async-runtimes`.
pub(crate) fn serve_python() {
    // Only a second call could fail, with the same runtime in place.
    let _ = pyo3_async_runtimes::tokio::init_with_runtime(get());
}
