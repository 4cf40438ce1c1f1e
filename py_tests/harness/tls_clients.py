"""A client of each protocol over TLS, and which certificate it was shown."""

from cryptography import x509

from py_tests.harness.exchange import Connection
from py_tests.harness.http1 import Http1Connection
from py_tests.harness.http2 import Http2Connection
from py_tests.harness.http3 import Http3Connection

Client = type[Http1Connection | Http2Connection | Http3Connection]
CLIENTS: list[Client] = [Http1Connection, Http2Connection, Http3Connection]


def serial(connection: Connection) -> int:
    """Which certificate the server showed."""
    if isinstance(connection, Http3Connection):
        certificate = connection.endpoint.quic.tls._peer_certificate
        assert certificate is not None
        return certificate.serial_number
    assert isinstance(connection, Http1Connection | Http2Connection)
    assert connection.wire.tls is not None
    encoded = connection.wire.tls.getpeercert(binary_form=True)
    assert encoded is not None
    return x509.load_der_x509_certificate(encoded).serial_number
