//! Runs on: Envoy worker thread.
//!
//! Answers in the application's place.

use envoy::{DataStatus, EnvoyFilter, Header, ResetReason};

use super::{Filter, ResponseBody, headers, status_digits};
use crate::admission::Refusal;
use crate::exchange::{Failure, Fields, HttpVersion, Inbound};

impl Filter {
    /// Answers a request that is not let in.
    pub(super) fn turn_away(&self, envoy: &mut EnvoyFilter<'_>, refusal: Refusal) {
        self.log_answer(envoy, refusal);
        self.answer(envoy, refusal);
    }

    /// Answers a request of HTTP/1 and closes its connection at once. A connection that is only
    /// drained would serve what has come behind the request.
    pub(super) fn answer_and_close(&self, envoy: &mut EnvoyFilter<'_>, refusal: Refusal) {
        self.log_answer(envoy, refusal);
        self.end_response();
        // For `connection: close`.
        envoy.send_go_away_and_close(true);
        let status = status_digits(refusal.status);
        let length = Header::new(b"content-length", b"0");
        // With that the client has all of it, but for Envoy there is something left to reset.
        envoy.send_response_headers(&[Header::new(b":status", &status), length], false);
        envoy.reset_stream(ResetReason::LocalReset, refusal.details);
    }

    fn log_answer(&self, envoy: &EnvoyFilter<'_>, refusal: Refusal) {
        let Refusal {
            status, details, ..
        } = refusal;
        self.log_refusal(envoy, Some(status.into()), details.as_bytes());
    }

    /// Ends an exchange whose request has more body than it may.
    pub(super) fn refuse_body(&self, envoy: &mut EnvoyFilter<'_>) -> DataStatus {
        let Refusal {
            status, details, ..
        } = Refusal::BODY;
        let ResponseBody { started, ended, .. } = self.response.get();
        if !ended {
            if self.streams.gathered.take_back(self.id) {
                // The application has not heard of it, and won't.
                self.streams.process.in_flight.return_call();
            } else {
                self.streams
                    .post(envoy, self.id, Inbound::Disconnect(self.id));
            }
        }
        let answered = (!started).then_some(status.into());
        self.log_refusal(envoy, answered, details.as_bytes());
        if started {
            self.end_response();
            envoy.reset_stream(ResetReason::LocalReset, details);
        } else {
            self.answer(envoy, Refusal::BODY);
        }
        DataStatus::StopIterationNoBuffer
    }

    /// Refuses a request that the loop can't take any more.
    pub(crate) fn refuse(&self, current: &mut EnvoyFilter<'_>) {
        self.envoy
            .with(current, |envoy| self.fail(envoy, Failure::TooLate));
    }

    /// Ends a request that has come too late for the application: on HTTP/1 as if the connection had ended before,
    /// which clients know; on HTTP/3 with H3_REQUEST_REJECTED, which says that nothing has come of it (RFC 9114,
    /// section 4.1.1). What Envoy has for HTTP/2 does not say that, so there it is an answer.
    fn turn_back(&self, envoy: &mut EnvoyFilter<'_>) {
        self.close_connection(envoy);
        self.want_no_more();
        let refusal = Refusal::STOPPING;
        if self.is_http2() {
            return self.turn_away(envoy, refusal);
        }
        self.log_refusal(envoy, None, refusal.details.as_bytes());
        self.end_response();
        envoy.reset_stream(ResetReason::LocalReset, refusal.details);
    }

    /// No end of a response waits for the rest of this request.
    fn want_no_more(&self) {
        let mut request = self.request.get();
        request.ended = true;
        self.request.set(request);
    }

    /// Answers in the application's place, before a response has begun.
    fn answer(&self, envoy: &mut EnvoyFilter<'_>, refusal: Refusal) {
        let Refusal {
            status,
            text,
            details,
        } = refusal;
        self.tell_front();
        if self.streams.process.in_flight.draining() {
            self.close_connection(envoy);
        }
        let announced = self.response.get().announced;
        if !announced && !self.holds_end(text.len()) {
            self.end_response();
            let later = [Header::new(b"retry-after", b"1")];
            let headers = if refusal.passes() { &later[..] } else { &[] };
            return envoy.send_response(status.into(), headers, text.as_bytes(), details);
        }
        // For Envoy an interim head is a response begun: a whole one would only reset the stream.
        // Nor can its end be held back.
        let mut fields = Fields::default();
        fields.push(b"content-type", b"text/plain");
        fields.push(b"content-length", text.len().to_string().as_bytes());
        let status = status_digits(status);
        envoy.send_response_headers(&headers(&status, &fields), false);
        let head_only = envoy.request_header(":method") == Some(b"HEAD");
        let body = if head_only { "" } else { text };
        self.finish(envoy, body.as_bytes(), Fields::default());
    }

    /// The response will not be completed by the application.
    pub(super) fn fail(&self, envoy: &mut EnvoyFilter<'_>, failure: Failure) {
        let refusal = match failure {
            Failure::Application => Refusal::FAILED,
            Failure::Idle => Refusal::IDLE,
            Failure::Refused => Refusal::FORBIDDEN,
            Failure::Stopping => Refusal::STOPPING,
            Failure::TooLate => return self.turn_back(envoy),
        };
        if self.response.get().started {
            self.end_response();
            return envoy.reset_stream(ResetReason::LocalReset, refusal.details);
        }
        if failure == Failure::Idle {
            self.want_no_more();
            if self.version.get() <= HttpVersion::Http11 {
                // The rest of the request may still come, and is not to be taken for another one.
                self.close_connection(envoy);
            }
        }
        self.answer(envoy, refusal);
    }
}
