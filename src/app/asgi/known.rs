//! Runs on: loop thread.
//!
//! Objects that the scopes of an application share, since requests are like each other. All of them
//! are such as nobody can change, and as run no Python when they go.

use std::hash::Hasher;

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};
use rustc_hash::FxHasher;

use crate::exchange::{Endpoint, Short, decode};

/// The objects.
pub(super) struct Known {
    names: Names,
    /// Requests come from few addresses to fewer.
    last: Mutex<Last>,
    paths: Mutex<Paths>,
    /// What a proxy in front has taken off the path.
    stripped: String,
}

/// Of the last scope.
#[derive(Default)]
struct Last {
    server: Option<(Endpoint, Py<PyTuple>)>,
    client: Option<(Short, Py<PyString>)>,
}

impl Known {
    pub(super) fn new(py: Python<'_>, stripped: &str) -> Self {
        Self {
            names: Names::new(py),
            last: Mutex::default(),
            paths: Mutex::default(),
            stripped: stripped.to_owned(),
        }
    }

    /// The name of a field.
    pub(super) fn name<'py>(&self, py: Python<'py>, name: &[u8]) -> Bound<'py, PyBytes> {
        self.names.get(py, name)
    }

    /// `(host, port)`, or `(path, None)` of a Unix domain socket.
    pub(super) fn server<'py>(
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

    /// The host of a client's address.
    pub(super) fn client_host<'py>(&self, py: Python<'py>, host: &Short) -> Bound<'py, PyString> {
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

    /// `path` and `raw_path`.
    pub(super) fn paths<'py>(&self, py: Python<'py>, raw_path: &[u8]) -> PathPair<'py> {
        if let Some(known) = self.paths.lock().get(py, &self.stripped, raw_path) {
            return known;
        }
        let paths = self.make_paths(py, raw_path);
        let before = self.paths.lock().put(raw_path, &paths);
        drop(before);
        paths
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

fn text<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    PyString::new(py, &String::from_utf8_lossy(bytes))
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
