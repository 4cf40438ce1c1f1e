//! Runs on: the threads of either front; pure.
//!
//! The answers in the application's place.

/// A response in the application's place: to a request that does not get there, or of which nothing
/// comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub status: u16,
    pub text: &'static str,
    /// The response code details of the access log.
    pub details: &'static str,
}

impl Refusal {
    pub(crate) const BUSY: Self = Self {
        status: 503,
        text: "Service Unavailable",
        details: "aiovoy_limit_concurrency",
    };
    pub(crate) const ROUTER_FULL: Self = Self {
        details: "aiovoy_limit_router_requests",
        ..Self::BUSY
    };
    pub(crate) const STOPPING: Self = Self {
        status: 503,
        text: "Service Unavailable",
        details: "aiovoy_stopped",
    };
    pub(crate) const FAILED: Self = Self {
        status: 500,
        text: "Internal Server Error",
        details: "aiovoy_application_failed",
    };
    pub(crate) const IDLE: Self = Self {
        status: 408,
        text: "Request Timeout",
        details: "aiovoy_client_idle",
    };
    pub(crate) const FORBIDDEN: Self = Self {
        status: 403,
        text: "Forbidden",
        details: "aiovoy_websocket_refused",
    };
    pub(crate) const HEAD: Self = Self {
        status: 431,
        text: "Request Header Fields Too Large",
        details: "aiovoy_limit_request_header_bytes",
    };
    pub(crate) const FIELDS: Self = Self {
        details: "aiovoy_limit_request_header_count",
        ..Self::HEAD
    };
    pub(crate) const BODY: Self = Self {
        status: 413,
        text: "Content Too Large",
        details: "aiovoy_limit_request_body",
    };
    pub(crate) const NOT_FOUND: Self = Self {
        status: 404,
        text: "Not Found",
        details: "aiovoy_no_mount",
    };
    /// Behind the router there is nothing but what was handed over in front of it.
    pub(crate) const NOT_HANDED_OVER: Self = Self {
        status: 502,
        text: "Bad Gateway",
        details: "aiovoy_not_handed_over",
    };
    /// An origin server has no tunnel to offer.
    pub(crate) const CONNECT: Self = Self {
        status: 501,
        text: "Not Implemented",
        details: "aiovoy_connect",
    };

    pub(crate) const fn bad(details: &'static str) -> Self {
        Self {
            status: 400,
            text: "Bad Request",
            details,
        }
    }

    /// Whether there may soon be a place for the request.
    pub(crate) fn passes(self) -> bool {
        matches!(self, Self::BUSY | Self::ROUTER_FULL)
    }

    /// Whether an HTTP/1 connection can't be used after it: where the request ends is in doubt.
    pub(crate) fn closes(self) -> bool {
        matches!(self.status, 400 | 501)
    }
}
