//! Runs on: Envoy worker thread.
//!
//! What access logs know of a request by the bridge: filter states `aiovoy.KEY`.

use std::borrow::Cow;
use std::net::IpAddr;

use envoy::EnvoyFilter;

use super::Filter;
use crate::config::LogField;
use crate::exchange::RequestHead;
use crate::exchange::escape::escaped;

impl Filter {
    /// Sets what the access log asks for.
    pub(super) fn tell_access_log(&self, envoy: &EnvoyFilter<'_>, head: &RequestHead) {
        for &field in &self.streams.rules.access_log {
            if let Some(value) = value(field, head) {
                envoy.set_filter_state(field.key(), value.as_bytes());
            }
        }
    }
}

/// The value of `field`, if the request has one.
fn value(field: LogField, head: &RequestHead) -> Option<Cow<'_, str>> {
    let header = |wanted: &[u8]| {
        let mut fields = head.fields.iter();
        let (_, value) = fields.find(|(name, _)| *name == wanted)?;
        Some(escaped(value))
    };
    match field {
        LogField::NamedClient if !head.names_client && head.client.port.is_some() => None,
        LogField::Client | LogField::NamedClient => {
            // A proxy that believes anybody may have named anything: a log has addresses only.
            let client = str::from_utf8(&head.client.host).ok();
            let client = client.filter(|client| client.parse::<IpAddr>().is_ok());
            Some(client.unwrap_or("-").into())
        }
        LogField::Request if head.method.is_empty() => None,
        LogField::Request => {
            let line = [head.method.as_slice(), b" ", &head.target].concat();
            Some(escaped(&line).into_owned().into())
        }
        LogField::Referer => header(b"referer"),
        LogField::UserAgent => header(b"user-agent"),
    }
}
