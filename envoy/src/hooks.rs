//! Runs on: the thread of the hook, as Envoy has it: main for configurations and bootstrap
//! extensions, the stream's Envoy worker thread for filters.
//!
//! The functions that Envoy calls: catch panics, convert, call the trait.
//!
//! A panic that left one of them would end the process. So each catches, logs and fails closed: what
//! was to be made is not made, and a stream ends, by a 500 if no response had begun, else by a reset.

use std::any::Any;
use std::cell::Cell;
use std::ffi::c_void;
use std::panic::{self, AssertUnwindSafe};
use std::ptr::{self, NonNull};
use std::rc::Rc;

use crate::bootstrap::{BootstrapExtension, EnvoyBootstrap, ShutdownCompletion};
use crate::http::{
    DataStatus, EnvoyFilter, EnvoyFilterConfig, HeadersStatus, HttpFilter, HttpFilterConfig,
    LocalReply, LocalReplyStatus, Progress, Stream, TrailersStatus,
};
use crate::module;
use crate::sys::{self, EnvoyBuffer, EnvoyHttpHeader};

/// Exports hooks under their C names. `else` is what Envoy is told after a panic.
///
/// Envoy's part of the contract, on which the bodies' SAFETY comments rest: pointers that it got
/// from a `*_new` hook come back as they were, until the matching `*_destroy` hook, and on the
/// thread that the module comment names; its own pointers and buffers are live during the call.
macro_rules! hooks {
    ($(
        $(#[$doc:meta])*
        fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $return:ty)? $body:block
        else $closed:expr;
    )*) => {$(
        $(#[$doc])*
        #[allow(unused_variables)] // Hooks that do nothing keep their arguments' names.
        #[cfg_attr(feature = "module", unsafe(no_mangle))]
        pub(crate) unsafe extern "C" fn $name($($arg: $type),*) $(-> $return)? {
            catch(stringify!($name), || $body).unwrap_or_else(|| $closed)
        }
    )*};
}

/// Exports hooks of one stream, which differ in the method they call, its status, and what follows
/// a panic: one of the `catch_…` functions below.
macro_rules! stream_hooks {
    ($(
        $(#[$doc:meta])*
        fn $name:ident($filter:ident, $envoy:ident $(, $arg:ident: $type:ty)*) -> $status:ty
        $body:block $catch:ident;
    )*) => {hooks! {$(
        $(#[$doc])*
        fn $name(
            envoy: *mut sys::HttpFilter,
            filter: *const Filter
            $(, $arg: $type)*
        ) -> <$status as Status>::Number {
            // SAFETY: `filter` came from `http_filter_new` and is not destroyed; see `hooks!`.
            let Some(filter) = (unsafe { filter.as_ref() }) else {
                // Envoy has no filter of ours for this stream (yet).
                return <$status as Status>::CONTINUE.number();
            };
            // Held here, as the hook may have Envoy drop its own hold before it returns.
            let (filter, stream) = (Rc::clone(&filter.filter), Rc::clone(&filter.stream));
            // SAFETY: Envoy's filter is live during its hook. Hooks further out, if any, wait in
            // a callback that took `&mut` of their `EnvoyFilter`.
            let mut lent = unsafe { EnvoyFilter::new(envoy, &stream) };
            $catch(stringify!($name), &mut lent, |$envoy| {
                let $filter = &*filter;
                $body
            })
            .unwrap_or(<$status as Status>::CLOSED)
            .number()
        } else <$status as Status>::CLOSED.number();
    )*}};
}

/// What Envoy keeps for us per filter configuration.
pub(crate) struct FilterConfig(Box<dyn HttpFilterConfig>);

/// What Envoy keeps for us per stream.
pub(crate) struct Filter {
    filter: Rc<dyn HttpFilter>,
    stream: Rc<Stream>,
}

// Making and destroying HTTP filters.
hooks! {
    fn envoy_dynamic_module_on_http_filter_config_new(
        envoy: *mut sys::HttpFilterConfig,
        name: EnvoyBuffer,
        config: EnvoyBuffer,
    ) -> *const FilterConfig {
        // SAFETY: live during the call; see `hooks!`.
        let mut envoy = unsafe { EnvoyFilterConfig::new(envoy) };
        // SAFETY: as above.
        let name = unsafe { name.as_bytes() };
        // SAFETY: as above.
        let config = unsafe { config.as_bytes() };
        let made = utf8("filter_name", name).and_then(|name| {
            let module = module::module().ok_or(NO_MODULE)?;
            module.new_http_filter_config(&mut envoy, name, config)
        });
        match made {
            Ok(config) => Box::into_raw(Box::new(FilterConfig(config))),
            Err(message) => {
                let name = String::from_utf8_lossy(name);
                log::error!("http filter `{name}` refused its configuration: {message}");
                ptr::null()
            }
        }
    } else ptr::null();

    fn envoy_dynamic_module_on_http_filter_config_destroy(config: *const FilterConfig) {
        if !config.is_null() {
            // SAFETY: it came from `http_filter_config_new`, and Envoy forgets it now.
            drop(unsafe { Box::from_raw(config.cast_mut()) });
        }
    } else ();

    fn envoy_dynamic_module_on_http_filter_per_route_config_new(
        name: EnvoyBuffer,
        config: EnvoyBuffer,
    ) -> *const c_void {
        // SAFETY: live during the call; see `hooks!`.
        let name = String::from_utf8_lossy(unsafe { name.as_bytes() });
        log::error!("http filter `{name}`: per-route configuration is not supported");
        ptr::null()
    } else ptr::null();

    /// None was ever made.
    fn envoy_dynamic_module_on_http_filter_per_route_config_destroy(config: *const c_void) {
    } else ();

    fn envoy_dynamic_module_on_http_filter_new(
        config: *const FilterConfig,
        envoy: *mut sys::HttpFilter,
    ) -> *const Filter {
        // SAFETY: it came from `http_filter_config_new` and is not destroyed; see `hooks!`.
        let Some(FilterConfig(config)) = (unsafe { config.as_ref() }) else {
            return ptr::null();
        };
        let stream = Stream::new(envoy);
        // SAFETY: as in `stream_hooks!`.
        let lent = unsafe { EnvoyFilter::new(envoy, &stream) };
        match catch("new_filter", || config.new_filter(&lent)).flatten() {
            Some(filter) => Box::into_raw(Box::new(Filter { filter, stream })),
            None => {
                // There will be no destroy hook to do it.
                stream.detach();
                ptr::null()
            }
        }
    } else ptr::null();

    fn envoy_dynamic_module_on_http_filter_destroy(filter: *const Filter) {
        if !filter.is_null() {
            // SAFETY: it came from `http_filter_new`, and Envoy forgets it now.
            let filter = unsafe { Box::from_raw(filter.cast_mut()) };
            // First, so that no destructor reaches the stream.
            filter.stream.detach();
        }
    } else ();
}

stream_hooks! {
    fn envoy_dynamic_module_on_http_filter_request_headers(
        filter, envoy, end_of_stream: bool
    ) -> HeadersStatus {
        filter.on_request_headers(envoy, end_of_stream)
    } catch_ending;

    fn envoy_dynamic_module_on_http_filter_request_body(
        filter, envoy, end_of_stream: bool
    ) -> DataStatus {
        filter.on_request_body(envoy, end_of_stream)
    } catch_ending;

    fn envoy_dynamic_module_on_http_filter_request_trailers(filter, envoy) -> TrailersStatus {
        filter.on_request_trailers(envoy)
    } catch_ending;

    fn envoy_dynamic_module_on_http_filter_response_headers(
        filter, envoy, end_of_stream: bool
    ) -> HeadersStatus {
        if envoy.stream().progress() == Progress::Idle {
            envoy.stream().set_progress(Progress::Passing);
        }
        filter.on_response_headers(envoy, end_of_stream)
    } catch_ending;

    fn envoy_dynamic_module_on_http_filter_response_body(
        filter, envoy, end_of_stream: bool
    ) -> DataStatus {
        filter.on_response_body(envoy, end_of_stream)
    } catch_ending;

    fn envoy_dynamic_module_on_http_filter_response_trailers(filter, envoy) -> TrailersStatus {
        filter.on_response_trailers(envoy)
    } catch_ending;

    fn envoy_dynamic_module_on_http_filter_scheduled(filter, envoy, event: u64) -> () {
        match envoy.stream().progress() {
            Progress::Failing(_) => envoy.end_broken(PANICKED),
            _ => filter.on_scheduled(envoy, event),
        }
    } catch_ending;

    fn envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(
        filter, envoy
    ) -> () {
        filter.on_downstream_above_write_buffer_high_watermark(envoy);
    } catch_failing;

    fn envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(
        filter, envoy
    ) -> () {
        filter.on_downstream_below_write_buffer_low_watermark(envoy);
    } catch_failing;

    /// After a panic Envoy resets the stream, as the status says.
    fn envoy_dynamic_module_on_http_filter_local_reply(
        filter, envoy, status: u32, details: EnvoyBuffer, reset_imminent: bool
    ) -> LocalReplyStatus {
        if let Progress::Interim | Progress::Sending = envoy.stream().progress() {
            // Envoy has found fault with what this filter sends, and ends the stream itself.
            envoy.stream().set_progress(Progress::Over);
        }
        // SAFETY: live during the call; see `hooks!`.
        let details = unsafe { details.as_bytes() };
        filter.on_local_reply(envoy, LocalReply { status, details, reset_imminent })
    } catch_only;

    fn envoy_dynamic_module_on_http_filter_stream_complete(filter, envoy) -> () {
        envoy.stream().set_progress(Progress::Over);
        filter.on_stream_complete(envoy);
    } catch_only;
}

// Mandatory, but this SDK starts no HTTP callouts and no HTTP streams, so Envoy has nothing to tell.
hooks! {
    fn envoy_dynamic_module_on_http_filter_http_callout_done(
        envoy: *mut sys::HttpFilter,
        filter: *const Filter,
        callout: u64,
        result: u32,
        headers: *mut EnvoyHttpHeader,
        headers_length: usize,
        body: *mut EnvoyBuffer,
        body_length: usize,
    ) {
    } else ();

    fn envoy_dynamic_module_on_http_filter_http_stream_headers(
        envoy: *mut sys::HttpFilter,
        filter: *const Filter,
        stream: u64,
        headers: *mut EnvoyHttpHeader,
        headers_length: usize,
        end_of_stream: bool,
    ) {
    } else ();

    fn envoy_dynamic_module_on_http_filter_http_stream_data(
        envoy: *mut sys::HttpFilter,
        filter: *const Filter,
        stream: u64,
        data: *const EnvoyBuffer,
        data_length: usize,
        end_of_stream: bool,
    ) {
    } else ();

    fn envoy_dynamic_module_on_http_filter_http_stream_trailers(
        envoy: *mut sys::HttpFilter,
        filter: *const Filter,
        stream: u64,
        trailers: *mut EnvoyHttpHeader,
        trailers_length: usize,
    ) {
    } else ();

    fn envoy_dynamic_module_on_http_filter_http_stream_complete(
        envoy: *mut sys::HttpFilter,
        filter: *const Filter,
        stream: u64,
    ) {
    } else ();

    fn envoy_dynamic_module_on_http_filter_http_stream_reset(
        envoy: *mut sys::HttpFilter,
        filter: *const Filter,
        stream: u64,
        reason: u32,
    ) {
    } else ();
}

/// What Envoy keeps for us per bootstrap extension, as its configuration and as its instance: Envoy
/// makes one of each, in this order, and destroys them in the other.
pub(crate) struct Extension {
    envoy: *mut sys::BootstrapExtensionConfig,
    /// From `bootstrap_extension_new` to `bootstrap_extension_destroy`.
    instance: Cell<Option<NonNull<sys::BootstrapExtension>>>,
    extension: Box<dyn BootstrapExtension>,
}

impl Extension {
    /// Calls `hook` on the extension behind `this`, if there is one.
    ///
    /// # Safety
    ///
    /// `this` is null or came from `bootstrap_extension_config_new` and is not destroyed; this is
    /// the main thread.
    unsafe fn lend(
        this: *const Self,
        hook: impl FnOnce(&dyn BootstrapExtension, &EnvoyBootstrap<'_>),
    ) {
        // SAFETY: the caller vouches for it.
        let Some(this) = (unsafe { this.as_ref() }) else {
            return;
        };
        // SAFETY: Envoy destroys neither of its objects before the hooks that end them here.
        let envoy = unsafe { EnvoyBootstrap::new(this.envoy, this.instance.get()) };
        hook(&*this.extension, &envoy);
    }
}

// Bootstrap extensions.
hooks! {
    fn envoy_dynamic_module_on_bootstrap_extension_config_new(
        envoy: *mut sys::BootstrapExtensionConfig,
        name: EnvoyBuffer,
        config: EnvoyBuffer,
    ) -> *const Extension {
        // SAFETY: live during the call; see `hooks!`.
        let name = unsafe { name.as_bytes() };
        // SAFETY: as above.
        let config = unsafe { config.as_bytes() };
        // SAFETY: as above.
        let lent = unsafe { EnvoyBootstrap::new(envoy, None) };
        let made = utf8("extension_name", name).and_then(|name| {
            let module = module::module().ok_or(NO_MODULE)?;
            module.new_bootstrap_extension(&lent, name, config)
        });
        match made {
            Ok(extension) => {
                let instance = Cell::new(None);
                Box::into_raw(Box::new(Extension { envoy, instance, extension }))
            }
            Err(message) => {
                let name = String::from_utf8_lossy(name);
                log::error!("bootstrap extension `{name}` refused its configuration: {message}");
                ptr::null()
            }
        }
    } else ptr::null();

    fn envoy_dynamic_module_on_bootstrap_extension_config_destroy(extension: *const Extension) {
        if !extension.is_null() {
            // SAFETY: it came from `bootstrap_extension_config_new`, and Envoy forgets it now.
            let extension = unsafe { Box::from_raw(extension.cast_mut()) };
            extension.extension.on_destroy();
        }
    } else ();

    fn envoy_dynamic_module_on_bootstrap_extension_new(
        extension: *const Extension,
        envoy: *mut sys::BootstrapExtension,
    ) -> *const Extension {
        // SAFETY: it came from `bootstrap_extension_config_new` and is not destroyed.
        if let Some(extension) = unsafe { extension.as_ref() } {
            extension.instance.set(NonNull::new(envoy));
        }
        extension
    } else ptr::null();

    fn envoy_dynamic_module_on_bootstrap_extension_destroy(extension: *const Extension) {
        // SAFETY: it came from `bootstrap_extension_config_new` by way of
        // `bootstrap_extension_new` and is not destroyed before `config_destroy`.
        if let Some(extension) = unsafe { extension.as_ref() } {
            extension.instance.set(None);
        }
    } else ();

    fn envoy_dynamic_module_on_bootstrap_extension_server_initialized(
        envoy: *mut sys::BootstrapExtension,
        extension: *const Extension,
    ) {
        // SAFETY: see `hooks!`.
        unsafe { Extension::lend(extension, |extension, envoy| extension.on_server_initialized(envoy)) }
    } else ();

    fn envoy_dynamic_module_on_bootstrap_extension_drain_started(
        envoy: *mut sys::BootstrapExtension,
        extension: *const Extension,
    ) {
        // SAFETY: see `hooks!`.
        unsafe { Extension::lend(extension, |extension, envoy| extension.on_drain_started(envoy)) }
    } else ();

    /// A panic drops the completion, which completes it.
    fn envoy_dynamic_module_on_bootstrap_extension_shutdown(
        envoy: *mut sys::BootstrapExtension,
        extension: *const Extension,
        done: sys::EventCallback,
        context: *mut c_void,
    ) {
        // SAFETY: Envoy hands the pair over for one call.
        let done = unsafe { ShutdownCompletion::new(done, context) };
        // SAFETY: see `hooks!`.
        unsafe { Extension::lend(extension, |extension, envoy| extension.on_shutdown(envoy, done)) }
    } else ();

    fn envoy_dynamic_module_on_bootstrap_extension_config_scheduled(
        envoy: *mut sys::BootstrapExtensionConfig,
        extension: *const Extension,
        event: u64,
    ) {
        // SAFETY: see `hooks!`.
        unsafe { Extension::lend(extension, |extension, envoy| extension.on_scheduled(envoy, event)) }
    } else ();
}

// Mandatory, but of no use here: Envoy 1.40.0 calls the first on its main thread, whatever its name,
// and the others only for timers, watches, handlers, callouts and lifecycle events that were asked
// for, which this SDK does not.
hooks! {
    fn envoy_dynamic_module_on_bootstrap_extension_worker_thread_initialized(
        envoy: *mut sys::BootstrapExtension,
        extension: *const Extension,
    ) {
    } else ();

    fn envoy_dynamic_module_on_bootstrap_extension_timer_fired(
        envoy: *mut sys::BootstrapExtensionConfig,
        extension: *const Extension,
        timer: *mut c_void,
    ) {
    } else ();

    fn envoy_dynamic_module_on_bootstrap_extension_file_changed(
        envoy: *mut sys::BootstrapExtensionConfig,
        extension: *const Extension,
        path: EnvoyBuffer,
        events: u32,
    ) {
    } else ();

    fn envoy_dynamic_module_on_bootstrap_extension_admin_request(
        envoy: *mut sys::BootstrapExtensionConfig,
        extension: *const Extension,
        method: EnvoyBuffer,
        path: EnvoyBuffer,
        body: EnvoyBuffer,
    ) -> u32 {
        NOT_FOUND
    } else NOT_FOUND;

    fn envoy_dynamic_module_on_bootstrap_extension_http_callout_done(
        envoy: *mut sys::BootstrapExtensionConfig,
        extension: *const Extension,
        callout: u64,
        result: u32,
        headers: *mut EnvoyHttpHeader,
        headers_length: usize,
        body: *mut EnvoyBuffer,
        body_length: usize,
    ) {
    } else ();

    fn envoy_dynamic_module_on_bootstrap_extension_cluster_add_or_update(
        envoy: *mut sys::BootstrapExtensionConfig,
        extension: *const Extension,
        name: EnvoyBuffer,
    ) {
    } else ();

    fn envoy_dynamic_module_on_bootstrap_extension_cluster_removal(
        envoy: *mut sys::BootstrapExtensionConfig,
        extension: *const Extension,
        name: EnvoyBuffer,
    ) {
    } else ();

    fn envoy_dynamic_module_on_bootstrap_extension_listener_add_or_update(
        envoy: *mut sys::BootstrapExtensionConfig,
        extension: *const Extension,
        name: EnvoyBuffer,
    ) {
    } else ();

    fn envoy_dynamic_module_on_bootstrap_extension_listener_removal(
        envoy: *mut sys::BootstrapExtensionConfig,
        extension: *const Extension,
        name: EnvoyBuffer,
    ) {
    } else ();
}

const NOT_FOUND: u32 = 404;

const NO_MODULE: &str = "the library names no module, see `export!`";

/// How a hook's status crosses to C.
pub(crate) trait Status: Copy {
    type Number;
    /// For a stream of which we have no filter.
    const CONTINUE: Self;
    /// For a hook that panicked: nothing goes on to the next filter.
    const CLOSED: Self;
    fn number(self) -> Self::Number;
}

macro_rules! statuses {
    ($($status:ty: $number:ty, $continue:expr, $closed:expr;)*) => {$(
        impl Status for $status {
            type Number = $number;
            const CONTINUE: Self = $continue;
            const CLOSED: Self = $closed;
            #[inline]
            fn number(self) -> $number {
                self as $number
            }
        }
    )*};
}

statuses! {
    HeadersStatus: u32, Self::Continue, Self::StopIteration;
    DataStatus: u32, Self::Continue, Self::StopIterationNoBuffer;
    TrailersStatus: u32, Self::Continue, Self::StopIteration;
    LocalReplyStatus: u32, Self::Continue, Self::ContinueAndResetStream;
    (): (), (), ();
}

fn utf8<'a>(field: &str, bytes: &'a [u8]) -> Result<&'a str, String> {
    str::from_utf8(bytes).map_err(|error| format!("`{field}` is not UTF-8: {error}"))
}

/// Runs `hook`, after whose panic the stream is ended.
pub(crate) fn catch_ending<'a, R>(
    name: &str,
    envoy: &mut EnvoyFilter<'a>,
    hook: impl FnOnce(&mut EnvoyFilter<'a>) -> R,
) -> Option<R> {
    let done = catch(name, || hook(envoy));
    if done.is_none() {
        envoy.end_broken(PANICKED);
    }
    done
}

/// Runs `hook`, during which no stream must be ended. After its panic the next event ends this one.
fn catch_failing<'a>(
    name: &str,
    envoy: &mut EnvoyFilter<'a>,
    hook: impl FnOnce(&mut EnvoyFilter<'a>),
) -> Option<()> {
    let done = catch(name, || hook(envoy));
    if done.is_none()
        && let Some(broken) = envoy.stream().progress().broken()
    {
        envoy.stream().set_progress(Progress::Failing(broken));
        envoy.new_scheduler().commit(0);
    }
    done
}

/// Runs `hook` of a stream that ends in any case.
fn catch_only<'a, R>(
    name: &str,
    envoy: &mut EnvoyFilter<'a>,
    hook: impl FnOnce(&mut EnvoyFilter<'a>) -> R,
) -> Option<R> {
    catch(name, || hook(envoy))
}

/// Response code details of a stream that a panic ended.
const PANICKED: &str = "dynamic_module_panicked";

/// Runs `hook`; logs a panic.
///
/// Unwind safety is the hook's: what it shares with later hooks are `Cell`s and the like, which a
/// panic leaves as they are, and the stream it broke sees none but the last hooks.
pub(crate) fn catch<R>(name: &str, hook: impl FnOnce() -> R) -> Option<R> {
    match panic::catch_unwind(AssertUnwindSafe(hook)) {
        Ok(done) => Some(done),
        Err(payload) => {
            log::error!("panic in `{name}`: {}", message(payload));
            None
        }
    }
}

fn message(payload: Box<dyn Any + Send>) -> String {
    let payload = match payload.downcast::<&'static str>() {
        Ok(message) => return (*message).to_owned(),
        Err(payload) => payload,
    };
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => {
            // Dropping an unknown type could panic again, and nothing catches that.
            std::mem::forget(payload);
            "unknown".to_owned()
        }
    }
}

#[cfg(all(test, feature = "fake"))]
mod tests {
    use super::*;

    #[test]
    fn per_route_configuration_is_refused() {
        let name = EnvoyBuffer::lend(b"per_route");
        // SAFETY: the buffers outlive the call.
        let config = unsafe {
            envoy_dynamic_module_on_http_filter_per_route_config_new(name, EnvoyBuffer::EMPTY)
        };
        assert!(config.is_null());
    }

    #[test]
    fn stream_without_a_filter_passes() {
        let (envoy, filter) = (ptr::null_mut(), ptr::null());
        // SAFETY: null is what Envoy has before there is a filter.
        let headers =
            unsafe { envoy_dynamic_module_on_http_filter_request_headers(envoy, filter, true) };
        assert_eq!(headers, HeadersStatus::Continue as u32);
        // SAFETY: as above.
        unsafe { envoy_dynamic_module_on_http_filter_stream_complete(envoy, filter) };
        // SAFETY: as above.
        unsafe { envoy_dynamic_module_on_http_filter_destroy(filter) };
    }

    #[test]
    fn name_that_is_not_text_is_refused() {
        assert_eq!(utf8("filter_name", b"bridge"), Ok("bridge"));
        let refused = "`filter_name` is not UTF-8: invalid utf-8 sequence of 1 bytes from index 0";
        assert_eq!(utf8("filter_name", b"\xff"), Err(refused.to_owned()));
    }

    #[test]
    fn admin_requests_are_nobodys() {
        let none = EnvoyBuffer::EMPTY;
        // SAFETY: no pointer is followed.
        let status = unsafe {
            envoy_dynamic_module_on_bootstrap_extension_admin_request(
                ptr::null_mut(),
                ptr::null(),
                none,
                none,
                none,
            )
        };
        assert_eq!(status, NOT_FOUND);
    }
}
