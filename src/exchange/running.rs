//! Runs on: an Envoy worker thread counts them; any thread asks.
//!
//! The requests of a worker that have not ended, for who wants to know why its loop does not turn.

use std::cmp::Reverse;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

/// How many requests are named.
const NAMED: usize = 10;

/// The requests of a worker that have not ended. Its text is for the log: the oldest of them, each with
/// its age in whole seconds.
#[derive(Debug, Default)]
pub(crate) struct Running {
    count: usize,
    /// The oldest first.
    named: Vec<(String, Duration)>,
}

impl Running {
    /// Of `requests` with their ages, of which `name` gives the names, as far as they have one.
    pub(crate) fn new<T>(
        mut requests: Vec<(Duration, T)>,
        mut name: impl FnMut(T) -> Option<String>,
    ) -> Self {
        let count = requests.len();
        requests.sort_by_key(|(age, _)| Reverse(*age));
        requests.truncate(NAMED);
        let requests = requests.into_iter();
        let named = requests.filter_map(|(age, request)| Some((name(request)?, age)));
        let named = named.collect();
        Self { count, named }
    }
}

impl Display for Running {
    fn fmt(&self, text: &mut Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return text.write_str("none");
        }
        for (at, (name, age)) in self.named.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(text, "{comma}{name} ({} s)", age.as_secs())?;
        }
        match self.count - self.named.len() {
            0 => Ok(()),
            more if self.named.is_empty() => write!(text, "{more}"),
            more => write!(text, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(ages: impl IntoIterator<Item = u64>) -> String {
        let requests = ages.into_iter().map(|age| (Duration::from_secs(age), age));
        let name = |age| (age != 0).then(|| format!("GET /{age}"));
        Running::new(requests.collect(), name).to_string()
    }

    #[test]
    fn the_oldest_come_first_and_ten_are_named() {
        assert_eq!(running([]), "none");
        assert_eq!(running([1]), "GET /1 (1 s)");
        assert_eq!(
            running([1, 7, 2]),
            "GET /7 (7 s), GET /2 (2 s), GET /1 (1 s)"
        );
        let many = running(1..=12);
        assert!(
            many.starts_with("GET /12 (12 s), GET /11 (11 s), "),
            "{many}"
        );
        assert!(many.ends_with(", GET /3 (3 s) and 2 more"), "{many}");
    }

    #[test]
    fn those_without_a_name_are_counted() {
        assert_eq!(running([0, 3, 0]), "GET /3 (3 s) and 2 more");
        assert_eq!(running([0, 0]), "2");
    }
}
