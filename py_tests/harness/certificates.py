"""Certificates for tests: authorities, what they sign, and files of both."""

import functools
import ssl
from pathlib import Path

import trustme
from cryptography import x509


@functools.cache
def authority() -> trustme.CA:
    """One for the whole run, for servers and clients alike."""
    return trustme.CA()


class Pair:
    """A certificate with its chain and key, as files."""

    def __init__(
        self,
        folder: Path,
        *names: str,
        name: str = "server",
        by: trustme.CA | None = None,
        common_name: str | None = None,
    ) -> None:
        names = names or ("localhost", "127.0.0.1", "::1")
        self.issued = (by or authority()).issue_cert(*names, common_name=common_name)
        self.certfile = folder / f"{name}.pem"
        self.keyfile = folder / f"{name}.key"
        self.certfile.write_bytes(self.chain)
        self.keyfile.write_bytes(self.key)

    @property
    def chain(self) -> bytes:
        return b"".join(blob.bytes() for blob in self.issued.cert_chain_pems)

    @property
    def key(self) -> bytes:
        return self.issued.private_key_pem.bytes()

    @property
    def serial(self) -> int:
        return x509.load_pem_x509_certificate(self.chain).serial_number

    @property
    def options(self) -> dict[str, Path]:
        """For `serve`."""
        return {"ssl_certfile": self.certfile, "ssl_keyfile": self.keyfile}


def authority_file(folder: Path, by: trustme.CA | None = None) -> Path:
    """The certificate of the authority, as a file."""
    path = folder / "authority.pem"
    path.write_bytes((by or authority()).cert_pem.bytes())
    return path


def client_context(*alpn: str, certificate: Pair | None = None) -> ssl.SSLContext:
    """For clients that trust the authority, and show `certificate` if they are asked for one."""
    context = ssl.create_default_context()
    authority().configure_trust(context)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if certificate is not None:
        certificate.issued.configure_cert(context)
    return context
