//! Envoy's side of a stream: what the callbacks do, and what happens to it.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::ptr;
use std::rc::Rc;

use super::World;
use super::config::ConfigState;
use super::request::{Attribute, Fields, Request};
use super::stream::{Response, data_status};
use crate::hooks::{self, Filter};
use crate::http::{DataStatus, LocalReplyStatus, ResetReason};
use crate::sys::{self, EnvoyBuffer};

pub(super) struct StreamState {
    id: usize,
    /// Holds this stream in turn, until it is destroyed.
    world: Rc<World>,
    pub(super) config: Rc<ConfigState>,
    /// The module's pointer. Null if it made no filter, and once the filter is destroyed.
    pub(super) filter: Cell<*const Filter>,
    phase: Cell<Phase>,
    request: Request,
    request_headers: Changing,
    pub(super) request_trailers: Changing,
    /// Pieces of the body that the client has sent and Envoy has not read.
    pub(super) sent: RefCell<VecDeque<(Vec<u8>, bool)>>,
    pub(super) received: RefCell<Vec<Vec<u8>>>,
    pub(super) buffered: RefCell<Vec<Vec<u8>>>,
    /// The received piece is the buffered body.
    pub(super) resuming: Cell<bool>,
    pub(super) buffer_limit: Cell<u64>,
    /// Options of the client's connection that can be set, by level and name.
    pub(super) socket_options: RefCell<Vec<(i64, i64)>>,
    /// Whether Envoy reads from the client.
    pub(super) reading: Cell<bool>,
    /// Whether a hook of the request's side is running.
    decoding: Cell<bool>,
    pub(super) response: RefCell<Response>,
    pub(super) response_limit: Cell<usize>,
    pub(super) write_buffer_limit: Cell<usize>,
    /// How much of the response's body the client has not read.
    pub(super) unread: Cell<usize>,
    /// How many `above` have not been taken back.
    pub(super) above: Cell<u32>,
    pub(super) go_away: Cell<Option<bool>>,
    /// By namespace and key.
    pub(super) metadata: RefCell<HashMap<(String, String), String>>,
    /// Filter state that the module has set.
    pub(super) states: RefCell<HashMap<String, String>>,
    /// The route was chosen anew.
    pub(super) rerouted: Cell<bool>,
}

impl StreamState {
    /// Begins a stream and has its filter made.
    pub(super) fn new(world: &Rc<World>, config: &Rc<ConfigState>, request: Request) -> Rc<Self> {
        let state = Rc::new(Self {
            id: world.new_id(),
            world: Rc::clone(world),
            config: Rc::clone(config),
            filter: Cell::new(ptr::null()),
            phase: Cell::new(Phase::Open),
            request_headers: Changing::new(request.headers.clone()),
            request,
            request_trailers: Changing::default(),
            sent: RefCell::default(),
            received: RefCell::default(),
            buffered: RefCell::default(),
            resuming: Cell::new(false),
            buffer_limit: Cell::new(DEFAULT_BUFFER_LIMIT),
            socket_options: RefCell::default(),
            reading: Cell::new(true),
            decoding: Cell::new(false),
            response: RefCell::default(),
            response_limit: Cell::new(usize::MAX),
            write_buffer_limit: Cell::new(usize::MAX),
            unread: Cell::new(0),
            above: Cell::new(0),
            go_away: Cell::new(None),
            metadata: RefCell::default(),
            states: RefCell::default(),
            rerouted: Cell::default(),
        });
        world
            .streams
            .borrow_mut()
            .insert(state.id, Rc::clone(&state));
        let filter = state.reading_only(|| {
            // SAFETY: the configuration lives as long as its `ConfigState`.
            unsafe {
                hooks::envoy_dynamic_module_on_http_filter_new(config.config.get(), state.pointer())
            }
        });
        state.filter.set(filter);
        if filter.is_null() {
            let details = "dynamic_module_filter_init_failed".to_owned();
            state.send_response(500, Vec::new(), Vec::new(), details);
        }
        state
    }
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
///
/// Those that change or end the stream assert that Envoy would survive it.
impl StreamState {
    pub(super) fn headers(&self, kind: sys::HttpHeaderType) -> &[(Vec<u8>, Vec<u8>)] {
        match kind {
            _ if self.is_torn_down() => &[],
            sys::HttpHeaderType::RequestHeader => self.request_headers(),
            sys::HttpHeaderType::RequestTrailer => self.request_trailers.get(),
        }
    }

    pub(super) fn request_headers(&self) -> &[(Vec<u8>, Vec<u8>)] {
        self.request_headers.get()
    }

    pub(super) fn set_header(
        &self,
        kind: sys::HttpHeaderType,
        name: String,
        value: Vec<u8>,
    ) -> bool {
        self.assert_changeable();
        let fields = match kind {
            _ if !self.is_open() => return false,
            sys::HttpHeaderType::RequestHeader => &self.request_headers,
            sys::HttpHeaderType::RequestTrailer => &self.request_trailers,
        };
        fields.set(name.into_bytes(), value);
        true
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

    pub(super) fn filter_state(&self, key: &str) -> Option<&[u8]> {
        let value = self.request.filter_state.get(key);
        value.filter(|_| !self.is_torn_down()).map(String::as_bytes)
    }

    pub(super) fn set_filter_state(&self, key: String, value: String) {
        self.states.borrow_mut().insert(key, value);
    }

    pub(super) fn clear_route(&self) {
        self.assert_changeable();
        self.rerouted.set(true);
    }

    pub(super) fn set_metadata(&self, namespace: String, key: String, value: String) {
        let mut metadata = self.metadata.borrow_mut();
        metadata.insert((namespace, key), value);
    }

    pub(super) fn direct_remote_address(&self) -> Option<&[u8]> {
        (!self.is_torn_down()).then_some(self.request.direct_remote_address.as_bytes())
    }

    /// Calls `read` with the chunks of a body.
    pub(super) fn body<R>(&self, kind: sys::HttpBodyType, read: impl FnOnce(&[Vec<u8>]) -> R) -> R {
        match kind {
            _ if self.is_torn_down() => read(&[]),
            kind => read(&self.body_of(kind).borrow()),
        }
    }

    fn body_of(&self, kind: sys::HttpBodyType) -> &RefCell<Vec<Vec<u8>>> {
        match kind {
            sys::HttpBodyType::ReceivedRequestBody if !self.resuming.get() => &self.received,
            _ => &self.buffered,
        }
    }

    pub(super) fn drain(&self, kind: sys::HttpBodyType, mut bytes: usize) -> bool {
        self.assert_changeable();
        let body = match kind {
            _ if self.is_torn_down() => return false,
            kind => self.body_of(kind),
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
        drop(body);
        if left < self.buffer_limit.get() / 2 {
            self.reading.set(true);
            self.read();
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
        self.assert_changeable();
        if !self.is_open() {
            return;
        }
        let begun = !self.response.borrow().heads.is_empty();
        let ended = self.response.borrow().end_of_stream;
        if begun && !ended {
            return self.reset(ResetReason::LocalReset, details);
        }
        // Filters hear of a second reply too, although the first one stands.
        let verdict = self.tell_of_local_reply(status, &details);
        if ended || !self.is_open() {
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
        // A head alone is sent on another connection, as `FilterRef::begin_response` does.
        if end_of_stream {
            self.assert_changeable();
        }
        if self.is_sendable() {
            self.response.borrow_mut().heads.push(headers);
            self.end(end_of_stream);
        }
    }

    pub(super) fn send_response_data(&self, data: &[u8], end_of_stream: bool) {
        self.assert_changeable();
        if self.is_sendable() {
            self.response.borrow_mut().body.extend_from_slice(data);
            if self.response.borrow().body.len() > self.response_limit.get() {
                let details = "response_payload_too_large".to_owned();
                return self.reset(ResetReason::LocalReset, details);
            }
            self.unread.set(self.unread.get() + data.len());
            if self.unread.get() > self.write_buffer_limit.get() {
                self.above_write_buffer_high_watermark();
            }
            self.end(end_of_stream);
        }
    }

    pub(super) fn send_response_trailers(&self, trailers: Fields) {
        self.assert_changeable();
        if self.is_sendable() {
            self.response.borrow_mut().trailers = Some(trailers);
            self.end(true);
        }
    }

    pub(super) fn reset(&self, reason: ResetReason, details: String) {
        self.assert_changeable();
        if self.is_open() {
            let mut response = self.response.borrow_mut();
            response.reset = Some(reason);
            response.details = details;
            drop(response);
            self.complete();
        }
    }

    pub(super) fn send_go_away(&self, graceful: bool) {
        self.assert_changeable();
        if self.is_open() {
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

    pub(super) fn can_set_socket_option(&self, level: i64, name: i64) -> bool {
        let known = self.socket_options.borrow().contains(&(level, name));
        known && !self.is_torn_down()
    }

    pub(super) fn set_buffer_limit(&self, bytes: u64) {
        self.assert_changeable();
        if !self.is_torn_down() {
            self.buffer_limit.set(bytes);
        }
    }

    #[track_caller]
    fn assert_changeable(&self) {
        let reading_only = self.world.reading_only.get() > 0;
        assert!(
            !reading_only,
            "Envoy would crash: this hook must not change or end a stream"
        );
    }

    /// Runs a hook in which no stream of the thread must be changed or ended.
    fn reading_only<R>(&self, hook: impl FnOnce() -> R) -> R {
        let depth = &self.world.reading_only;
        depth.set(depth.get() + 1);
        let answer = hook();
        depth.set(depth.get() - 1);
        answer
    }

    fn is_torn_down(&self) -> bool {
        self.phase.get() == Phase::TornDown
    }

    fn is_sendable(&self) -> bool {
        self.is_open() && !self.response.borrow().end_of_stream
    }
}

/// What happens to the stream.
impl StreamState {
    pub(super) fn id(&self) -> usize {
        self.id
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase.get() == Phase::Open
    }

    /// Runs a hook of the request's side: a local reply made in it completes the stream afterwards.
    pub(super) fn decode(&self, hook: impl FnOnce() -> u32) -> u32 {
        self.decoding.set(true);
        let status = hook();
        self.decoding.set(false);
        if self.response.borrow().end_of_stream {
            self.complete();
        }
        status
    }

    pub(super) fn pointer(&self) -> *mut sys::HttpFilter {
        ptr::without_provenance_mut(self.id)
    }

    /// Has the filter told of what the client has sent, as far as Envoy reads.
    pub(super) fn read(&self) {
        // Inside a hook of the request's side Envoy hands over nothing more.
        while self.reading.get() && self.is_open() && !self.decoding.get() {
            let Some((data, end_of_stream)) = self.sent.borrow_mut().pop_front() else {
                return;
            };
            let received = if data.is_empty() {
                Vec::new()
            } else {
                vec![data]
            };
            self.receive(received, end_of_stream);
        }
    }

    /// A piece of the body is there.
    pub(super) fn receive(&self, received: Vec<Vec<u8>>, end_of_stream: bool) -> DataStatus {
        self.received.replace(received);
        let status = self.decode(|| {
            // SAFETY: the filter is not destroyed before `destroy`.
            unsafe {
                hooks::envoy_dynamic_module_on_http_filter_request_body(
                    self.pointer(),
                    self.filter.get(),
                    end_of_stream,
                )
            }
        });
        let status = data_status(status);
        self.keep(status, self.received.take());
        status
    }

    /// Hands the buffered body over.
    pub(super) fn resume(&self, end_of_stream: bool) -> DataStatus {
        self.resuming.set(true);
        let status = self.receive(Vec::new(), end_of_stream);
        self.resuming.set(false);
        status
    }

    fn keep(&self, status: DataStatus, received: Vec<Vec<u8>>) {
        if !self.is_open() {
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

    pub(super) fn above_write_buffer_high_watermark(&self) {
        self.above.set(self.above.get() + 1);
        self.reading_only(|| {
            // SAFETY: the filter is not destroyed before `destroy`.
            unsafe {
            hooks::envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(
                self.pointer(),
                self.filter.get(),
            );
            }
        });
    }

    pub(super) fn below_write_buffer_low_watermark(&self) {
        self.above.set(self.above.get().saturating_sub(1));
        self.reading_only(|| {
            // SAFETY: the filter is not destroyed before `destroy`.
            unsafe {
            hooks::envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(
                self.pointer(),
                self.filter.get(),
            );
            }
        });
    }

    pub(super) fn begin_local_reply(&self, status: u32, details: &str) {
        self.tell_of_local_reply(status, details);
        self.response.borrow_mut().begin(status, Vec::new());
    }

    fn tell_of_local_reply(&self, status: u32, details: &str) -> LocalReplyStatus {
        let verdict = self.reading_only(|| {
            // SAFETY: the filter is not destroyed before `destroy`; `details` outlives the call.
            unsafe {
                hooks::envoy_dynamic_module_on_http_filter_local_reply(
                    self.pointer(),
                    self.filter.get(),
                    status,
                    EnvoyBuffer::lend(details.as_bytes()),
                    false,
                )
            }
        });
        match verdict {
            0 => LocalReplyStatus::Continue,
            1 => LocalReplyStatus::ContinueAndResetStream,
            other => panic!("the local reply hook answered {other}"),
        }
    }

    fn end(&self, end_of_stream: bool) {
        if end_of_stream && self.is_open() {
            self.response.borrow_mut().end_of_stream = true;
            self.complete();
        }
    }

    pub(super) fn complete(&self) {
        if !self.is_open() {
            return;
        }
        self.phase.set(Phase::Completing);
        self.reading_only(|| {
            // SAFETY: the filter is not destroyed before `destroy`.
            unsafe {
                hooks::envoy_dynamic_module_on_http_filter_stream_complete(
                    self.pointer(),
                    self.filter.get(),
                );
            }
        });
        self.phase.set(Phase::TornDown);
    }

    pub(super) fn destroy(&self) {
        // SAFETY: the filter came from `http_filter_new` (or is null) and is not used again.
        unsafe {
            hooks::envoy_dynamic_module_on_http_filter_destroy(self.filter.replace(ptr::null()));
        }
        self.world.streams.borrow_mut().remove(&self.id);
    }
}

impl World {
    /// The stream behind one of Envoy's pointers.
    pub(super) fn stream(&self, pointer: *mut sys::HttpFilter) -> Rc<StreamState> {
        let state = self.streams.borrow().get(&pointer.addr()).cloned();
        state.expect("the stream of a callback exists on this thread")
    }
}

pub(super) fn deliver(world: &World, id: usize, event: u64) {
    let state = world.streams.borrow().get(&id).cloned();
    // Envoy drops what is committed to a complete stream.
    if let Some(state) = state.filter(|state| state.is_open()) {
        // SAFETY: the filter is not destroyed before `destroy`.
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
        stream.destroy();
    }
}

const DEFAULT_BUFFER_LIMIT: u64 = 1 << 20;

/// A header map that the module changes. What was lent of it before stays where it is.
#[derive(Default)]
pub(super) struct Changing(RefCell<Vec<Rc<Fields>>>);

impl Changing {
    fn new(fields: Fields) -> Self {
        Self(RefCell::new(vec![Rc::new(fields)]))
    }

    pub(super) fn get(&self) -> &[(Vec<u8>, Vec<u8>)] {
        let last = self.0.borrow().last().map(Rc::as_ptr);
        // SAFETY: `self` only grows, so what it refers to lives as long.
        last.map_or(&[], |last| unsafe { &*last })
    }

    /// The map is `fields` from now on.
    pub(super) fn replace(&self, fields: Fields) {
        self.0.borrow_mut().push(Rc::new(fields));
    }

    /// As Envoy: all values of `name` go, and `value`, if there is one, comes in place of the first.
    fn set(&self, name: Vec<u8>, value: Vec<u8>) {
        let mut fields = self.get().to_vec();
        let at = fields.iter().position(|(known, _)| *known == name);
        fields.retain(|(known, _)| *known != name);
        if !value.is_empty() {
            fields.insert(at.unwrap_or(fields.len()), (name, value));
        }
        self.replace(fields);
    }
}
