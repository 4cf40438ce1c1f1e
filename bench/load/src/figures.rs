//! What was measured.

use std::fmt;
use std::time::Duration;

/// What the benchmark reads.
#[derive(Debug)]
pub struct Figures {
    /// How many were answered.
    pub requests: usize,
    /// To the last answer.
    elapsed: Duration,
    p50: Duration,
    p99: Duration,
}

impl Figures {
    /// Of the times that the requests took, in any order, and of the time from the first request to the last answer.
    pub fn of(mut times: Vec<Duration>, elapsed: Duration) -> Self {
        times.sort_unstable();
        Self {
            requests: times.len(),
            elapsed,
            p50: percentile(&times, 50),
            p99: percentile(&times, 99),
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = self.requests;
        let [seconds, p50, p99] = [self.elapsed, self.p50, self.p99].map(|one| one.as_secs_f64());
        write!(
            f,
            r#"{{"requests": {requests}, "seconds": {seconds}, "p50": {p50}, "p99": {p99}}}"#
        )
    }
}

/// The smallest of `ordered` that `percent` of them do not exceed (nearest rank).
fn percentile(ordered: &[Duration], percent: usize) -> Duration {
    let rank = (ordered.len() * percent).div_ceil(100);
    ordered.get(rank.max(1) - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let ordered = [10, 20, 30, 40].map(Duration::from_millis);
        let found = [0, 50, 51, 99, 100].map(|percent| percentile(&ordered, percent).as_millis());
        assert_eq!(found, [10, 20, 30, 40, 40]);
    }

    #[test]
    fn figures_are_json() {
        let times = [3, 1, 2].map(Duration::from_micros).to_vec();
        let figures = Figures::of(times, Duration::from_millis(1500));
        let line = r#"{"requests": 3, "seconds": 1.5, "p50": 0.000002, "p99": 0.000003}"#;
        assert_eq!(figures.to_string(), line);
    }
}
