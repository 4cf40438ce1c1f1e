//! Events from other threads.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use envoy::fake::Request;
use envoy::{HeadersStatus, Scheduler};

use crate::support::{Journal, Script, scripted};

#[test]
fn commits_from_other_threads_arrive_in_order() {
    let journal = Journal::default();
    let done = Rc::new(Cell::new(false));
    let last = Rc::clone(&done);
    let (envoy, config) = scripted(Script {
        journal: journal.clone(),
        request_headers: Box::new(|envoy, _| {
            let scheduler = envoy.new_scheduler();
            thread::spawn(move || {
                for event in 1..=3 {
                    scheduler.commit(event);
                }
            });
            HeadersStatus::StopIteration
        }),
        scheduled: Box::new(move |_, event| last.set(event == 3)),
        ..Script::default()
    });
    let stream = config.stream(Request::get("/"));
    stream.request_headers(true);
    envoy.run_until(|| done.get());
    assert_eq!(
        journal.take(),
        [
            "request_headers end=true",
            "scheduled 1",
            "scheduled 2",
            "scheduled 3"
        ]
    );
}

#[test]
fn commit_is_never_inline() {
    let journal = Journal::default();
    let committed = journal.clone();
    let (envoy, config) = scripted(Script {
        journal: journal.clone(),
        request_headers: Box::new(move |envoy, _| {
            envoy.new_scheduler().commit(u64::MAX);
            committed.add("committed");
            HeadersStatus::StopIteration
        }),
        ..Script::default()
    });
    let stream = config.stream(Request::get("/"));
    stream.request_headers(true);
    assert_eq!(envoy.run_events(), 1);
    assert_eq!(
        journal.take(),
        [
            "request_headers end=true",
            "committed",
            "scheduled 18446744073709551615"
        ]
    );
}

#[test]
fn outlives_the_stream_on_any_thread() {
    let scheduler = Arc::new(std::sync::Mutex::new(None::<Scheduler>));
    let keep = Arc::clone(&scheduler);
    let journal = Journal::default();
    let (envoy, config) = scripted(Script {
        journal: journal.clone(),
        request_headers: Box::new(move |envoy, _| {
            *keep.lock().unwrap() = Some(envoy.new_scheduler());
            HeadersStatus::StopIteration
        }),
        ..Script::default()
    });
    let stream = config.stream(Request::get("/"));
    stream.request_headers(true);
    stream.disconnect();
    envoy.run_events();
    journal.take();
    let other = thread::spawn(move || {
        let scheduler = scheduler.lock().unwrap().take().unwrap();
        scheduler.commit(1);
    });
    other.join().unwrap();
    envoy.run_events();
    assert_eq!(journal.take(), Vec::<String>::new());
}
