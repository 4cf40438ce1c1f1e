//! Runs on: loop thread.
//!
//! The `http` scope of a request. ASGI HTTP 2.5, "HTTP Connection Scope".

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use crate::exchange::{
    Endpoint, HttpVersion, RequestHead, Tls, WebSocketOffer, decode, split_target,
};

/// What is the same in every scope of a worker.
pub(crate) struct ScopeTemplate {
    /// With the prefix of the application's mount, if it has one.
    root_path: Py<PyString>,
    /// What a proxy in front has taken off the path.
    stripped: String,
    /// The lifespan's `state`, if it has one.
    state: Option<Py<PyDict>>,
    /// The `extensions` of most requests, and of those of HTTP/1.0.
    extensions: Py<PyDict>,
    extensions_of_http_10: Py<PyDict>,
}

impl ScopeTemplate {
    pub(crate) fn new(
        py: Python<'_>,
        stripped: &str,
        prefix: &str,
        state: Option<Py<PyDict>>,
    ) -> PyResult<Self> {
        let files = ["http.response.pathsend", "http.response.zerocopysend"];
        let extensions = PyDict::new(py);
        for name in files {
            extensions.set_item(name, PyDict::new(py))?;
        }
        let extensions_of_http_10 = extensions.copy()?.unbind();
        // What HTTP/1.0 has no form for.
        for name in ["http.response.trailers", "http.response.early_hint"] {
            extensions.set_item(name, PyDict::new(py))?;
        }
        Ok(Self {
            root_path: PyString::new(py, &[stripped, prefix].concat()).unbind(),
            stripped: stripped.to_owned(),
            state,
            extensions: extensions.unbind(),
            extensions_of_http_10,
        })
    }

    /// The scope of one request.
    pub(crate) fn build<'py>(
        &self,
        py: Python<'py>,
        head: &RequestHead,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (raw_path, query) = split_target(&head.target);
        let scope = PyDict::new(py);
        scope.set_item(intern!(py, "type"), intern!(py, "http"))?;
        scope.set_item(intern!(py, "asgi"), versions(py, intern!(py, "2.3"))?)?;
        scope.set_item(intern!(py, "http_version"), http_version(py, head.version))?;
        scope.set_item(intern!(py, "server"), address(py, &head.server)?)?;
        // Of a client on a Unix domain socket Envoy knows nothing but the socket's path.
        let client = head.client.port.map(|_| address(py, &head.client));
        scope.set_item(intern!(py, "client"), client.transpose()?)?;
        scope.set_item(
            intern!(py, "scheme"),
            if head.https {
                intern!(py, "https")
            } else {
                intern!(py, "http")
            },
        )?;
        scope.set_item(intern!(py, "method"), method(py, &head.method))?;
        scope.set_item(intern!(py, "root_path"), self.root_path.bind(py))?;
        self.set_paths(&scope, raw_path)?;
        scope.set_item(intern!(py, "query_string"), PyBytes::new(py, query))?;
        scope.set_item(intern!(py, "headers"), headers(py, head)?)?;
        let extensions = match head.version {
            HttpVersion::Http10 => &self.extensions_of_http_10,
            _ => &self.extensions,
        };
        let extensions = extensions.bind(py).copy()?;
        if let Some(tls) = &head.tls {
            extensions.set_item(intern!(py, "tls"), tls_extension(py, tls)?)?;
        }
        scope.set_item(intern!(py, "extensions"), extensions)?;
        if let Some(state) = &self.state {
            scope.set_item(intern!(py, "state"), state.bind(py).copy()?)?;
        }
        Ok(scope)
    }

    /// The scope of a WebSocket. ASGI WebSocket 2.5, "WebSocket Connection Scope".
    pub(crate) fn build_websocket<'py>(
        &self,
        py: Python<'py>,
        head: &RequestHead,
        offer: &WebSocketOffer,
    ) -> PyResult<Bound<'py, PyDict>> {
        let scope = self.build(py, head)?;
        scope.del_item(intern!(py, "method"))?;
        scope.set_item(intern!(py, "type"), intern!(py, "websocket"))?;
        scope.set_item(intern!(py, "asgi"), versions(py, intern!(py, "2.5"))?)?;
        let scheme = if head.https { "wss" } else { "ws" };
        scope.set_item(intern!(py, "scheme"), scheme)?;
        scope.set_item(intern!(py, "subprotocols"), &offer.subprotocols)?;
        let extensions = scope.as_any().get_item(intern!(py, "extensions"))?;
        let extensions = extensions.cast_into::<PyDict>()?;
        for name in extensions.keys() {
            if name.to_string().starts_with("http.") {
                extensions.del_item(name)?;
            }
        }
        extensions.set_item("websocket.http.response", PyDict::new(py))?;
        Ok(scope)
    }

    /// `path` and `raw_path` begin with `root_path` (ASGI HTTP 2.5, `root_path`; as uvicorn does).
    fn set_paths(&self, scope: &Bound<'_, PyDict>, raw_path: &[u8]) -> PyResult<()> {
        let py = scope.py();
        let stripped = self.stripped.as_str();
        let path = decode(raw_path);
        if stripped.is_empty() {
            scope.set_item(intern!(py, "path"), PyString::new(py, &path))?;
            return scope.set_item(intern!(py, "raw_path"), PyBytes::new(py, raw_path));
        }
        scope.set_item(intern!(py, "path"), [stripped, &path].concat())?;
        scope.set_item(
            intern!(py, "raw_path"),
            PyBytes::new(py, &[stripped.as_bytes(), raw_path].concat()),
        )
    }
}

/// ASGI TLS 0.2. Which of its certificates the server has used, Envoy does not say.
fn tls_extension<'py>(py: Python<'py>, tls: &Tls) -> PyResult<Bound<'py, PyDict>> {
    let extension = PyDict::new(py);
    extension.set_item(intern!(py, "server_cert"), py.None())?;
    let (chain, subject) = match &tls.client {
        Some(client) => (client.chain.as_slice(), Some(client.subject.as_str())),
        None => (&[][..], None),
    };
    extension.set_item(intern!(py, "client_cert_chain"), chain)?;
    extension.set_item(intern!(py, "client_cert_name"), subject)?;
    extension.set_item(intern!(py, "client_cert_error"), py.None())?;
    extension.set_item(intern!(py, "tls_version"), tls.version)?;
    extension.set_item(intern!(py, "cipher_suite"), tls.cipher)?;
    Ok(extension)
}

/// Of `http` scopes 2.3 is said although they are of 2.5, as uvicorn does: from 2.4 on Starlette
/// learns that a client has gone from `send` alone, and a stream that has nothing to send would stay
/// open for ever. `send` raises all the same.
fn versions<'py>(
    py: Python<'py>,
    spec_version: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyDict>> {
    let versions = PyDict::new(py);
    versions.set_item(intern!(py, "version"), intern!(py, "3.0"))?;
    versions.set_item(intern!(py, "spec_version"), spec_version)?;
    Ok(versions)
}

fn http_version(py: Python<'_>, version: HttpVersion) -> &Bound<'_, PyString> {
    match version {
        HttpVersion::Http10 => intern!(py, "1.0"),
        HttpVersion::Http11 => intern!(py, "1.1"),
        HttpVersion::Http2 => intern!(py, "2"),
        HttpVersion::Http3 => intern!(py, "3"),
    }
}

fn method<'py>(py: Python<'py>, method: &[u8]) -> Bound<'py, PyString> {
    let known = match method {
        b"GET" => intern!(py, "GET"),
        b"POST" => intern!(py, "POST"),
        b"PUT" => intern!(py, "PUT"),
        b"PATCH" => intern!(py, "PATCH"),
        b"DELETE" => intern!(py, "DELETE"),
        b"HEAD" => intern!(py, "HEAD"),
        b"OPTIONS" => intern!(py, "OPTIONS"),
        other => return PyString::new(py, &String::from_utf8_lossy(&other.to_ascii_uppercase())),
    };
    known.clone()
}

fn headers<'py>(py: Python<'py>, head: &RequestHead) -> PyResult<Bound<'py, PyList>> {
    let fields = head.fields.iter();
    let pairs = fields.map(|(name, value)| (PyBytes::new(py, name), PyBytes::new(py, value)));
    PyList::new(py, pairs)
}

/// `(host, port)`; of a Unix domain socket `(path, None)`, and `None` of its unnamed client.
fn address<'py>(py: Python<'py>, endpoint: &Endpoint) -> PyResult<Option<Bound<'py, PyTuple>>> {
    if endpoint.host.is_empty() {
        return Ok(None);
    }
    let host = String::from_utf8_lossy(&endpoint.host);
    (&*host, endpoint.port).into_pyobject(py).map(Some)
}
