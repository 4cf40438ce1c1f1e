//! Runs on: Envoy worker thread.
//!
//! Facts about a stream: addresses, TLS, protocol, request id, response code.

use crate::http::EnvoyFilter;
use crate::sys::{self, EnvoyBuffer};

/// The attributes that Envoy answers for an HTTP filter, with Envoy's names and numbers.
///
/// The comment says which getter answers. Another getter returns `None`, and Envoy logs an error.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttributeId {
    /// Bytes: path with query, as in `:path`.
    RequestPath = 0,
    /// Bytes: path without query.
    RequestUrlPath = 1,
    /// Bytes: `:authority`.
    RequestHost = 2,
    /// Bytes: `:scheme`.
    RequestScheme = 3,
    /// Bytes: `:method`.
    RequestMethod = 4,
    /// Bytes: `referer`.
    RequestReferer = 6,
    /// Bytes: `user-agent`.
    RequestUserAgent = 7,
    /// Bytes: `x-request-id`.
    RequestId = 9,
    /// Bytes: `HTTP/1.0`, `HTTP/1.1`, `HTTP/2` or `HTTP/3`.
    RequestProtocol = 10,
    /// Bytes: query without `?`; none if there is no `?`.
    RequestQuery = 11,
    /// Integer: bytes of the body.
    RequestSize = 13,
    /// Integer: bytes of headers and body.
    RequestTotalSize = 14,
    /// Integer; none until a final header block was sent.
    ResponseCode = 15,
    /// Bytes: why the response is what it is; empty if the module streamed it.
    ResponseCodeDetails = 16,
    /// Integer: a bit mask.
    ResponseFlags = 17,
    /// Integer: bytes of the body.
    ResponseSize = 21,
    /// Integer: bytes of headers and body.
    ResponseTotalSize = 22,
    /// Bytes: `ip:port`, believing `x-forwarded-for` where Envoy is configured to. The peer of the
    /// socket is [`EnvoyFilter::direct_remote_address`].
    SourceAddress = 24,
    /// Integer: 0 if `x-forwarded-for` was believed.
    SourcePort = 25,
    /// Bytes: `ip:port` of the listener's side.
    DestinationAddress = 26,
    /// Integer.
    DestinationPort = 27,
    /// Integer: the same for all streams of a connection.
    ConnectionId = 28,
    /// Bool: whether the client sent a certificate; none without TLS.
    ConnectionMtls = 29,
    /// Bytes: the server name the client asked for (SNI).
    RequestedServerName = 30,
    /// Bytes, such as `TLSv1.3`; none without TLS.
    ConnectionTlsVersion = 31,
    /// Bytes: subject of our certificate.
    LocalCertificateSubject = 32,
    /// Bytes: subject of the client's certificate in RFC 2253 order; empty if it sent none.
    PeerCertificateSubject = 33,
    /// Bytes: the first DNS name of our certificate.
    LocalCertificateDnsSan = 34,
    /// Bytes: the first DNS name of the client's certificate.
    PeerCertificateDnsSan = 35,
    /// Bytes: the first URI of our certificate.
    LocalCertificateUriSan = 36,
    /// Bytes: the first URI of the client's certificate.
    PeerCertificateUriSan = 37,
    /// Bytes: SHA-256 of the client's certificate in lower-case hex; empty if it sent none.
    PeerCertificateSha256 = 38,
}

impl EnvoyFilter<'_> {
    /// A textual attribute, as bytes.
    #[inline]
    pub fn attribute_bytes(&self, id: AttributeId) -> Option<&[u8]> {
        let mut value = EnvoyBuffer::EMPTY;
        // SAFETY: the filter is live while it is lent; `value` outlives the call.
        let found =
            unsafe { sys::http_filter_get_attribute_string(self.raw(), id as u32, &raw mut value) };
        // SAFETY: Envoy wrote `value` as it answered true. Only a `&mut self` method can change
        // the attribute, and the slice borrows `self`.
        found.then(|| unsafe { value.as_bytes() })
    }

    /// A numeric attribute.
    #[inline]
    pub fn attribute_int(&self, id: AttributeId) -> Option<u64> {
        let mut value = 0;
        // SAFETY: the filter is live while it is lent; `value` outlives the call.
        let found =
            unsafe { sys::http_filter_get_attribute_int(self.raw(), id as u32, &raw mut value) };
        found.then_some(value)
    }

    /// A yes-or-no attribute.
    #[inline]
    pub fn attribute_bool(&self, id: AttributeId) -> Option<bool> {
        let mut value = false;
        // SAFETY: the filter is live while it is lent; `value` outlives the call.
        let found =
            unsafe { sys::http_filter_get_attribute_bool(self.raw(), id as u32, &raw mut value) };
        found.then_some(value)
    }

    /// `ip:port` of the socket's peer, whatever `x-forwarded-for` says.
    #[inline]
    pub fn direct_remote_address(&self) -> Option<&[u8]> {
        let mut address = EnvoyBuffer::EMPTY;
        // SAFETY: the filter is live while it is lent; `address` outlives the call.
        let found =
            unsafe { sys::http_get_downstream_direct_remote_address(self.raw(), &raw mut address) };
        // SAFETY: Envoy wrote `address` as it answered true; the text is the connection's and
        // stays for as long as the stream can be asked.
        found.then(|| unsafe { address.as_bytes() })
    }
}
