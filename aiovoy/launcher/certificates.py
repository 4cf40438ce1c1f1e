"""Files of TLS, as Envoy reads them: checked before it does, at the start and when they change."""

import os
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

    @property
    def files(self) -> list[Path]:
        return [self.certfile, self.keyfile]

    def check(self) -> None:
        """Loads both; `ConfigError` names the file that is at fault."""
        import ssl  # only those who use it pay for it

        cert, key = _read("ssl_certfile", self.certfile), _read("ssl_keyfile", self.keyfile)
        if b"-----BEGIN CERTIFICATE-----" not in cert:
            raise ConfigError(f"expected a certificate in PEM in `ssl_certfile`, got `{self.certfile}`")
        if b"PRIVATE KEY-----" not in key and self.keyfile == self.certfile:
            raise ConfigError(f"found no private key in `{self.certfile}`: `ssl_keyfile` says in which file it is")
        if b"PRIVATE KEY-----" not in key:
            raise ConfigError(f"expected a private key in PEM in `ssl_keyfile`, got `{self.keyfile}`")
        encrypted = b"ENCRYPTED" in key
        if encrypted and self.password is None:
            raise ConfigError(f"expected `ssl_keyfile_password` for the encrypted key in `{self.keyfile}`")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certfile, self.keyfile, self.password)
        except (OSError, ValueError) as error:  # `ssl.SSLError` is the former; the latter is of the password
            if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
                reason = "the key belongs to another certificate"
            elif encrypted and isinstance(error, ssl.SSLError | ValueError):
                reason = "`ssl_keyfile_password` is wrong"
            else:
                reason = _reason(error)
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
        import ssl

        _read("ssl_ca_certs", self.file)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(self.file)
        except OSError as error:
            raise ConfigError(f"cannot use `ssl_ca_certs` `{self.file}`: {_reason(error)}") from None

    def message(self) -> dict[str, Any]:
        """Envoy's `CertificateValidationContext`."""
        return {"trusted_ca": {"filename": os.path.abspath(self.file)}}


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read `{name}` `{path}`: {error.strerror}") from None


def _reason(error: Exception) -> str:
    return (getattr(error, "reason", None) or str(error)).replace("_", " ").lower()
