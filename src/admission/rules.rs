//! Runs on: the threads of either front; pure.
//!
//! What the configuration says of requests: limits, prefixes, and whose word counts.

use super::proxies::Proxies;
use super::{Known, Refusal};
use crate::config::{Config, LogField};
use crate::exchange::{Fields, decode, split_target};

/// What the configuration says of requests.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Whose word on the client is taken.
    pub(crate) proxies: Proxies,
    /// The connection's other end is told by the PROXY protocol.
    pub(crate) proxy_protocol: bool,
    /// What `alt-svc` is to say.
    pub(crate) alt_svc: Option<String>,
    /// Envoy appends the client's certificates to `x-forwarded-client-cert`.
    pub(crate) client_certs: bool,
    /// What the access log asks for.
    pub(crate) access_log: Vec<LogField>,
    /// The prefixes of the applications, the longest first.
    prefixes: Vec<String>,
    /// Bytes of head that a request may have.
    limit_head: Option<u64>,
    /// Fields that it may have.
    limit_fields: Option<u64>,
    /// Bytes of body that a request may have.
    limit_body: Option<u64>,
    /// Calls of the application that may run at once.
    pub(crate) limit_concurrency: Option<u64>,
    /// What the last requests have said.
    pub(crate) known: Known,
    /// Requests of this thread that may be under way through the router.
    pub(crate) limit_router_requests: Option<u64>,
}

impl Rules {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            proxies: Proxies::new(&config.forwarded_allow_ips),
            proxy_protocol: config.proxy_protocol,
            alt_svc: config.alt_svc.clone(),
            client_certs: config.client_certs,
            access_log: config.access_log.clone(),
            prefixes: config
                .mounts()
                .iter()
                .map(|mount| mount.path.clone())
                .collect(),
            limit_head: config.limit_request_header_bytes,
            limit_fields: config.limit_request_header_count,
            limit_body: config.limit_request_body,
            limit_concurrency: config.limit_concurrency,
            known: Known::default(),
            limit_router_requests: config.limit_router_requests,
        }
    }

    /// The index of the application that has `target`.
    pub(crate) fn mount(&self, target: &[u8]) -> Option<usize> {
        let mut prefixes = self.prefixes.iter();
        if let [all] = self.prefixes.as_slice()
            && all.is_empty()
        {
            return Some(0);
        }
        let path = decode(split_target(target).0);
        prefixes.position(|prefix| {
            let rest = path.strip_prefix(prefix.as_str());
            rest.is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// The refusal of a head that is too large. Cookies count as one field: clients of HTTP/2 and 3
    /// split them (RFC 9113, section 8.2.3), and there Envoy joins them.
    pub(crate) fn limit_head(&self, bytes: usize, fields: &Fields) -> Option<Refusal> {
        let is_above =
            |number: usize, limit: Option<u64>| limit.is_some_and(|limit| number as u64 > limit);
        if is_above(bytes, self.limit_head) {
            return Some(Refusal::HEAD);
        }
        let others = || {
            let cookies = fields.iter().filter(|(name, _)| *name == b"cookie");
            fields.iter().len() - cookies.skip(1).count()
        };
        let too_many = is_above(fields.iter().len(), self.limit_fields)
            && is_above(others(), self.limit_fields);
        too_many.then_some(Refusal::FIELDS)
    }

    /// Whether a request may not have as many bytes of body.
    pub(crate) fn limits_body(&self, bytes: u64) -> bool {
        self.limit_body.is_some_and(|limit| bytes > limit)
    }
}
