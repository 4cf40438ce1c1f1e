//! Requests on their way through the router: the front's stream, and those that come out behind it.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use envoy::fake::{self, Request, Stream};
use envoy::{
    BootstrapExtension, DataStatus, EnvoyBootstrap, EnvoyFilter, EnvoyFilterConfig, HeadersStatus,
    HttpFilter, HttpFilterConfig, Module,
};
use upstream::router::{Front, Gate, Handover, Lost, NUMBER, UnderWay};

thread_local! {
    static HANDOVER: Rc<Handover> = Rc::default();
    /// What the second streams have found: the path of the first.
    static TAKEN: RefCell<Vec<Result<String, Lost>>> = const { RefCell::new(Vec::new()) };
    /// Whether those that were cut off hold it for Envoy's will.
    static GIVEN_UP: RefCell<Vec<bool>> = const { RefCell::new(Vec::new()) };
    static PASSED: Cell<usize> = const { Cell::new(0) };
    /// What the gate's own hooks were told.
    static REFUSED: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// Lets all in but `/closed`. Time is up for `/slow`.
#[derive(Default)]
struct Porter(RefCell<String>);

impl HttpFilter for Porter {
    fn on_request_headers(&self, _: &mut EnvoyFilter<'_>, _: bool) -> HeadersStatus {
        unreachable!("the front asks to admit")
    }

    fn on_request_body(&self, _: &mut EnvoyFilter<'_>, _: bool) -> DataStatus {
        REFUSED.with_borrow_mut(|told| told.push("body"));
        DataStatus::StopIterationNoBuffer
    }

    fn on_stream_complete(&self, _: &EnvoyFilter<'_>) {
        REFUSED.with_borrow_mut(|told| told.push("complete"));
    }
}

impl Gate for Porter {
    fn admit(&self, envoy: &mut EnvoyFilter<'_>, _: bool) -> bool {
        *self.0.borrow_mut() = header(envoy, ":path");
        *self.0.borrow() != "/closed"
    }

    fn is_given_up(&self, _: &EnvoyFilter<'_>) -> bool {
        *self.0.borrow() == "/slow"
    }

    fn passed(&self, _: &EnvoyFilter<'_>, _: &UnderWay) {
        PASSED.set(PASSED.get() + 1);
    }
}

fn header(envoy: &EnvoyFilter<'_>, name: &str) -> String {
    let value = envoy.request_header(name).unwrap_or(b"none");
    String::from_utf8_lossy(value).into_owned()
}

/// A stream behind the router: takes what was handed over, and closes the client's connection.
#[derive(Default)]
struct Behind(OnceCell<Rc<UnderWay>>);

impl HttpFilter for Behind {
    fn on_request_headers(&self, envoy: &mut EnvoyFilter<'_>, _: bool) -> HeadersStatus {
        let under_way = HANDOVER.with(|handover| handover.take(envoy));
        let taken = under_way.map(|under_way| {
            let path = under_way.front().with(envoy, |front| {
                front.send_go_away_and_close(true);
                header(front, ":path")
            });
            let suffix = if under_way.authority_is_empty() {
                "!"
            } else {
                ""
            };
            let _ = self.0.set(under_way);
            path.expect("it is live") + suffix
        });
        TAKEN.with_borrow_mut(|all| all.push(taken));
        HeadersStatus::StopIteration
    }

    fn on_stream_complete(&self, _: &EnvoyFilter<'_>) {
        if let Some(under_way) = self.0.get() {
            GIVEN_UP.with_borrow_mut(|all| all.push(under_way.is_given_up()));
        }
    }
}

struct Both;

struct Config(bool);

impl HttpFilterConfig for Config {
    fn new_filter(&self, _: &EnvoyFilter<'_>) -> Option<Rc<dyn HttpFilter>> {
        if self.0 {
            let handover = HANDOVER.with(Rc::clone);
            Some(Rc::new(Front::new(Rc::<Porter>::default(), handover)))
        } else {
            Some(Rc::<Behind>::default())
        }
    }
}

impl Module for Both {
    fn new_http_filter_config(
        &self,
        _: &mut EnvoyFilterConfig<'_>,
        name: &str,
        _: &[u8],
    ) -> Result<Box<dyn HttpFilterConfig>, String> {
        Ok(Box::new(Config(name == "front")))
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

struct Path {
    front: fake::FilterConfig,
    behind: fake::FilterConfig,
    _envoy: fake::Envoy,
}

impl Path {
    fn new() -> Self {
        let envoy = fake::load(&Both).expect("the module loads");
        let config = |name| {
            envoy
                .http_filter_config(name, b"")
                .expect("a configuration")
        };
        Self {
            front: config("front"),
            behind: config("behind"),
            _envoy: envoy,
        }
    }

    /// What the router makes of `front`: a stream with the same number.
    fn route(&self, front: &Stream) -> Stream {
        let numbers = front.request_header(NUMBER);
        let request = numbers.iter().fold(Request::get("/"), |request, number| {
            request.header(NUMBER, number)
        });
        let stream = self.behind.stream(request);
        stream.request_headers(true);
        stream
    }
}

fn taken() -> Vec<Result<String, Lost>> {
    TAKEN.take()
}

fn found(path: &str) -> Result<String, Lost> {
    Ok(path.to_owned())
}

fn under_way() -> usize {
    HANDOVER.with(|handover| handover.len())
}

#[test]
fn second_stream_finds_the_first() {
    let path = Path::new();
    let front = path.front.stream(Request::get("/a"));
    assert_eq!(front.request_headers(true), HeadersStatus::Continue);
    let behind = path.route(&front);
    assert_eq!(taken(), [found("/a")]);
    assert_eq!((front.go_away(), behind.go_away()), (Some(true), None));
    drop(behind);
    assert_eq!(under_way(), 1);
    drop(front);
    assert_eq!((under_way(), PASSED.get()), (0, 1));
    assert!(REFUSED.take().is_empty());
}

#[test]
fn retry_and_mirror_find_it_again() {
    let path = Path::new();
    let front = path.front.stream(Request::get("/a"));
    front.request_headers(true);
    let first = path.route(&front);
    let _second = path.route(&front);
    drop(first);
    let _third = path.route(&front);
    assert_eq!(taken(), [found("/a"), found("/a"), found("/a")]);
}

#[test]
fn each_request_has_a_number_of_its_own_for_ever() {
    let path = Path::new();
    let [one, two] = ["/1", "/2"].map(|target| {
        let front = path.front.stream(Request::get(target));
        front.request_headers(true);
        front
    });
    let _other = path.route(&two);
    let late = path.front.stream(Request::get("/3"));
    late.request_headers(true);
    let number = one.request_header(NUMBER);
    drop(one);
    let request = Request::get("/").header(NUMBER, &number[0]);
    path.behind.stream(request).request_headers(true);
    assert_eq!(taken(), [found("/2"), Err(Lost::Over)]);
}

#[test]
fn number_of_a_client_is_replaced() {
    let path = Path::new();
    let victim = path.front.stream(Request::get("/victim"));
    victim.request_headers(true);
    let number = victim.request_header(NUMBER).remove(0);
    let request = Request::get("/thief").header(NUMBER, &number);
    let thief = path.front.stream(request.header(NUMBER, &number));
    thief.request_headers(true);
    let _behind = path.route(&thief);
    assert_eq!(taken(), [found("/thief")]);
}

#[test]
fn who_brings_no_number_gets_nothing() {
    let path = Path::new();
    for request in [
        Request::get("/"),
        Request::get("/").header(NUMBER, "0"),
        Request::get("/").header(NUMBER, "7"),
        Request::get("/").header(NUMBER, "x"),
        Request::get("/").header(NUMBER, ""),
    ] {
        path.behind.stream(request).request_headers(true);
    }
    assert_eq!(taken(), vec![Err(Lost::Unknown); 5]);
}

#[test]
fn who_has_cut_off_the_second_stream_is_known() {
    let path = Path::new();
    for target in ["/slow", "/left"] {
        let front = path.front.stream(Request::get(target));
        front.request_headers(true);
        let [try_again, last] = [path.route(&front), path.route(&front)];
        // The router has given up this try, and has another one.
        drop(try_again);
        drop(front);
        drop(last);
    }
    assert_eq!(GIVEN_UP.take(), [true, true, true, false]);
}

#[test]
fn what_is_not_let_in_stays_with_the_gate() {
    let path = Path::new();
    let front = path.front.stream(Request::post("/closed"));
    assert_eq!(front.request_headers(false), HeadersStatus::StopIteration);
    assert_eq!(
        front.request_body(b"a", true),
        DataStatus::StopIterationNoBuffer
    );
    assert!(front.request_header(NUMBER).is_empty());
    drop(front);
    assert_eq!(REFUSED.take(), ["body", "complete"]);
    assert_eq!((under_way(), PASSED.get()), (0, 0));
}

#[test]
fn body_of_what_is_let_in_goes_on() {
    let path = Path::new();
    let front = path.front.stream(Request::post("/a"));
    front.request_headers(false);
    assert_eq!(front.request_body(b"a", true), DataStatus::Continue);
    assert!(REFUSED.take().is_empty());
}

#[test]
fn what_http_2_has_no_form_for_stays_in_front() {
    let path = Path::new();
    let front = path.front.stream(Request::post("/a").authority(""));
    front.request_headers(false);
    assert_eq!(front.request_header(":authority"), [b"-"]);
    let _behind = path.route(&front);
    assert_eq!(taken(), [found("/a!")]);
    front.request_trailers(&[("host", "x"), ("x-sum", "1"), ("content-length", "7")]);
    assert_eq!(front.request_trailer_names(), ["x-sum"]);
}
