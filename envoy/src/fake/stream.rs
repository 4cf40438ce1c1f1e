//! Streams of the fake Envoy, seen from its event loop and from the client.

use std::rc::Rc;

use super::request::{Fields, fields};
use super::stream_state::StreamState;
use crate::hooks::{self, Filter};
use crate::http::{DataStatus, HeadersStatus, ResetReason, TrailersStatus};
use crate::sys;

/// A stream, seen from Envoy's event loop and from the client. Dropping it is the client's going
/// away, if the stream is not complete, and destroys the filter.
///
/// Methods that stand for something that happens to the stream panic once it is complete, since
/// Envoy would call no hook.
pub struct Stream {
    state: Rc<StreamState>,
}

impl Stream {
    pub(super) fn new(state: Rc<StreamState>) -> Self {
        Self { state }
    }

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
        self.pointers();
        let chunks = chunks.iter().filter(|chunk| !chunk.is_empty());
        let received = chunks.map(|chunk| chunk.to_vec()).collect();
        self.state.receive(received, end_of_stream)
    }

    /// The client has sent a piece of the request's body. Unlike
    /// [`request_body`](Self::request_body) this lets Envoy choose when to hand it over: at once if
    /// it [reads](Self::is_reading), else inside the call that drains the buffered body, which is
    /// the earliest moment there could be and the hardest for a filter.
    #[track_caller]
    pub fn client_sends(&self, data: impl AsRef<[u8]>, end_of_stream: bool) {
        self.pointers();
        let piece = (data.as_ref().to_vec(), end_of_stream);
        self.state.sent.borrow_mut().push_back(piece);
        self.state.read();
    }

    /// A filter in front has Envoy keep a piece of the body, of which ours is not told yet.
    #[track_caller]
    pub fn hold_back(&self, data: impl AsRef<[u8]>) {
        self.pointers();
        self.state
            .buffered
            .borrow_mut()
            .push(data.as_ref().to_vec());
    }

    /// That filter goes on: ours is given all that Envoy keeps. None of it is taken out by the
    /// status that the hook answers with.
    #[track_caller]
    pub fn resume_request_body(&self, end_of_stream: bool) -> DataStatus {
        self.pointers();
        self.state.resume(end_of_stream)
    }

    /// The trailers of the request are there.
    #[track_caller]
    pub fn request_trailers(&self, trailers: &[(&str, &str)]) -> TrailersStatus {
        let had = self.state.request_trailers.get();
        assert!(had.is_empty(), "the request has trailers already");
        self.state.request_trailers.replace(fields(trailers));
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
                if state.is_open() {
                    state.below_write_buffer_low_watermark();
                }
            }
        }
    }

    /// How many bytes of request body Envoy buffers before it stops reading. Default: 1 MiB.
    pub fn set_buffer_limit(&self, bytes: u64) {
        self.state.buffer_limit.set(bytes);
    }

    /// From how many bytes on another filter finds the response too large and resets the stream,
    /// inside the call that sends. Default: none.
    pub fn set_response_limit(&self, bytes: usize) {
        self.state.response_limit.set(bytes);
    }

    /// Envoy answers the request itself, for instance after a time-out.
    #[track_caller]
    pub fn local_reply(&self, status: u32, details: &str) {
        self.pointers();
        self.state
            .send_response(status, Vec::new(), Vec::new(), details.to_owned());
    }

    /// The same to a client that takes its time: the stream is not over with that.
    #[track_caller]
    pub fn begin_local_reply(&self, status: u32, details: &str) {
        self.pointers();
        self.state.begin_local_reply(status, details);
    }

    /// From now on an option of the client's connection can be set. None can at first.
    pub fn allow_socket_option(&self, level: i64, name: i64) {
        self.state.socket_options.borrow_mut().push((level, name));
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
        !self.state.is_open()
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

    /// The values of request header `name`, as the filters that follow see it.
    pub fn request_header(&self, name: &str) -> Vec<Vec<u8>> {
        let headers = self.state.request_headers().iter();
        let values = headers.filter(|(known, _)| known == name.as_bytes());
        values.map(|(_, value)| value.clone()).collect()
    }

    /// The names of the request's trailers, as the filters that follow see them.
    pub fn request_trailer_names(&self) -> Vec<String> {
        let trailers = self.state.request_trailers.get().iter();
        let names = trailers.map(|(name, _)| String::from_utf8_lossy(name).into_owned());
        names.collect()
    }

    /// Whether the module has had the route chosen anew.
    pub fn is_rerouted(&self) -> bool {
        self.state.rerouted.get()
    }

    /// What the module has set as dynamic metadata.
    pub fn dynamic_metadata(&self, namespace: &str, key: &str) -> Option<String> {
        let metadata = self.state.metadata.borrow();
        metadata.get(&(namespace.into(), key.into())).cloned()
    }

    /// What the module has set as filter state.
    pub fn filter_state(&self, key: &str) -> Option<String> {
        self.state.states.borrow().get(key).cloned()
    }

    #[track_caller]
    fn pointers(&self) -> (*mut sys::HttpFilter, *const Filter) {
        assert!(self.state.is_open(), "the stream is over");
        (self.state.pointer(), self.state.filter.get())
    }

    #[track_caller]
    fn decode(&self, hook: impl FnOnce(*mut sys::HttpFilter, *const Filter) -> u32) -> u32 {
        let (envoy, filter) = self.pointers();
        self.state.decode(|| hook(envoy, filter))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.state.complete();
        self.state.destroy();
    }
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

    pub(super) fn begin(&mut self, status: u32, headers: Fields) {
        let mut head = vec![(b":status".to_vec(), status.to_string().into_bytes())];
        head.extend(headers);
        self.heads.push(head);
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

pub(super) fn data_status(number: u32) -> DataStatus {
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
