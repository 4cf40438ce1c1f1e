"""Files of TLS, as Envoy reads them: checked before it does, at the start and when they change."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ConfigError


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its chain, and its key, which may be in the same file."""

    certfile: Path
    keyfile: Path
    password: str | None = None
    http3: bool = False

    @property
    def files(self) -> list[Path]:
        return [self.certfile, self.keyfile]

    def check(self) -> None:
        """Loads both; `ConfigError` names the file that is at fault."""
        import ssl  # only those who use it pay for it

        cert, key = _certificates("ssl_certfile", self.certfile), _read("ssl_keyfile", self.keyfile)
        taken = _TAKEN.search(cert)
        if taken is None or (self.http3 and taken["tcp"]):
            raise ConfigError(
                f"Envoy does not take the kind of key that `ssl_certfile` `{self.certfile}` has, "
                "only RSA of 2048 bits or more, ECDSA with P-256, P-384 or P-521, and without `http3` Ed25519"
            )
        has_key = _KEY.search(key) is not None
        if not has_key and self.keyfile == self.certfile:
            raise ConfigError(f"found no private key in `{self.certfile}`: `ssl_keyfile` says in which file it is")
        if not has_key:
            raise ConfigError(f"expected a private key in PEM in `ssl_keyfile`, got `{self.keyfile}`")
        encrypted = b"ENCRYPTED" in key
        if encrypted and self.password is None:
            raise ConfigError(f"expected `ssl_keyfile_password` for the encrypted key in `{self.keyfile}`")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certfile, self.keyfile, self.password)
        except (OSError, ValueError) as error:  # `ssl.SSLError` is the former; the latter is of the password
            known = getattr(error, "reason", None)
            if known == "KEY_VALUES_MISMATCH":
                reason = "the key belongs to another certificate"
            elif encrypted and isinstance(error, ssl.SSLError | ValueError):
                reason = "`ssl_keyfile_password` is wrong"
            elif known is None and isinstance(error, ssl.SSLError):
                reason = "the key is damaged, or a part of it is missing"
            else:
                reason = (known or str(error)).replace("_", " ").lower()
            raise ConfigError(
                f"cannot use `ssl_certfile` `{self.certfile}` with `ssl_keyfile` `{self.keyfile}`: {reason}"
            ) from None

    def message(self) -> dict[str, Any]:
        """Envoy's `TlsCertificate`."""
        message: dict[str, Any] = {
            "certificate_chain": {"filename": os.path.abspath(self.certfile)},
            "private_key": {"filename": os.path.abspath(self.keyfile)},
        }
        if self.password is not None:
            message["password"] = {"inline_string": self.password}
        return message


@dataclass(frozen=True, slots=True)
class Authorities:
    """Certificates of those that sign client certificates."""

    file: Path

    @property
    def files(self) -> list[Path]:
        return [self.file]

    def check(self) -> None:
        """Loads them; `ConfigError` names the file."""
        _certificates("ssl_ca_certs", self.file)

    def message(self) -> dict[str, Any]:
        """Envoy's `CertificateValidationContext`."""
        return {"trusted_ca": {"filename": os.path.abspath(self.file)}}


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read `{name}` `{path}`: {error.strerror}") from None


def _certificates(name: str, path: Path) -> bytes:
    """The first of the certificates in the file at `path`, all of which can be read, in DER."""
    import base64
    import ssl

    first = _CERTIFICATE.search(_read(name, path))
    if first is None:
        raise ConfigError(f"expected a certificate in PEM in `{name}`, got `{path}`")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
        return base64.b64decode(first[1])
    except (OSError, ValueError):
        raise ConfigError(f"a certificate in `{name}` `{path}` is damaged, or a part of it is missing") from None


_CERTIFICATE = re.compile(rb"^-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----([^-]*)", re.MULTILINE)
_KEY = re.compile(rb"^-----BEGIN [A-Z ]*PRIVATE KEY-----", re.MULTILINE)

_TAKEN = re.compile(
    b"|".join(
        [
            # RSA: the modulus has more bytes than 256, one of which is the zero before it.
            re.escape(bytes.fromhex("06092a864886f70d010101 0500 0382")) + rb"..\x00\x30\x82..\x02\x82(?!\x01\x00)",
            re.escape(bytes.fromhex("06072a8648ce3d0201 06082a8648ce3d030107 03")),  # P-256
            re.escape(bytes.fromhex("06072a8648ce3d0201 06052b81040022 03")),  # P-384
            re.escape(bytes.fromhex("06072a8648ce3d0201 06052b81040023 03")),  # P-521
            rb"(?P<tcp>%b)" % re.escape(bytes.fromhex("06032b6570 0321")),  # Ed25519
        ]
    ),
    re.DOTALL,
)
"""Where a certificate in DER has a public key that BoringSSL takes."""
