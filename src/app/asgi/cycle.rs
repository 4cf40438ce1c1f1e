//! Runs on: loop thread.
//!
//! One exchange of either kind.

use std::time::{Duration, Instant};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyType;

use super::http::{self, HttpCycle, Waits};
use super::websocket::{self, WebSocketCycle};
use crate::app::dispatch::Dispatcher;
use crate::app::outcome::Outcome;
use crate::app::python::slots::bind_method;
use crate::exchange::{ExchangeId, Inbound, Request};

/// What stands between an application's call and its stream.
pub(crate) enum Cycle {
    Http(Py<HttpCycle>),
    WebSocket(Py<WebSocketCycle>),
}

/// The descriptors of `receive` and `send`, of exchanges of both kinds.
pub(crate) struct Methods {
    http: [Py<PyAny>; 2],
    websocket: [Py<PyAny>; 2],
}

impl Methods {
    pub(crate) fn new(py: Python<'_>) -> PyResult<Self> {
        let of = |class: Bound<'_, PyType>| -> PyResult<[Py<PyAny>; 2]> {
            let receive = class.getattr(intern!(py, "receive"))?.unbind();
            let send = class.getattr(intern!(py, "send"))?.unbind();
            Ok([receive, send])
        };
        Ok(Self {
            http: of(py.get_type::<HttpCycle>())?,
            websocket: of(py.get_type::<WebSocketCycle>())?,
        })
    }

    /// `receive` and `send` of `cycle`.
    pub(crate) fn of(&self, py: Python<'_>, cycle: &Cycle) -> PyResult<[Py<PyAny>; 2]> {
        let (object, [receive, send]) = match cycle {
            Cycle::Http(cycle) => (cycle.bind(py).as_any(), &self.http),
            Cycle::WebSocket(cycle) => (cycle.bind(py).as_any(), &self.websocket),
        };
        let bound = |method: &Py<PyAny>| bind_method(method.bind(py), object).map(Bound::unbind);
        Ok([bound(receive)?, bound(send)?])
    }
}

impl Cycle {
    /// The exchange of `request`.
    pub(crate) fn new(
        id: ExchangeId,
        dispatcher: &Bound<'_, Dispatcher>,
        request: Request,
    ) -> PyResult<Self> {
        let (py, own) = (dispatcher.py(), dispatcher.clone().unbind());
        Ok(match &request.websocket {
            Some(offer) => Self::WebSocket(Py::new(
                py,
                WebSocketCycle::new(id, own, offer, &request.head),
            )?),
            None => Self::Http(Py::new(py, HttpCycle::new(id, own, request))?),
        })
    }

    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Http(cycle) => Self::Http(cycle.clone_ref(py)),
            Self::WebSocket(cycle) => Self::WebSocket(cycle.clone_ref(py)),
        }
    }

    /// Takes what has come from Envoy for it. What its kind knows nothing of is nothing to it.
    pub(crate) fn feed(&self, py: Python<'_>, message: Inbound) -> PyResult<()> {
        match self {
            Self::Http(cycle) => {
                let event = match message {
                    Inbound::Body { data, end, .. } => http::Event::Body(data, end),
                    Inbound::Room(_, bytes) => http::Event::Room(bytes),
                    Inbound::File(_, read) => http::Event::File(*read),
                    Inbound::FileSent(_, sent) => http::Event::FileSent(sent),
                    Inbound::Disconnect(_) => http::Event::Disconnect,
                    Inbound::GivenUp(_) => http::Event::GivenUp,
                    _ => return Ok(()),
                };
                cycle.get().feed(py, event)
            }
            Self::WebSocket(cycle) => {
                let event = match message {
                    Inbound::Message(_, payload) => websocket::Event::Message(payload),
                    Inbound::Room(_, bytes) => websocket::Event::Room(bytes),
                    Inbound::Closed { code, reason, .. } => websocket::Event::Closed(code, reason),
                    Inbound::Disconnect(_) | Inbound::GivenUp(_) => websocket::Event::Disconnect,
                    Inbound::CloseWebSockets(handshakes) => websocket::Event::Shutdown(handshakes),
                    _ => return Ok(()),
                };
                cycle.get().feed(py, event)
            }
        }
    }

    /// Whether the application waits in `receive`.
    pub(crate) fn listens(&self) -> bool {
        match self {
            Self::Http(cycle) => cycle.get().listens(),
            Self::WebSocket(cycle) => cycle.get().listens(),
        }
    }

    /// Whether its client is waited for. A WebSocket has its pings.
    pub(crate) fn waits(&self, now: Instant, limit: Duration) -> Waits {
        match self {
            Self::Http(cycle) => cycle.get().waits(now, limit),
            Self::WebSocket(_) => Waits::No,
        }
    }

    /// The application has ended.
    pub(crate) fn end(&self, py: Python<'_>, outcome: &Outcome) {
        match self {
            Self::Http(cycle) => cycle.get().end(py, outcome),
            Self::WebSocket(cycle) => cycle.get().end(py, outcome),
        }
    }
}
