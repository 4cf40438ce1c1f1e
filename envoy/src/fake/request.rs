//! Requests to begin a stream of the fake Envoy with.

use std::collections::HashMap;

use crate::attributes::AttributeId;

/// Names and values, as Envoy's header maps have them.
pub(super) type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// A request to begin a stream with.
#[derive(Clone, Debug)]
pub struct Request {
    pub(super) headers: Fields,
    pub(super) attributes: HashMap<u32, Attribute>,
    pub(super) direct_remote_address: String,
    pub(super) filter_state: HashMap<String, String>,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// For [`EnvoyFilter::attribute_bytes`](crate::EnvoyFilter::attribute_bytes).
    Bytes(Vec<u8>),
    /// For [`EnvoyFilter::attribute_int`](crate::EnvoyFilter::attribute_int).
    Int(u64),
    /// For [`EnvoyFilter::attribute_bool`](crate::EnvoyFilter::attribute_bool).
    Bool(bool),
}

impl From<&str> for Attribute {
    fn from(value: &str) -> Self {
        Self::Bytes(value.into())
    }
}

impl From<u64> for Attribute {
    fn from(value: u64) -> Self {
        Self::Int(value)
    }
}

impl From<bool> for Attribute {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl Request {
    /// A request for `http://localhost` over HTTP/1.1 without TLS, from 127.0.0.1.
    pub fn new(method: &str, path: &str) -> Self {
        let headers = [
            (":authority", "localhost"),
            (":path", path),
            (":method", method),
            (":scheme", "http"),
        ];
        let url_path = path.split('?').next().unwrap_or_default();
        let request = Self {
            headers: fields(&headers),
            attributes: HashMap::new(),
            direct_remote_address: "127.0.0.1:50000".to_owned(),
            filter_state: HashMap::new(),
        };
        request
            .attribute(AttributeId::RequestPath, path)
            .attribute(AttributeId::RequestUrlPath, url_path)
            .attribute(AttributeId::RequestHost, "localhost")
            .attribute(AttributeId::RequestScheme, "http")
            .attribute(AttributeId::RequestMethod, method)
            .attribute(AttributeId::RequestProtocol, "HTTP/1.1")
            .attribute(AttributeId::SourceAddress, "127.0.0.1:50000")
            .attribute(AttributeId::SourcePort, 50_000)
            .attribute(AttributeId::DestinationAddress, "127.0.0.1:8000")
            .attribute(AttributeId::DestinationPort, 8000)
            .attribute(AttributeId::ConnectionId, 1)
    }

    /// A GET request.
    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// A POST request.
    pub fn post(path: &str) -> Self {
        Self::new("POST", path)
    }

    /// Adds a header; its name must be in lower case, as Envoy's are.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// Sets `:authority`.
    pub fn authority(mut self, authority: &str) -> Self {
        self.headers[0].1 = authority.into();
        self
    }

    /// Sets an attribute.
    pub fn attribute(mut self, id: AttributeId, value: impl Into<Attribute>) -> Self {
        self.attributes.insert(id as u32, value.into());
        self
    }

    /// Removes an attribute.
    pub fn without_attribute(mut self, id: AttributeId) -> Self {
        self.attributes.remove(&(id as u32));
        self
    }

    /// Sets a string in the filter state.
    pub fn filter_state(mut self, key: &str, value: &str) -> Self {
        self.filter_state.insert(key.into(), value.into());
        self
    }

    /// Sets `ip:port` of the socket's peer.
    pub fn direct_remote_address(mut self, address: &str) -> Self {
        address.clone_into(&mut self.direct_remote_address);
        self
    }
}

pub(super) fn fields(pairs: &[(&str, &str)]) -> Fields {
    pairs
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect()
}
