//! Numbers and layouts that the public types must share with Envoy's ABI.

use envoy::{
    AttributeId, DataStatus, Header, HeadersStatus, LocalReplyStatus, ResetReason, TrailersStatus,
};

#[test]
fn statuses() {
    use HeadersStatus as H;
    let headers = [
        H::Continue,
        H::StopIteration,
        H::ContinueAndDontEndStream,
        H::StopAllIterationAndBuffer,
        H::StopAllIterationAndWatermark,
    ];
    assert_eq!(headers.map(|status| status as u32), [0, 1, 2, 3, 4]);

    use DataStatus as D;
    let data = [
        D::Continue,
        D::StopIterationAndBuffer,
        D::StopIterationAndWatermark,
        D::StopIterationNoBuffer,
    ];
    assert_eq!(data.map(|status| status as u32), [0, 1, 2, 3]);

    use TrailersStatus as T;
    assert_eq!(
        [T::Continue, T::StopIteration].map(|status| status as u32),
        [0, 1]
    );

    use LocalReplyStatus as L;
    assert_eq!(
        [L::Continue, L::ContinueAndResetStream].map(|status| status as u32),
        [0, 1]
    );
}

#[test]
fn reset_reasons() {
    use ResetReason as R;
    assert_eq!(
        [R::LocalReset, R::LocalRefusedStreamReset].map(|reason| reason as u32),
        [0, 1]
    );
    assert_eq!(size_of::<ResetReason>(), 4);
}

#[test]
fn attributes() {
    use AttributeId as A;
    let ids = [
        (A::RequestPath, 0),
        (A::RequestUrlPath, 1),
        (A::RequestHost, 2),
        (A::RequestScheme, 3),
        (A::RequestMethod, 4),
        (A::RequestReferer, 6),
        (A::RequestUserAgent, 7),
        (A::RequestId, 9),
        (A::RequestProtocol, 10),
        (A::RequestQuery, 11),
        (A::RequestSize, 13),
        (A::RequestTotalSize, 14),
        (A::ResponseCode, 15),
        (A::ResponseCodeDetails, 16),
        (A::ResponseFlags, 17),
        (A::ResponseSize, 21),
        (A::ResponseTotalSize, 22),
        (A::SourceAddress, 24),
        (A::SourcePort, 25),
        (A::DestinationAddress, 26),
        (A::DestinationPort, 27),
        (A::ConnectionId, 28),
        (A::ConnectionMtls, 29),
        (A::RequestedServerName, 30),
        (A::ConnectionTlsVersion, 31),
        (A::LocalCertificateSubject, 32),
        (A::PeerCertificateSubject, 33),
        (A::LocalCertificateDnsSan, 34),
        (A::PeerCertificateDnsSan, 35),
        (A::LocalCertificateUriSan, 36),
        (A::PeerCertificateUriSan, 37),
        (A::PeerCertificateSha256, 38),
    ];
    for (id, number) in ids {
        assert_eq!(id as u32, number, "{id:?}");
    }
}

#[test]
fn headers_are_handed_over_as_they_are() {
    assert_eq!((size_of::<Header<'_>>(), align_of::<Header<'_>>()), (32, 8));
    assert_eq!(size_of::<[Header<'_>; 3]>(), 96);
}
