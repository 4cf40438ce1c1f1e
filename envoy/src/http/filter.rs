//! Runs on: Envoy worker thread.
//!
//! [`EnvoyFilter`], the borrowed view a hook receives, and [`FilterRef`], with which a hook reaches
//! another stream of its thread.

use std::cell::Cell;
use std::ptr;
use std::rc::Rc;

use super::headers::Header;
use super::scheduler::Scheduler;
use crate::hooks;
use crate::sys;

/// Envoy's side of one stream, lent to a hook for the length of that hook.
///
/// Not `Send`: a filter belongs to one Envoy worker thread. At any time that thread has one
/// `EnvoyFilter` in use, that of the innermost hook or [`FilterRef::with`]; those further out are
/// suspended in a `&mut` borrow. So no bytes read from Envoy, of any stream of the thread, are held
/// while a `&mut self` method changes something.
///
/// A `&EnvoyFilter` can read, a `&mut EnvoyFilter` can also act. Hooks are lent the former where
/// Envoy would not survive an action, see [`HttpFilter`](super::HttpFilter).
///
/// Once the stream is over, getters find nothing and the other methods do nothing.
pub struct EnvoyFilter<'hook> {
    raw: *mut sys::HttpFilter,
    stream: &'hook Rc<Stream>,
}

impl<'hook> EnvoyFilter<'hook> {
    /// # Safety
    ///
    /// `raw` is live for `'hook`, this is its thread, and other `EnvoyFilter`s of the thread are
    /// suspended in a `&mut` borrow.
    #[inline]
    pub(crate) unsafe fn new(raw: *mut sys::HttpFilter, stream: &'hook Rc<Stream>) -> Self {
        Self { raw, stream }
    }
}

impl EnvoyFilter<'_> {
    /// Which Envoy worker thread this is, from 0.
    #[inline]
    pub fn worker_index(&self) -> u32 {
        // SAFETY: the filter is live while it is lent.
        unsafe { sys::http_filter_get_worker_index(self.raw) }
    }

    /// A way for other threads to have [`on_scheduled`](super::HttpFilter::on_scheduled) called.
    pub fn new_scheduler(&self) -> Scheduler {
        Scheduler::new(self)
    }

    /// A way for hooks of other streams to reach this one.
    #[inline]
    pub fn filter_ref(&self) -> FilterRef {
        FilterRef {
            stream: Rc::clone(self.stream),
        }
    }

    /// How much request body Envoy buffers for this stream; 0 is unlimited.
    #[inline]
    pub fn buffer_limit(&self) -> u64 {
        // SAFETY: the filter is live while it is lent.
        unsafe { sys::http_get_buffer_limit(self.raw) }
    }

    /// Changes how much request body Envoy buffers for this stream, at once.
    #[inline]
    pub fn set_buffer_limit(&mut self, bytes: u64) {
        // SAFETY: the filter is live while it is lent.
        unsafe { sys::http_set_buffer_limit(self.raw, bytes) }
    }

    /// Sets an option of the client's connection, as setsockopt(2) does. Says whether it could be
    /// set.
    pub fn set_downstream_socket_option(&mut self, level: i64, name: i64, value: i64) -> bool {
        let (state, direction) = (
            sys::SocketOptionState::Bound,
            sys::SocketDirection::Downstream,
        );
        // SAFETY: the filter is live while it is lent.
        unsafe { sys::http_set_socket_option_int(self.raw, level, name, state, direction, value) }
    }

    #[inline]
    pub(crate) fn raw(&self) -> *mut sys::HttpFilter {
        self.raw
    }

    #[inline]
    pub(crate) fn stream(&self) -> &Stream {
        self.stream
    }
}

/// A stream, from inside the hooks of others on the same Envoy worker thread. Not `Send`:
///
/// ```compile_fail
/// fn is_send<T: Send>() {}
/// is_send::<envoy::FilterRef>();
/// ```
#[derive(Clone)]
pub struct FilterRef {
    stream: Rc<Stream>,
}

impl FilterRef {
    /// Lends the stream's filter to `act`; `None` if the stream was destroyed.
    ///
    /// `current` is what the running hook was lent, of whichever stream, this one too. Giving it up
    /// for the length of `act` is what proves that the hook holds no bytes that `act` could free.
    ///
    /// ```compile_fail
    /// # fn hook(envoy: &mut envoy::EnvoyFilter<'_>, other: &envoy::FilterRef) {
    /// let path = envoy.request_header(":path"); // borrows `envoy`
    /// other.with(envoy, |other| other.drain_buffered_request_body(1)); // cannot borrow it again
    /// drop(path);
    /// # }
    /// ```
    ///
    /// If `act` panics, this stream fails as if its own hook had, the running hook goes on, and the
    /// answer is `None`.
    pub fn with<R>(
        &self,
        current: &mut EnvoyFilter<'_>,
        act: impl FnOnce(&mut EnvoyFilter<'_>) -> R,
    ) -> Option<R> {
        let _suspended = current;
        // `act` may drop the last reference to `self`.
        let stream = Rc::clone(&self.stream);
        let raw = stream.raw.get();
        if raw.is_null() {
            return None;
        }
        // SAFETY: `raw` is live: it is set to null before `http_filter_destroy` returns, and Envoy
        // calls that from its event loop, never inside another hook. The thread is right, as `Rc`
        // is not `Send`. `current` is borrowed until `act` has returned.
        let mut envoy = unsafe { EnvoyFilter::new(raw, &stream) };
        hooks::catch_ending("FilterRef::with", &mut envoy, act)
    }

    /// Begins this stream's response with a head of `status` and nothing else, if none has begun, from a
    /// hook of another connection's stream that may only read. For Envoy the request is then one that
    /// was answered, however the stream ends.
    ///
    /// `current` is what the running hook was lent.
    ///
    /// # Panics
    ///
    /// If `current` is of this very stream.
    pub fn begin_response(&self, current: &EnvoyFilter<'_>, status: u16) {
        let own = Rc::ptr_eq(&self.stream, current.stream);
        assert!(!own, "a response is not begun in a hook of its own stream");
        let raw = self.stream.raw.get();
        if raw.is_null() || !matches!(self.stream.progress(), Progress::Idle | Progress::Interim) {
            return;
        }
        let status = status.to_string();
        let head = [Header::new(b":status", status.as_bytes())];
        // SAFETY: `raw` is live, as in `with`. A head ends nothing: it goes into the write buffer of a
        // connection that is not the one in the midst of whose work the hook runs. No bytes that
        // could be held are freed by that.
        let mut envoy = unsafe { EnvoyFilter::new(raw, &self.stream) };
        envoy.send_response_headers(&head, false);
    }

    /// Lends the stream's filter to `act` for reading, from any hook; `None` if the stream was
    /// destroyed.
    ///
    /// `current` is what the running hook was lent: while it is borrowed, nothing can change.
    pub fn read<R>(
        &self,
        current: &EnvoyFilter<'_>,
        act: impl FnOnce(&EnvoyFilter<'_>) -> R,
    ) -> Option<R> {
        let _borrowed = current;
        let stream = Rc::clone(&self.stream);
        let raw = stream.raw.get();
        if raw.is_null() {
            return None;
        }
        // SAFETY: as in `with`. `current` stays borrowed and this one is not lent as `&mut`.
        let envoy = unsafe { EnvoyFilter::new(raw, &stream) };
        Some(act(&envoy))
    }
}

/// What the filter, its hooks and its [`FilterRef`]s share about a stream.
pub(crate) struct Stream {
    /// Null once the stream is destroyed.
    raw: Cell<*mut sys::HttpFilter>,
    progress: Cell<Progress>,
}

/// How far the response is. Envoy sends what it is given, and crashes over some of it, so what may
/// come next is decided here:
///
/// | now | interim head | final head | data, trailers | whole response | reset |
/// | --- | --- | --- | --- | --- | --- |
/// | `Idle` | `Interim` | `Sending` | out of turn | `Over` | `Over` |
/// | `Interim` | `Interim` | `Sending` | out of turn | `Over`, by a reset | `Over` |
/// | `Sending` | out of turn | out of turn | `Sending` | `Over`, by a reset | `Over` |
/// | `Passing` | out of turn | out of turn | out of turn | `Over` | `Over` |
/// | `Failing`, `Over` | nothing | nothing | nothing | nothing | nothing |
///
/// The end of the stream, with whatever it comes, leads to `Over`. What is out of turn ends the
/// stream as a panic does. After the end nothing is said, since the client may have gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    /// Nothing was sent.
    Idle,
    /// This filter has sent interim heads only.
    Interim,
    /// This filter sends a response.
    Sending,
    /// A response that this filter did not send goes through it.
    Passing,
    /// A hook that must not end the stream panicked. The next event ends it.
    Failing(Broken),
    /// The response was ended, or the stream is complete.
    Over,
}

/// How a stream that failed can be ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Broken {
    /// By a 500.
    Untouched,
    /// By a 500, although Envoy would reset it: for Envoy an interim head is a response begun.
    Announced,
    /// By a reset.
    Begun,
}

impl Progress {
    /// `None` if it is ended.
    pub(crate) fn broken(self) -> Option<Broken> {
        match self {
            Self::Idle => Some(Broken::Untouched),
            Self::Interim => Some(Broken::Announced),
            Self::Sending | Self::Passing => Some(Broken::Begun),
            Self::Failing(broken) => Some(broken),
            Self::Over => None,
        }
    }
}

impl Stream {
    pub(crate) fn new(raw: *mut sys::HttpFilter) -> Rc<Self> {
        Rc::new(Self {
            raw: Cell::new(raw),
            progress: Cell::new(Progress::Idle),
        })
    }

    /// Envoy's object is going away.
    pub(crate) fn detach(&self) {
        self.raw.set(ptr::null_mut());
    }

    #[inline]
    pub(crate) fn progress(&self) -> Progress {
        self.progress.get()
    }

    #[inline]
    pub(crate) fn set_progress(&self, progress: Progress) {
        self.progress.set(progress);
    }
}
