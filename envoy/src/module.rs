//! Runs on: Envoy main thread, except [`exit_now`].
//!
//! The [`Module`] trait and [`export!`](crate::export!); what holds for the whole process.

use std::ffi::c_char;
use std::ptr;
use std::sync::OnceLock;

use crate::bootstrap::{BootstrapExtension, EnvoyBootstrap};
use crate::hooks;
use crate::http::{EnvoyFilterConfig, HttpFilterConfig};
use crate::sys;

/// What a shared library offers to Envoy. Its methods run on Envoy's main thread.
///
/// An `Err` is logged at level error and makes Envoy refuse what asked for it: the module, or the
/// configuration that names it. At start that ends the process, later it rejects the update.
pub trait Module: Sync + 'static {
    /// The library was loaded.
    ///
    /// It runs once a load, and under `--mode validate` too (see [`is_validation_mode`]).
    fn on_program_init(&self) -> Result<(), String> {
        Ok(())
    }

    /// Some filter chain has an HTTP filter of this module: its `filter_name` and `filter_config`.
    ///
    /// Envoy hands a `StringValue` or `BytesValue` on as it is, a `Struct` as JSON, and no
    /// configuration as empty bytes.
    fn new_http_filter_config(
        &self,
        envoy: &mut EnvoyFilterConfig<'_>,
        name: &str,
        config: &[u8],
    ) -> Result<Box<dyn HttpFilterConfig>, String>;

    /// The bootstrap configuration has an extension of this module: its `extension_name` and
    /// `extension_config`.
    ///
    /// Runs before any filter configuration is made. Until [`EnvoyBootstrap::signal_init_complete`]
    /// is called, Envoy accepts no traffic.
    fn new_bootstrap_extension(
        &self,
        envoy: &EnvoyBootstrap<'_>,
        name: &str,
        config: &[u8],
    ) -> Result<Box<dyn BootstrapExtension>, String>;
}

/// Whether Envoy only checks its configuration (`--mode validate`): then start no threads.
///
/// Main thread only; elsewhere it is always false.
pub fn is_validation_mode() -> bool {
    // SAFETY: no pointer arguments; on another thread Envoy answers false.
    unsafe { sys::is_validation_mode() }
}

/// How many worker threads Envoy has.
///
/// Main thread only; elsewhere it is 0 and Envoy logs a bug.
pub fn concurrency() -> u32 {
    // SAFETY: no pointer arguments; on another thread Envoy answers 0.
    unsafe { sys::get_concurrency() }
}

/// Ends the process at once, from any thread, with status `code`.
///
/// `std::process::exit` would run the destructors of Envoy's C++ statics under the feet of threads
/// that are still running. The other side of that: nothing is flushed but what was logged.
pub fn exit_now(code: i32) -> ! {
    if !crate::is_forked() {
        crate::log::flush();
    }
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Makes the library an Envoy module: `export!(MODULE)`, where `MODULE` is the path of a `static`
/// whose type implements [`Module`].
///
/// ```
/// # use envoy::{BootstrapExtension, EnvoyBootstrap, EnvoyFilterConfig, HttpFilterConfig, Module};
/// struct Hello;
///
/// impl Module for Hello {
///     // …
/// #   fn new_http_filter_config(
/// #       &self,
/// #       _: &mut EnvoyFilterConfig<'_>,
/// #       _: &str,
/// #       _: &[u8],
/// #   ) -> Result<Box<dyn HttpFilterConfig>, String> {
/// #       Err("none".to_owned())
/// #   }
/// #   fn new_bootstrap_extension(
/// #       &self,
/// #       _: &EnvoyBootstrap<'_>,
/// #       _: &str,
/// #       _: &[u8],
/// #   ) -> Result<Box<dyn BootstrapExtension>, String> {
/// #       Err("none".to_owned())
/// #   }
/// }
///
/// static HELLO: Hello = Hello;
///
/// envoy::export!(HELLO);
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! export {
    ($module:path) => {
        const _: () = {
            #[unsafe(no_mangle)]
            extern "C" fn envoy_dynamic_module_on_program_init() -> *const ::core::ffi::c_char {
                $crate::module::program_init(&$module)
            }
        };
    };
}

/// The body of `envoy_dynamic_module_on_program_init`; for [`export!`](crate::export!) only.
#[doc(hidden)]
pub fn program_init(module: &'static dyn Module) -> *const c_char {
    crate::log::install();
    // Initialised again, the library finds the same module here.
    let _ = MODULE.set(module);
    let started = hooks::catch("on_program_init", || module.on_program_init());
    match started {
        Some(Ok(())) => sys::ABI_VERSION.as_ptr(),
        Some(Err(message)) => {
            ::log::error!("module refused to load: {message}");
            ptr::null()
        }
        None => ptr::null(),
    }
}

/// The module that `export!` named.
pub(crate) fn module() -> Option<&'static dyn Module> {
    #[cfg(feature = "fake")]
    if let Some(module) = crate::fake::loaded() {
        return Some(module);
    }
    MODULE.get().copied()
}

static MODULE: OnceLock<&'static dyn Module> = OnceLock::new();
