//! HTTP filters of the fake Envoy.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::ptr;
use std::rc::Rc;

use super::World;
use crate::attributes::AttributeId;
use crate::hooks::{self, Filter};
use crate::http::{DataStatus, HeadersStatus, LocalReplyStatus, ResetReason, TrailersStatus};
use crate::sys::{self, EnvoyBuffer};

/// Names and values, as Envoy's header maps have them.
pub(super) type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// A filter configuration. It is destroyed when this and the streams made of it are dropped.
pub struct FilterConfig {
    world: Rc<World>,
    state: Rc<ConfigState>,
}

pub(super) struct ConfigState {
    id: usize,
    /// The module's pointer.
    config: Cell<*const hooks::FilterConfig>,
    /// Metrics are defined while the configuration is made, and not later.
    pub(super) frozen: Cell<bool>,
    pub(super) counters: RefCell<Vec<(String, u64)>>,
    pub(super) gauges: RefCell<Vec<(String, u64)>>,
    pub(super) histograms: RefCell<Vec<(String, Vec<u64>)>>,
}

impl FilterConfig {
    pub(super) fn new(world: &Rc<World>, name: &str, config: &[u8]) -> Result<Self, String> {
        let state = Rc::new(ConfigState {
            id: world.new_id(),
            config: Cell::new(ptr::null()),
            frozen: Cell::new(false),
            counters: RefCell::default(),
            gauges: RefCell::default(),
            histograms: RefCell::default(),
        });
        world
            .configs
            .borrow_mut()
            .insert(state.id, Rc::clone(&state));
        // SAFETY: this is the thread's Envoy; the buffers outlive the call.
        let config = unsafe {
            hooks::envoy_dynamic_module_on_http_filter_config_new(
                ptr::without_provenance_mut(state.id),
                EnvoyBuffer::lend(name.as_bytes()),
                EnvoyBuffer::lend(config),
            )
        };
        state.frozen.set(true);
        world.configs.borrow_mut().remove(&state.id);
        if config.is_null() {
            return Err(world.last_error());
        }
        state.config.set(config);
        Ok(Self {
            world: Rc::clone(world),
            state,
        })
    }

    /// Begins a stream: its filter is made. If the module makes none, the stream is over, answered
    /// with a 500 as Envoy does.
    pub fn stream(&self, request: Request) -> Stream {
        let state = Rc::new(StreamState {
            id: self.world.new_id(),
            config: Rc::clone(&self.state),
            filter: Cell::new(ptr::null()),
            phase: Cell::new(Phase::Open),
            request,
            request_trailers: OnceCell::new(),
            received: RefCell::default(),
            buffered: RefCell::default(),
            buffer_limit: Cell::new(DEFAULT_BUFFER_LIMIT),
            reading: Cell::new(true),
            decoding: Cell::new(false),
            response: RefCell::default(),
            write_buffer_limit: Cell::new(usize::MAX),
            unread: Cell::new(0),
            above: Cell::new(0),
            go_away: Cell::new(None),
        });
        self.world
            .streams
            .borrow_mut()
            .insert(state.id, Rc::clone(&state));
        // SAFETY: the configuration lives as long as its `ConfigState`.
        let filter = unsafe {
            hooks::envoy_dynamic_module_on_http_filter_new(self.state.config.get(), state.pointer())
        };
        state.filter.set(filter);
        if filter.is_null() {
            let mut response = state.response.borrow_mut();
            response.begin(500, Vec::new());
            response.details = "dynamic_module_filter_init_failed".to_owned();
            response.end_of_stream = true;
            drop(response);
            state.complete();
        }
        Stream {
            world: Rc::clone(&self.world),
            state,
        }
    }

    /// The value of a counter that the module defined.
    pub fn counter(&self, name: &str) -> Option<u64> {
        find(&self.state.counters, name)
    }

    /// The value of a gauge that the module defined.
    pub fn gauge(&self, name: &str) -> Option<u64> {
        find(&self.state.gauges, name)
    }

    /// The samples of a histogram that the module defined.
    pub fn histogram(&self, name: &str) -> Option<Vec<u64>> {
        find(&self.state.histograms, name)
    }
}

fn find<T: Clone>(metrics: &RefCell<Vec<(String, T)>>, name: &str) -> Option<T> {
    let metrics = metrics.borrow();
    metrics
        .iter()
        .find(|(defined, _)| defined == name)
        .map(|(_, value)| value.clone())
}

impl Drop for ConfigState {
    fn drop(&mut self) {
        // SAFETY: `config` came from `config_new` (or is null) and is not used again.
        unsafe {
            hooks::envoy_dynamic_module_on_http_filter_config_destroy(self.config.get());
        }
    }
}

/// A request to begin a stream with.
#[derive(Clone, Debug)]
pub struct Request {
    pub(super) headers: Fields,
    pub(super) attributes: HashMap<u32, Attribute>,
    pub(super) direct_remote_address: String,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// For [`EnvoyFilter::attribute_bytes`](crate::EnvoyFilter::attribute_bytes).
    Bytes(Vec<u8>),
    /// For [`EnvoyFilter::attribute_int`](crate::EnvoyFilter::attribute_int).
    Int(u64),
    /// For [`EnvoyFilter::attribute_bool`](crate::EnvoyFilter::attribute_bool).
    Bool(bool),
}

impl From<&str> for Attribute {
    fn from(value: &str) -> Self {
        Self::Bytes(value.into())
    }
}

impl From<u64> for Attribute {
    fn from(value: u64) -> Self {
        Self::Int(value)
    }
}

impl From<bool> for Attribute {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl Request {
    /// A request for `http://localhost` over HTTP/1.1 without TLS, from 127.0.0.1.
    pub fn new(method: &str, path: &str) -> Self {
        let headers = [
            (":authority", "localhost"),
            (":path", path),
            (":method", method),
            (":scheme", "http"),
        ];
        let url_path = path.split('?').next().unwrap_or_default();
        let request = Self {
            headers: fields(&headers),
            attributes: HashMap::new(),
            direct_remote_address: "127.0.0.1:50000".to_owned(),
        };
        request
            .attribute(AttributeId::RequestPath, path)
            .attribute(AttributeId::RequestUrlPath, url_path)
            .attribute(AttributeId::RequestHost, "localhost")
            .attribute(AttributeId::RequestScheme, "http")
            .attribute(AttributeId::RequestMethod, method)
            .attribute(AttributeId::RequestProtocol, "HTTP/1.1")
            .attribute(AttributeId::SourceAddress, "127.0.0.1:50000")
            .attribute(AttributeId::SourcePort, 50_000)
            .attribute(AttributeId::DestinationAddress, "127.0.0.1:8000")
            .attribute(AttributeId::DestinationPort, 8000)
            .attribute(AttributeId::ConnectionId, 1)
    }

    /// A GET request.
    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// A POST request.
    pub fn post(path: &str) -> Self {
        Self::new("POST", path)
    }

    /// Adds a header; its name must be in lower case, as Envoy's are.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// Sets an attribute.
    pub fn attribute(mut self, id: AttributeId, value: impl Into<Attribute>) -> Self {
        self.attributes.insert(id as u32, value.into());
        self
    }

    /// Removes an attribute.
    pub fn without_attribute(mut self, id: AttributeId) -> Self {
        self.attributes.remove(&(id as u32));
        self
    }

    /// Sets `ip:port` of the socket's peer.
    pub fn direct_remote_address(mut self, address: &str) -> Self {
        address.clone_into(&mut self.direct_remote_address);
        self
    }
}

fn fields(pairs: &[(&str, &str)]) -> Fields {
    pairs
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect()
}

/// What the client got of a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The header blocks, as the module sent them: interim ones, then the final one.
    /// [`EnvoyFilter::send_response`](crate::EnvoyFilter::send_response) puts `:status` first.
    pub heads: Vec<Fields>,
    /// The body so far.
    pub body: Vec<u8>,
    /// The trailers, once they were sent.
    pub trailers: Option<Fields>,
    /// Whether the response was ended.
    pub end_of_stream: bool,
    /// The response code details of a local reply or reset.
    pub details: String,
    /// Whether the stream was reset instead, and why.
    pub reset: Option<ResetReason>,
}

impl Response {
    /// The status code of the last header block.
    pub fn status(&self) -> Option<u32> {
        let status = self.header(":status")?;
        str::from_utf8(status).ok()?.parse().ok()
    }

    /// The first value of `name` in the last header block.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let head = self.heads.last()?;
        head.iter()
            .find(|(known, _)| known == name.as_bytes())
            .map(|(_, value)| value.as_slice())
    }

    fn begin(&mut self, status: u32, headers: Fields) {
        let mut head = vec![(b":status".to_vec(), status.to_string().into_bytes())];
        head.extend(headers);
        self.heads.push(head);
    }
}

/// A stream, seen from Envoy's event loop and from the client. Dropping it is the client's going
/// away, if the stream is not complete, and destroys the filter.
///
/// Methods that stand for something that happens to the stream panic once it is complete, since
/// Envoy would call no hook.
pub struct Stream {
    world: Rc<World>,
    state: Rc<StreamState>,
}

impl Stream {
    /// The headers of the request are there.
    #[track_caller]
    pub fn request_headers(&self, end_of_stream: bool) -> HeadersStatus {
        let status = self.decode(|envoy, filter| {
            // SAFETY: `filter` is not destroyed as the stream is open.
            unsafe {
                hooks::envoy_dynamic_module_on_http_filter_request_headers(
                    envoy,
                    filter,
                    end_of_stream,
                )
            }
        });
        headers_status(status)
    }

    /// A piece of the request's body is there. What the filter has Envoy keep of it is added to
    /// the buffered body; over the buffer limit the client gets a 413 or is not read from.
    #[track_caller]
    pub fn request_body(&self, data: impl AsRef<[u8]>, end_of_stream: bool) -> DataStatus {
        self.request_body_chunks(&[data.as_ref()], end_of_stream)
    }

    /// The same with the piece in several slices.
    #[track_caller]
    pub fn request_body_chunks(&self, chunks: &[&[u8]], end_of_stream: bool) -> DataStatus {
        let chunks = chunks.iter().filter(|chunk| !chunk.is_empty());
        *self.state.received.borrow_mut() = chunks.map(|chunk| chunk.to_vec()).collect();
        let status = self.decode(|envoy, filter| {
            // SAFETY: `filter` is not destroyed as the stream is open.
            unsafe {
                hooks::envoy_dynamic_module_on_http_filter_request_body(
                    envoy,
                    filter,
                    end_of_stream,
                )
            }
        });
        let status = data_status(status);
        let received = self.state.received.take();
        self.state.keep(status, received);
        status
    }

    /// The trailers of the request are there.
    #[track_caller]
    pub fn request_trailers(&self, trailers: &[(&str, &str)]) -> TrailersStatus {
        let set = self.state.request_trailers.set(fields(trailers));
        assert!(set.is_ok(), "the request has trailers already");
        let status = self.decode(|envoy, filter| {
            // SAFETY: `filter` is not destroyed as the stream is open.
            unsafe { hooks::envoy_dynamic_module_on_http_filter_request_trailers(envoy, filter) }
        });
        trailers_status(status)
    }

    /// The headers of a response from further down the filter chain are there.
    #[track_caller]
    pub fn response_headers(&self, end_of_stream: bool) -> HeadersStatus {
        let (envoy, filter) = self.pointers();
        // SAFETY: `filter` is not destroyed as the stream is open.
        headers_status(unsafe {
            hooks::envoy_dynamic_module_on_http_filter_response_headers(
                envoy,
                filter,
                end_of_stream,
            )
        })
    }

    /// A piece of the body of such a response is there.
    #[track_caller]
    pub fn response_body(&self, end_of_stream: bool) -> DataStatus {
        let (envoy, filter) = self.pointers();
        // SAFETY: `filter` is not destroyed as the stream is open.
        data_status(unsafe {
            hooks::envoy_dynamic_module_on_http_filter_response_body(envoy, filter, end_of_stream)
        })
    }

    /// The trailers of such a response are there.
    #[track_caller]
    pub fn response_trailers(&self) -> TrailersStatus {
        let (envoy, filter) = self.pointers();
        // SAFETY: `filter` is not destroyed as the stream is open.
        trailers_status(unsafe {
            hooks::envoy_dynamic_module_on_http_filter_response_trailers(envoy, filter)
        })
    }

    /// The client does not keep up.
    #[track_caller]
    pub fn above_write_buffer_high_watermark(&self) {
        self.pointers();
        self.state.above_write_buffer_high_watermark();
    }

    /// The client keeps up again.
    #[track_caller]
    pub fn below_write_buffer_low_watermark(&self) {
        self.pointers();
        self.state.below_write_buffer_low_watermark();
    }

    /// From how many unread bytes on [`EnvoyFilter::send_response_data`] finds the client too slow.
    /// Each call that leaves more is one more `above`. Default: none.
    ///
    /// [`EnvoyFilter::send_response_data`]: crate::EnvoyFilter::send_response_data
    pub fn set_write_buffer_limit(&self, bytes: usize) {
        self.state.write_buffer_limit.set(bytes);
    }

    /// The client reads `bytes` of the body. With no more than half the limit left, all `above`
    /// are taken back.
    #[track_caller]
    pub fn client_reads(&self, bytes: usize) {
        let state = &self.state;
        let unread = state.unread.get().saturating_sub(bytes);
        state.unread.set(unread);
        if unread <= state.write_buffer_limit.get() / 2 {
            for _ in 0..state.above.get() {
                if state.phase.get() == Phase::Open {
                    state.below_write_buffer_low_watermark();
                }
            }
        }
    }

    /// Envoy answers the request itself, for instance after a time-out.
    #[track_caller]
    pub fn local_reply(&self, status: u32, details: &str) {
        self.pointers();
        self.state
            .send_response(status, Vec::new(), Vec::new(), details.to_owned());
    }

    /// The client goes away.
    #[track_caller]
    pub fn disconnect(&self) {
        self.pointers();
        self.state.response.borrow_mut().details = "downstream_remote_disconnect".to_owned();
        self.state.complete();
    }

    /// What the client got so far.
    pub fn response(&self) -> Response {
        self.state.response.borrow().clone()
    }

    /// Whether the stream is over, so that only the destruction of the filter is to come.
    pub fn is_complete(&self) -> bool {
        self.state.phase.get() != Phase::Open
    }

    /// Whether Envoy reads the request's body, rather than wait for the buffered body to be drained.
    pub fn is_reading(&self) -> bool {
        self.state.reading.get()
    }

    /// How many bytes of the request's body Envoy keeps.
    pub fn buffered_request_body_len(&self) -> usize {
        self.state.buffered.borrow().iter().map(Vec::len).sum()
    }

    /// How much it may keep.
    pub fn buffer_limit(&self) -> u64 {
        self.state.buffer_limit.get()
    }

    /// Whether the client was told to use another connection, and if so, whether gracefully.
    pub fn go_away(&self) -> Option<bool> {
        self.state.go_away.get()
    }

    #[track_caller]
    fn pointers(&self) -> (*mut sys::HttpFilter, *const Filter) {
        assert!(self.state.phase.get() == Phase::Open, "the stream is over");
        (self.state.pointer(), self.state.filter.get())
    }

    /// Runs a hook of the request's side: a local reply made in it completes the stream afterwards.
    #[track_caller]
    fn decode(&self, hook: impl FnOnce(*mut sys::HttpFilter, *const Filter) -> u32) -> u32 {
        let (envoy, filter) = self.pointers();
        self.state.decoding.set(true);
        let status = hook(envoy, filter);
        self.state.decoding.set(false);
        if self.state.response.borrow().end_of_stream {
            self.state.complete();
        }
        status
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.state.complete();
        self.state.destroy(&self.world);
    }
}

const DEFAULT_BUFFER_LIMIT: u64 = 1 << 20;

pub(super) struct StreamState {
    id: usize,
    pub(super) config: Rc<ConfigState>,
    /// The module's pointer. Null if it made no filter, and once the filter is destroyed.
    filter: Cell<*const Filter>,
    phase: Cell<Phase>,
    request: Request,
    request_trailers: OnceCell<Fields>,
    received: RefCell<Vec<Vec<u8>>>,
    buffered: RefCell<Vec<Vec<u8>>>,
    buffer_limit: Cell<u64>,
    reading: Cell<bool>,
    /// Whether a hook of the request's side is running.
    decoding: Cell<bool>,
    response: RefCell<Response>,
    write_buffer_limit: Cell<usize>,
    unread: Cell<usize>,
    above: Cell<u32>,
    go_away: Cell<Option<bool>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// `stream_complete` runs: all can be read, nothing can be sent.
    Completing,
    /// Nothing can be read either.
    TornDown,
}

/// What the callbacks do.
impl StreamState {
    pub(super) fn headers(&self, kind: sys::HttpHeaderType) -> &[(Vec<u8>, Vec<u8>)] {
        match kind {
            _ if self.is_torn_down() => &[],
            sys::HttpHeaderType::RequestHeader => &self.request.headers,
            sys::HttpHeaderType::RequestTrailer => {
                self.request_trailers.get().map_or(&[], Vec::as_slice)
            }
        }
    }

    pub(super) fn attribute(&self, id: u32) -> Option<Attribute> {
        (!self.is_torn_down())
            .then(|| self.request.attributes.get(&id).cloned())
            .flatten()
    }

    /// The bytes of a textual attribute, where they stay for as long as the stream.
    pub(super) fn attribute_bytes(&self, id: u32) -> Option<&[u8]> {
        match self.request.attributes.get(&id) {
            Some(Attribute::Bytes(bytes)) if !self.is_torn_down() => Some(bytes),
            _ => None,
        }
    }

    pub(super) fn direct_remote_address(&self) -> Option<&[u8]> {
        (!self.is_torn_down()).then_some(self.request.direct_remote_address.as_bytes())
    }

    /// Calls `read` with the chunks of a body.
    pub(super) fn body<R>(&self, kind: sys::HttpBodyType, read: impl FnOnce(&[Vec<u8>]) -> R) -> R {
        match kind {
            _ if self.is_torn_down() => read(&[]),
            sys::HttpBodyType::ReceivedRequestBody => read(&self.received.borrow()),
            sys::HttpBodyType::BufferedRequestBody => read(&self.buffered.borrow()),
        }
    }

    pub(super) fn drain(&self, kind: sys::HttpBodyType, mut bytes: usize) -> bool {
        let body = match kind {
            _ if self.is_torn_down() => return false,
            sys::HttpBodyType::ReceivedRequestBody => &self.received,
            sys::HttpBodyType::BufferedRequestBody => &self.buffered,
        };
        let mut body = body.borrow_mut();
        let had_some = !body.is_empty();
        while bytes > 0 && !body.is_empty() {
            if bytes < body[0].len() {
                body[0].drain(..bytes);
                break;
            }
            bytes -= body.remove(0).len();
        }
        let left = body.iter().map(Vec::len).sum::<usize>() as u64;
        if left < self.buffer_limit.get() / 2 {
            self.reading.set(true);
        }
        had_some
    }

    pub(super) fn send_response(
        &self,
        status: u32,
        headers: Fields,
        body: Vec<u8>,
        details: String,
    ) {
        if self.phase.get() != Phase::Open {
            return;
        }
        let begun = !self.response.borrow().heads.is_empty();
        let ended = self.response.borrow().end_of_stream;
        if begun && !ended {
            return self.reset(ResetReason::LocalReset, details);
        }
        // Filters hear of a second reply too, although the first one stands.
        let verdict = self.tell_of_local_reply(status, &details);
        if ended || self.phase.get() != Phase::Open {
            return;
        }
        if verdict == LocalReplyStatus::ContinueAndResetStream {
            return self.reset(ResetReason::LocalReset, details);
        }
        let mut response = self.response.borrow_mut();
        response.begin(status, headers);
        response.body = body;
        response.details = details;
        response.end_of_stream = true;
        drop(response);
        if !self.decoding.get() {
            self.complete();
        }
    }

    pub(super) fn send_response_headers(&self, headers: Fields, end_of_stream: bool) {
        if self.is_sendable() {
            self.response.borrow_mut().heads.push(headers);
            self.end(end_of_stream);
        }
    }

    pub(super) fn send_response_data(&self, data: &[u8], end_of_stream: bool) {
        if self.is_sendable() {
            self.response.borrow_mut().body.extend_from_slice(data);
            self.unread.set(self.unread.get() + data.len());
            if self.unread.get() > self.write_buffer_limit.get() {
                self.above_write_buffer_high_watermark();
            }
            self.end(end_of_stream);
        }
    }

    pub(super) fn send_response_trailers(&self, trailers: Fields) {
        if self.is_sendable() {
            self.response.borrow_mut().trailers = Some(trailers);
            self.end(true);
        }
    }

    pub(super) fn reset(&self, reason: ResetReason, details: String) {
        if self.phase.get() == Phase::Open {
            let mut response = self.response.borrow_mut();
            response.reset = Some(reason);
            response.details = details;
            drop(response);
            self.complete();
        }
    }

    pub(super) fn send_go_away(&self, graceful: bool) {
        if self.phase.get() == Phase::Open {
            self.go_away.set(Some(graceful));
        }
    }

    /// 0 once the stream is over, as Envoy has it.
    pub(super) fn current_buffer_limit(&self) -> u64 {
        if self.is_torn_down() {
            0
        } else {
            self.buffer_limit.get()
        }
    }

    pub(super) fn set_buffer_limit(&self, bytes: u64) {
        if !self.is_torn_down() {
            self.buffer_limit.set(bytes);
        }
    }

    fn is_torn_down(&self) -> bool {
        self.phase.get() == Phase::TornDown
    }

    fn is_sendable(&self) -> bool {
        self.phase.get() == Phase::Open && !self.response.borrow().end_of_stream
    }
}

/// What happens to the stream.
impl StreamState {
    pub(super) fn id(&self) -> usize {
        self.id
    }

    fn pointer(&self) -> *mut sys::HttpFilter {
        ptr::without_provenance_mut(self.id)
    }

    fn keep(&self, status: DataStatus, received: Vec<Vec<u8>>) {
        if self.phase.get() != Phase::Open {
            return;
        }
        if let DataStatus::StopIterationAndBuffer | DataStatus::StopIterationAndWatermark = status {
            self.buffered.borrow_mut().extend(received);
        }
        let kept = self.buffered.borrow().iter().map(Vec::len).sum::<usize>() as u64;
        let limit = self.buffer_limit.get();
        if limit != 0 && kept > limit {
            match status {
                DataStatus::StopIterationAndBuffer => {
                    let details = "request_payload_too_large".to_owned();
                    self.send_response(413, Vec::new(), b"Payload Too Large".to_vec(), details);
                }
                DataStatus::StopIterationAndWatermark => self.reading.set(false),
                DataStatus::Continue | DataStatus::StopIterationNoBuffer => {}
            }
        }
    }

    fn above_write_buffer_high_watermark(&self) {
        self.above.set(self.above.get() + 1);
        // SAFETY: the filter is not destroyed before `destroy`.
        unsafe {
            hooks::envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(
                self.pointer(),
                self.filter.get(),
            );
        }
    }

    fn below_write_buffer_low_watermark(&self) {
        self.above.set(self.above.get().saturating_sub(1));
        // SAFETY: the filter is not destroyed before `destroy`.
        unsafe {
            hooks::envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(
                self.pointer(),
                self.filter.get(),
            );
        }
    }

    fn tell_of_local_reply(&self, status: u32, details: &str) -> LocalReplyStatus {
        // SAFETY: the filter is not destroyed before `destroy`; `details` outlives the call.
        let verdict = unsafe {
            hooks::envoy_dynamic_module_on_http_filter_local_reply(
                self.pointer(),
                self.filter.get(),
                status,
                EnvoyBuffer::lend(details.as_bytes()),
                false,
            )
        };
        match verdict {
            0 => LocalReplyStatus::Continue,
            1 => LocalReplyStatus::ContinueAndResetStream,
            other => panic!("the local reply hook answered {other}"),
        }
    }

    fn end(&self, end_of_stream: bool) {
        if end_of_stream && self.phase.get() == Phase::Open {
            self.response.borrow_mut().end_of_stream = true;
            self.complete();
        }
    }

    fn complete(&self) {
        if self.phase.get() != Phase::Open {
            return;
        }
        self.phase.set(Phase::Completing);
        // SAFETY: the filter is not destroyed before `destroy`.
        unsafe {
            hooks::envoy_dynamic_module_on_http_filter_stream_complete(
                self.pointer(),
                self.filter.get(),
            );
        }
        self.phase.set(Phase::TornDown);
    }

    fn destroy(&self, world: &World) {
        // SAFETY: the filter came from `http_filter_new` (or is null) and is not used again.
        unsafe {
            hooks::envoy_dynamic_module_on_http_filter_destroy(self.filter.replace(ptr::null()));
        }
        world.streams.borrow_mut().remove(&self.id);
    }
}

impl World {
    /// The stream behind one of Envoy's pointers.
    pub(super) fn stream(&self, pointer: *mut sys::HttpFilter) -> Rc<StreamState> {
        let state = self.streams.borrow().get(&pointer.addr()).cloned();
        state.expect("the stream of a callback exists on this thread")
    }

    /// The configuration behind one of Envoy's pointers, while it is being made.
    pub(super) fn config(&self, pointer: *mut sys::HttpFilterConfig) -> Rc<ConfigState> {
        let state = self.configs.borrow().get(&pointer.addr()).cloned();
        state.expect("the filter configuration of a callback is being made on this thread")
    }
}

pub(super) fn deliver(world: &World, id: usize, event: u64) {
    let state = world.streams.borrow().get(&id).cloned();
    if let Some(state) = state.filter(|state| !state.filter.get().is_null()) {
        // SAFETY: the filter is not destroyed as it is not null.
        unsafe {
            hooks::envoy_dynamic_module_on_http_filter_scheduled(
                state.pointer(),
                state.filter.get(),
                event,
            );
        }
    }
}

pub(super) fn destroy_complete(world: &World) {
    let streams: Vec<_> = world.streams.borrow().values().cloned().collect();
    for stream in streams.into_iter().filter(|stream| stream.is_torn_down()) {
        stream.destroy(world);
    }
}

fn headers_status(number: u32) -> HeadersStatus {
    use HeadersStatus as S;
    let all = [
        S::Continue,
        S::StopIteration,
        S::ContinueAndDontEndStream,
        S::StopAllIterationAndBuffer,
        S::StopAllIterationAndWatermark,
    ];
    all[number as usize]
}

fn data_status(number: u32) -> DataStatus {
    use DataStatus as S;
    let all = [
        S::Continue,
        S::StopIterationAndBuffer,
        S::StopIterationAndWatermark,
        S::StopIterationNoBuffer,
    ];
    all[number as usize]
}

fn trailers_status(number: u32) -> TrailersStatus {
    [TrailersStatus::Continue, TrailersStatus::StopIteration][number as usize]
}
