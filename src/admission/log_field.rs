//! Runs on: the threads of either front; pure.
//!
//! What a request has for access logs.

use std::net::IpAddr;

use crate::config::LogField;
use crate::exchange::RequestHead;
use crate::exchange::escape::escape_into;

/// Appends what a request has for `field`, if it has anything.
pub(crate) fn write_log_field(field: LogField, head: &RequestHead, value: &mut Vec<u8>) {
    let mut header = |wanted: &[u8]| {
        if let Some(found) = head.field(wanted) {
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
