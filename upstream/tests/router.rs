//! Requests on their way through the router: the front's stream, and those that come out behind it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use envoy::fake::{self, Request, Stream};
use envoy::{
    BootstrapExtension, DataStatus, EnvoyBootstrap, EnvoyFilter, EnvoyFilterConfig, HeadersStatus,
    HttpFilter, HttpFilterConfig, Module,
};
use upstream::router::{Front, Gate, Handover, NUMBER};

thread_local! {
    static HANDOVER: Rc<Handover<Vec<u8>>> = Rc::default();
    /// What the second streams have got.
    static TAKEN: RefCell<Vec<Option<Option<Vec<u8>>>>> = const { RefCell::new(Vec::new()) };
    static PASSED: Cell<usize> = const { Cell::new(0) };
    /// What the gate's own hooks were told.
    static REFUSED: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// Lets all in but `/closed`; the head is the path.
struct Porter;

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
    type Head = Vec<u8>;

    fn admit(&self, envoy: &mut EnvoyFilter<'_>, _: bool) -> Option<Vec<u8>> {
        let path = envoy.request_header(":path")?.to_vec();
        (path != b"/closed").then_some(path)
    }

    fn passed(&self, _: &EnvoyFilter<'_>) {
        PASSED.set(PASSED.get() + 1);
    }
}

/// A stream behind the router: takes what was handed over, and closes the client's connection.
struct Behind;

impl HttpFilter for Behind {
    fn on_request_headers(&self, envoy: &mut EnvoyFilter<'_>, _: bool) -> HeadersStatus {
        let handed = HANDOVER.with(|handover| handover.take(envoy));
        if let Some(handed) = &handed {
            handed
                .front
                .with(envoy, |front| front.send_go_away_and_close(true));
        }
        TAKEN.with_borrow_mut(|taken| taken.push(handed.map(|handed| handed.head)));
        HeadersStatus::StopIteration
    }
}

struct Both;

struct Config(bool);

impl HttpFilterConfig for Config {
    fn new_filter(&self, _: &EnvoyFilter<'_>) -> Option<Rc<dyn HttpFilter>> {
        if self.0 {
            let handover = HANDOVER.with(Rc::clone);
            Some(Rc::new(Front::new(Rc::new(Porter), handover)))
        } else {
            Some(Rc::new(Behind))
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

fn taken() -> Vec<Option<Option<Vec<u8>>>> {
    TAKEN.take()
}

fn under_way() -> usize {
    HANDOVER.with(|handover| handover.len())
}

#[test]
fn head_and_connection_are_handed_over() {
    let path = Path::new();
    let front = path.front.stream(Request::get("/a"));
    assert_eq!(front.request_headers(true), HeadersStatus::Continue);
    let behind = path.route(&front);
    assert_eq!(taken(), [Some(Some(b"/a".to_vec()))]);
    assert_eq!((front.go_away(), behind.go_away()), (Some(true), None));
    drop(behind);
    assert_eq!(under_way(), 1);
    drop(front);
    assert_eq!((under_way(), PASSED.get()), (0, 1));
    assert!(REFUSED.take().is_empty());
}

#[test]
fn retry_and_mirror_find_the_connection_again() {
    let path = Path::new();
    let front = path.front.stream(Request::get("/a"));
    front.request_headers(true);
    let first = path.route(&front);
    let _second = path.route(&front);
    drop(first);
    let _third = path.route(&front);
    assert_eq!(
        taken(),
        [Some(Some(b"/a".to_vec())), Some(None), Some(None)]
    );
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
    assert_eq!(taken(), [Some(Some(b"/2".to_vec())), None]);
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
    assert_eq!(taken(), [Some(Some(b"/thief".to_vec()))]);
}

#[test]
fn who_brings_no_number_gets_nothing() {
    let path = Path::new();
    for request in [
        Request::get("/"),
        Request::get("/").header(NUMBER, "7"),
        Request::get("/").header(NUMBER, "x"),
        Request::get("/").header(NUMBER, ""),
    ] {
        path.behind.stream(request).request_headers(true);
    }
    assert_eq!(taken(), [None, None, None, None]);
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
    let request = Request::post("/a").authority("");
    let front = path.front.stream(request);
    front.request_headers(false);
    assert_eq!(front.request_header(":authority"), [b"-"]);
    front.request_trailers(&[("host", "x"), ("x-sum", "1"), ("content-length", "7")]);
    assert_eq!(front.request_trailer_names(), ["x-sum"]);
}
