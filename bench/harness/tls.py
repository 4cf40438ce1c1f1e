"""The certificate of all servers that speak TLS."""

from __future__ import annotations

import functools
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)


@dataclass(frozen=True)
class Certificate:
    """The files are there as long as this is."""

    directory: tempfile.TemporaryDirectory[str]

    @property
    def certfile(self) -> Path:
        return Path(self.directory.name, "certificate.pem")

    @property
    def keyfile(self) -> Path:
        return Path(self.directory.name, "key.pem")

    @property
    def authority(self) -> Path:
        """For clients to trust."""
        return Path(self.directory.name, "authority.pem")

    def context(self) -> ssl.SSLContext:
        """For a client of HTTP/1.1."""
        return ssl.create_default_context(cafile=str(self.authority))


@functools.cache
def certificate() -> Certificate:
    """For `localhost` and 127.0.0.1, the same in the whole run."""
    made = Certificate(tempfile.TemporaryDirectory(prefix="bench-tls-"))
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    # granian reads no other form of a key.
    key = load_pem_private_key(issued.private_key_pem.bytes(), password=None)
    made.keyfile.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    made.certfile.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    made.authority.write_bytes(authority.cert_pem.bytes())
    return made
