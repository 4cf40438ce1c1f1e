//! Runs on: tokio.
//!
//! The drain: what is in flight ends, within the time that the configuration gives it.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::front::GAUGE_INTERVAL;
use super::server::Supervision;
use crate::app::event_loop::LoopThread;
use crate::exchange::Inbound;

/// How long connections without a request are left open at the end of a drain at least, for the request
/// that may be on its way.
const IDLE_GRACE: Duration = Duration::from_millis(100);
/// How often Envoy's gauges are read while a retirement waits for idle connections, which may last.
const RETIREMENT_INTERVAL: Duration = Duration::from_millis(50);
/// How long cancelled application calls get to end.
const CANCEL_GRACE: Duration = Duration::from_secs(1);

impl Supervision {
    /// Lets what is in flight end, within the time that the configuration gives it. After that no request gets to
    /// the applications, which may end.
    pub(super) async fn drain(&self, loops: &[LoopThread]) {
        let since = Instant::now();
        let deadline = since + self.process.config.timeout_graceful_shutdown;
        let closed = self.front.close(&self.process.config);
        if let Ok(Err(error)) = timeout_at(deadline, closed).await {
            log::warn!("{error}");
        }
        // Nobody who is told to come again comes to this process again.
        self.process.in_flight.drain();
        let handshakes = self.stop.handshakes();
        self.tell_loops(|| Inbound::CloseWebSockets(handshakes));
        if timeout_at(deadline, self.quiet(since)).await.is_err() {
            self.cut_short().await;
        }
        loops.iter().for_each(LoopThread::close);
        if self.process.in_flight.count() > 0 {
            // One has come just before.
            let _ = timeout_at(deadline, self.quiet(since)).await;
        }
    }

    /// The time is over.
    async fn cut_short(&self) {
        let in_flight = &self.process.in_flight;
        let seconds = self.process.config.timeout_graceful_shutdown.as_secs_f64();
        if in_flight.count() == 0 {
            if !self.front.gauges().await.buffered {
                // A retirement: idle connections have had their time.
                return;
            }
            log::error!("clients have not taken their responses after {seconds} s: cut off");
            return;
        }
        log::error!("requests still run after {seconds} s: cancelled");
        self.tell_loops(|| Inbound::CancelAll);
        let _ = timeout(CANCEL_GRACE, in_flight.drained()).await;
    }

    fn tell_loops(&self, message: impl Fn() -> Inbound) {
        for worker in self.process.workers() {
            // A loop that has ended has nothing to be told.
            let _ = worker.inbox.post_all(&mut vec![message()]);
        }
    }

    /// Waits until nothing is in flight, all responses are with their clients, and no connection
    /// has brought another request. Each is closed by its next answer; the others have the time that a
    /// retirement gives them, of a drain that has begun at `since`.
    async fn quiet(&self, since: Instant) {
        let in_flight = &self.process.in_flight;
        loop {
            in_flight.drained().await;
            let idle_since = Instant::now();
            loop {
                let gauges = self.front.gauges().await;
                if in_flight.count() > 0 {
                    break;
                }
                let lasts = idle_since.elapsed() >= IDLE_GRACE;
                let idle = lasts && since.elapsed() >= self.stop.idle_grace();
                if !gauges.buffered && (gauges.connections == 0 || idle) {
                    return;
                }
                let is_retiring = lasts && !idle;
                let interval = if is_retiring {
                    RETIREMENT_INTERVAL
                } else {
                    GAUGE_INTERVAL
                };
                tokio::time::sleep(interval).await;
            }
        }
    }
}
