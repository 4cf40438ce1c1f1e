//! The Envoy side of the bridge over the fake Envoy; each test plays the loop.

use std::cell::RefCell;
use std::sync::Arc;

use envoy::fake::{self, Envoy, Request, Stream};
use envoy::{
    BootstrapExtension, EnvoyBootstrap, EnvoyFilterConfig, HttpFilterConfig, Module, ResetReason,
};

use super::*;
use crate::exchange::{HttpVersion, RESPONSE_WINDOW};
use crate::worker::Worker;

thread_local! {
    static PROCESS: RefCell<Option<Arc<Process>>> = const { RefCell::new(None) };
}

struct TestModule;

impl Module for TestModule {
    fn new_http_filter_config(
        &self,
        _: &mut EnvoyFilterConfig<'_>,
        _: &str,
        _: &[u8],
    ) -> Result<Box<dyn HttpFilterConfig>, String> {
        let process = PROCESS.with_borrow(|process| process.clone().expect("a rig"));
        Ok(Box::new(FilterConfig::new(process)))
    }

    fn new_bootstrap_extension(
        &self,
        _: &EnvoyBootstrap<'_>,
        _: &str,
        _: &[u8],
    ) -> Result<Box<dyn BootstrapExtension>, String> {
        Err("not in these tests".into())
    }
}

/// One Envoy worker thread: the test's own.
struct Rig {
    config: fake::FilterConfig,
    envoy: Envoy,
    worker: Arc<Worker>,
    process: Arc<Process>,
}

impl Rig {
    fn new() -> Self {
        let worker = Arc::new(Worker::new().expect("an eventfd"));
        let process = Arc::new(Process::new(vec![worker.clone()]));
        PROCESS.set(Some(process.clone()));
        let envoy = fake::load(&TestModule).expect("loaded");
        let config = envoy.http_filter_config("aiovoy", b"").expect("a config");
        Self {
            config,
            envoy,
            worker,
            process,
        }
    }

    fn get(&self) -> Stream {
        let stream = self.config.stream(Request::get("/"));
        stream.request_headers(true);
        stream
    }

    fn post(&self) -> Stream {
        let stream = self.config.stream(Request::post("/"));
        stream.request_headers(false);
        stream
    }

    /// What has come to the loop by the end of the dispatcher's iteration.
    fn inbound(&self) -> Vec<Inbound> {
        self.envoy.run_events();
        self.waiting()
    }

    /// What lies in the inbox.
    fn waiting(&self) -> Vec<Inbound> {
        let mut batch = Vec::new();
        self.worker.inbox.drain(&mut batch);
        batch
    }

    /// The exchanges whose requests have come to the loop.
    fn started(&self) -> Vec<ExchangeId> {
        ids(&self.inbound())
    }

    fn answer(&self, message: Outbound) {
        self.worker.outbox.post(message);
        self.envoy.run_events();
    }
}

fn ids(messages: &[Inbound]) -> Vec<ExchangeId> {
    let id = |message: &Inbound| match message {
        Inbound::Start(id, _) => Some(*id),
        _ => None,
    };
    messages.iter().filter_map(id).collect()
}

fn start(id: ExchangeId, body: &[u8], end: bool) -> Outbound {
    let mut fields = Fields::default();
    fields.push(b"x-a", b"1");
    let head = ResponseHead {
        status: 201,
        fields,
        close: false,
    };
    Outbound::Start {
        id,
        head,
        body: body.to_vec(),
        end,
    }
}

fn body(id: ExchangeId, data: &[u8], end: bool) -> Outbound {
    Outbound::Body {
        id,
        data: data.to_vec(),
        end,
    }
}

#[test]
fn head_is_copied_with_host_first_and_without_what_envoy_added() {
    let rig = Rig::new();
    let request = Request::get("/a?b")
        .header("x-forwarded-proto", "https")
        .header("cookie", "1")
        .header("cookie", "2")
        .header("x-forwarded-proto", "http");
    let stream = rig.config.stream(request);
    stream.request_headers(true);
    let messages = rig.inbound();
    let [Inbound::Start(_, request)] = messages.as_slice() else {
        panic!("{messages:?}");
    };
    let head = &request.head;
    assert_eq!(head.method.as_slice(), b"GET");
    assert_eq!(head.target, b"/a?b");
    assert_eq!(head.client.as_slice(), b"127.0.0.1:50000");
    assert_eq!(head.server.as_slice(), b"127.0.0.1:8000");
    assert_eq!(head.version, HttpVersion::Http11);
    assert!(!head.tls);
    let fields: Vec<_> = head.fields.iter().collect();
    let expected = [
        (&b"host"[..], &b"localhost"[..]),
        (b"x-forwarded-proto", b"https"),
        (b"cookie", b"1"),
        (b"cookie", b"2"),
    ];
    assert_eq!(fields, expected);
}

#[test]
fn small_body_comes_with_its_head_in_one_message() {
    let rig = Rig::new();
    let stream = rig.post();
    stream.request_body(b"ab", false);
    stream.request_body(b"c", false);
    stream.request_body(b"", true);
    let messages = rig.inbound();
    let [Inbound::Start(_, request)] = messages.as_slice() else {
        panic!("{messages:?}");
    };
    assert_eq!(request.body, b"abc");
    assert!(request.complete);
}

#[test]
fn trailers_end_a_body() {
    let rig = Rig::new();
    let stream = rig.post();
    let id = rig.started()[0];
    stream.request_body(b"a", false);
    stream.request_trailers(&[("x", "1")]);
    let messages = rig.inbound();
    let ends = messages.iter().map(|message| match message {
        Inbound::Body { id: of, data, end } if *of == id => (data.as_slice(), *end),
        message => panic!("{message:?}"),
    });
    let ends: Vec<_> = ends.collect();
    assert_eq!(ends, [(&b"a"[..], false), (b"", true)]);
}

/// Whatever the sizes of pieces and reads: all bytes in order, one end, never more than the
/// window and one piece unread.
#[test]
fn body_goes_through_the_window_whole_and_in_order() {
    let mut seed = 1u32;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as usize % below
    };
    for round in 0..40 {
        let rig = Rig::new_on_this_thread(round);
        let stream = rig.post();
        // So little that draining it makes Envoy read on in the call.
        stream.set_buffer_limit(WINDOW_STEP as u64);
        let (mut sent, mut came, mut ended, mut unread) = (Vec::new(), Vec::new(), false, 0);
        let total = random(3 * REQUEST_WINDOW);
        let largest = 1 + random(REQUEST_WINDOW);
        let mut id = None;
        while !ended {
            if sent.len() < total && random(3) > 0 {
                let piece = (1 + random(largest)).min(total - sent.len());
                let data: Vec<u8> = (0..piece).map(|_| random(256) as u8).collect();
                sent.extend_from_slice(&data);
                stream.client_sends(&data, sent.len() == total);
            } else if total == 0 && id.is_some() {
                stream.client_sends(b"", true);
            }
            for message in rig.inbound() {
                let (data, end) = match message {
                    Inbound::Start(start, request) => {
                        id = Some(start);
                        (request.body, request.complete)
                    }
                    Inbound::Body { data, end, .. } => (data, end),
                    message => panic!("{message:?}"),
                };
                assert!(!ended, "nothing follows the end");
                came.extend_from_slice(&data);
                unread += data.len();
                ended = end;
            }
            assert!(unread <= REQUEST_WINDOW + largest, "{unread}");
            if let Some(id) = id
                && unread >= WINDOW_STEP
                && random(2) == 0
            {
                let read = WINDOW_STEP + random(unread - WINDOW_STEP + 1);
                unread -= read;
                rig.answer(Outbound::Read(id, read));
            }
        }
        // Its disconnect is not for the next round.
        drop(stream);
        rig.inbound();
        assert!(
            came == sent,
            "round {round}: {} of {}",
            came.len(),
            sent.len()
        );
    }
}

impl Rig {
    /// A further rig on a thread that has had one: the streams of the thread stay those of its
    /// first worker.
    fn new_on_this_thread(round: usize) -> Self {
        thread_local!(static FIRST: RefCell<Option<Arc<Worker>>> = const { RefCell::new(None) });
        let mut rig = Self::new();
        if round == 0 {
            FIRST.set(Some(rig.worker.clone()));
        }
        rig.worker = FIRST.with_borrow(|first| first.clone().expect("a first round"));
        rig
    }
}

#[test]
fn response_leaves_as_it_was_posted() {
    let rig = Rig::new();
    let stream = rig.get();
    let id = rig.started()[0];
    rig.answer(start(id, b"a", false));
    rig.answer(body(id, b"b", false));
    assert!(!stream.response().end_of_stream);
    rig.answer(body(id, b"c", true));
    let response = stream.response();
    assert_eq!(response.status(), Some(201));
    assert_eq!(response.header("x-a"), Some(&b"1"[..]));
    assert_eq!(response.body, b"abc");
    assert!(response.end_of_stream && stream.is_complete());
    assert!(
        rig.waiting().is_empty(),
        "an end of our own making is no disconnect"
    );
}

#[test]
fn failure_is_a_500_before_the_head_and_a_reset_after_it() {
    let rig = Rig::new();
    let (before, after) = (rig.get(), rig.get());
    let ids = rig.started();
    rig.answer(Outbound::Fail(ids[0]));
    assert_eq!(before.response().status(), Some(500));
    rig.answer(start(ids[1], b"", false));
    rig.answer(Outbound::Fail(ids[1]));
    assert_eq!(after.response().reset, Some(ResetReason::LocalReset));
    assert!(rig.waiting().is_empty());
}

#[test]
fn room_is_told_in_steps_and_not_to_a_slow_client() {
    let rig = Rig::new();
    let stream = rig.get();
    let id = rig.started()[0];
    rig.answer(start(id, &vec![0; WINDOW_STEP - 1], false));
    assert!(rig.inbound().is_empty());
    rig.answer(body(id, b"x", false));
    assert!(matches!(rig.inbound()[..], [Inbound::Room(of, WINDOW_STEP)] if of == id));
    // Marks nest.
    stream.above_write_buffer_high_watermark();
    stream.above_write_buffer_high_watermark();
    rig.answer(body(id, &vec![0; RESPONSE_WINDOW], false));
    stream.below_write_buffer_low_watermark();
    assert!(rig.inbound().is_empty());
    stream.below_write_buffer_low_watermark();
    assert!(matches!(rig.inbound()[..], [Inbound::Room(of, RESPONSE_WINDOW)] if of == id));
}

#[test]
fn disconnect_is_told_once_and_only_if_the_response_was_cut() {
    let rig = Rig::new();
    // Before the loop has the request: it gets both.
    rig.get().disconnect();
    assert!(
        matches!(rig.inbound()[..], [Inbound::Start(one, _), Inbound::Disconnect(same)] if one == same)
    );
    // While the application works.
    let stream = rig.get();
    let id = rig.started()[0];
    stream.disconnect();
    assert!(matches!(rig.inbound()[..], [Inbound::Disconnect(gone)] if gone == id));
    // What it sends then finds nobody.
    rig.answer(start(id, b"late", true));
    assert!(stream.response().heads.is_empty());
}

#[test]
fn message_for_an_old_stream_does_not_reach_the_new_one_in_its_place() {
    let rig = Rig::new();
    let old = rig.get();
    let old_id = rig.started()[0];
    old.disconnect();
    rig.inbound();
    let new = rig.get();
    let new_id = rig.started()[0];
    assert_ne!(old_id, new_id);
    rig.answer(start(old_id, b"not yours", true));
    assert!(new.response().heads.is_empty());
    rig.answer(start(new_id, b"yours", true));
    assert_eq!(new.response().body, b"yours");
}

#[test]
fn everything_in_flight_is_counted_out_again() {
    let rig = Rig::new();
    let answered = rig.get();
    let id = rig.started()[0];
    assert_eq!(rig.process.in_flight.count(), 2);
    rig.answer(start(id, b"", true));
    assert!(answered.is_complete());
    assert_eq!(
        rig.process.in_flight.count(),
        1,
        "the call has not returned"
    );
    rig.process.in_flight.return_call();
    rig.get().disconnect();
    assert_eq!(ids(&rig.inbound()).len(), 1);
    rig.process.in_flight.return_call();
    assert_eq!(rig.process.in_flight.count(), 0);
}

#[test]
fn one_event_serves_all_posts_of_an_iteration() {
    let rig = Rig::new();
    let streams: Vec<_> = (0..10).map(|_| rig.get()).collect();
    assert_eq!(rig.envoy.run_events(), 1);
    let ids = ids(&rig.waiting());
    assert_eq!(ids.len(), 10);
    for id in &ids {
        rig.worker.outbox.post(start(*id, b"x", true));
    }
    // The leader ends in its own turn, and each heir in the same.
    rig.envoy.run_events();
    assert!(streams.iter().all(Stream::is_complete));
}

#[test]
fn nothing_is_stranded_when_the_leader_ends_before_its_event() {
    let rig = Rig::new();
    let (leader, heir) = (rig.get(), rig.get());
    // Both requests are gathered, and their event is on its way to the leader.
    leader.disconnect();
    let messages = rig.inbound();
    let started = ids(&messages);
    assert_eq!(started.len(), 2);
    assert_eq!(messages.len(), 3, "{messages:?}");
    // The same towards Envoy.
    let third = rig.get();
    let third_id = rig.started()[0];
    rig.worker.outbox.post(start(third_id, b"3", true));
    heir.disconnect();
    assert!(matches!(rig.inbound()[..], [Inbound::Disconnect(_)]));
    assert_eq!(third.response().body, b"3");
}

#[test]
fn last_stream_leaves_its_messages_to_the_loop() {
    let rig = Rig::new();
    rig.get().disconnect();
    // No stream is left to get an event.
    assert_eq!(rig.waiting().len(), 2);
}

#[test]
fn requests_that_a_loop_which_ended_cannot_take_are_refused() {
    let rig = Rig::new();
    rig.worker.inbox.close();
    let stream = rig.get();
    rig.envoy.run_events();
    assert_eq!(stream.response().status(), Some(503));
    assert_eq!(stream.go_away(), Some(true));
    assert_eq!(rig.process.in_flight.count(), 0);
}

/// A loop thread answers while streams come and go, a third of them by disconnects: every stream
/// that stays gets its answer, whoever leads at the moment.
#[test]
fn answers_arrive_however_posts_and_lead_interleave() {
    const STREAMS: usize = 3_000;
    let rig = Rig::new();
    let (requests, to_answer) = std::sync::mpsc::channel::<ExchangeId>();
    let worker = rig.worker.clone();
    let loop_thread = std::thread::spawn(move || {
        for id in to_answer {
            worker.outbox.post(start(id, b"x", false));
            worker.outbox.post(body(id, b"y", true));
        }
    });
    let mut open: Vec<Stream> = Vec::new();
    for number in 0..STREAMS {
        open.push(rig.get());
        for id in rig.started() {
            requests.send(id).expect("the loop listens");
        }
        if number % 3 == 0 {
            let gone = open.swap_remove(number % open.len());
            if !gone.is_complete() {
                gone.disconnect();
            }
        }
        if open.len() > 20 {
            let waiting = open.swap_remove(number % open.len());
            rig.envoy.run_until(|| {
                ids(&rig.waiting()).into_iter().for_each(|id| {
                    requests.send(id).expect("the loop listens");
                });
                waiting.is_complete()
            });
            assert_eq!(waiting.response().body, b"xy");
        }
    }
    rig.envoy.run_until(|| open.iter().all(Stream::is_complete));
    drop(requests);
    loop_thread.join().expect("the loop thread");
}
