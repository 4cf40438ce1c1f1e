//! Runs on: any thread.
//!
//! The settings of the server, as they stand in the `extension_config` of the bootstrap
//! extension. Every default is here and nowhere else.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// Settings of one server process.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The application, as `module:attribute`.
    pub app: String,
    /// Whether the attribute is a function that makes the application.
    #[serde(default)]
    pub factory: bool,
    /// Where the application's modules are looked for first. Default: the working directory.
    #[serde(default)]
    pub app_dir: Option<PathBuf>,
    /// The Python executable of the environment to run in. Default: that of `VIRTUAL_ENV`, else
    /// the first `python3` on `PATH`.
    #[serde(default)]
    pub python: Option<PathBuf>,
    /// Which event loop runs the application.
    #[serde(default, rename = "loop")]
    pub event_loop: EventLoop,
    /// Whether the application's lifespan is run.
    #[serde(default)]
    pub lifespan: Lifespan,
    /// The ASGI `root_path`.
    #[serde(default)]
    pub root_path: String,
    /// Seconds that requests in flight get when the server stops.
    #[serde(default = "default_graceful_shutdown", deserialize_with = "seconds")]
    pub timeout_graceful_shutdown: Duration,
    /// The address of this Envoy's admin interface (a path or `ip:port`), through which it is
    /// told to stop accepting connections when the server stops. Without it, requests that come
    /// meanwhile are served, until nothing is in flight or the time is over.
    #[serde(default)]
    pub admin: Option<String>,
}

/// An implementation of asyncio's event loop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EventLoop {
    /// uvloop
    #[default]
    Uvloop,
    /// The standard library's
    Asyncio,
}

impl EventLoop {
    /// Its name in settings.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Uvloop => "uvloop",
            Self::Asyncio => "asyncio",
        }
    }
}

/// Whether an application's lifespan is run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Lifespan {
    /// Run; an application that raises on it is taken not to support it.
    #[default]
    Auto,
    /// Run; an application that raises on it does not start.
    On,
    /// Not run.
    Off,
}

impl Lifespan {
    /// Its name in settings.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

impl Config {
    /// Reads the JSON text that Envoy hands over.
    ///
    /// The error names the field and what was expected there.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, String> {
        if json.is_empty() {
            return Err(
                "the aiovoy bootstrap extension has no `extension_config`: give it a \
                        google.protobuf.Struct with at least `app: module:attribute`"
                    .into(),
            );
        }
        let config: Self = serde_json::from_slice(json).map_err(|error| {
            format!("`extension_config` of the aiovoy bootstrap extension: {error}")
        })?;
        match config.app.split_once(':') {
            Some((module, attribute)) if !module.is_empty() && !attribute.is_empty() => Ok(config),
            _ => Err(format!(
                "`app` is `{}` where `module:attribute` was expected",
                config.app
            )),
        }
    }
}

fn default_graceful_shutdown() -> Duration {
    Duration::from_secs(30)
}

/// A number of seconds, not negative. Envoy's YAML reader gives a `google.protobuf.Struct` its
/// whole numbers as numbers and all others as strings.
fn seconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Number(f64),
        Text(String),
    }
    let (seconds, written) = match Number::deserialize(deserializer)? {
        Number::Number(seconds) => (Some(seconds), seconds.to_string()),
        Number::Text(text) => (text.parse().ok(), text),
    };
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| serde::de::Error::custom(format!("`{written}` is not a number of seconds")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_application_is_required() {
        let config = Config::parse(br#"{"app": "main:app"}"#).expect("valid");
        assert_eq!(config.app, "main:app");
        assert_eq!(config.event_loop, EventLoop::Uvloop);
        assert_eq!(config.lifespan, Lifespan::Auto);
        assert_eq!(config.timeout_graceful_shutdown, Duration::from_secs(30));
    }

    #[test]
    fn seconds_come_as_numbers_and_as_strings() {
        for (json, millis) in [
            ("2", 2000),
            ("0.5", 500),
            (r#""0.5""#, 500),
            (r#""1.0""#, 1000),
        ] {
            let json = format!(r#"{{"app": "main:app", "timeout_graceful_shutdown": {json}}}"#);
            let config = Config::parse(json.as_bytes()).expect(&json);
            assert_eq!(config.timeout_graceful_shutdown.as_millis(), millis);
        }
    }

    #[test]
    fn errors_name_the_field() {
        for (json, word) in [
            ("", "extension_config"),
            (r#"{}"#, "app"),
            (r#"{"app": "main"}"#, "module:attribute"),
            (r#"{"app": ":app"}"#, "module:attribute"),
            (r#"{"app": "main:app", "lop": "uvloop"}"#, "lop"),
            (r#"{"app": "main:app", "loop": "trio"}"#, "trio"),
            (
                r#"{"app": "main:app", "timeout_graceful_shutdown": -1}"#,
                "-1",
            ),
        ] {
            let error = Config::parse(json.as_bytes()).expect_err(json);
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn names_are_those_that_are_parsed() {
        for name in ["uvloop", "asyncio"] {
            let parsed: EventLoop = serde_json::from_value(name.into()).expect(name);
            assert_eq!(parsed.name(), name);
        }
        for name in ["auto", "on", "off"] {
            let parsed: Lifespan = serde_json::from_value(name.into()).expect(name);
            assert_eq!(parsed.name(), name);
        }
    }
}
