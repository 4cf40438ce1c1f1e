//! Reaching one stream from the hooks of another.

use std::cell::RefCell;
use std::rc::Rc;

use envoy::fake::Request;
use envoy::{EnvoyFilter, FilterRef, Header, HeadersStatus};

use crate::support::{Journal, Script, scripted};

/// Streams that leave a reference to themselves in `refs`; the one for `/lead` acts on the
/// first of them when scheduled.
fn leading(
    act: impl Fn(&FilterRef, &mut EnvoyFilter<'_>) + 'static,
    journal: &Journal,
) -> (envoy::fake::Envoy, envoy::fake::FilterConfig) {
    let refs = Rc::new(RefCell::new(Vec::<FilterRef>::new()));
    let push = Rc::clone(&refs);
    scripted(Script {
        journal: journal.clone(),
        request_headers: Box::new(move |envoy, _| {
            push.borrow_mut().push(envoy.filter_ref());
            if envoy.request_header(":path") == Some(b"/lead") {
                envoy.new_scheduler().commit(0);
            }
            HeadersStatus::StopIteration
        }),
        scheduled: Box::new(move |envoy, _| {
            let first = refs.borrow()[0].clone();
            act(&first, envoy);
        }),
        ..Script::default()
    })
}

#[test]
fn acts_on_another_stream() {
    let journal = Journal::default();
    let (envoy, config) = leading(
        |first, envoy| {
            let path = first.with(envoy, |envoy| {
                let path = envoy.request_header(":path").map(<[u8]>::to_vec);
                envoy.send_response_headers(&[Header::new(b":status", b"200")], false);
                envoy.send_response_data(b"from the lead", true);
                path
            });
            assert_eq!(path, Some(Some(b"/first".to_vec())));
            assert_eq!(envoy.request_header(":path"), Some(&b"/lead"[..]));
        },
        &journal,
    );
    let first = config.stream(Request::get("/first"));
    first.request_headers(true);
    let lead = config.stream(Request::get("/lead"));
    lead.request_headers(true);
    envoy.run_events();
    assert_eq!(first.response().body, b"from the lead");
    assert!(first.is_complete());
    assert!(!lead.is_complete());
}

#[test]
fn acts_on_its_own_stream() {
    let journal = Journal::default();
    let (envoy, config) = leading(
        |first, envoy| {
            first
                .with(envoy, |envoy| envoy.send_response(200, &[], b"", ""))
                .unwrap();
            assert_eq!(envoy.request_header(":path"), None);
        },
        &journal,
    );
    let lead = config.stream(Request::get("/lead"));
    lead.request_headers(true);
    envoy.run_events();
    assert_eq!(lead.response().status(), Some(200));
}

#[test]
fn is_empty_once_the_stream_is_destroyed() {
    let journal = Journal::default();
    let (envoy, config) = leading(
        |first, envoy| assert!(first.with(envoy, |_| ()).is_none()),
        &journal,
    );
    let first = config.stream(Request::get("/first"));
    first.request_headers(true);
    drop(first);
    let lead = config.stream(Request::get("/lead"));
    lead.request_headers(true);
    envoy.run_events();
    assert!(!lead.is_complete());
}

#[test]
fn reads_from_hooks_that_cannot_act() {
    let first = Rc::new(RefCell::new(None::<FilterRef>));
    let keep = Rc::clone(&first);
    let journal = Journal::default();
    let seen = journal.clone();
    let (envoy, config) = scripted(Script {
        request_headers: Box::new(move |envoy, _| {
            keep.borrow_mut().get_or_insert_with(|| envoy.filter_ref());
            HeadersStatus::StopIteration
        }),
        scheduled: Box::new(|envoy, _| envoy.send_response(200, &[], b"", "")),
        stream_complete: Box::new(move |envoy| {
            let first = first.borrow();
            let path = first.as_ref().and_then(|first| {
                first.read(envoy, |first| {
                    first.new_scheduler().commit(0);
                    first.request_header(":path").map(<[u8]>::to_vec)
                })
            });
            seen.add(format_args!("{path:?}"));
        }),
        ..Script::default()
    });
    let (first, second) = (
        config.stream(Request::get("/1")),
        config.stream(Request::get("/2")),
    );
    first.request_headers(true);
    second.request_headers(true);
    second.disconnect();
    assert_eq!(journal.take(), [format!("{:?}", Some(Some(b"/1")))]);
    assert!(!first.is_complete());
    envoy.run_events();
    assert!(first.is_complete());
    drop(first);
    journal.take();
    drop(config.stream(Request::get("/3")));
    assert_eq!(journal.take(), ["None"]);
}

/// Streams of which the first has its response begun when another one ends.
fn beginning() -> (envoy::fake::Envoy, envoy::fake::FilterConfig) {
    let first = Rc::new(RefCell::new(None::<FilterRef>));
    let keep = Rc::clone(&first);
    scripted(Script {
        request_headers: Box::new(move |envoy, _| {
            keep.borrow_mut().get_or_insert_with(|| envoy.filter_ref());
            if envoy.request_header(":path") == Some(b"/answered") {
                envoy.send_response_headers(&[Header::new(b":status", b"200")], false);
            }
            HeadersStatus::StopIteration
        }),
        stream_complete: Box::new(move |envoy| {
            if let Some(first) = &*first.borrow() {
                first.begin_response(envoy, 499);
            }
        }),
        ..Script::default()
    })
}

#[test]
fn response_of_another_stream_is_begun_where_none_must_end() {
    let (_envoy, config) = beginning();
    let [first, second] = ["/1", "/2"].map(|path| config.stream(Request::get(path)));
    first.request_headers(true);
    second.request_headers(true);
    second.disconnect();
    assert_eq!(first.response().status(), Some(499));
    assert!(!first.is_complete());
}

#[test]
fn response_that_has_begun_is_left_as_it_is() {
    let (_envoy, config) = beginning();
    let [first, second] = ["/answered", "/2"].map(|path| config.stream(Request::get(path)));
    first.request_headers(true);
    second.request_headers(true);
    second.disconnect();
    assert_eq!(first.response().heads.len(), 1);
    assert_eq!(first.response().status(), Some(200));
}

#[test]
fn response_is_not_begun_in_a_hook_of_its_own_stream() {
    let (envoy, config) = beginning();
    let first = config.stream(Request::get("/1"));
    first.request_headers(true);
    first.disconnect();
    let panicked = |record: &envoy::fake::LogRecord| record.message.contains("its own stream");
    assert!(envoy.logs().iter().any(panicked));
    assert_eq!(first.response().heads.len(), 0);
}

#[test]
fn panic_ends_the_stream_acted_on_and_no_other() {
    let journal = Journal::default();
    let (envoy, config) = leading(
        |first, envoy| {
            let done = first.with(envoy, |_| panic!("broken"));
            assert_eq!(done, None::<()>);
        },
        &journal,
    );
    let first = config.stream(Request::get("/first"));
    first.request_headers(true);
    let lead = config.stream(Request::get("/lead"));
    lead.request_headers(true);
    envoy.run_events();
    assert_eq!(first.response().status(), Some(500));
    assert!(!lead.is_complete());
}
