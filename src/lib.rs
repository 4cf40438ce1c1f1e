//! aiovoy's bridge: the dynamic module that Envoy loads. It embeds CPython and answers HTTP
//! requests by ASGI applications.
//!
//! # Layout
//!
//! - [`server`], the life of the process: start-up, readiness, drain, end
//! - [`config`], its settings
//! - [`control`], the channel to the launcher
//! - [`admin`], the one request to Envoy's admin interface
//! - [`filter`], one stream: Envoy's hooks in, messages out, and back
//! - [`request`], Envoy's request, copied out
//! - [`tls`], what Envoy says of a TLS connection
//! - [`proxies`], whose word on the client is taken
//! - [`exchange`], the messages between the two sides, and their names
//! - [`file`], files that responses are made of
//! - [`mailbox`], the queue between threads
//! - [`clock`], the time as streams have it
//! - [`process`], the workers, and the count of what is in flight
//! - [`worker`], the mailboxes of a worker, its streams (Envoy's side), its dispatch (loop's side)
//! - [`asgi`], scope, receive, send and lifespan of an application
//! - [`websocket`], the WebSocket protocol, of bytes alone
//! - [`python`], the interpreter, awaitables, tracebacks
//! - [`runtime`], tokio
//! - `envoy_thread`, for tests: an Envoy worker thread whose loop the test plays
//!
//! # Threads
//!
//! Each module says where it runs. An Envoy worker thread never attaches to Python; its loop
//! thread never waits for Envoy; they meet in [`mailbox`] alone.

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
use stream::FilterConfig;

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
        _: &str,
        config: &[u8],
    ) -> Result<Box<dyn HttpFilterConfig>, String> {
        if !config.is_empty() && config != b"{}" {
            return Err("the aiovoy HTTP filter has no settings of its own: they are the bootstrap extension's".into());
        }
        match self.process.get() {
            Some(process) => Ok(Box::new(FilterConfig::new(process.clone()))),
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
