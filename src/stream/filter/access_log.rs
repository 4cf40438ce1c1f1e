//! Runs on: Envoy worker thread.
//!
//! What access logs know of a request by the bridge: filter states `aiovoy.KEY`.

use std::net::IpAddr;

use envoy::EnvoyFilter;

use super::Filter;
use crate::config::LogField;
use crate::exchange::RequestHead;
use crate::exchange::escape::escape_into;

impl Filter {
    /// Sets what the access log asks for.
    pub(super) fn tell_access_log(&self, envoy: &EnvoyFilter<'_>, head: &RequestHead) {
        let fields = &self.streams.rules.access_log;
        if fields.is_empty() {
            return;
        }
        let mut value = self.streams.log_value.borrow_mut();
        for &field in fields {
            value.clear();
            write(field, head, &mut value);
            if !value.is_empty() {
                envoy.set_filter_state(field.key(), &value);
            }
        }
    }
}

/// Appends what a request has for `field`, if it has anything.
fn write(field: LogField, head: &RequestHead, value: &mut Vec<u8>) {
    let mut header = |wanted: &[u8]| {
        let mut fields = head.fields.iter();
        if let Some((_, found)) = fields.find(|(name, _)| *name == wanted) {
            escape_into(value, found);
        }
    };
    match field {
        LogField::NamedClient if !head.names_client && head.client.port.is_some() => {}
        LogField::Client | LogField::NamedClient => {
            // A proxy that believes anybody may have named anything: a log has addresses only.
            let client = str::from_utf8(&head.client.host).ok();
            let client = client.filter(|client| client.parse::<IpAddr>().is_ok());
            value.extend_from_slice(client.unwrap_or("-").as_bytes());
        }
        LogField::Request if head.method.is_empty() => {}
        LogField::Request => {
            escape_into(value, &head.method);
            value.push(b' ');
            escape_into(value, &head.target);
            value.extend_from_slice(b" HTTP/");
            value.extend_from_slice(head.version.number().as_bytes());
        }
        LogField::Referer => header(b"referer"),
        LogField::UserAgent => header(b"user-agent"),
    }
}
