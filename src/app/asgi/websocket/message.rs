//! Runs on: loop thread.
//!
//! The message dicts of a `websocket` scope, read and made.

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use super::state::Message;
use crate::app::asgi::message as http;
use crate::exchange::Payload;

/// Bytes that fit into a close frame beside the code (RFC 6455, section 5.5).
const LONGEST_REASON: usize = 123;

/// `{"type": "websocket.connect"}`
pub(crate) fn connect(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let message = PyDict::new(py);
    message.set_item(intern!(py, "type"), intern!(py, "websocket.connect"))?;
    Ok(message)
}

/// `{"type": "websocket.receive", ...}` with one of `text` and `bytes`.
pub(crate) fn receive<'py>(py: Python<'py>, payload: &Payload) -> PyResult<Bound<'py, PyDict>> {
    let message = PyDict::new(py);
    message.set_item(intern!(py, "type"), intern!(py, "websocket.receive"))?;
    match payload {
        Payload::Text(text) => {
            let text = PyString::from_bytes(py, text)?;
            message.set_item(intern!(py, "text"), text)?;
        }
        Payload::Binary(bytes) => {
            message.set_item(intern!(py, "bytes"), PyBytes::new(py, bytes))?;
        }
    }
    Ok(message)
}

/// `{"type": "websocket.disconnect", ...}`
pub(crate) fn disconnect<'py>(
    py: Python<'py>,
    code: u16,
    reason: &str,
) -> PyResult<Bound<'py, PyDict>> {
    let message = PyDict::new(py);
    message.set_item(intern!(py, "type"), intern!(py, "websocket.disconnect"))?;
    message.set_item(intern!(py, "code"), code)?;
    message.set_item(intern!(py, "reason"), reason)?;
    Ok(message)
}

/// Reads a message that an application sends. Keys that are not known are tolerated; so are all of
/// `websocket.close` while it answers the handshake, since nothing of them reaches the client.
pub(crate) fn parse(message: &Bound<'_, PyAny>, connecting: bool) -> PyResult<Message> {
    let (message, kind) = http::typed(message)?;
    match kind.to_str()? {
        "websocket.close" if connecting => Ok(Message::Close {
            code: 1000,
            reason: String::new(),
        }),
        "websocket.send" => parse_send(message),
        "websocket.accept" => parse_accept(message),
        "websocket.close" => parse_close(message),
        "websocket.http.response.start" => http::parse_start(message).map(Message::Deny),
        "websocket.http.response.body" => http::parse_body(message).map(Message::Deny),
        unknown => Err(PyValueError::new_err(format!(
            "unknown ASGI message `{unknown}` for a websocket scope"
        ))),
    }
}

fn parse_send(message: &Bound<'_, PyDict>) -> PyResult<Message> {
    let py = message.py();
    let payload = match (
        given(message, intern!(py, "text"))?,
        given(message, intern!(py, "bytes"))?,
    ) {
        (Some(value), None) => Payload::Text(text("text", &value)?.into_bytes()),
        (None, Some(bytes)) => Payload::Binary(http::bytes("bytes", &bytes)?),
        _ => {
            return Err(PyValueError::new_err(
                "`websocket.send` needs one of the keys `text` and `bytes`",
            ));
        }
    };
    Ok(Message::Send(payload))
}

/// The value of a key that is there and not `None`.
fn given<'py>(
    message: &Bound<'py, PyDict>,
    key: &Bound<'py, PyString>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let value = message.get_item(key)?;
    Ok(value.filter(|value| !value.is_none()))
}

fn parse_accept(message: &Bound<'_, PyDict>) -> PyResult<Message> {
    let py = message.py();
    let subprotocol = match given(message, intern!(py, "subprotocol"))? {
        Some(name) => Some(text("subprotocol", &name)?),
        None => None,
    };
    let fields = http::read_fields(message)?.fields;
    // The server's own: RFC 6455, section 4.2.2.
    let own = fields
        .iter()
        .find(|(name, _)| name.starts_with(b"sec-websocket-") || *name == b"content-length");
    if let Some((name, _)) = own {
        return Err(PyValueError::new_err(format!(
            "header `{}` of `websocket.accept`: it is the server's to send",
            String::from_utf8_lossy(name)
        )));
    }
    Ok(Message::Accept {
        subprotocol,
        fields,
    })
}

fn parse_close(message: &Bound<'_, PyDict>) -> PyResult<Message> {
    let py = message.py();
    let code = match given(message, intern!(py, "code"))? {
        Some(code) => {
            let number: Option<i64> = code.extract().ok();
            let number = number.ok_or_else(|| http::wrong_type("code", "int", &code))?;
            let valid = u16::try_from(number).ok().filter(|code| may_be_sent(*code));
            valid.ok_or_else(|| {
                PyValueError::new_err(format!(
                    "`code` is {number}, which no close frame can have (RFC 6455, section 7.4)"
                ))
            })?
        }
        None => 1000,
    };
    let reason = match given(message, intern!(py, "reason"))? {
        Some(reason) => text("reason", &reason)?,
        None => String::new(),
    };
    if reason.len() > LONGEST_REASON {
        return Err(PyValueError::new_err(format!(
            "`reason` has {} bytes where {LONGEST_REASON} fit",
            reason.len()
        )));
    }
    Ok(Message::Close { code, reason })
}

fn text(key: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    match value.cast::<PyString>() {
        Ok(text) => Ok(text.to_str()?.to_owned()),
        Err(_) => Err(http::wrong_type(key, "str", value)),
    }
}

/// Whether a close frame may have this code (RFC 6455, section 7.4, and the IANA registry).
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
