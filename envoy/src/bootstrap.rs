//! Runs on: Envoy main thread, except [`BootstrapScheduler`] and [`ShutdownCompletion`] (any
//! thread).
//!
//! The extension that sees Envoy start and stop.
//!
//! ```text
//! new_bootstrap_extension ─> (filter configurations) ─> on_server_initialized ─> (main loop)
//!     ─> on_shutdown ─> (workers stop, filter configurations go) ─> on_destroy ─> drop
//! ```
//!
//! With `--mode validate`, Envoy goes from the filter configurations straight to `on_destroy`.

use std::any::Any;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::panic::{self, AssertUnwindSafe};
use std::ptr::NonNull;

use crate::sys::{self, EnvoyBuffer, StatsIterationAction};

/// What a module does with Envoy's start and end. All hooks run on the main thread, and re-enter
/// only as far as a callback says so.
#[allow(unused_variables)] // The names of unused arguments are documentation.
pub trait BootstrapExtension {
    /// Envoy has read its configuration; filter configurations exist, the main loop comes next.
    fn on_server_initialized(&self, envoy: &EnvoyBootstrap<'_>) {}

    /// The administrator asked for listeners to be drained (`POST /drain_listeners`). SIGTERM does
    /// not come here.
    fn on_drain_started(&self, envoy: &EnvoyBootstrap<'_>) {}

    /// SIGTERM, or `/quitquitquit`: Envoy goes on serving, new requests too, until `done` is
    /// completed. It waits without limit. A second signal calls this again with another `done`.
    fn on_shutdown(&self, envoy: &EnvoyBootstrap<'_>, done: ShutdownCompletion) {
        done.complete();
    }

    /// A [`BootstrapScheduler`] committed `event`, from whichever thread.
    fn on_scheduled(&self, envoy: &EnvoyBootstrap<'_>, event: u64) {}

    /// The last hook of all: workers and filter configurations are gone. The extension is dropped
    /// after it.
    fn on_destroy(&self) {}
}

/// Envoy's side of a bootstrap extension, lent to a hook.
pub struct EnvoyBootstrap<'hook> {
    config: *mut sys::BootstrapExtensionConfig,
    /// Known from `bootstrap_extension_new` on, which follows the making of the extension.
    extension: Option<NonNull<sys::BootstrapExtension>>,
    lent: PhantomData<&'hook ()>,
}

impl EnvoyBootstrap<'_> {
    /// # Safety
    ///
    /// Both pointers are live for `'hook`, and this is the main thread.
    pub(crate) unsafe fn new(
        config: *mut sys::BootstrapExtensionConfig,
        extension: Option<NonNull<sys::BootstrapExtension>>,
    ) -> Self {
        Self {
            config,
            extension,
            lent: PhantomData,
        }
    }

    /// A way for other threads to have [`BootstrapExtension::on_scheduled`] called.
    pub fn new_scheduler(&self) -> BootstrapScheduler {
        // SAFETY: the configuration is live while it is lent, and this is the main thread.
        let raw = unsafe { sys::bootstrap_extension_config_scheduler_new(self.config) };
        BootstrapScheduler {
            raw: NonNull::new(raw),
        }
    }

    /// Lets Envoy accept traffic. Until then its listeners refuse connections; once is enough.
    pub fn signal_init_complete(&self) {
        // SAFETY: the configuration is live while it is lent, and this is the main thread.
        unsafe { sys::bootstrap_extension_config_signal_init_complete(self.config) }
    }

    /// The value of Envoy's gauge `name`. Envoy searches all its statistics for it.
    ///
    /// `None` too while the extension is being made.
    pub fn gauge(&self, name: &str) -> Option<u64> {
        let (extension, mut value) = (self.extension?, 0);
        // SAFETY: the extension is live while it is lent; `name` and `value` outlive the call.
        let found = unsafe {
            sys::bootstrap_extension_get_gauge_value(
                extension.as_ptr(),
                name.into(),
                &raw mut value,
            )
        };
        found.then_some(value)
    }

    /// The value of Envoy's counter `name`. Envoy searches all its statistics for it.
    ///
    /// `None` too while the extension is being made.
    pub fn counter(&self, name: &str) -> Option<u64> {
        let (extension, mut value) = (self.extension?, 0);
        // SAFETY: the extension is live while it is lent; `name` and `value` outlive the call.
        let found = unsafe {
            sys::bootstrap_extension_get_counter_value(
                extension.as_ptr(),
                name.into(),
                &raw mut value,
            )
        };
        found.then_some(value)
    }

    /// Calls `visit` with every gauge of Envoy and its value. None while the extension is being
    /// made.
    pub fn for_each_gauge(&self, visit: impl FnMut(&str, u64)) {
        let Some(extension) = self.extension else {
            return;
        };
        let mut visitor = Visitor { visit, panic: None };
        let (iterator, user) = (visitor.iterator(), &raw mut visitor);
        // SAFETY: the extension is live while it is lent. `visitor` outlives the call and is what
        // its own `iterator` expects.
        unsafe {
            sys::bootstrap_extension_iterate_gauges(extension.as_ptr(), iterator, user.cast());
        }
        if let Some(panic) = visitor.panic {
            panic::resume_unwind(panic);
        }
    }
}

/// A closure behind the two pointers that C passes.
struct Visitor<F> {
    visit: F,
    /// Kept until Envoy's frames are off the stack.
    panic: Option<Box<dyn Any + Send>>,
}

impl<F: FnMut(&str, u64)> Visitor<F> {
    fn iterator(&self) -> sys::GaugeIterator {
        Self::call
    }

    unsafe extern "C" fn call(
        name: EnvoyBuffer,
        value: u64,
        user: *mut c_void,
    ) -> StatsIterationAction {
        // SAFETY: `user` is the `visitor` of `for_each_gauge`, which nobody else touches meanwhile.
        let visitor = unsafe { &mut *user.cast::<Self>() };
        // SAFETY: Envoy keeps the name during the iteration.
        let name = String::from_utf8_lossy(unsafe { name.as_bytes() });
        match panic::catch_unwind(AssertUnwindSafe(|| (visitor.visit)(&name, value))) {
            Ok(()) => StatsIterationAction::Continue,
            Err(panic) => {
                visitor.panic = Some(panic);
                StatsIterationAction::Stop
            }
        }
    }
}

/// Has [`BootstrapExtension::on_scheduled`] called on the main thread.
#[derive(Debug)]
pub struct BootstrapScheduler {
    raw: Option<NonNull<sys::BootstrapExtensionConfigScheduler>>,
}

// SAFETY: Envoy's `bootstrap_extension_config_scheduler_commit` and `_delete`, the only functions
// called with the pointer, may be called from any thread.
unsafe impl Send for BootstrapScheduler {}

// SAFETY: of those, `&BootstrapScheduler` gives `commit` only, which may run on several threads at
// once.
unsafe impl Sync for BootstrapScheduler {}

impl BootstrapScheduler {
    /// Posts `event`.
    pub fn commit(&self, event: u64) {
        if let Some(raw) = self.raw {
            // SAFETY: `raw` is live until `drop` deletes it.
            unsafe { sys::bootstrap_extension_config_scheduler_commit(raw.as_ptr(), event) }
        }
    }
}

impl Drop for BootstrapScheduler {
    fn drop(&mut self) {
        if let Some(raw) = self.raw {
            // SAFETY: `raw` came from `bootstrap_extension_config_scheduler_new` and is deleted
            // here only.
            unsafe { sys::bootstrap_extension_config_scheduler_delete(raw.as_ptr()) }
        }
    }
}

/// Tells Envoy, from any thread, that the module is done and the workers may stop. Dropping it
/// says so too, since Envoy would wait for ever otherwise.
#[must_use = "dropping it lets Envoy stop at once"]
#[derive(Debug)]
pub struct ShutdownCompletion {
    done: sys::EventCallback,
    context: *mut c_void,
}

// SAFETY: Envoy lets `done` be called from any thread.
unsafe impl Send for ShutdownCompletion {}

impl ShutdownCompletion {
    /// # Safety
    ///
    /// `done` and `context` are those of one `bootstrap_extension_shutdown`, and used here only.
    pub(crate) unsafe fn new(done: sys::EventCallback, context: *mut c_void) -> Self {
        Self { done, context }
    }

    /// Says so.
    pub fn complete(self) {
        drop(self);
    }
}

impl Drop for ShutdownCompletion {
    fn drop(&mut self) {
        // SAFETY: Envoy wants the call once for each `bootstrap_extension_shutdown`, and `self`
        // is the only holder of its pair.
        unsafe { (self.done)(self.context) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crosses_threads() {
        fn is_send<T: Send>() {}
        fn is_sync<T: Sync>() {}
        is_send::<BootstrapScheduler>();
        is_sync::<BootstrapScheduler>();
        is_send::<ShutdownCompletion>();
    }
}
