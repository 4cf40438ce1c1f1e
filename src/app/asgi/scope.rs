//! Runs on: loop thread.
//!
//! The `http` scope of a request. ASGI HTTP 2.5, "HTTP Connection Scope".

use std::hash::Hasher;

use parking_lot::Mutex;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use rustc_hash::FxHasher;

use crate::exchange::{
    Endpoint, HttpVersion, RequestHead, Short, Tls, WebSocketOffer, decode, split_target,
};

/// What the scopes of an application have in common.
pub(crate) struct ScopeTemplate {
    http: Kind,
    websocket: Kind,
    /// What a proxy in front has taken off the path.
    stripped: String,
    /// The lifespan's `state`, if it has one.
    state: Option<Py<PyDict>>,
    names: Names,
    /// Requests come from few addresses to fewer.
    last: Mutex<Last>,
    paths: Mutex<Paths>,
}

/// What the scopes of one type have in common. A scope begins as a copy, which costs a fraction of
/// a dict that grows; then what differs is set, in keys that are all there, in their order.
struct Kind {
    /// By version, and by whether the scheme is that of TLS.
    scopes: [[Py<PyDict>; 2]; VERSIONS.len()],
    /// The value of `asgi`, of which each scope has a copy.
    asgi: Py<PyDict>,
    /// That of `extensions`, of which each scope has a copy.
    extensions: Py<PyDict>,
    /// The same where the version is HTTP/1.0.
    extensions_of_http_10: Py<PyDict>,
}

/// The names of fields that many requests have, as objects that all scopes share, by their length.
struct Names([Vec<Py<PyBytes>>; LONGEST + 1]);

const LONGEST: usize = "upgrade-insecure-requests".len();

/// Few of each length, since they are compared one after the other.
const NAMES: [&str; 29] = [
    "host",
    "accept",
    "origin",
    "cookie",
    "referer",
    "priority",
    "sec-ch-ua",
    "x-real-ip",
    "user-agent",
    "connection",
    "traceparent",
    "content-type",
    "x-request-id",
    "cache-control",
    "if-none-match",
    "authorization",
    "content-length",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "sec-fetch-user",
    "accept-encoding",
    "accept-language",
    "x-forwarded-for",
    "sec-ch-ua-mobile",
    "if-modified-since",
    "x-forwarded-proto",
    "sec-ch-ua-platform",
    "upgrade-insecure-requests",
];

impl Names {
    fn new(py: Python<'_>) -> Self {
        let mut names = [const { Vec::new() }; LONGEST + 1];
        for name in NAMES {
            names[name.len()].push(PyBytes::new(py, name.as_bytes()).unbind());
        }
        Self(names)
    }

    fn get<'py>(&self, py: Python<'py>, name: &[u8]) -> Bound<'py, PyBytes> {
        let known = self.0.get(name.len()).map_or(&[][..], Vec::as_slice);
        let same = known.iter().find(|known| known.as_bytes(py) == name);
        same.map_or_else(|| PyBytes::new(py, name), |same| same.bind(py).clone())
    }
}

/// Objects of the last scope.
#[derive(Default)]
struct Last {
    server: Option<(Endpoint, Py<PyTuple>)>,
    client: Option<(Short, Py<PyString>)>,
}

/// `http_version` of each [`HttpVersion`], in their order.
const VERSIONS: [&str; 4] = ["1.0", "1.1", "2", "3"];

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
            stripped: stripped.to_owned(),
            state,
            names: Names::new(py),
            last: Mutex::default(),
            paths: Mutex::default(),
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
        scope.set_item(intern!(py, "server"), self.server(py, &head.server)?)?;
        // Of a client on a Unix domain socket Envoy knows nothing but the socket's path.
        if let Some(port) = head.client.port
            && !head.client.host.is_empty()
        {
            let client = (self.client_host(py, &head.client.host), port);
            scope.set_item(intern!(py, "client"), client)?;
        }
        let (raw_path, query) = split_target(&head.target);
        self.set_paths(&scope, raw_path)?;
        if !query.is_empty() {
            scope.set_item(intern!(py, "query_string"), PyBytes::new(py, query))?;
        }
        let fields = head.fields.iter();
        let pairs = fields.map(|(name, value)| (self.names.get(py, name), PyBytes::new(py, value)));
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

    /// `(host, port)`, or `(path, None)` of a Unix domain socket.
    fn server<'py>(
        &self,
        py: Python<'py>,
        endpoint: &Endpoint,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        if let Some((same, server)) = &self.last.lock().server
            && same == endpoint
        {
            return Ok(Some(server.bind(py).clone()));
        }
        if endpoint.host.is_empty() {
            return Ok(None);
        }
        let server = (text(py, &endpoint.host), endpoint.port).into_pyobject(py)?;
        let known = Some((endpoint.clone(), server.clone().unbind()));
        let before = std::mem::replace(&mut self.last.lock().server, known);
        drop(before);
        Ok(Some(server))
    }

    fn client_host<'py>(&self, py: Python<'py>, host: &Short) -> Bound<'py, PyString> {
        if let Some((same, client)) = &self.last.lock().client
            && same == host
        {
            return client.bind(py).clone();
        }
        let client = text(py, host);
        let known = Some((host.clone(), client.clone().unbind()));
        let before = std::mem::replace(&mut self.last.lock().client, known);
        drop(before);
        client
    }

    /// Sets `path` and `raw_path`.
    fn set_paths(&self, scope: &Bound<'_, PyDict>, raw_path: &[u8]) -> PyResult<()> {
        let py = scope.py();
        let known = self.paths.lock().get(py, &self.stripped, raw_path);
        let (path, raw_path) = known.unwrap_or_else(|| {
            let paths = self.make_paths(py, raw_path);
            let before = self.paths.lock().put(raw_path, &paths);
            drop(before);
            paths
        });
        scope.set_item(intern!(py, "path"), path)?;
        scope.set_item(intern!(py, "raw_path"), raw_path)
    }

    /// Both begin with `root_path` (ASGI HTTP 2.5, `root_path`; as uvicorn does).
    fn make_paths<'py>(&self, py: Python<'py>, raw_path: &[u8]) -> PathPair<'py> {
        let stripped = self.stripped.as_str();
        let path = decode(raw_path);
        if stripped.is_empty() {
            return (PyString::new(py, &path), PyBytes::new(py, raw_path));
        }
        let raw_path = [stripped.as_bytes(), raw_path].concat();
        let path = [stripped, &path].concat();
        (PyString::new(py, &path), PyBytes::new(py, &raw_path))
    }
}

/// `path` and `raw_path`.
type PathPair<'py> = (Bound<'py, PyString>, Bound<'py, PyBytes>);

/// The paths of the last requests, by their hash: most requests to most applications are for few.
struct Paths([Option<(Py<PyString>, Py<PyBytes>)>; 64]);

/// What is longer is not kept.
const LONGEST_PATH: usize = 128;

impl Default for Paths {
    fn default() -> Self {
        Self([const { None }; 64])
    }
}

impl Paths {
    fn get<'py>(&self, py: Python<'py>, stripped: &str, raw_path: &[u8]) -> Option<PathPair<'py>> {
        let (path, raw) = self.0[Self::place(raw_path)?].as_ref()?;
        let same = raw.as_bytes(py).strip_prefix(stripped.as_bytes()) == Some(raw_path);
        same.then(|| (path.bind(py).clone(), raw.bind(py).clone()))
    }

    /// Keeps a pair in the place of another, which comes back.
    fn put(
        &mut self,
        raw_path: &[u8],
        (path, raw): &PathPair<'_>,
    ) -> Option<(Py<PyString>, Py<PyBytes>)> {
        let pair = (path.clone().unbind(), raw.clone().unbind());
        self.0[Self::place(raw_path)?].replace(pair)
    }

    fn place(raw_path: &[u8]) -> Option<usize> {
        if raw_path.len() > LONGEST_PATH {
            return None;
        }
        let mut hasher = FxHasher::default();
        hasher.write(raw_path);
        usize::try_from(hasher.finish() % 64).ok()
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
) -> PyResult<[[Py<PyDict>; 2]; VERSIONS.len()]> {
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
    let [v10, v11, v2, v3] = VERSIONS.map(|version| {
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

fn text<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    PyString::new(py, &String::from_utf8_lossy(bytes))
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
