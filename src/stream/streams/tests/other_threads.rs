//! Posts of other threads at the worst of moments.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use envoy::fake::Stream;
use envoy::{
    BootstrapExtension, DataStatus, EnvoyBootstrap, EnvoyFilter, EnvoyFilterConfig, HeadersStatus,
    HttpFilter, HttpFilterConfig, Module, TrailersStatus,
};

use super::requested;
use crate::envoy_thread::{self, EnvoyThread, PlayedLoop};
use crate::exchange::Process;
use crate::exchange::{Failure, Inbound, Outbound};
use crate::stream::filter::{FilterConfig, Place};

#[test]
fn workers_have_streams_of_their_own() {
    let process = envoy_thread::new_process(2);
    let threads = [0, 1].map(|index| {
        let process = process.clone();
        thread::spawn(move || {
            let envoy = EnvoyThread::start(&process, index);
            let mut played = PlayedLoop::new(&process, index);
            let stream = envoy.get();
            envoy.run_events();
            assert_eq!(played.take(), [r#"0: start "" end"#]);
            let body = format!("of worker {index}");
            played.answer(0, &body);
            envoy.run_events();
            assert_eq!(stream.response().body, body.as_bytes());
            played.return_calls();
        })
    });
    for thread in threads {
        thread.join().expect("the worker's part of the test passes");
    }
    assert_eq!(process.in_flight.count(), 0);
}

/// When a poster that is another thread may come in between.
#[derive(Clone, Copy, PartialEq)]
enum Moment {
    /// Envoy has ended the stream, and the bridge does not know it.
    BeforeCompletion,
    /// The bridge has done what it does about it.
    AfterCompletion,
}

thread_local!(static POSTER: RefCell<Option<Poster>> = const { RefCell::new(None) });

type Poster = Box<dyn Fn(Moment)>;

/// The bridge's filter, with [`POSTER`] around the end of each stream.
struct Interposed;

struct InterposedConfig(FilterConfig);

struct InterposedFilter(Rc<dyn HttpFilter>);

impl Module for Interposed {
    fn new_http_filter_config(
        &self,
        _: &mut EnvoyFilterConfig<'_>,
        _: &str,
        _: &[u8],
    ) -> Result<Box<dyn HttpFilterConfig>, String> {
        let process = PROCESS.take().expect("the test has one");
        Ok(Box::new(InterposedConfig(FilterConfig::new(
            process,
            Place::Direct,
        ))))
    }

    fn new_bootstrap_extension(
        &self,
        _: &EnvoyBootstrap<'_>,
        _: &str,
        _: &[u8],
    ) -> Result<Box<dyn BootstrapExtension>, String> {
        Err("none".to_owned())
    }
}

thread_local!(static PROCESS: RefCell<Option<Arc<Process>>> = const { RefCell::new(None) });

impl HttpFilterConfig for InterposedConfig {
    fn new_filter(&self, envoy: &EnvoyFilter<'_>) -> Option<Rc<dyn HttpFilter>> {
        let filter = self.0.new_filter(envoy)?;
        Some(Rc::new(InterposedFilter(filter)))
    }
}

impl HttpFilter for InterposedFilter {
    fn on_request_headers(&self, envoy: &mut EnvoyFilter<'_>, end: bool) -> HeadersStatus {
        self.0.on_request_headers(envoy, end)
    }

    fn on_request_body(&self, envoy: &mut EnvoyFilter<'_>, end: bool) -> DataStatus {
        self.0.on_request_body(envoy, end)
    }

    fn on_request_trailers(&self, envoy: &mut EnvoyFilter<'_>) -> TrailersStatus {
        self.0.on_request_trailers(envoy)
    }

    fn on_scheduled(&self, envoy: &mut EnvoyFilter<'_>, event: u64) {
        self.0.on_scheduled(envoy, event);
    }

    fn on_stream_complete(&self, envoy: &EnvoyFilter<'_>) {
        let poster = POSTER.take();
        let post = |moment| poster.iter().for_each(|poster| poster(moment));
        post(Moment::BeforeCompletion);
        self.0.on_stream_complete(envoy);
        post(Moment::AfterCompletion);
    }
}

/// Runs `test` on threads of its own for each moment at which its poster is called. That is once,
/// around the end of the next stream.
fn at_each_moment(test: fn(&dyn Fn(Poster), EnvoyThread, PlayedLoop)) {
    for moment in [Moment::BeforeCompletion, Moment::AfterCompletion] {
        let run = thread::spawn(move || {
            let process = envoy_thread::new_process(1);
            PROCESS.set(Some(process.clone()));
            let played = PlayedLoop::new(&process, 0);
            let envoy = EnvoyThread::load(&Interposed, process, 0);
            let set = |poster: Poster| {
                POSTER.set(Some(Box::new(move |now| {
                    if now == moment {
                        poster(now);
                    }
                })));
            };
            test(&set, envoy, played);
        });
        run.join().expect("the test passes");
    }
}

#[test]
fn a_post_around_the_leaders_end_is_delivered() {
    at_each_moment(|at_completion, envoy, mut played| {
        let [leader, heir] = [(); 2].map(|()| envoy.get());
        envoy.run_events();
        played.take();
        at_completion(Box::new(move |_| played.answer(1, "ab")));
        leader.disconnect();
        envoy.run_events();
        assert_eq!(heir.response().body, b"ab");
    });
}

#[test]
fn a_post_around_the_leaders_end_inside_its_turn_is_delivered() {
    at_each_moment(|at_completion, envoy, mut played| {
        let [leader, heir] = [(); 2].map(|()| envoy.get());
        envoy.run_events();
        played.take();
        played.answer(0, "");
        at_completion(Box::new(move |_| played.answer(1, "ab")));
        envoy.run_events();
        assert!(leader.is_complete());
        assert_eq!(heir.response().body, b"ab");
    });
}

#[test]
fn a_post_around_the_last_streams_end_does_not_block_the_next() {
    at_each_moment(|at_completion, envoy, mut played| {
        let last = envoy.get();
        envoy.run_events();
        played.take();
        let worker = played.worker.clone();
        at_completion(Box::new(move |_| played.answer(0, "too late")));
        last.disconnect();
        envoy.run_events();
        let next = envoy.get();
        envoy.run_events();
        assert!(next.response().heads.is_empty());
        let id = worker
            .inbox
            .take()
            .iter()
            .find_map(|message| match message {
                Inbound::Start(id, _) => Some(*id),
                _ => None,
            });
        worker
            .outbox
            .post(Outbound::Fail(id.expect("the next"), Failure::Application));
        envoy.run_events();
        assert_eq!(next.response().status(), Some(500));
    });
}

/// Waits for what another thread does.
#[track_caller]
fn wait_until(done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        // Long enough for any thread of a test on a busy machine.
        assert!(begun.elapsed() < Duration::from_secs(10), "it never came");
        thread::yield_now();
    }
}

/// With the next test: whichever of poster and new leader comes first, one of them sees the other.
#[test]
fn the_outbox_learns_of_a_leader_before_it_is_looked_at() {
    let process = envoy_thread::new_process(1);
    let worker = process.worker(0);
    let (tell, locked) = mpsc::channel();
    let looker = thread::spawn(move || {
        worker.outbox.while_messages_are_locked(|| {
            tell.send(()).expect("the test waits for it");
            wait_until(|| worker.outbox.has_waker());
        });
    });
    locked.recv().expect("the outbox is locked");
    let envoy = EnvoyThread::start(&process, 0);
    let _leader = envoy.get();
    looker.join().expect("the leader was set before");
}

#[test]
fn a_message_is_in_the_outbox_before_its_poster_looks_for_the_leader() {
    let (envoy, played, [stream]) = requested();
    let outbox = &played.worker.outbox;
    let poster = outbox.while_waker_is_locked(|| {
        let poster = thread::spawn({
            let (worker, id) = (played.worker.clone(), played.exchanges[0].id);
            move || worker.outbox.post(Outbound::Fail(id, Failure::Application))
        });
        wait_until(|| outbox.has_messages());
        poster
    });
    poster.join().expect("it has posted");
    envoy.run_events();
    assert_eq!(stream.response().status(), Some(500));
}

/// A loop thread that answers every request in three posts, until it is told to cancel all.
fn serve(mut played: PlayedLoop) {
    loop {
        played.sleep();
        let before = played.exchanges.len();
        let lines = played.take();
        for exchange in before..played.exchanges.len() {
            played.start(exchange, "a", false);
            played.body(exchange, "b", false);
            played.body(exchange, "c", true);
        }
        played.return_calls();
        if lines.iter().any(|line| line == "cancel all") {
            return;
        }
    }
}

#[test]
fn no_message_is_lost_while_streams_come_and_go() {
    const STEPS: u32 = 30_000;
    let process = envoy_thread::new_process(1);
    let played = PlayedLoop::new(&process, 0);
    let loop_thread = thread::spawn(move || serve(played));
    let envoy = EnvoyThread::start(&process, 0);
    let mut live: Vec<Stream> = Vec::new();
    let mut answered = 0;
    for step in 0..STEPS {
        // In no order that the loop could keep pace with.
        match step * 7 % 11 {
            0..=3 => live.push(envoy.get()),
            4 if !live.is_empty() => {
                // As often the leader as not.
                let place = step as usize % live.len();
                drop(live.remove(place));
            }
            5 if live.len() > 4 => envoy.run_until(|| live.iter().any(Stream::is_complete)),
            _ => drop(envoy.run_events()),
        }
        live.retain(|stream| {
            if stream.is_complete() {
                assert_eq!(stream.response().body, b"abc");
                answered += 1;
            }
            !stream.is_complete()
        });
    }
    envoy.run_until(|| live.iter().all(Stream::is_complete));
    for stream in live.drain(..) {
        assert_eq!(stream.response().body, b"abc");
        answered += 1;
    }
    // Of eleven steps four bring a stream and one takes one away.
    assert!(answered > STEPS / 5);
    let cancelled = process
        .worker(0)
        .inbox
        .post_all(&mut vec![Inbound::CancelAll]);
    assert!(cancelled.is_ok());
    loop_thread.join().expect("the loop has been in order");
    assert_eq!(envoy.in_flight(), 0);
}

#[test]
fn a_post_that_races_with_the_leaders_end_is_delivered() {
    const ROUNDS: usize = 3_000;
    let (envoy, mut played) = envoy_thread::start();
    let (round, worker) = (Arc::new(AtomicUsize::new(0)), played.worker.clone());
    let (give, messages) = mpsc::channel::<Outbound>();
    let poster = thread::spawn({
        let round = round.clone();
        move || {
            for (number, message) in messages.into_iter().enumerate() {
                let mut spins = 0;
                while round.load(Ordering::Acquire) <= number {
                    spins += 1;
                    // Where there is but one processor, the other thread needs it.
                    if spins % 10_000 == 0 {
                        thread::yield_now();
                    }
                    std::hint::spin_loop();
                }
                // Sooner or later in the other thread's work.
                for _ in 0..number % 256 {
                    std::hint::spin_loop();
                }
                worker.outbox.post(message);
            }
        }
    });
    for number in 0..ROUNDS {
        let [leader, heir] = [(); 2].map(|()| envoy.get());
        envoy.run_events();
        played.take();
        let id = played.exchanges[2 * number + 1].id;
        let ends_itself = number % 2 == 0;
        if ends_itself {
            played.answer(2 * number, "");
        }
        give.send(Outbound::Fail(id, Failure::Application))
            .expect("the poster lives");
        round.fetch_add(1, Ordering::Release);
        if ends_itself {
            envoy.run_events();
        } else {
            leader.disconnect();
        }
        envoy.run_until(|| heir.is_complete());
    }
    drop(give);
    poster.join().expect("the poster ends");
}
