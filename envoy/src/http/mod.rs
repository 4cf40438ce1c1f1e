//! Runs on: Envoy worker thread, except [`HttpFilterConfig`] (any Envoy thread) and [`Scheduler`]
//! (any thread).
//!
//! HTTP filters: what a module implements, and what its hooks answer.
//!
//! For one request Envoy calls
//!
//! ```text
//! new_filter ─> on_request_headers ─> on_request_body* ─> [on_request_trailers]
//!            ─> (the response) ─> on_stream_complete ─> drop
//! ```
//!
//! A filter ahead in the chain may answer instead: then `on_stream_complete` and the drop come
//! without `on_request_headers`.

mod body;
mod filter;
mod headers;
mod response;
mod scheduler;
mod state;

use std::marker::PhantomData;
use std::rc::Rc;

pub use body::BodyChunks;
pub use filter::{EnvoyFilter, FilterRef};
pub use headers::{Header, Headers};
pub use response::ResetReason;
pub use scheduler::Scheduler;

pub(crate) use filter::{Progress, Stream};

use crate::sys;

/// What a module does with the streams of one filter chain.
///
/// Made and dropped on Envoy's main thread, used on all its worker threads at once.
pub trait HttpFilterConfig: Send + Sync {
    /// A stream begins; its request headers can be read already. `None` has Envoy answer 500.
    fn new_filter(&self, envoy: &EnvoyFilter<'_>) -> Option<Rc<dyn HttpFilter>>;
}

/// What a module does with one HTTP stream.
///
/// Hooks run on the stream's Envoy worker thread and must not block. They take `&self` because
/// callbacks re-enter: `send_response` runs `on_local_reply` before it returns, the streaming
/// calls run `on_stream_complete` and the watermark hooks. Keep state in `Cell`s; let no `RefCell`
/// borrow and no lock live across a callback.
///
/// Hooks that are lent a `&EnvoyFilter` run in the midst of Envoy's own work on the connection:
/// ending a stream there, this one or another, would crash it. They can read, and
/// [commit](Scheduler::commit) an event to act a moment later.
///
/// A hook that panics ends its stream: with a 500 if no response had begun, else by a reset.
///
/// The filter is dropped some time after `on_stream_complete`, on the same thread, when nothing
/// can be asked of Envoy any more.
#[allow(unused_variables)] // The names of unused arguments are documentation.
pub trait HttpFilter {
    /// The request's headers are there. [`HeadersStatus::StopIteration`] is what a filter answers
    /// that will send the response itself.
    fn on_request_headers(&self, envoy: &mut EnvoyFilter<'_>, end_of_stream: bool)
    -> HeadersStatus;

    /// A piece of the request's body is there; it may be empty.
    fn on_request_body(&self, envoy: &mut EnvoyFilter<'_>, end_of_stream: bool) -> DataStatus {
        DataStatus::Continue
    }

    /// The request's trailers are there; they end it.
    fn on_request_trailers(&self, envoy: &mut EnvoyFilter<'_>) -> TrailersStatus {
        TrailersStatus::Continue
    }

    /// The headers of a response that this filter did not send.
    fn on_response_headers(
        &self,
        envoy: &mut EnvoyFilter<'_>,
        end_of_stream: bool,
    ) -> HeadersStatus {
        HeadersStatus::Continue
    }

    /// A piece of the body of a response that this filter did not send.
    fn on_response_body(&self, envoy: &mut EnvoyFilter<'_>, end_of_stream: bool) -> DataStatus {
        DataStatus::Continue
    }

    /// The trailers of a response that this filter did not send.
    fn on_response_trailers(&self, envoy: &mut EnvoyFilter<'_>) -> TrailersStatus {
        TrailersStatus::Continue
    }

    /// A [`Scheduler`] committed `event`, from whichever thread: one call for each commit, in
    /// their order, never inside `commit`.
    fn on_scheduled(&self, envoy: &mut EnvoyFilter<'_>, event: u64) {}

    /// The client does not keep up: what is sent from now on piles up in Envoy.
    ///
    /// Runs inside the call that sends. The two watermark hooks nest: two `above` may come before a
    /// `below`, so count them.
    fn on_downstream_above_write_buffer_high_watermark(&self, envoy: &EnvoyFilter<'_>) {}

    /// Takes one `above` back.
    fn on_downstream_below_write_buffer_low_watermark(&self, envoy: &EnvoyFilter<'_>) {}

    /// A local reply, Envoy's or the filter's own [`EnvoyFilter::send_response`], is about to be
    /// sent.
    fn on_local_reply(&self, envoy: &EnvoyFilter<'_>, reply: LocalReply<'_>) -> LocalReplyStatus {
        LocalReplyStatus::Continue
    }

    /// The last hook of the stream; access logs are written after it. If the filter has not ended
    /// its response yet, this is how it learns that the client went away.
    fn on_stream_complete(&self, envoy: &EnvoyFilter<'_>) {}
}

/// Envoy's side of one filter configuration, lent while the module's side is made.
pub struct EnvoyFilterConfig<'hook> {
    raw: *mut sys::HttpFilterConfig,
    lent: PhantomData<&'hook mut ()>,
}

impl EnvoyFilterConfig<'_> {
    /// # Safety
    ///
    /// `raw` is live for `'hook`, and this is the main thread.
    pub(crate) unsafe fn new(raw: *mut sys::HttpFilterConfig) -> Self {
        Self {
            raw,
            lent: PhantomData,
        }
    }

    pub(crate) fn raw(&self) -> *mut sys::HttpFilterConfig {
        self.raw
    }
}

/// What Envoy does after a headers hook.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeadersStatus {
    /// Go on to the next filter.
    Continue = 0,
    /// Later filters wait; the body hooks of this one run as data arrives.
    StopIteration = 1,
    /// Go on, but keep the stream open for a body yet to be added.
    ContinueAndDontEndStream = 2,
    /// Later filters wait, and this one's body hooks too; over the buffer limit Envoy answers 413.
    StopAllIterationAndBuffer = 3,
    /// Later filters wait, and this one's body hooks too; over the buffer limit Envoy stops
    /// reading.
    StopAllIterationAndWatermark = 4,
}

/// What Envoy does after a body hook.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataStatus {
    /// Go on to the next filter, with the headers too if they were held.
    Continue = 0,
    /// Keep the data in the buffered body; over the buffer limit Envoy answers 413.
    StopIterationAndBuffer = 1,
    /// Keep the data in the buffered body; over the buffer limit Envoy stops reading, and resumes
    /// once it was drained below half of it.
    StopIterationAndWatermark = 2,
    /// Drop what the hook left. There is no back-pressure.
    StopIterationNoBuffer = 3,
}

/// What Envoy does after a trailers hook.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrailersStatus {
    /// Go on to the next filter.
    Continue = 0,
    /// Later filters wait.
    StopIteration = 1,
}

/// What Envoy does with a local reply.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LocalReplyStatus {
    /// Send it.
    Continue = 0,
    /// Reset the stream instead.
    ContinueAndResetStream = 1,
}

/// A response made by Envoy or by a filter rather than by an upstream.
#[derive(Debug, Clone, Copy)]
pub struct LocalReply<'hook> {
    /// Its status code.
    pub status: u32,
    /// Why, in one word, such as `request_payload_too_large`.
    pub details: &'hook [u8],
    /// Whether Envoy will reset the stream rather than send the reply.
    pub reset_imminent: bool,
}
