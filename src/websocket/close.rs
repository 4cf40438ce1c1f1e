//! Runs on: any thread; pure.
//!
//! Codes and reasons of close frames. RFC 6455, sections 5.5.1 and 7.4.

use super::frame::MAX_CONTROL;

/// The client's close frame had no code.
pub(crate) const NO_STATUS: u16 = 1005;

/// Why a connection fails: a code and a reason to send to the client, which is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
}

impl Failure {
    pub(super) const INVALID_UTF8: Self = Self {
        code: 1007,
        reason: "invalid UTF-8",
    };
    pub(super) const INVALID_DEFLATE: Self = Self {
        code: 1007,
        reason: "invalid compressed data",
    };
    pub(super) const TOO_BIG: Self = Self {
        code: 1009,
        reason: "message too big",
    };
    /// The client has not answered a ping (as in other servers: RFC 6455 has no code for it).
    pub(super) const UNANSWERED: Self = Self {
        code: 1011,
        reason: "keepalive ping timeout",
    };

    pub(super) const fn protocol(reason: &'static str) -> Self {
        Self { code: 1002, reason }
    }
}

/// The application closes by a code or a reason that no close frame can have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CannotSend {
    #[error("expected a close code of 1000 to 1003, 1007 to 1014 or 3000 to 4999, but got `{0}`")]
    Code(u16),
    #[error("expected a close reason of at most 123 bytes, but got {0}")]
    Reason(usize),
}

/// The payload of our close frame. [`NO_STATUS`] is an empty one.
pub(super) fn payload(code: u16, reason: &str) -> Result<Vec<u8>, CannotSend> {
    if code == NO_STATUS && reason.is_empty() {
        return Ok(Vec::new());
    }
    if !is_on_the_wire(code) {
        return Err(CannotSend::Code(code));
    }
    let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
    if payload.len() > MAX_CONTROL {
        return Err(CannotSend::Reason(reason.len()));
    }
    Ok(payload)
}

/// Code and reason of the client's close frame.
pub(super) fn parse(payload: &[u8]) -> Result<(u16, &str), Failure> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => Ok((NO_STATUS, "")),
            _ => Err(Failure::protocol("close frame with half a code")),
        };
    };
    let code = u16::from_be_bytes(*code);
    if !is_on_the_wire(code) {
        return Err(Failure::protocol("invalid close code"));
    }
    let reason = str::from_utf8(reason).map_err(|_| Failure::INVALID_UTF8)?;
    Ok((code, reason))
}

/// Whether close frames may have `code`: what is registered at IANA for them, and what is free for
/// libraries and applications.
fn is_on_the_wire(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_on_the_wire() {
        for code in 0..=u16::MAX {
            let expected = match code {
                ..1000 | 1004..=1006 | 1015..3000 | 5000.. => {
                    Err(Failure::protocol("invalid close code"))
                }
                _ => Ok((code, "")),
            };
            assert_eq!(parse(&code.to_be_bytes()), expected);
            if code != NO_STATUS {
                assert_eq!(payload(code, "").is_ok(), expected.is_ok());
            }
        }
    }

    #[test]
    fn payloads() {
        assert_eq!(payload(1000, "bye").as_deref(), Ok(&b"\x03\xe8bye"[..]));
        assert_eq!(parse(b"\x03\xe8bye"), Ok((1000, "bye")));
        assert_eq!(payload(NO_STATUS, "").as_deref(), Ok(&b""[..]));
        assert_eq!(parse(b""), Ok((NO_STATUS, "")));
        assert_eq!(parse(b"\x03").map_err(|failure| failure.code), Err(1002));
        assert_eq!(parse(b"\x03\xe8\xff"), Err(Failure::INVALID_UTF8));
        assert_eq!(payload(NO_STATUS, "x"), Err(CannotSend::Code(1005)));
        assert!(payload(1000, &"x".repeat(123)).is_ok());
        let long = "x".repeat(124);
        assert_eq!(payload(1000, &long), Err(CannotSend::Reason(124)));
    }
}
