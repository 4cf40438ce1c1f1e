//! aiovoy's bridge: the dynamic module that Envoy loads. It embeds CPython and answers HTTP
//! requests by ASGI applications.
//!
//! # Layout
//!
//! Four rooms, one a thread, and two grounds. To find a behaviour, ask which thread it runs on.
//!
//! - [`life`], Envoy's main thread and tokio: the process's start, drain and end
//! - [`stream`], Envoy worker threads: Envoy's hooks in, bytes out
//! - [`app`], loop threads: Python, and what applications see
//! - [`exchange`], any thread: what the two sides share, which is messages and mailboxes
//! - [`websocket`], no thread: the WebSocket protocol, of bytes alone
//! - [`config`], no thread: the settings
//! - `envoy_thread`, for tests: an Envoy worker thread whose loop the test plays
//!
//! The path through Envoy's router is the crate `upstream`, which [`stream`] alone knows.
//!
//! ```text
//!            this file
//!       ┌────────┴────────┐
//!       ▼                 ▼
//!    stream              life ──────▶ app
//!       │ │               │            │
//!       │ └─────────▶ exchange ◀───────┘
//!       ▼
//!   websocket         config, which all but `websocket` know
//! ```
//!
//! # Threads
//!
//! Each module says where it runs. An Envoy worker thread never attaches to Python; its loop
//! thread never waits for Envoy; they meet in the mailboxes of [`exchange`] alone.

#![deny(unsafe_code)]

mod app;
mod config;
#[cfg(test)]
mod envoy_thread;
mod exchange;
mod life;
mod stream;
mod websocket;

use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use envoy::{
    BootstrapExtension, EnvoyBootstrap, EnvoyFilter, EnvoyFilterConfig, HttpFilter,
    HttpFilterConfig, Module,
};

use config::Config;
use exchange::Process;
use life::Server;
use stream::{FilterConfig, Place};

/// The module. Both its extensions, the HTTP filter and the bootstrap extension, are of one
/// process and meet here.
struct Bridge {
    process: OnceLock<Arc<Process>>,
}

static BRIDGE: Bridge = Bridge {
    process: OnceLock::new(),
};

envoy::export!(BRIDGE);

impl Module for Bridge {
    fn new_http_filter_config(
        &self,
        _: &mut EnvoyFilterConfig<'_>,
        name: &str,
        config: &[u8],
    ) -> Result<Box<dyn HttpFilterConfig>, String> {
        if !config.is_empty() && config != b"{}" {
            return Err("the aiovoy HTTP filter has no settings of its own: they are the bootstrap extension's".into());
        }
        match self.process.get() {
            Some(process) => Ok(Box::new(FilterConfig::new(
                process.clone(),
                Place::named(name),
            ))),
            None if envoy::is_validation_mode() => Ok(Box::new(Validated)),
            None => Err(
                "the aiovoy HTTP filter needs the aiovoy bootstrap extension\n\
                 hint: add it to `bootstrap_extensions`, as in examples/envoy.yaml"
                    .into(),
            ),
        }
    }

    fn new_bootstrap_extension(
        &self,
        envoy: &EnvoyBootstrap<'_>,
        _: &str,
        config: &[u8],
    ) -> Result<Box<dyn BootstrapExtension>, String> {
        let config = Config::parse(config)?;
        if envoy::is_validation_mode() {
            return Ok(Box::new(Validated));
        }
        if self.process.get().is_some() {
            return Err("a second aiovoy bootstrap extension: one serves the process".into());
        }
        if let Err(error) = envoy::log_without_waiting() {
            log::warn!("no thread for the log: who writes to it waits until it is read: {error}");
        }
        if let Err(functions) = envoy::keep_from_children() {
            log::warn!(
                "programs that the application starts inherit what Envoy opens by {functions}"
            );
        }
        let (server, process) = Server::start(envoy, config)?;
        // Bootstrap extensions are made one after the other, on the main thread.
        let _ = self.process.set(process);
        Ok(Box::new(server))
    }
}

/// Either extension under `envoy --mode validate`: its configuration was read, nothing is started.
struct Validated;

impl HttpFilterConfig for Validated {
    fn new_filter(&self, _: &EnvoyFilter<'_>) -> Option<Rc<dyn HttpFilter>> {
        None
    }
}

impl BootstrapExtension for Validated {
    fn on_shutdown(&self, _: &EnvoyBootstrap<'_>, done: envoy::ShutdownCompletion) {
        done.complete();
    }
}
