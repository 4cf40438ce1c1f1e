use super::*;

/// Autobahn, group 6: 6.1 to 6.3 and 6.5 on, fragmented at each byte.
#[test]
fn texts_are_utf8_wherever_they_are_cut() {
    for valid in [
        "",
        "κόσμε",
        "\u{7f}\u{80}\u{7ff}\u{800}",
        "\u{ffff}\u{10000}\u{10ffff}",
        "\u{fffd}\u{d7ff}\u{e000}",
    ] {
        let bytes = valid.as_bytes();
        for at in 0..=bytes.len() {
            let (first, second) = bytes.split_at(at);
            let events = outcome(&[(TEXT, first), (FIN | CONTINUATION, second)]).events;
            assert_eq!(events, [text(valid)]);
        }
    }
    let surrogate: &[u8] = &[0xed, 0xa0, 0x80];
    let overlong: &[u8] = &[0xc0, 0xaf];
    let too_high: &[u8] = &[0xf4, 0x90, 0x80, 0x80];
    let cut: &[u8] = &[0xce, 0xba, 0xe1, 0xbd];
    for invalid in [
        surrogate,
        overlong,
        too_high,
        cut,
        &[0xff],
        &[0x80],
        &[0xf8, 0x88],
    ] {
        for at in 0..=invalid.len() {
            let (first, second) = invalid.split_at(at);
            let input = script(&[(TEXT, first), (FIN | CONTINUATION, second)]);
            assert_eq!(failure(&input, 0), 1007, "{invalid:x?} cut at {at}");
        }
    }
}

/// Autobahn, 6.4: the first wrong byte fails, not the end of the message, or of the frame.
#[test]
fn invalid_text_fails_at_once() {
    let start = "κόσμε".as_bytes();
    let input = script(&[(TEXT, start), (CONTINUATION, &[0xf4, 0x90])]);
    assert_eq!(failure(&input, 0), 1007);
    assert!(
        outcome(&[(TEXT, start), (CONTINUATION, &[0xf4])])
            .events
            .is_empty()
    );
    let mut input = frame(FIN | TEXT, &[start, &[0xf4, 0x90], &[b'x'; 100]].concat());
    input.truncate(6 + start.len() + 2);
    assert_eq!(failure(&input, 0), 1007);
    input.truncate(6 + start.len() + 1);
    assert!(outcome_of(&input).events.is_empty());
}

#[test]
fn binary_messages_are_any_bytes() {
    let bytes: Vec<u8> = (0..=255).collect();
    assert_eq!(outcome(&[(FIN | BINARY, &bytes)]).events, [binary(&bytes)]);
}
