//! What is sent to the server, and what it must answer.

use std::error::Error;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::TLS13;

pub(crate) struct Case {
    pub request: Request<()>,
    /// Of the request.
    pub body: Option<Bytes>,
    /// The body that comes back.
    pub answer: Bytes,
    pub tls: Arc<rustls::ClientConfig>,
}

impl Case {
    /// Each part is a file in `folder`, which the benchmark makes: `path`; `body`, if there is one; `answer`; and
    /// `authority`, in PEM.
    pub(crate) fn read(folder: &Path, port: u16) -> Result<Self, Box<dyn Error>> {
        let file = |name| {
            let path = folder.join(name);
            fs::read(&path).map_err(|error| {
                let named = format!("cannot read `{}`: {error}", path.display());
                io::Error::new(error.kind(), named)
            })
        };
        let body = match file("body") {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            body => Some(Bytes::from(body?)),
        };
        let path = String::from_utf8(file("path")?)?;
        let mut request = Request::get(format!("https://localhost:{port}{path}")).body(())?;
        if let Some(body) = &body {
            *request.method_mut() = Method::POST;
            let headers = request.headers_mut();
            headers.insert("content-length", body.len().into());
        }
        Ok(Self {
            request,
            body,
            answer: file("answer")?.into(),
            tls: Arc::new(trusting(&file("authority")?)?),
        })
    }
}

/// TLS for HTTP/3 with a server that has a certificate of `authority`.
fn trusting(authority: &[u8]) -> Result<rustls::ClientConfig, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    Ok(tls)
}
