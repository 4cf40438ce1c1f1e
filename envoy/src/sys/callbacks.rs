//! Functions that Envoy provides. Only those this crate calls are declared: Envoy binds every
//! symbol when it loads the module, so a name too many could keep it from loading.
//!
//! Unless said otherwise a callback belongs to the thread that runs its object's hooks, what it
//! reads of ours is copied before it returns, and a pointer argument must be live.

use std::ffi::c_void;

use super::types::*;

// Process-wide.
unsafe extern "C" {
    /// Any thread.
    #[link_name = "envoy_dynamic_module_callback_log_v2"]
    pub(crate) fn log_v2(level: LogLevel, message: ModuleBuffer, file: ModuleBuffer, line: u32);

    /// Any thread.
    #[link_name = "envoy_dynamic_module_callback_log_enabled"]
    pub(crate) fn log_enabled(level: LogLevel) -> bool;

    /// Main thread; elsewhere 0.
    #[link_name = "envoy_dynamic_module_callback_get_concurrency"]
    pub(crate) fn get_concurrency() -> u32;

    /// Main thread; elsewhere false.
    #[link_name = "envoy_dynamic_module_callback_is_validation_mode"]
    pub(crate) fn is_validation_mode() -> bool;
}

// HTTP filter configuration.
unsafe extern "C" {
    #[link_name = "envoy_dynamic_module_callback_http_filter_config_define_counter"]
    pub(crate) fn http_filter_config_define_counter(
        config: *mut HttpFilterConfig,
        name: ModuleBuffer,
        label_names: *mut ModuleBuffer,
        label_names_length: usize,
        id: *mut usize,
    ) -> u32;

    #[link_name = "envoy_dynamic_module_callback_http_filter_config_define_gauge"]
    pub(crate) fn http_filter_config_define_gauge(
        config: *mut HttpFilterConfig,
        name: ModuleBuffer,
        label_names: *mut ModuleBuffer,
        label_names_length: usize,
        id: *mut usize,
    ) -> u32;

    #[link_name = "envoy_dynamic_module_callback_http_filter_config_define_histogram"]
    pub(crate) fn http_filter_config_define_histogram(
        config: *mut HttpFilterConfig,
        name: ModuleBuffer,
        label_names: *mut ModuleBuffer,
        label_names_length: usize,
        id: *mut usize,
    ) -> u32;
}

// HTTP filter: metrics.
unsafe extern "C" {
    #[link_name = "envoy_dynamic_module_callback_http_filter_increment_counter"]
    pub(crate) fn http_filter_increment_counter(
        filter: *mut HttpFilter,
        id: usize,
        label_values: *mut ModuleBuffer,
        label_values_length: usize,
        value: u64,
    ) -> u32;

    #[link_name = "envoy_dynamic_module_callback_http_filter_increment_gauge"]
    pub(crate) fn http_filter_increment_gauge(
        filter: *mut HttpFilter,
        id: usize,
        label_values: *mut ModuleBuffer,
        label_values_length: usize,
        value: u64,
    ) -> u32;

    #[link_name = "envoy_dynamic_module_callback_http_filter_decrement_gauge"]
    pub(crate) fn http_filter_decrement_gauge(
        filter: *mut HttpFilter,
        id: usize,
        label_values: *mut ModuleBuffer,
        label_values_length: usize,
        value: u64,
    ) -> u32;

    #[link_name = "envoy_dynamic_module_callback_http_filter_set_gauge"]
    pub(crate) fn http_filter_set_gauge(
        filter: *mut HttpFilter,
        id: usize,
        label_values: *mut ModuleBuffer,
        label_values_length: usize,
        value: u64,
    ) -> u32;

    #[link_name = "envoy_dynamic_module_callback_http_filter_record_histogram_value"]
    pub(crate) fn http_filter_record_histogram_value(
        filter: *mut HttpFilter,
        id: usize,
        label_values: *mut ModuleBuffer,
        label_values_length: usize,
        value: u64,
    ) -> u32;
}

// HTTP filter: headers, body, attributes.
unsafe extern "C" {
    #[link_name = "envoy_dynamic_module_callback_http_get_headers_size"]
    pub(crate) fn http_get_headers_size(filter: *mut HttpFilter, kind: HttpHeaderType) -> usize;

    /// Fills as many entries as `http_get_headers_size` says.
    #[link_name = "envoy_dynamic_module_callback_http_get_headers"]
    pub(crate) fn http_get_headers(
        filter: *mut HttpFilter,
        kind: HttpHeaderType,
        headers: *mut EnvoyHttpHeader,
    ) -> bool;

    /// `count` may be null.
    #[link_name = "envoy_dynamic_module_callback_http_get_header"]
    pub(crate) fn http_get_header(
        filter: *mut HttpFilter,
        kind: HttpHeaderType,
        key: ModuleBuffer,
        value: *mut EnvoyBuffer,
        index: usize,
        count: *mut usize,
    ) -> bool;

    /// Replaces all values of `key`. An empty `value` takes the header away.
    #[link_name = "envoy_dynamic_module_callback_http_set_header"]
    pub(crate) fn http_set_header(
        filter: *mut HttpFilter,
        kind: HttpHeaderType,
        key: ModuleBuffer,
        value: ModuleBuffer,
    ) -> bool;

    #[link_name = "envoy_dynamic_module_callback_http_clear_route_cache"]
    pub(crate) fn http_clear_route_cache(filter: *mut HttpFilter);

    #[link_name = "envoy_dynamic_module_callback_http_get_body_size"]
    pub(crate) fn http_get_body_size(filter: *mut HttpFilter, kind: HttpBodyType) -> usize;

    #[link_name = "envoy_dynamic_module_callback_http_get_body_chunks_size"]
    pub(crate) fn http_get_body_chunks_size(filter: *mut HttpFilter, kind: HttpBodyType) -> usize;

    /// Fills as many entries as `http_get_body_chunks_size` says.
    #[link_name = "envoy_dynamic_module_callback_http_get_body_chunks"]
    pub(crate) fn http_get_body_chunks(
        filter: *mut HttpFilter,
        kind: HttpBodyType,
        chunks: *mut EnvoyBuffer,
    ) -> bool;

    /// Takes no more than there is.
    #[link_name = "envoy_dynamic_module_callback_http_drain_body"]
    pub(crate) fn http_drain_body(
        filter: *mut HttpFilter,
        kind: HttpBodyType,
        bytes: usize,
    ) -> bool;

    #[link_name = "envoy_dynamic_module_callback_http_received_buffered_request_body"]
    pub(crate) fn http_received_buffered_request_body(filter: *mut HttpFilter) -> bool;

    #[link_name = "envoy_dynamic_module_callback_http_filter_get_attribute_string"]
    pub(crate) fn http_filter_get_attribute_string(
        filter: *mut HttpFilter,
        id: u32,
        value: *mut EnvoyBuffer,
    ) -> bool;

    #[link_name = "envoy_dynamic_module_callback_http_filter_get_attribute_int"]
    pub(crate) fn http_filter_get_attribute_int(
        filter: *mut HttpFilter,
        id: u32,
        value: *mut u64,
    ) -> bool;

    #[link_name = "envoy_dynamic_module_callback_http_filter_get_attribute_bool"]
    pub(crate) fn http_filter_get_attribute_bool(
        filter: *mut HttpFilter,
        id: u32,
        value: *mut bool,
    ) -> bool;

    #[link_name = "envoy_dynamic_module_callback_http_get_downstream_direct_remote_address"]
    pub(crate) fn http_get_downstream_direct_remote_address(
        filter: *mut HttpFilter,
        address: *mut EnvoyBuffer,
    ) -> bool;

    #[link_name = "envoy_dynamic_module_callback_http_set_dynamic_metadata_string"]
    pub(crate) fn http_set_dynamic_metadata_string(
        filter: *mut HttpFilter,
        namespace: ModuleBuffer,
        key: ModuleBuffer,
        value: ModuleBuffer,
    );

    #[link_name = "envoy_dynamic_module_callback_http_get_filter_state_bytes"]
    pub(crate) fn http_get_filter_state_bytes(
        filter: *mut HttpFilter,
        key: ModuleBuffer,
        value: *mut EnvoyBuffer,
    ) -> bool;

    #[link_name = "envoy_dynamic_module_callback_http_set_filter_state_bytes"]
    pub(crate) fn http_set_filter_state_bytes(
        filter: *mut HttpFilter,
        key: ModuleBuffer,
        value: ModuleBuffer,
    ) -> bool;

    /// Works even in `http_filter_destroy`.
    #[link_name = "envoy_dynamic_module_callback_http_filter_get_worker_index"]
    pub(crate) fn http_filter_get_worker_index(filter: *mut HttpFilter) -> u32;
}

// HTTP filter: response and flow. Those that send or reset may run this and other streams' hooks
// before they return. The header arrays are read only, although C asks for `*mut`.
unsafe extern "C" {
    #[link_name = "envoy_dynamic_module_callback_http_send_response"]
    pub(crate) fn http_send_response(
        filter: *mut HttpFilter,
        status: u32,
        headers: *mut ModuleHttpHeader,
        headers_length: usize,
        body: ModuleBuffer,
        details: ModuleBuffer,
    );

    #[link_name = "envoy_dynamic_module_callback_http_send_response_headers"]
    pub(crate) fn http_send_response_headers(
        filter: *mut HttpFilter,
        headers: *mut ModuleHttpHeader,
        headers_length: usize,
        end_of_stream: bool,
    );

    #[link_name = "envoy_dynamic_module_callback_http_send_response_data"]
    pub(crate) fn http_send_response_data(
        filter: *mut HttpFilter,
        data: ModuleBuffer,
        end_of_stream: bool,
    );

    #[link_name = "envoy_dynamic_module_callback_http_send_response_trailers"]
    pub(crate) fn http_send_response_trailers(
        filter: *mut HttpFilter,
        trailers: *mut ModuleHttpHeader,
        trailers_length: usize,
    );

    #[link_name = "envoy_dynamic_module_callback_http_filter_reset_stream"]
    pub(crate) fn http_filter_reset_stream(
        filter: *mut HttpFilter,
        reason: crate::http::ResetReason,
        details: ModuleBuffer,
    );

    #[link_name = "envoy_dynamic_module_callback_http_filter_send_go_away_and_close"]
    pub(crate) fn http_filter_send_go_away_and_close(filter: *mut HttpFilter, graceful: bool);

    #[link_name = "envoy_dynamic_module_callback_http_get_buffer_limit"]
    pub(crate) fn http_get_buffer_limit(filter: *mut HttpFilter) -> u64;

    #[link_name = "envoy_dynamic_module_callback_http_set_buffer_limit"]
    pub(crate) fn http_set_buffer_limit(filter: *mut HttpFilter, bytes: u64);

    #[link_name = "envoy_dynamic_module_callback_http_set_socket_option_int"]
    pub(crate) fn http_set_socket_option_int(
        filter: *mut HttpFilter,
        level: i64,
        name: i64,
        state: SocketOptionState,
        direction: SocketDirection,
        value: i64,
    ) -> bool;
}

// HTTP filter: scheduler.
unsafe extern "C" {
    #[link_name = "envoy_dynamic_module_callback_http_filter_scheduler_new"]
    pub(crate) fn http_filter_scheduler_new(filter: *mut HttpFilter) -> *mut HttpFilterScheduler;

    /// Any thread.
    #[link_name = "envoy_dynamic_module_callback_http_filter_scheduler_commit"]
    pub(crate) fn http_filter_scheduler_commit(scheduler: *mut HttpFilterScheduler, event: u64);

    /// Any thread, once.
    #[link_name = "envoy_dynamic_module_callback_http_filter_scheduler_delete"]
    pub(crate) fn http_filter_scheduler_delete(scheduler: *mut HttpFilterScheduler);
}

// Bootstrap extension.
unsafe extern "C" {
    #[link_name = "envoy_dynamic_module_callback_bootstrap_extension_config_signal_init_complete"]
    pub(crate) fn bootstrap_extension_config_signal_init_complete(
        config: *mut BootstrapExtensionConfig,
    );

    #[link_name = "envoy_dynamic_module_callback_bootstrap_extension_config_scheduler_new"]
    pub(crate) fn bootstrap_extension_config_scheduler_new(
        config: *mut BootstrapExtensionConfig,
    ) -> *mut BootstrapExtensionConfigScheduler;

    /// Any thread.
    #[link_name = "envoy_dynamic_module_callback_bootstrap_extension_config_scheduler_commit"]
    pub(crate) fn bootstrap_extension_config_scheduler_commit(
        scheduler: *mut BootstrapExtensionConfigScheduler,
        event: u64,
    );

    /// Any thread, once.
    #[link_name = "envoy_dynamic_module_callback_bootstrap_extension_config_scheduler_delete"]
    pub(crate) fn bootstrap_extension_config_scheduler_delete(
        scheduler: *mut BootstrapExtensionConfigScheduler,
    );

    #[link_name = "envoy_dynamic_module_callback_bootstrap_extension_get_counter_value"]
    pub(crate) fn bootstrap_extension_get_counter_value(
        extension: *mut BootstrapExtension,
        name: ModuleBuffer,
        value: *mut u64,
    ) -> bool;

    #[link_name = "envoy_dynamic_module_callback_bootstrap_extension_get_gauge_value"]
    pub(crate) fn bootstrap_extension_get_gauge_value(
        extension: *mut BootstrapExtension,
        name: ModuleBuffer,
        value: *mut u64,
    ) -> bool;

    #[link_name = "envoy_dynamic_module_callback_bootstrap_extension_iterate_gauges"]
    pub(crate) fn bootstrap_extension_iterate_gauges(
        extension: *mut BootstrapExtension,
        iterator: GaugeIterator,
        user: *mut c_void,
    );
}
