//! Runs on: no thread of its own; pure.
//!
//! The settings of the server, as they stand in the `extension_config` of the bootstrap
//! extension. Every default is here and nowhere else. What a room makes of them is the room's:
//! this knows none.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// Settings of one server process.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The application, as `module:attribute`. May be left out if there are mounts.
    #[serde(default)]
    app: Option<String>,
    /// Applications by path prefix; the longest that fits wins, and else `app`.
    #[serde(default)]
    mounts: Vec<Mount>,
    /// Whether the attributes are functions that make the applications.
    #[serde(default)]
    pub factory: bool,
    /// Where the application's modules are looked for first. Default: the working directory.
    #[serde(default)]
    pub app_dir: Option<PathBuf>,
    /// The Python executable of the environment to run in. Default: that of `VIRTUAL_ENV`, else
    /// the first `python3` on `PATH`.
    #[serde(default)]
    pub python: Option<PathBuf>,
    /// Options of Python's command line.
    #[serde(default)]
    pub python_options: Vec<String>,
    /// Where modules are looked for first, before what the environment has.
    #[serde(default)]
    pub python_path: Vec<PathBuf>,
    /// Which event loop runs the application.
    #[serde(default, rename = "loop")]
    pub event_loop: EventLoop,
    /// Whether the application's lifespan is run.
    #[serde(default)]
    pub lifespan: Lifespan,
    /// The ASGI `root_path`.
    #[serde(default)]
    pub root_path: String,
    /// The proxies whose `x-forwarded-for` and `x-forwarded-proto` are believed: addresses,
    /// networks, other names of a peer, or `*`.
    #[serde(default = "default_forwarded_allow_ips")]
    pub forwarded_allow_ips: Vec<String>,
    /// Whether the client's address comes by the PROXY protocol.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// Whether Envoy appends an element with the client's certificates to
    /// `x-forwarded-client-cert` where there are any. Without that the last element is the
    /// client's own.
    #[serde(default)]
    pub client_certs: bool,
    /// Bytes of a request's head, names and values, above which it is refused.
    #[serde(default, deserialize_with = "whole")]
    pub limit_request_header_bytes: Option<u64>,
    /// Fields of a request above which it is refused; all of its cookies are one.
    #[serde(default, deserialize_with = "whole")]
    pub limit_request_header_count: Option<u64>,
    /// Bytes of request body above which a request is refused.
    #[serde(default, deserialize_with = "whole")]
    pub limit_request_body: Option<u64>,
    /// Requests in the application above which more are refused.
    #[serde(default, deserialize_with = "whole")]
    pub limit_concurrency: Option<u64>,
    /// Requests that may be under way through the router, for each Envoy worker.
    #[serde(default, deserialize_with = "whole")]
    pub limit_router_requests: Option<u64>,
    /// Seconds that the application waits for a client that does not send the body that is asked
    /// for, before there is a response, or does not take the response; 0 is for ever.
    #[serde(default = "default_idle", deserialize_with = "seconds")]
    pub timeout_idle: Duration,
    /// The value of `alt-svc` in responses over TLS that are not HTTP/3.
    #[serde(default)]
    pub alt_svc: Option<String>,
    /// Whether Envoy is told, once the server is ready, to log this module from level info on, at
    /// which it says what is refused. Before that Envoy would add news of its own.
    #[serde(default)]
    pub log_refusals: bool,
    /// The least severe level that Python's loggers of the server have at first.
    #[serde(default = "default_log_level")]
    pub log_level: String,
    /// What Python's `logging` is configured by before the application is imported: a file, or what
    /// `dictConfig` takes, in JSON.
    #[serde(default)]
    pub log_config: Option<String>,
    /// What lines of the log look like that no handler of Python's takes.
    #[serde(default)]
    pub log_form: LogForm,
    /// Whether requests are logged by Python's `logging` where handlers take them.
    #[serde(default)]
    pub log_requests: bool,
    /// What the access log wants to know: filter states `aiovoy.KEY`.
    #[serde(default)]
    pub access_log: Vec<LogField>,
    /// Bytes of the largest WebSocket message that is taken.
    #[serde(default = "default_ws_max_size", deserialize_with = "whole_number")]
    pub ws_max_size: u64,
    /// WebSocket messages that wait for the application.
    #[serde(default = "default_ws_max_queue", deserialize_with = "whole_number")]
    pub ws_max_queue: u64,
    /// Seconds between two pings of a WebSocket; 0 is never.
    #[serde(default = "default_ws_ping", deserialize_with = "seconds")]
    pub ws_ping_interval: Duration,
    /// Seconds that a client gets to answer a ping; 0 is for ever.
    #[serde(default = "default_ws_ping", deserialize_with = "seconds")]
    pub ws_ping_timeout: Duration,
    /// Whether the compression of WebSocket messages (RFC 7692) is agreed to.
    #[serde(default = "default_ws_per_message_deflate")]
    pub ws_per_message_deflate: bool,
    /// Seconds that requests in flight get when the server stops.
    #[serde(default = "default_graceful_shutdown", deserialize_with = "seconds")]
    pub timeout_graceful_shutdown: Duration,
    /// The address of this Envoy's admin interface (a path or `ip:port`), through which it is
    /// told to stop accepting connections when the server stops. Without it, requests that come
    /// meanwhile are served, until nothing is in flight or the time is over.
    #[serde(default)]
    pub admin: Option<String>,
}

/// An application under a path prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mount {
    /// The prefix, such as `/api`: of whole path segments, without a slash at its end. Empty for
    /// the application that gets what fits no other.
    pub path: String,
    /// The application, as `module:attribute`.
    pub app: String,
    /// Whether the attribute is a function that makes it, if it is otherwise than for the others.
    #[serde(default)]
    pub factory: Option<bool>,
    /// Whether its lifespan is run, likewise.
    #[serde(default)]
    pub lifespan: Option<Lifespan>,
    /// What is before the prefix in its `root_path`, likewise.
    #[serde(default)]
    pub root_path: Option<String>,
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

/// What lines of the log look like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogForm {
    /// As Envoy's own
    #[default]
    Envoys,
    /// Time, level and text
    Text,
    /// Likewise, with the level in colour
    Colored,
    /// An object each
    Json,
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

/// What an access log can't have from Envoy, or not in a form that nobody can forge. What a
/// client may choose is escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogField {
    /// The scope's client.
    Client,
    /// The scope's client, if it is another than the connection's, which Envoy knows.
    NamedClient,
    /// Method, target and protocol.
    Request,
    Referer,
    UserAgent,
}

impl LogField {
    /// The filter state that has it.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Client | Self::NamedClient => "aiovoy.client",
            Self::Request => "aiovoy.request",
            Self::Referer => "aiovoy.referer",
            Self::UserAgent => "aiovoy.user_agent",
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
        let mut config: Self = serde_json::from_slice(json).map_err(|error| {
            format!("`extension_config` of the aiovoy bootstrap extension: {error}")
        })?;
        if config.app.is_none() && config.mounts.is_empty() {
            return Err("neither `app` nor a mount says which application to serve".into());
        }
        for mount in &config.mounts {
            if !mount.path.starts_with('/') || mount.path.ends_with('/') {
                return Err(format!(
                    "the `path` of a mount is `{}` where `/prefix` was expected",
                    mount.path
                ));
            }
        }
        let app = config.app.clone().map(|app| Mount {
            app,
            ..Mount::default()
        });
        config.mounts.extend(app);
        // Those that fit more requests come later.
        config.mounts.sort_by(|one, other| {
            let longer = other.path.len().cmp(&one.path.len());
            longer.then_with(|| one.path.cmp(&other.path))
        });
        for Mount { app, .. } in &config.mounts {
            match app.split_once(':') {
                Some((module, attribute)) if !module.is_empty() && !attribute.is_empty() => {}
                _ => {
                    return Err(format!(
                        "`app` is `{app}` where `module:attribute` was expected"
                    ));
                }
            }
        }
        let paths = config
            .mounts
            .windows(2)
            .find(|pair| pair[0].path == pair[1].path);
        match paths {
            Some(pair) => Err(format!("two applications below `{}`", pair[0].path)),
            None => Ok(config),
        }
    }

    /// The applications. The first whose prefix fits gets a request.
    pub(crate) fn mounts(&self) -> &[Mount] {
        &self.mounts
    }
}

/// Settings of a network of our own. Envoy has its own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetworkConfig {
    /// Seconds that a client may take for the head of a request; 0 is for ever.
    #[serde(deserialize_with = "seconds")]
    pub timeout_request_headers: Duration,
    /// Seconds that a connection may wait for its next request; 0 is for ever.
    #[serde(deserialize_with = "seconds")]
    pub timeout_keep_alive: Duration,
    /// Requests at a time on one connection of HTTP/2.
    pub http2_max_concurrent_streams: u32,
    /// Whether WebSockets are served; without, a handshake is a request like others.
    pub websockets: bool,
    /// Connections at a time.
    pub limit_connections: usize,
    /// Whether requests without an `x-request-id` get one.
    pub request_id: bool,
    /// What the access log is, if there is one.
    pub access_log: Option<AccessLogConfig>,
}

/// An access log of our own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccessLogConfig {
    /// What its lines look like.
    pub form: AccessLogForm,
    /// The file; standard output if there is none.
    pub file: Option<PathBuf>,
}

/// What the lines of an access log look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AccessLogForm {
    /// Apache's common log format.
    Common,
    /// The same with referer and user agent.
    Combined,
    /// An object for each request.
    Json,
}

impl NetworkConfig {
    /// Reads JSON. The error names the field.
    pub(crate) fn parse(json: &str) -> Result<Self, String> {
        serde_json::from_str(json).map_err(|error| format!("settings of the network: {error}"))
    }
}

fn default_log_level() -> String {
    "info".into()
}

fn default_graceful_shutdown() -> Duration {
    Duration::from_secs(30)
}

fn default_idle() -> Duration {
    Duration::from_secs(300)
}

fn default_ws_max_size() -> u64 {
    16 * 1024 * 1024
}

fn default_ws_max_queue() -> u64 {
    32
}

fn default_ws_ping() -> Duration {
    Duration::from_secs(20)
}

fn default_ws_per_message_deflate() -> bool {
    true
}

fn default_forwarded_allow_ips() -> Vec<String> {
    vec!["127.0.0.1".into(), "::1".into()]
}

/// A whole number that may be left out.
fn whole<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    whole_number(deserializer).map(Some)
}

/// A whole number, not negative, in any of the forms that Envoy gives a number.
fn whole_number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let (number, written) = number(deserializer)?;
    let whole = number.filter(|number| number.fract() == 0.0 && (0.0..=MAX_WHOLE).contains(number));
    match whole {
        // In range, as was just seen.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Some(number) => Ok(number as u64),
        None => Err(serde::de::Error::custom(format!(
            "`{written}` is not a whole number"
        ))),
    }
}

/// The largest number up to which doubles, which are what a `Struct` has, hold all whole ones.
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;

/// A number of seconds, not negative.
fn seconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let (seconds, written) = number(deserializer)?;
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| serde::de::Error::custom(format!("`{written}` is not a number of seconds")))
}

/// A number, and how it was written. Envoy's YAML reader gives a `google.protobuf.Struct` its
/// whole numbers as numbers and all others as strings.
fn number<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<(Option<f64>, String), D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Number(f64),
        Text(String),
    }
    Ok(match Number::deserialize(deserializer)? {
        Number::Number(number) => (Some(number), number.to_string()),
        Number::Text(text) => (text.parse().ok(), text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_application_is_required() {
        let config = Config::parse(br#"{"app": "main:app"}"#).expect("valid");
        assert_eq!(config.mounts(), [mount("", "main:app")]);
        assert_eq!(config.event_loop, EventLoop::Uvloop);
        assert_eq!(config.lifespan, Lifespan::Auto);
        assert_eq!(config.timeout_graceful_shutdown, Duration::from_secs(30));
    }

    fn mount(path: &str, app: &str) -> Mount {
        let (path, app) = (path.to_owned(), app.to_owned());
        Mount {
            path,
            app,
            ..Mount::default()
        }
    }

    #[test]
    fn longest_prefixes_come_first() {
        let json = br#"{"app": "main:app", "mounts": [
            {"path": "/a", "app": "a:app"}, {"path": "/a/b", "app": "b:app"}, {"path": "/c", "app": "c:app"}
        ]}"#;
        let config = Config::parse(json).expect("valid");
        let expected = [
            mount("/a/b", "b:app"),
            mount("/a", "a:app"),
            mount("/c", "c:app"),
            mount("", "main:app"),
        ];
        assert_eq!(config.mounts(), expected);
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
            (
                r#"{"mounts": [{"path": "/a", "app": "a"}]}"#,
                "module:attribute",
            ),
            (r#"{"mounts": [{"path": "a", "app": "a:b"}]}"#, "`a`"),
            (r#"{"mounts": [{"path": "/a/", "app": "a:b"}]}"#, "`/a/`"),
            (r#"{"mounts": [{"path": "", "app": "a:b"}]}"#, "``"),
            (
                r#"{"mounts": [{"path": "/a", "app": "a:b"}, {"path": "/b", "app": "c:d"}, {"path": "/a", "app": "c:d"}]}"#,
                "`/a`",
            ),
            (
                r#"{"mounts": [{"path": "/a", "app": "a:b", "loop": "uvloop"}]}"#,
                "loop",
            ),
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
        for name in ["client", "request", "referer", "user_agent"] {
            let parsed: LogField = serde_json::from_value(name.into()).expect(name);
            assert_eq!(parsed.key(), format!("aiovoy.{name}"));
        }
    }
}
