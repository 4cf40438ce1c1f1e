//! Runs on: loop thread.
//!
//! The `http` scope of a request. ASGI HTTP 2.5, "HTTP Connection Scope".

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

use super::known::Known;
use crate::exchange::{HttpVersion, RequestHead, Tls, WebSocketOffer, split_target};

/// What the scopes of an application have in common.
pub(crate) struct ScopeTemplate {
    http: Kind,
    websocket: Kind,
    /// The lifespan's `state`, if it has one.
    state: Option<Py<PyDict>>,
    known: Known,
}

/// What the scopes of one type have in common. A scope begins as a copy, which costs a fraction of
/// a dict that grows; then what differs is set, in keys that are all there, in their order.
struct Kind {
    /// By version, and by whether the scheme is that of TLS.
    scopes: [[Py<PyDict>; 2]; HttpVersion::NUMBERS.len()],
    /// The value of `asgi`, of which each scope has a copy.
    asgi: Py<PyDict>,
    /// That of `extensions`, of which each scope has a copy.
    extensions: Py<PyDict>,
    /// The same where the version is HTTP/1.0.
    extensions_of_http_10: Py<PyDict>,
}

/// What extensions are there for, of requests of HTTP/1.0 and of others.
const FILES: [&str; 2] = ["http.response.pathsend", "http.response.zerocopysend"];
/// What HTTP/1.0 has no form for.
const FRAMES: [&str; 2] = ["http.response.trailers", "http.response.early_hint"];

/// Of `http` scopes 2.3 is said although they are of 2.5, as uvicorn does: from 2.4 on Starlette
/// learns that a client has gone from `send` alone, and a stream that has nothing to send would stay
/// open for ever. `send` raises all the same.
const HTTP_SPEC_VERSION: &str = "2.3";
const WEBSOCKET_SPEC_VERSION: &str = "2.5";

impl ScopeTemplate {
    /// `prefix` is that of the application's mount, if it has one.
    pub(crate) fn new(
        py: Python<'_>,
        stripped: &str,
        prefix: &str,
        state: Option<Py<PyDict>>,
    ) -> PyResult<Self> {
        let root_path = [stripped, prefix].concat();
        let has_state = state.is_some();
        let http = Kind {
            scopes: scopes(py, "http", ["http", "https"], &root_path, has_state)?,
            asgi: versions(py, HTTP_SPEC_VERSION)?,
            extensions: extensions(py, &[FILES, FRAMES].concat())?,
            extensions_of_http_10: extensions(py, &FILES)?,
        };
        let denial = ["websocket.http.response"];
        let websocket = Kind {
            scopes: scopes(py, "websocket", ["ws", "wss"], &root_path, has_state)?,
            asgi: versions(py, WEBSOCKET_SPEC_VERSION)?,
            extensions: extensions(py, &denial)?,
            extensions_of_http_10: extensions(py, &denial)?,
        };
        Ok(Self {
            http,
            websocket,
            state,
            known: Known::new(py, stripped),
        })
    }

    /// The scope of one request.
    pub(crate) fn build<'py>(
        &self,
        py: Python<'py>,
        head: &RequestHead,
    ) -> PyResult<Bound<'py, PyDict>> {
        let scope = self.begin(py, &self.http, head)?;
        if head.method.as_slice() != b"GET" {
            scope.set_item(intern!(py, "method"), method(py, &head.method))?;
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
        let scope = self.begin(py, &self.websocket, head)?;
        scope.set_item(intern!(py, "subprotocols"), &offer.subprotocols)?;
        Ok(scope)
    }

    fn begin<'py>(
        &self,
        py: Python<'py>,
        kind: &Kind,
        head: &RequestHead,
    ) -> PyResult<Bound<'py, PyDict>> {
        let scope = &kind.scopes[head.version as usize][usize::from(head.https)];
        let scope = scope.bind(py).copy()?;
        scope.set_item(intern!(py, "asgi"), kind.asgi.bind(py).copy()?)?;
        scope.set_item(intern!(py, "server"), self.known.server(py, &head.server)?)?;
        // Of a client on a Unix domain socket Envoy knows nothing but the socket's path.
        if let Some(port) = head.client.port
            && !head.client.host.is_empty()
        {
            let client = (self.known.client_host(py, &head.client.host), port);
            scope.set_item(intern!(py, "client"), client)?;
        }
        let (raw_path, query) = split_target(&head.target);
        let (path, raw_path) = self.known.paths(py, raw_path);
        scope.set_item(intern!(py, "path"), path)?;
        scope.set_item(intern!(py, "raw_path"), raw_path)?;
        if !query.is_empty() {
            scope.set_item(intern!(py, "query_string"), PyBytes::new(py, query))?;
        }
        let fields = head.fields.iter();
        let pairs =
            fields.map(|(name, value)| (self.known.name(py, name), PyBytes::new(py, value)));
        scope.set_item(intern!(py, "headers"), PyList::new(py, pairs)?)?;
        let extensions = match head.version {
            HttpVersion::Http10 => &kind.extensions_of_http_10,
            _ => &kind.extensions,
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
}

/// What scopes of `kind` are copied from, in `schemes` without and with TLS. What differs from
/// request to request is what it is in most of them, or `None`.
fn scopes(
    py: Python<'_>,
    kind: &str,
    schemes: [&str; 2],
    root_path: &str,
    has_state: bool,
) -> PyResult<[[Py<PyDict>; 2]; HttpVersion::NUMBERS.len()]> {
    let scope = |version: &str, scheme: &str| {
        let scope = PyDict::new(py);
        // Interned, as applications have them: equal strings that are the same are compared at once.
        let text = |text: &str| PyString::intern(py, text).into_any();
        let none = || py.None().into_bound(py);
        let set = |key: &str, value: Bound<'_, PyAny>| scope.set_item(text(key), value);
        set("type", text(kind))?;
        set("asgi", none())?;
        set("http_version", text(version))?;
        set("server", none())?;
        set("client", none())?;
        set("scheme", text(scheme))?;
        if kind == "http" {
            set("method", text("GET"))?;
        }
        set("root_path", text(root_path))?;
        set("path", none())?;
        set("raw_path", none())?;
        set("query_string", PyBytes::new(py, b"").into_any())?;
        set("headers", none())?;
        set("extensions", none())?;
        if has_state {
            set("state", none())?;
        }
        if kind == "websocket" {
            set("subprotocols", none())?;
        }
        Ok::<_, PyErr>(scope.unbind())
    };
    let [v10, v11, v2, v3] = HttpVersion::NUMBERS.map(|version| {
        let [plain, tls] = schemes.map(|scheme| scope(version, scheme));
        Ok::<_, PyErr>([plain?, tls?])
    });
    Ok([v10?, v11?, v2?, v3?])
}

fn extensions(py: Python<'_>, names: &[&str]) -> PyResult<Py<PyDict>> {
    let extensions = PyDict::new(py);
    for name in names {
        extensions.set_item(PyString::intern(py, name), PyDict::new(py))?;
    }
    Ok(extensions.unbind())
}

fn versions(py: Python<'_>, spec_version: &str) -> PyResult<Py<PyDict>> {
    let versions = PyDict::new(py);
    versions.set_item(intern!(py, "version"), "3.0")?;
    versions.set_item(intern!(py, "spec_version"), spec_version)?;
    Ok(versions.unbind())
}

/// ASGI TLS 0.2. Which of its certificates the server has used, Envoy does not say.
fn tls_extension<'py>(py: Python<'py>, tls: &Tls) -> PyResult<Bound<'py, PyDict>> {
    let extension = PyDict::new(py);
    extension.set_item(intern!(py, "server_cert"), py.None())?;
    let (chain, subject) = match &tls.client {
        Some(client) => (client.chain.as_slice(), client.subject.as_deref()),
        None => (&[][..], None),
    };
    extension.set_item(intern!(py, "client_cert_chain"), chain)?;
    extension.set_item(intern!(py, "client_cert_name"), subject)?;
    extension.set_item(intern!(py, "client_cert_error"), py.None())?;
    extension.set_item(intern!(py, "tls_version"), tls.version)?;
    extension.set_item(intern!(py, "cipher_suite"), tls.cipher)?;
    Ok(extension)
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
