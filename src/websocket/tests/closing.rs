use super::super::close::{CannotSend, NO_STATUS};
use super::*;

fn closed(code: u16, reason: &str) -> Event {
    Event::Close {
        code,
        reason: reason.into(),
    }
}

/// Autobahn, 7.1 to 7.7 and 7.13.
#[test]
fn a_close_frame_is_answered_by_its_code() {
    let longest = [&[0x03, 0xe8][..], &[b'*'; 123]].concat();
    let reason = "*".repeat(123);
    for (payload, code, reason) in [
        (&b""[..], NO_STATUS, ""),
        (b"\x03\xe8", 1000, ""),
        (b"\x03\xe8Hello", 1000, "Hello"),
        (b"\x0f\xa0\xce\xba", 4000, "κ"),
        (&longest, 1000, &reason),
    ] {
        let outcome = outcome(&[
            (FIN | CLOSE, payload),
            (FIN | PING, b""),
            (FIN | TEXT, b""),
            (FIN | CLOSE, b""),
        ]);
        assert_eq!(outcome.events, [closed(code, reason)]);
        let answer = payload[..payload.len().min(2)].to_vec();
        assert_eq!(outcome.frames(), [(FIN | CLOSE, answer)]);
    }
}

/// Autobahn, 7.3.2, 7.5.1 and 7.9.
#[test]
fn a_wrong_close_frame_fails() {
    assert_eq!(failure(&frame(FIN | CLOSE, b"\x03"), 0), 1002);
    assert_eq!(failure(&frame(FIN | CLOSE, b"\x03\xe8\xce"), 0), 1007);
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        assert_eq!(failure(&frame(FIN | CLOSE, &code.to_be_bytes()), 0), 1002);
    }
}

#[test]
fn a_message_is_cut_short_by_a_close_frame() {
    let outcome = outcome(&[(TEXT, b"a"), (FIN | CLOSE, b""), (FIN | CONTINUATION, b"b")]);
    assert_eq!(outcome.events, [closed(NO_STATUS, "")]);
}

#[test]
fn our_close_frame_waits_for_the_answer() {
    let mut connection = Connection::new(MAX_LEN, None);
    let mut out = Vec::new();
    assert_eq!(connection.close(1001, "bye", &mut out), Ok(()));
    assert_eq!(connection.close(1000, "again", &mut out), Ok(()));
    connection.send_text(b"late", &mut out);
    connection.ping(b"late", &mut out);
    assert_eq!(frames(&out), [(FIN | CLOSE, b"\x03\xe9bye".to_vec())]);
    assert!(!connection.is_closed());
    let late = script(&[
        (TEXT, b"sent before it saw ours"),
        (FIN | PING, b""),
        (FIN | PONG, b""),
        (FIN | CONTINUATION, b""),
    ]);
    assert_eq!(receive(&mut connection, [&late[..]]), Outcome::default());
    assert!(!connection.is_closed());
    let answer = receive(&mut connection, [&frame(FIN | CLOSE, b"\x03\xe9")[..]]);
    assert_eq!(answer.events, [closed(1001, "")]);
    assert!(answer.out.is_empty(), "one close frame is enough");
    assert!(connection.is_closed());
}

#[test]
fn a_failure_after_our_close_frame_sends_no_other() {
    let mut connection = Connection::new(MAX_LEN, None);
    let mut out = Vec::new();
    assert_eq!(connection.close(NO_STATUS, "", &mut out), Ok(()));
    assert_eq!(frames(&out), [(FIN | CLOSE, vec![])]);
    let failed = receive(&mut connection, [&frame(FIN | 3, b"")[..]]);
    assert!(matches!(failed.events[..], [Event::Failed(_)]));
    assert!(failed.out.is_empty());
    assert!(connection.is_closed());
}

#[test]
fn what_no_close_frame_can_have_is_not_sent() {
    let mut connection = Connection::new(MAX_LEN, None);
    let mut out = Vec::new();
    let code = connection.close(1006, "", &mut out);
    assert_eq!(code, Err(CannotSend::Code(1006)));
    let reason = connection.close(1000, &"é".repeat(62), &mut out);
    assert_eq!(reason, Err(CannotSend::Reason(124)));
    assert!(out.is_empty());
    connection.send_text(b"still open", &mut out);
    assert!(!out.is_empty());
}
