use super::*;

/// Autobahn, groups 1 and 9.
#[test]
fn messages_of_all_lengths() {
    for len in [0, 1, 125, 126, 127, 128, 65535, 65536, 200_000] {
        let data = "*".repeat(len);
        for (opcode, event) in [(TEXT, text(&data)), (BINARY, binary(data.as_bytes()))] {
            assert_eq!(outcome(&[(FIN | opcode, data.as_bytes())]).events, [event]);
        }
        let mut connection = Connection::new(MAX_LEN, None);
        let mut out = Vec::new();
        let rest = connection.send_text(data.as_bytes(), &mut out);
        out.extend_from_slice(rest);
        let rest = connection.send_binary(data.as_bytes(), &mut out);
        out.extend_from_slice(rest);
        let data = data.into_bytes();
        assert_eq!(
            frames(&out),
            [(FIN | TEXT, data.clone()), (FIN | BINARY, data)]
        );
    }
}

/// The ways in which RFC 6455, section 5.7, writes its examples.
#[test]
fn frames_as_in_the_specification() {
    let hello = [
        0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
    ];
    assert_eq!(outcome_of(&hello).events, [text("Hello")]);
    let mut out = Vec::new();
    Connection::new(MAX_LEN, None).send_text(b"Hello", &mut out);
    assert_eq!(out, [0x81, 5, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
    out.clear();
    Connection::new(MAX_LEN, None).send_binary(&[0; 256], &mut out);
    assert_eq!(out[..4], [0x82, 126, 1, 0]);
    out.clear();
    Connection::new(MAX_LEN, None).send_binary(&[0; 65536], &mut out);
    assert_eq!(out[..10], [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
}

/// Autobahn, group 2.
#[test]
fn pings_are_answered_and_pongs_reported() {
    let most = [0xfe; 125];
    let outcome = outcome(&[
        (FIN | PING, b""),
        (FIN | PING, &most),
        (FIN | PONG, b"unsolicited"),
        (FIN | PING, b"x"),
    ]);
    assert_eq!(outcome.events, [Event::Pong]);
    let pong = |payload: &[u8]| (FIN | PONG, payload.to_vec());
    assert_eq!(outcome.frames(), [pong(b""), pong(&most), pong(b"x")]);
}

#[test]
fn the_answer_to_a_ping_is_no_longer_than_it() {
    for len in [0, 1, 125] {
        let ping = frame(FIN | PING, &vec![0; len]);
        assert!(outcome_of(&ping).out.len() <= ping.len());
    }
}

#[test]
fn our_pings_have_a_payload() {
    let mut connection = Connection::new(MAX_LEN, None);
    let mut out = Vec::new();
    connection.ping(b"1", &mut out);
    connection.ping(&[2; 200], &mut out);
    assert_eq!(
        frames(&out),
        [(FIN | PING, vec![b'1']), (FIN | PING, vec![2; 125])]
    );
}

#[test]
fn control_frames_are_short_and_whole() {
    for opcode in [CLOSE, PING, PONG] {
        assert_eq!(failure(&frame(FIN | opcode, &[0; 126]), 0), 1002);
        assert_eq!(failure(&frame(opcode, b""), 0), 1002);
        assert_eq!(failure(&frame(FIN | RSV1 | opcode, b""), 0), 1002);
    }
}

/// Autobahn, group 3.
#[test]
fn reserved_bits_are_refused() {
    for bits in 1..8 {
        for opcode in [TEXT, BINARY, CLOSE, PING, PONG] {
            let input = script(&[
                (FIN | TEXT, b"before"),
                (FIN | bits << 4 | opcode, b"x"),
                (FIN | PING, b"after"),
            ]);
            assert_eq!(failure(&input, 1), 1002, "{bits} {opcode}");
        }
        let input = script(&[(TEXT, b"a"), (FIN | bits << 4 | CONTINUATION, b"b")]);
        assert_eq!(failure(&input, 0), 1002);
    }
}

/// Autobahn, group 4.
#[test]
fn reserved_opcodes_are_refused() {
    for opcode in (3..=7).chain(11..=15) {
        assert_eq!(failure(&frame(FIN | opcode, b""), 0), 1002);
        let input = script(&[(FIN | TEXT, b"before"), (FIN | opcode, b"x")]);
        assert_eq!(failure(&input, 1), 1002);
    }
}

#[test]
fn the_first_two_bytes_are_enough_to_fail() {
    for head in [
        [0x83, 0x80],
        [0xb1, 0x80],
        [0x81, 0x05],
        [0x09, 0x80],
        [0x88, 0xfe],
    ] {
        assert_eq!(failure(&head, 0), 1002, "{head:x?}");
    }
}

#[test]
fn frames_of_a_client_are_masked() {
    assert_eq!(failure(b"\x81\x05Hello", 0), 1002);
    assert_eq!(failure(b"\x89\x00", 0), 1002);
}

#[test]
fn lengths_are_in_their_shortest_form() {
    let head = |short: u8, extended: &[u8]| [&[0x82, 0x80 | short], extended, &[0; 4]].concat();
    assert_eq!(failure(&head(126, &125_u16.to_be_bytes()), 0), 1002);
    assert_eq!(failure(&head(127, &65535_u64.to_be_bytes()), 0), 1002);
    assert_eq!(failure(&head(127, &(1_u64 << 63).to_be_bytes()), 0), 1002);
}

/// Autobahn, group 5.
#[test]
fn fragments_make_a_message() {
    let outcome = outcome(&[
        (TEXT, b"a"),
        (FIN | PING, b"1"),
        (CONTINUATION, b""),
        (FIN | PONG, b""),
        (CONTINUATION, b"b"),
        (FIN | PING, b"2"),
        (FIN | CONTINUATION, b"c"),
        (BINARY, b""),
        (FIN | CONTINUATION, b""),
        (FIN | TEXT, b"d"),
    ]);
    assert_eq!(
        outcome.events,
        [Event::Pong, text("abc"), binary(b""), text("d")]
    );
    let pongs = [(FIN | PONG, vec![b'1']), (FIN | PONG, vec![b'2'])];
    assert_eq!(outcome.frames(), pongs);
}

#[test]
fn fragments_are_in_order() {
    assert_eq!(failure(&frame(FIN | CONTINUATION, b"a"), 0), 1002);
    assert_eq!(failure(&frame(CONTINUATION, b"a"), 0), 1002);
    for opcode in [TEXT, BINARY] {
        for fin in [0, FIN] {
            let input = script(&[(TEXT, b"a"), (fin | opcode, b"b")]);
            assert_eq!(failure(&input, 0), 1002);
        }
    }
    let input = script(&[
        (TEXT, b"a"),
        (FIN | CONTINUATION, b"b"),
        (FIN | CONTINUATION, b"c"),
    ]);
    assert_eq!(failure(&input, 1), 1002);
}

#[test]
fn a_message_too_big_fails_by_its_head() {
    let max = vec![0; MAX_LEN];
    assert_eq!(outcome(&[(FIN | BINARY, &max)]).events, [binary(&max)]);
    let (last, rest) = max.split_last().expect("bytes");
    let head_of_two = [&frame(BINARY, rest)[..], &[FIN, 0x82, 0, 0, 0, 0]].concat();
    assert_eq!(failure(&head_of_two, 0), 1009);
    let in_two = outcome(&[(BINARY, rest), (FIN | CONTINUATION, &[*last])]);
    assert_eq!(in_two.events, [binary(&max)]);
    for len in [MAX_LEN as u64 + 1, i64::MAX as u64] {
        let head = [&[0x82, 0xff], &len.to_be_bytes()[..], &[0; 4]].concat();
        assert_eq!(failure(&head, 0), 1009);
    }
    let mut unlimited = Connection::new(usize::MAX, None);
    let head = [&[0x82, 0xff], &(i64::MAX as u64).to_be_bytes()[..], &[0; 4]].concat();
    let failed = receive(&mut unlimited, [&head[..]]);
    assert!(matches!(failed.events[..], [Event::Failed(_)]));
}

#[test]
fn after_a_failure_input_is_ignored() {
    let input = script(&[
        (FIN | RSV1 | TEXT, b"x"),
        (FIN | TEXT, b"y"),
        (FIN | CLOSE, b""),
    ]);
    assert_eq!(failure(&input, 0), 1002);
    let mut connection = Connection::new(MAX_LEN, None);
    receive(&mut connection, [&input[..]]);
    assert!(connection.is_closed());
    let mut out = Vec::new();
    connection.send_text(b"z", &mut out);
    connection.ping(b"", &mut out);
    assert_eq!(connection.close(1000, "", &mut out), Ok(()));
    assert!(out.is_empty());
}

/// A caller may stop after an event and take the rest of the bytes later.
#[test]
fn events_come_one_by_one() {
    let input = script(&[(FIN | TEXT, b"a"), (FIN | PING, b""), (FIN | TEXT, b"b")]);
    let mut connection = Connection::new(MAX_LEN, None);
    let (mut rest, mut out) = (&input[..], Vec::new());
    assert_eq!(connection.receive(&mut rest, &mut out), Some(text("a")));
    assert_eq!(rest.len(), input.len() - 7);
    assert!(out.is_empty());
    assert_eq!(connection.receive(&mut rest, &mut out), Some(text("b")));
    assert_eq!(frames(&out), [(FIN | PONG, vec![])]);
    assert_eq!(connection.receive(&mut rest, &mut out), None);
}

/// Each way to cut a script in two.
#[test]
fn all_splits() {
    let long = [0xa5; 300];
    let input = script(&[
        (FIN | TEXT, "κόσμε".as_bytes()),
        (FIN | PING, b"ping"),
        (BINARY, &long),
        (FIN | PONG, b""),
        (CONTINUATION, b""),
        (FIN | CONTINUATION, &long),
        (FIN | TEXT, b""),
        (FIN | CLOSE, b"\x03\xe8bye"),
        (FIN | TEXT, b"ignored"),
    ]);
    let whole = outcome_of(&input);
    assert_eq!(whole.events.len(), 5);
    for at in 0..=input.len() {
        let (first, second) = input.split_at(at);
        let mut connection = Connection::new(MAX_LEN, None);
        assert_eq!(
            receive(&mut connection, [first, second]),
            whole,
            "cut at {at}"
        );
    }
}
