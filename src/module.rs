//! Runs on: Envoy's main thread.
//!
//! The dynamic module, where Envoy's two extensions meet.

use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use envoy::{
    BootstrapExtension, EnvoyBootstrap, EnvoyFilter, EnvoyFilterConfig, HttpFilter,
    HttpFilterConfig, Module,
};

use crate::config::Config;
use crate::exchange::Process;
use crate::life::Server;
use crate::stream::{FilterConfig, Place};

/// The module. Both its extensions, the HTTP filter and the bootstrap extension, are of one
/// process and meet here.
pub(crate) struct Bridge {
    pub(crate) process: OnceLock<Arc<Process>>,
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
        let place = Place::named(name)?;
        match self.process.get() {
            Some(process) => Ok(Box::new(FilterConfig::new(process.clone(), place))),
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
