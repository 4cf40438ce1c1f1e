//! Structs and enums that cross the border.
//!
//! Enums that only travel from us to Envoy are Rust enums. Those that come from Envoy stay `u32`:
//! a number Rust does not know would be undefined behaviour in an enum.

use std::ffi::{c_char, c_void};

/// Bytes that Envoy owns. A zero length may come with any pointer, null too.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct EnvoyBuffer {
    pub(crate) ptr: *const c_char,
    pub(crate) length: usize,
}

/// Bytes that the module owns. Envoy copies them before the callback returns.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ModuleBuffer {
    pub(crate) ptr: *const c_char,
    pub(crate) length: usize,
}

/// A header in one of Envoy's header maps.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct EnvoyHttpHeader {
    pub(crate) key_ptr: *const c_char,
    pub(crate) key_length: usize,
    pub(crate) value_ptr: *const c_char,
    pub(crate) value_length: usize,
}

/// A header that the module hands over.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ModuleHttpHeader {
    pub(crate) key_ptr: *const c_char,
    pub(crate) key_length: usize,
    pub(crate) value_ptr: *const c_char,
    pub(crate) value_length: usize,
}

/// Opaque objects: C hands out `void *` for all of them, distinct types keep them apart here.
macro_rules! opaque {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[repr(C)]
        pub(crate) struct $name {
            _opaque: [u8; 0],
        }
    )*};
}

opaque! {
    /// `http_filter_config_envoy_ptr` points at it.
    HttpFilterConfig;
    /// `http_filter_envoy_ptr` points at it.
    HttpFilter;
    /// `http_filter_scheduler_module_ptr` points at it.
    HttpFilterScheduler;
    /// `bootstrap_extension_config_envoy_ptr` points at it.
    BootstrapExtensionConfig;
    /// `bootstrap_extension_envoy_ptr` points at it.
    BootstrapExtension;
    /// `bootstrap_extension_config_scheduler_module_ptr` points at it.
    BootstrapExtensionConfigScheduler;
}

/// `http_header_type`.
#[repr(u32)]
#[derive(Clone, Copy)]
pub(crate) enum HttpHeaderType {
    RequestHeader = 0,
    RequestTrailer = 1,
}

/// `http_body_type`.
#[repr(u32)]
#[derive(Clone, Copy)]
pub(crate) enum HttpBodyType {
    ReceivedRequestBody = 0,
    BufferedRequestBody = 1,
}

/// `socket_option_state`: of a connection that is there it says nothing.
#[repr(u32)]
#[derive(Clone, Copy)]
pub(crate) enum SocketOptionState {
    Bound = 1,
}

/// `socket_direction`.
#[repr(u32)]
#[derive(Clone, Copy)]
pub(crate) enum SocketDirection {
    Downstream = 1,
}

/// `log_level`.
#[repr(u32)]
#[derive(Clone, Copy)]
pub(crate) enum LogLevel {
    Trace = 0,
    Debug = 1,
    Info = 2,
    Warn = 3,
    Error = 4,
}

/// `metrics_result`, which comes from Envoy.
pub(crate) mod metrics_result {
    pub(crate) const SUCCESS: u32 = 0;
    pub(crate) const METRIC_NOT_FOUND: u32 = 1;
    pub(crate) const INVALID_LABELS: u32 = 2;
    pub(crate) const FROZEN: u32 = 3;
}

/// `stats_iteration_action`.
#[repr(u32)]
#[derive(Clone, Copy)]
pub(crate) enum StatsIterationAction {
    Continue = 0,
    Stop = 1,
}

/// `gauge_iterator_fn`: called once a gauge with the pointer given to `iterate_gauges`.
pub(crate) type GaugeIterator =
    unsafe extern "C" fn(EnvoyBuffer, u64, *mut c_void) -> StatsIterationAction;

/// `event_cb`: how a bootstrap extension says that it has shut down.
pub(crate) type EventCallback = unsafe extern "C" fn(*mut c_void);

#[cfg(test)]
mod tests {
    use std::mem::{align_of, offset_of, size_of};

    use super::*;

    #[test]
    fn structs_have_the_layout_of_the_abi() {
        assert_eq!(
            (size_of::<EnvoyBuffer>(), align_of::<EnvoyBuffer>()),
            (16, 8)
        );
        assert_eq!(
            (
                offset_of!(EnvoyBuffer, ptr),
                offset_of!(EnvoyBuffer, length)
            ),
            (0, 8)
        );
        assert_eq!(
            (size_of::<ModuleBuffer>(), align_of::<ModuleBuffer>()),
            (16, 8)
        );
        assert_eq!(
            (
                offset_of!(ModuleBuffer, ptr),
                offset_of!(ModuleBuffer, length)
            ),
            (0, 8)
        );
        assert_eq!(
            (size_of::<EnvoyHttpHeader>(), align_of::<EnvoyHttpHeader>()),
            (32, 8)
        );
        assert_eq!(
            [
                offset_of!(EnvoyHttpHeader, key_ptr),
                offset_of!(EnvoyHttpHeader, key_length),
                offset_of!(EnvoyHttpHeader, value_ptr),
                offset_of!(EnvoyHttpHeader, value_length),
            ],
            [0, 8, 16, 24]
        );
        assert_eq!(
            (
                size_of::<ModuleHttpHeader>(),
                align_of::<ModuleHttpHeader>()
            ),
            (32, 8)
        );
        assert_eq!(
            [
                offset_of!(ModuleHttpHeader, key_ptr),
                offset_of!(ModuleHttpHeader, key_length),
                offset_of!(ModuleHttpHeader, value_ptr),
                offset_of!(ModuleHttpHeader, value_length),
            ],
            [0, 8, 16, 24]
        );
        assert_eq!(size_of::<bool>(), 1);
        assert_eq!(size_of::<HttpHeaderType>(), 4);
    }

    #[test]
    fn enums_have_the_numbers_of_the_abi() {
        assert_eq!(
            [
                HttpHeaderType::RequestHeader as u32,
                HttpHeaderType::RequestTrailer as u32
            ],
            [0, 1]
        );
        assert_eq!(
            [
                HttpBodyType::ReceivedRequestBody as u32,
                HttpBodyType::BufferedRequestBody as u32
            ],
            [0, 1]
        );
        assert_eq!(
            [
                SocketOptionState::Bound as u32,
                SocketDirection::Downstream as u32
            ],
            [1, 1]
        );
        assert_eq!(
            [
                LogLevel::Trace,
                LogLevel::Debug,
                LogLevel::Info,
                LogLevel::Warn,
                LogLevel::Error
            ]
            .map(|level| level as u32),
            [0, 1, 2, 3, 4]
        );
        assert_eq!(
            [
                metrics_result::SUCCESS,
                metrics_result::METRIC_NOT_FOUND,
                metrics_result::INVALID_LABELS,
                metrics_result::FROZEN,
            ],
            [0, 1, 2, 3]
        );
        assert_eq!(
            [
                StatsIterationAction::Continue as u32,
                StatsIterationAction::Stop as u32
            ],
            [0, 1]
        );
    }
}
