//! Runs on: loop thread.
//!
//! The message dicts of an `http` scope, read and made. What is read here is checked here, or in
//! [`CheckedFields`].

use std::path::PathBuf;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use crate::app::checked_fields::CheckedFields;
use crate::app::response_order::{FileMessage, Head, Message};
use crate::exchange::file::FileReader;
use crate::exchange::{Data, ResponseHead};

/// `{"type": "http.request", ...}` with `pieces` for its body.
pub(crate) fn http_request<'py>(
    py: Python<'py>,
    pieces: &[Vec<u8>],
    more_body: bool,
) -> PyResult<Bound<'py, PyDict>> {
    static EMPTY_AND_LAST: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let template = EMPTY_AND_LAST.get_or_try_init(py, || {
        let message = PyDict::new(py);
        message.set_item(intern!(py, "type"), intern!(py, "http.request"))?;
        message.set_item(intern!(py, "body"), PyBytes::new(py, b""))?;
        message.set_item(intern!(py, "more_body"), false)?;
        Ok::<_, PyErr>(message.unbind())
    })?;
    // A copy, which costs less than a dict that grows.
    let message = template.bind(py).copy()?;
    if more_body {
        message.set_item(intern!(py, "more_body"), true)?;
    }
    let body = match pieces {
        [] => return Ok(message),
        [piece] => PyBytes::new(py, piece),
        pieces => PyBytes::new_with(py, pieces.iter().map(Vec::len).sum(), |mut rest| {
            for piece in pieces {
                let (body, left) = rest.split_at_mut(piece.len());
                body.copy_from_slice(piece);
                rest = left;
            }
            Ok(())
        })?,
    };
    message.set_item(intern!(py, "body"), body)?;
    Ok(message)
}

/// `{"type": "http.disconnect"}`
pub(crate) fn http_disconnect(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let message = PyDict::new(py);
    message.set_item(intern!(py, "type"), intern!(py, "http.disconnect"))?;
    Ok(message)
}

/// Reads a message that an application sends. Keys that are not known are tolerated.
pub(crate) fn parse(message: &Bound<'_, PyAny>) -> PyResult<Message> {
    let (message, kind) = typed(message)?;
    match kind.to_str()? {
        "http.response.body" => parse_body(message),
        "http.response.start" => parse_start(message),
        "http.response.trailers" => parse_trailers(message),
        "http.response.early_hint" => parse_early_hint(message),
        "http.response.pathsend" => parse_path(message),
        "http.response.zerocopysend" => parse_descriptor(message),
        unknown => Err(PyValueError::new_err(format!(
            "unknown ASGI message `{unknown}` for an http scope"
        ))),
    }
}

/// A message, and its `type`.
pub(crate) fn typed<'a, 'py>(
    message: &'a Bound<'py, PyAny>,
) -> PyResult<(&'a Bound<'py, PyDict>, Bound<'py, PyString>)> {
    let message = message.cast::<PyDict>().map_err(|_| {
        PyTypeError::new_err(format!(
            "an ASGI message is a dict, but got {}",
            described(message)
        ))
    })?;
    let kind = message
        .get_item(intern!(message.py(), "type"))?
        .ok_or_else(|| PyValueError::new_err("an ASGI message needs the key `type`"))?;
    match kind.cast_into::<PyString>() {
        Ok(kind) => Ok((message, kind)),
        Err(error) => Err(wrong_type("type", "str", &error.into_inner())),
    }
}

pub(crate) fn parse_body(message: &Bound<'_, PyDict>) -> PyResult<Message> {
    let py = message.py();
    let data = match message.get_item(intern!(py, "body"))? {
        None => Data::default(),
        Some(body) => data("body", &body)?,
    };
    let more = flag(message, intern!(py, "more_body"))?;
    Ok(Message::Body { data, more })
}

/// The value of a key that is false if it is not there.
fn flag(message: &Bound<'_, PyDict>, key: &Bound<'_, PyString>) -> PyResult<bool> {
    match message.get_item(key)? {
        None => Ok(false),
        Some(value) => match value.extract() {
            Ok(value) => Ok(value),
            Err(_) => Err(wrong_type(key.to_str()?, "bool", &value)),
        },
    }
}

/// The value of a key that `kind` must have.
fn required<'py>(
    message: &Bound<'py, PyDict>,
    kind: &str,
    key: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyAny>> {
    message
        .get_item(key)?
        .ok_or_else(|| PyValueError::new_err(format!("`{kind}` needs the key `{key}`")))
}

/// The same as [`bytes`], not copied if that is worth it: `bytes` never change.
fn data(key: &str, value: &Bound<'_, PyAny>) -> PyResult<Data> {
    match value.cast_exact::<PyBytes>() {
        Ok(bytes) if bytes.as_bytes().len() >= Data::WORTH_KEEPING => {
            Ok(Data::Kept(Box::new(PyBackedBytes::from(bytes.clone()))))
        }
        _ => bytes(key, value).map(Data::Own),
    }
}

/// Bytes as such, or of a `bytearray` or a `memoryview`.
pub(crate) fn bytes(key: &str, value: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(bytes.as_bytes().to_vec());
    }
    PyBuffer::<u8>::get(value)
        .map_err(|_| wrong_type(key, "bytes", value))?
        .to_vec(value.py())
}

pub(crate) fn parse_start(message: &Bound<'_, PyDict>) -> PyResult<Message> {
    let py = message.py();
    let status = required(message, "http.response.start", intern!(py, "status"))?;
    let status: i64 = status
        .extract()
        .map_err(|_| wrong_type("status", "int", &status))?;
    // 1xx are interim responses (RFC 9110, section 15.2), which this message can't be.
    let status = u16::try_from(status)
        .ok()
        .filter(|status| (200..=999).contains(status))
        .ok_or_else(|| {
            PyValueError::new_err(format!(
                "`status` is {status} where 200 to 999 was expected"
            ))
        })?;
    let mut read = read_fields(message)?;
    if status == 204 && read.content_length.is_some() {
        // RFC 9110, section 8.6: not even 0.
        read.fields = read.fields.without(b"content-length");
    }
    let response = ResponseHead {
        status,
        fields: read.fields,
        close: read.close,
    };
    Ok(Message::Start(Head {
        response,
        content_length: read.content_length,
        trailers: flag(message, intern!(py, "trailers"))?,
    }))
}

/// ASGI, "HTTP Trailers".
fn parse_trailers(message: &Bound<'_, PyDict>) -> PyResult<Message> {
    let read = read_fields(message)?;
    if read.content_length.is_some() {
        return Err(PyValueError::new_err(
            "`content-length` can't be a trailer (RFC 9110, section 6.5.1)",
        ));
    }
    let more = flag(message, intern!(message.py(), "more_trailers"))?;
    Ok(Message::Trailers {
        fields: read.fields,
        more,
    })
}

/// ASGI, "Early Hints".
fn parse_early_hint(message: &Bound<'_, PyDict>) -> PyResult<Message> {
    let py = message.py();
    let links = required(message, "http.response.early_hint", intern!(py, "links"))?;
    let mut read = CheckedFields::default();
    let each = links
        .try_iter()
        .ok()
        .filter(|_| !links.is_instance_of::<PyBytes>());
    let each = each.ok_or_else(|| wrong_type("links", "an iterable of bytes", &links))?;
    for link in each {
        let link = link?;
        let link = link
            .cast::<PyBytes>()
            .map_err(|_| wrong_type("links", "an iterable of bytes", &link))?;
        read.push(b"link", link.as_bytes())
            .map_err(|what| PyValueError::new_err(format!("link {link:?}: {what}")))?;
    }
    Ok(Message::EarlyHint(read.fields))
}

/// ASGI, "Path Send".
fn parse_path(message: &Bound<'_, PyDict>) -> PyResult<Message> {
    let (py, name) = (message.py(), "http.response.pathsend");
    let path = required(message, name, intern!(py, "path"))?;
    let path: PathBuf = match path.cast::<PyString>() {
        Ok(path) => path.extract()?,
        Err(_) => return Err(wrong_type("path", "str", &path)),
    };
    if !path.is_absolute() {
        return Err(PyValueError::new_err(format!(
            "`path` is `{}` where an absolute path was expected",
            path.display()
        )));
    }
    Ok(Message::File(FileMessage {
        name,
        reader: FileReader::whole(path),
        alone: true,
        more: false,
    }))
}

/// ASGI, "Zero Copy Send".
fn parse_descriptor(message: &Bound<'_, PyDict>) -> PyResult<Message> {
    let (py, name) = (message.py(), "http.response.zerocopysend");
    let file = required(message, name, intern!(py, "file"))?;
    let expected = "a file with a descriptor";
    let descriptor: i32 = match file.extract() {
        Ok(descriptor) => descriptor,
        Err(_) if file.hasattr(intern!(py, "fileno"))? => {
            file.call_method0(intern!(py, "fileno"))?.extract()?
        }
        Err(_) => return Err(wrong_type("file", expected, &file)),
    };
    let offset = size(message, intern!(py, "offset"))?;
    let count = size(message, intern!(py, "count"))?;
    // The descriptor stays its owner's, who may close it at any time.
    let file = envoy::duplicate(descriptor)?.into();
    Ok(Message::File(FileMessage {
        name,
        reader: FileReader::open(file, offset, count),
        alone: false,
        more: flag(message, intern!(py, "more_body"))?,
    }))
}

/// The value of a key that is a number of bytes, or not there, or `None`.
fn size(message: &Bound<'_, PyDict>, key: &Bound<'_, PyString>) -> PyResult<Option<u64>> {
    let value = message.get_item(key)?;
    let Some(value) = value.filter(|value| !value.is_none()) else {
        return Ok(None);
    };
    let Ok(size) = value.extract::<i64>() else {
        return Err(wrong_type(key.to_str()?, "int", &value));
    };
    u64::try_from(size)
        .map(Some)
        .map_err(|_| PyValueError::new_err(format!("`{key}` is {size}, and can't be negative")))
}

/// Reads and checks the `headers` of a message, if it has them.
pub(crate) fn read_fields(message: &Bound<'_, PyDict>) -> PyResult<CheckedFields> {
    // What most responses need.
    let mut fields = CheckedFields::with_capacity(4, 96);
    let Some(headers) = message.get_item(intern!(message.py(), "headers"))? else {
        return Ok(fields);
    };
    if let Ok(headers) = headers.cast_exact::<PyList>() {
        headers
            .iter()
            .try_for_each(|field| read_field(&mut fields, &field))?;
    } else {
        let expected = "an iterable of (name, value) pairs of bytes";
        let each = headers
            .try_iter()
            .map_err(|_| wrong_type("headers", expected, &headers))?;
        each.into_iter()
            .try_for_each(|field| read_field(&mut fields, &field?))?;
    }
    Ok(fields)
}

fn read_field(fields: &mut CheckedFields, field: &Bound<'_, PyAny>) -> PyResult<()> {
    let pair = || wrong_type("headers", "(name, value) pairs of bytes", field);
    let (name, value) = if let Ok(tuple) = field.cast_exact::<PyTuple>() {
        if tuple.len() != 2 {
            return Err(pair());
        }
        (tuple.get_item(0)?, tuple.get_item(1)?)
    } else {
        let mut parts = field.try_iter().map_err(|_| pair())?;
        let name = parts.next().ok_or_else(pair)??;
        let value = parts.next().ok_or_else(pair)??;
        if parts.next().is_some() {
            return Err(pair());
        }
        (name, value)
    };
    let name = name
        .cast::<PyBytes>()
        .map_err(|_| wrong_type("header name", "bytes", &name))?;
    let value = value
        .cast::<PyBytes>()
        .map_err(|_| wrong_type("header value", "bytes", &value))?;
    fields
        .push(name.as_bytes(), value.as_bytes())
        .map_err(|what| PyValueError::new_err(format!("header {name:?}: {what}")))
}

pub(crate) fn wrong_type(key: &str, expected: &str, got: &Bound<'_, PyAny>) -> PyErr {
    PyTypeError::new_err(format!(
        "`{key}` is {} where {expected} was expected",
        described(got)
    ))
}

/// The type of `value`, for a message.
fn described(value: &Bound<'_, PyAny>) -> String {
    value
        .get_type()
        .name()
        .map_or_else(|_| "an unnamed type".into(), |name| format!("`{name}`"))
}
