//! The callbacks that Envoy would export, on this thread's [`World`].
//!
//! A panic in one of them aborts the test process, since they are C functions.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ffi::c_void;
use std::rc::Rc;
use std::sync::Arc;

use super::queue::{Event, Queue};
use super::request::{Attribute, Fields};
use super::{LogRecord, World};
use crate::buffer;
use crate::http::ResetReason;
use crate::sys::{
    self, BootstrapExtension, BootstrapExtensionConfig, BootstrapExtensionConfigScheduler,
    EnvoyBuffer, EnvoyHttpHeader, GaugeIterator, HttpBodyType, HttpFilter, HttpFilterConfig,
    HttpFilterScheduler, HttpHeaderType, LogLevel, ModuleBuffer, ModuleHttpHeader, SocketDirection,
    SocketOptionState, StatsIterationAction, metrics_result,
};

/// Defines callbacks under their C names, and holds them against their declarations.
///
/// What the bodies' SAFETY comments call the contract is the caller's: pointers are live and arrays
/// as long as said, or as the matching `_size` callback answered.
macro_rules! callbacks {
    ($(
        $symbol:literal
        fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $return:ty)? $body:block
    )*) => {$(
        #[unsafe(export_name = $symbol)]
        unsafe extern "C" fn $name($($arg: $type),*) $(-> $return)? $body

        const _: unsafe extern "C" fn($($type),*) $(-> $return)? = sys::$name;
    )*};
}

callbacks! {
    "envoy_dynamic_module_callback_log_v2"
    fn log_v2(level: LogLevel, message: ModuleBuffer, file: ModuleBuffer, line: u32) {
        let record =
            LogRecord { level: level.into(), message: text(message), file: text(file), line };
        match World::current() {
            Some(world) => world.logs.borrow_mut().push(record),
            // A thread of the module's own.
            None => eprintln!("[{}] {}", record.level, record.message),
        }
    }

    "envoy_dynamic_module_callback_log_enabled"
    fn log_enabled(level: LogLevel) -> bool {
        let level = log::Level::from(level);
        World::current().is_none_or(|world| level <= world.settings.log_level)
    }

    "envoy_dynamic_module_callback_get_concurrency"
    fn get_concurrency() -> u32 {
        World::current().map_or(0, |world| world.settings.concurrency)
    }

    "envoy_dynamic_module_callback_is_validation_mode"
    fn is_validation_mode() -> bool {
        World::current().is_some_and(|world| world.settings.validation_mode)
    }
}

callbacks! {
    "envoy_dynamic_module_callback_http_filter_config_define_counter"
    fn http_filter_config_define_counter(
        config: *mut HttpFilterConfig,
        name: ModuleBuffer,
        _labels: *mut ModuleBuffer,
        labels_length: usize,
        id: *mut usize,
    ) -> u32 {
        let config = world().config(config);
        assert_eq!(labels_length, 0, "labels are not modelled");
        // SAFETY: the contract.
        let id = unsafe { &mut *id };
        define(config.frozen.get(), &config.counters, name, id)
    }

    "envoy_dynamic_module_callback_http_filter_config_define_gauge"
    fn http_filter_config_define_gauge(
        config: *mut HttpFilterConfig,
        name: ModuleBuffer,
        _labels: *mut ModuleBuffer,
        labels_length: usize,
        id: *mut usize,
    ) -> u32 {
        let config = world().config(config);
        assert_eq!(labels_length, 0, "labels are not modelled");
        // SAFETY: the contract.
        let id = unsafe { &mut *id };
        define(config.frozen.get(), &config.gauges, name, id)
    }

    "envoy_dynamic_module_callback_http_filter_config_define_histogram"
    fn http_filter_config_define_histogram(
        config: *mut HttpFilterConfig,
        name: ModuleBuffer,
        _labels: *mut ModuleBuffer,
        labels_length: usize,
        id: *mut usize,
    ) -> u32 {
        let config = world().config(config);
        assert_eq!(labels_length, 0, "labels are not modelled");
        // SAFETY: the contract.
        let id = unsafe { &mut *id };
        define(config.frozen.get(), &config.histograms, name, id)
    }

    "envoy_dynamic_module_callback_http_filter_increment_counter"
    fn http_filter_increment_counter(
        filter: *mut HttpFilter,
        id: usize,
        _labels: *mut ModuleBuffer,
        _labels_length: usize,
        value: u64,
    ) -> u32 {
        record(&world().stream(filter).config.counters, id, |total| *total += value)
    }

    "envoy_dynamic_module_callback_http_filter_increment_gauge"
    fn http_filter_increment_gauge(
        filter: *mut HttpFilter,
        id: usize,
        _labels: *mut ModuleBuffer,
        _labels_length: usize,
        value: u64,
    ) -> u32 {
        record(&world().stream(filter).config.gauges, id, |gauge| *gauge += value)
    }

    "envoy_dynamic_module_callback_http_filter_decrement_gauge"
    fn http_filter_decrement_gauge(
        filter: *mut HttpFilter,
        id: usize,
        _labels: *mut ModuleBuffer,
        _labels_length: usize,
        value: u64,
    ) -> u32 {
        record(&world().stream(filter).config.gauges, id, |gauge| {
            *gauge = gauge.saturating_sub(value);
        })
    }

    "envoy_dynamic_module_callback_http_filter_set_gauge"
    fn http_filter_set_gauge(
        filter: *mut HttpFilter,
        id: usize,
        _labels: *mut ModuleBuffer,
        _labels_length: usize,
        value: u64,
    ) -> u32 {
        record(&world().stream(filter).config.gauges, id, |gauge| *gauge = value)
    }

    "envoy_dynamic_module_callback_http_filter_record_histogram_value"
    fn http_filter_record_histogram_value(
        filter: *mut HttpFilter,
        id: usize,
        _labels: *mut ModuleBuffer,
        _labels_length: usize,
        value: u64,
    ) -> u32 {
        record(&world().stream(filter).config.histograms, id, |samples| samples.push(value))
    }
}

callbacks! {
    "envoy_dynamic_module_callback_http_get_headers_size"
    fn http_get_headers_size(filter: *mut HttpFilter, kind: HttpHeaderType) -> usize {
        world().stream(filter).headers(kind).len()
    }

    "envoy_dynamic_module_callback_http_get_headers"
    fn http_get_headers(
        filter: *mut HttpFilter,
        kind: HttpHeaderType,
        headers: *mut EnvoyHttpHeader,
    ) -> bool {
        let stream = world().stream(filter);
        for (index, (name, value)) in stream.headers(kind).iter().enumerate() {
            // SAFETY: the contract.
            let entry = unsafe { headers.add(index) };
            // SAFETY: the contract.
            unsafe { entry.write(EnvoyHttpHeader::lend(name, value)) };
        }
        true
    }

    "envoy_dynamic_module_callback_http_get_header"
    fn http_get_header(
        filter: *mut HttpFilter,
        kind: HttpHeaderType,
        key: ModuleBuffer,
        value: *mut EnvoyBuffer,
        index: usize,
        count: *mut usize,
    ) -> bool {
        let stream = world().stream(filter);
        let key = text(key).to_lowercase();
        let values = stream.headers(kind).iter().filter(|(name, _)| name == key.as_bytes());
        if !count.is_null() {
            // SAFETY: the contract.
            unsafe { count.write(values.clone().count()) };
        }
        let mut values = values;
        // SAFETY: the contract.
        unsafe { give(values.nth(index).map(|(_, value)| value.as_slice()), value) }
    }

    "envoy_dynamic_module_callback_http_set_header"
    fn http_set_header(
        filter: *mut HttpFilter,
        kind: HttpHeaderType,
        key: ModuleBuffer,
        value: ModuleBuffer,
    ) -> bool {
        world().stream(filter).set_header(kind, text(key).to_lowercase(), bytes(value))
    }

    "envoy_dynamic_module_callback_http_clear_route_cache"
    fn http_clear_route_cache(filter: *mut HttpFilter) {
        world().stream(filter).clear_route();
    }

    "envoy_dynamic_module_callback_http_get_body_size"
    fn http_get_body_size(filter: *mut HttpFilter, kind: HttpBodyType) -> usize {
        world().stream(filter).body(kind, |chunks| chunks.iter().map(Vec::len).sum())
    }

    "envoy_dynamic_module_callback_http_get_body_chunks_size"
    fn http_get_body_chunks_size(filter: *mut HttpFilter, kind: HttpBodyType) -> usize {
        world().stream(filter).body(kind, <[_]>::len)
    }

    "envoy_dynamic_module_callback_http_get_body_chunks"
    fn http_get_body_chunks(
        filter: *mut HttpFilter,
        kind: HttpBodyType,
        chunks: *mut EnvoyBuffer,
    ) -> bool {
        world().stream(filter).body(kind, |body| {
            for (index, chunk) in body.iter().enumerate() {
                // SAFETY: the contract.
                let entry = unsafe { chunks.add(index) };
                // SAFETY: the contract.
                unsafe { entry.write(EnvoyBuffer::lend(chunk)) };
            }
        });
        true
    }

    "envoy_dynamic_module_callback_http_drain_body"
    fn http_drain_body(filter: *mut HttpFilter, kind: HttpBodyType, bytes: usize) -> bool {
        world().stream(filter).drain(kind, bytes)
    }

    "envoy_dynamic_module_callback_http_received_buffered_request_body"
    fn http_received_buffered_request_body(filter: *mut HttpFilter) -> bool {
        world().stream(filter).resuming.get()
    }

    "envoy_dynamic_module_callback_http_filter_get_attribute_string"
    fn http_filter_get_attribute_string(
        filter: *mut HttpFilter,
        id: u32,
        value: *mut EnvoyBuffer,
    ) -> bool {
        // SAFETY: the contract.
        unsafe { give(world().stream(filter).attribute_bytes(id), value) }
    }

    "envoy_dynamic_module_callback_http_filter_get_attribute_int"
    fn http_filter_get_attribute_int(filter: *mut HttpFilter, id: u32, value: *mut u64) -> bool {
        let Some(Attribute::Int(number)) = world().stream(filter).attribute(id) else {
            return false;
        };
        // SAFETY: the contract.
        unsafe { value.write(number) };
        true
    }

    "envoy_dynamic_module_callback_http_filter_get_attribute_bool"
    fn http_filter_get_attribute_bool(filter: *mut HttpFilter, id: u32, value: *mut bool) -> bool {
        let Some(Attribute::Bool(answer)) = world().stream(filter).attribute(id) else {
            return false;
        };
        // SAFETY: the contract.
        unsafe { value.write(answer) };
        true
    }

    "envoy_dynamic_module_callback_http_get_downstream_direct_remote_address"
    fn http_get_downstream_direct_remote_address(
        filter: *mut HttpFilter,
        address: *mut EnvoyBuffer,
    ) -> bool {
        // SAFETY: the contract.
        unsafe { give(world().stream(filter).direct_remote_address(), address) }
    }

    "envoy_dynamic_module_callback_http_set_dynamic_metadata_string"
    fn http_set_dynamic_metadata_string(
        filter: *mut HttpFilter,
        namespace: ModuleBuffer,
        key: ModuleBuffer,
        value: ModuleBuffer,
    ) {
        world().stream(filter).set_metadata(text(namespace), text(key), text(value));
    }

    "envoy_dynamic_module_callback_http_get_filter_state_bytes"
    fn http_get_filter_state_bytes(
        filter: *mut HttpFilter,
        key: ModuleBuffer,
        value: *mut EnvoyBuffer,
    ) -> bool {
        // SAFETY: the contract.
        unsafe { give(world().stream(filter).filter_state(&text(key)), value) }
    }

    "envoy_dynamic_module_callback_http_set_filter_state_bytes"
    fn http_set_filter_state_bytes(
        filter: *mut HttpFilter,
        key: ModuleBuffer,
        value: ModuleBuffer,
    ) -> bool {
        world().stream(filter).set_filter_state(text(key), text(value));
        true
    }

    "envoy_dynamic_module_callback_http_filter_get_worker_index"
    fn http_filter_get_worker_index(filter: *mut HttpFilter) -> u32 {
        let world = world();
        let _ = world.stream(filter);
        world.settings.worker_index
    }
}

callbacks! {
    "envoy_dynamic_module_callback_http_send_response"
    fn http_send_response(
        filter: *mut HttpFilter,
        status: u32,
        headers: *mut ModuleHttpHeader,
        headers_length: usize,
        body: ModuleBuffer,
        details: ModuleBuffer,
    ) {
        // SAFETY: the contract.
        let headers = unsafe { fields(headers, headers_length) };
        world().stream(filter).send_response(status, headers, bytes(body), text(details));
    }

    "envoy_dynamic_module_callback_http_send_response_headers"
    fn http_send_response_headers(
        filter: *mut HttpFilter,
        headers: *mut ModuleHttpHeader,
        headers_length: usize,
        end_of_stream: bool,
    ) {
        // SAFETY: the contract.
        let headers = unsafe { fields(headers, headers_length) };
        world().stream(filter).send_response_headers(headers, end_of_stream);
    }

    "envoy_dynamic_module_callback_http_send_response_data"
    fn http_send_response_data(filter: *mut HttpFilter, data: ModuleBuffer, end_of_stream: bool) {
        world().stream(filter).send_response_data(&bytes(data), end_of_stream);
    }

    "envoy_dynamic_module_callback_http_send_response_trailers"
    fn http_send_response_trailers(
        filter: *mut HttpFilter,
        trailers: *mut ModuleHttpHeader,
        trailers_length: usize,
    ) {
        // SAFETY: the contract.
        let trailers = unsafe { fields(trailers, trailers_length) };
        world().stream(filter).send_response_trailers(trailers);
    }

    "envoy_dynamic_module_callback_http_filter_reset_stream"
    fn http_filter_reset_stream(
        filter: *mut HttpFilter,
        reason: ResetReason,
        details: ModuleBuffer,
    ) {
        world().stream(filter).reset(reason, text(details));
    }

    "envoy_dynamic_module_callback_http_filter_send_go_away_and_close"
    fn http_filter_send_go_away_and_close(filter: *mut HttpFilter, graceful: bool) {
        world().stream(filter).send_go_away(graceful);
    }

    "envoy_dynamic_module_callback_http_get_buffer_limit"
    fn http_get_buffer_limit(filter: *mut HttpFilter) -> u64 {
        world().stream(filter).current_buffer_limit()
    }

    "envoy_dynamic_module_callback_http_set_buffer_limit"
    fn http_set_buffer_limit(filter: *mut HttpFilter, bytes: u64) {
        world().stream(filter).set_buffer_limit(bytes);
    }

    "envoy_dynamic_module_callback_http_set_socket_option_int"
    fn http_set_socket_option_int(
        filter: *mut HttpFilter,
        level: i64,
        name: i64,
        _state: SocketOptionState,
        _direction: SocketDirection,
        _value: i64,
    ) -> bool {
        world().stream(filter).can_set_socket_option(level, name)
    }
}

/// What a scheduler pointer points at.
struct Scheduler {
    queue: Arc<Queue>,
    id: usize,
}

callbacks! {
    "envoy_dynamic_module_callback_http_filter_scheduler_new"
    fn http_filter_scheduler_new(filter: *mut HttpFilter) -> *mut HttpFilterScheduler {
        let world = world();
        let id = world.stream(filter).id();
        Box::into_raw(Box::new(Scheduler { queue: Arc::clone(&world.queue), id })).cast()
    }

    "envoy_dynamic_module_callback_http_filter_scheduler_commit"
    fn http_filter_scheduler_commit(scheduler: *mut HttpFilterScheduler, event: u64) {
        // SAFETY: the contract.
        let Scheduler { queue, id } = unsafe { &*scheduler.cast() };
        queue.post(Event::Stream { id: *id, event });
    }

    "envoy_dynamic_module_callback_http_filter_scheduler_delete"
    fn http_filter_scheduler_delete(scheduler: *mut HttpFilterScheduler) {
        // SAFETY: the contract.
        drop(unsafe { Box::from_raw(scheduler.cast::<Scheduler>()) });
    }

    "envoy_dynamic_module_callback_bootstrap_extension_config_scheduler_new"
    fn bootstrap_extension_config_scheduler_new(
        config: *mut BootstrapExtensionConfig,
    ) -> *mut BootstrapExtensionConfigScheduler {
        let world = world();
        let _ = world.bootstrap_config(config);
        let (queue, id) = (Arc::clone(&world.queue), config.addr());
        Box::into_raw(Box::new(Scheduler { queue, id })).cast()
    }

    "envoy_dynamic_module_callback_bootstrap_extension_config_scheduler_commit"
    fn bootstrap_extension_config_scheduler_commit(
        scheduler: *mut BootstrapExtensionConfigScheduler,
        event: u64,
    ) {
        // SAFETY: the contract.
        let Scheduler { queue, id } = unsafe { &*scheduler.cast() };
        queue.post(Event::Bootstrap { id: *id, event });
    }

    "envoy_dynamic_module_callback_bootstrap_extension_config_scheduler_delete"
    fn bootstrap_extension_config_scheduler_delete(
        scheduler: *mut BootstrapExtensionConfigScheduler,
    ) {
        // SAFETY: the contract.
        drop(unsafe { Box::from_raw(scheduler.cast::<Scheduler>()) });
    }
}

callbacks! {
    "envoy_dynamic_module_callback_bootstrap_extension_config_signal_init_complete"
    fn bootstrap_extension_config_signal_init_complete(config: *mut BootstrapExtensionConfig) {
        world().bootstrap_config(config).init_complete.set(true);
    }

    "envoy_dynamic_module_callback_bootstrap_extension_get_counter_value"
    fn bootstrap_extension_get_counter_value(
        extension: *mut BootstrapExtension,
        name: ModuleBuffer,
        value: *mut u64,
    ) -> bool {
        let found = world().bootstrap(extension).counters.borrow().get(&text(name)).copied();
        let Some(found) = found else { return false };
        // SAFETY: the contract.
        unsafe { value.write(found) };
        true
    }

    "envoy_dynamic_module_callback_bootstrap_extension_get_gauge_value"
    fn bootstrap_extension_get_gauge_value(
        extension: *mut BootstrapExtension,
        name: ModuleBuffer,
        value: *mut u64,
    ) -> bool {
        let found = world().bootstrap(extension).gauges.borrow().get(&text(name)).copied();
        let Some(found) = found else { return false };
        // SAFETY: the contract.
        unsafe { value.write(found) };
        true
    }

    "envoy_dynamic_module_callback_bootstrap_extension_iterate_gauges"
    fn bootstrap_extension_iterate_gauges(
        extension: *mut BootstrapExtension,
        iterator: GaugeIterator,
        user: *mut c_void,
    ) {
        // A copy, as the iterator may ask for statistics in turn.
        let gauges = world().bootstrap(extension).gauges.borrow().clone();
        for (name, value) in gauges {
            // SAFETY: the contract: `user` is what `iterator` expects.
            let action = unsafe { iterator(EnvoyBuffer::lend(name.as_bytes()), value, user) };
            if let StatsIterationAction::Stop = action {
                break;
            }
        }
    }
}

fn world() -> Rc<World> {
    World::current().expect("a callback that belongs to an Envoy thread is called on one")
}

fn define<T: Default>(
    frozen: bool,
    metrics: &RefCell<Vec<(String, T)>>,
    name: ModuleBuffer,
    id: &mut usize,
) -> u32 {
    if frozen {
        return metrics_result::FROZEN;
    }
    let mut metrics = metrics.borrow_mut();
    metrics.push((text(name), T::default()));
    *id = metrics.len();
    metrics_result::SUCCESS
}

fn record<T>(metrics: &RefCell<Vec<(String, T)>>, id: usize, change: impl FnOnce(&mut T)) -> u32 {
    // Ids start at 1.
    let index = id.wrapping_sub(1);
    match metrics.borrow_mut().get_mut(index) {
        Some((_, metric)) => {
            change(metric);
            metrics_result::SUCCESS
        }
        None => metrics_result::METRIC_NOT_FOUND,
    }
}

/// # Safety
///
/// `out` can be written, and `found` stays for as long as the module may read it.
unsafe fn give(found: Option<&[u8]>, out: *mut EnvoyBuffer) -> bool {
    // SAFETY: the caller vouches for it.
    unsafe { out.write(found.map_or(EnvoyBuffer::EMPTY, EnvoyBuffer::lend)) };
    found.is_some()
}

fn bytes(buffer: ModuleBuffer) -> Vec<u8> {
    // SAFETY: the contract: the buffer is live during the callback.
    unsafe { buffer::bytes(buffer.ptr, buffer.length) }.to_vec()
}

fn text(buffer: ModuleBuffer) -> String {
    match String::from_utf8_lossy(&bytes(buffer)) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    }
}

/// # Safety
///
/// `headers` has `length` entries, live during the callback.
unsafe fn fields(headers: *const ModuleHttpHeader, length: usize) -> Fields {
    (0..length)
        .map(|index| {
            // SAFETY: the caller vouches for it.
            let entry = unsafe { headers.add(index) };
            // SAFETY: the caller vouches for it.
            let header = unsafe { *entry };
            let name = ModuleBuffer {
                ptr: header.key_ptr,
                length: header.key_length,
            };
            let value = ModuleBuffer {
                ptr: header.value_ptr,
                length: header.value_length,
            };
            (bytes(name), bytes(value))
        })
        .collect()
}

impl From<LogLevel> for log::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Trace => Self::Trace,
            LogLevel::Debug => Self::Debug,
            LogLevel::Info => Self::Info,
            LogLevel::Warn => Self::Warn,
            LogLevel::Error => Self::Error,
        }
    }
}
