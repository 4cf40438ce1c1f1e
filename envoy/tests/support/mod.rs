//! A module whose filters and extensions each test writes on the spot.

// Every test binary has its own copy and uses a part of it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::cell::RefCell;
use std::fmt::Display;
use std::rc::Rc;

use envoy::fake::{self, Envoy, FilterConfig};
use envoy::{
    BootstrapExtension, DataStatus, EnvoyBootstrap, EnvoyFilter, EnvoyFilterConfig, HeadersStatus,
    HttpFilter, HttpFilterConfig, LocalReply, LocalReplyStatus, Module, ShutdownCompletion,
    TrailersStatus,
};

type NewFilter = Box<dyn Fn(&EnvoyFilter<'_>) -> Option<Rc<dyn HttpFilter>>>;
type NewConfig = Box<dyn Fn(&mut EnvoyFilterConfig<'_>, &str, &[u8]) -> Result<(), String>>;
type NewExtension =
    Box<dyn Fn(&EnvoyBootstrap<'_>, &str, &[u8]) -> Result<Box<dyn BootstrapExtension>, String>>;

thread_local! {
    static NEW_CONFIG: RefCell<Option<NewConfig>> = const { RefCell::new(None) };
    static NEW_FILTER: RefCell<Option<Rc<NewFilter>>> = const { RefCell::new(None) };
    static NEW_EXTENSION: RefCell<Option<NewExtension>> = const { RefCell::new(None) };
}

/// An Envoy with the module below, and one filter configuration whose streams get what
/// `new_filter` makes.
pub fn envoy(
    new_filter: impl Fn(&EnvoyFilter<'_>) -> Option<Rc<dyn HttpFilter>> + 'static,
) -> (Envoy, FilterConfig) {
    let envoy = fake::load(&SCRIPTED).unwrap();
    NEW_FILTER.set(Some(Rc::new(Box::new(new_filter))));
    let config = envoy.http_filter_config("scripted", b"").unwrap();
    (envoy, config)
}

/// The same with one script for every stream.
pub fn scripted(script: Script) -> (Envoy, FilterConfig) {
    let script = Rc::new(script);
    envoy(move |_| Some(Rc::clone(&script) as Rc<dyn HttpFilter>))
}

/// The same with the script for the first stream, which drops it at its end.
pub fn scripted_once(script: Script) -> (Envoy, FilterConfig) {
    let slot = RefCell::new(Some(Rc::new(script) as Rc<dyn HttpFilter>));
    envoy(move |_| slot.take())
}

pub fn on_new_config(
    make: impl Fn(&mut EnvoyFilterConfig<'_>, &str, &[u8]) -> Result<(), String> + 'static,
) {
    NEW_CONFIG.set(Some(Box::new(make)));
}

pub fn on_new_extension(
    make: impl Fn(&EnvoyBootstrap<'_>, &str, &[u8]) -> Result<Box<dyn BootstrapExtension>, String>
    + 'static,
) {
    NEW_EXTENSION.set(Some(Box::new(make)));
}

pub static SCRIPTED: Scripted = Scripted;

pub struct Scripted;

impl Module for Scripted {
    fn new_http_filter_config(
        &self,
        envoy: &mut EnvoyFilterConfig<'_>,
        name: &str,
        config: &[u8],
    ) -> Result<Box<dyn HttpFilterConfig>, String> {
        NEW_CONFIG.with_borrow(|make| match make {
            Some(make) => make(envoy, name, config),
            None => Ok(()),
        })?;
        Ok(Box::new(ScriptedConfig))
    }

    fn new_bootstrap_extension(
        &self,
        envoy: &EnvoyBootstrap<'_>,
        name: &str,
        config: &[u8],
    ) -> Result<Box<dyn BootstrapExtension>, String> {
        NEW_EXTENSION.with_borrow(|make| make.as_ref().unwrap()(envoy, name, config))
    }
}

struct ScriptedConfig;

impl HttpFilterConfig for ScriptedConfig {
    fn new_filter(&self, envoy: &EnvoyFilter<'_>) -> Option<Rc<dyn HttpFilter>> {
        // No borrow during the call: it may make a stream that makes a filter in turn.
        let new_filter = NEW_FILTER.with_borrow(|make| make.clone().unwrap());
        new_filter(envoy)
    }
}

/// What happened, in order.
#[derive(Clone, Default)]
pub struct Journal(Rc<RefCell<Vec<String>>>);

impl Journal {
    pub fn add(&self, entry: impl Display) {
        self.0.borrow_mut().push(entry.to_string());
    }

    /// What was added since the last call.
    pub fn take(&self) -> Vec<String> {
        self.0.take()
    }
}

type Hook<R> = Box<dyn Fn(&mut EnvoyFilter<'_>) -> R>;
type ReadingHook<T> = Box<dyn Fn(&EnvoyFilter<'_>) -> T>;
type HookWith<T, R> = Box<dyn Fn(&mut EnvoyFilter<'_>, T) -> R>;

/// A filter made of closures, which notes each hook in its journal.
pub struct Script {
    pub journal: Journal,
    pub request_headers: HookWith<bool, HeadersStatus>,
    pub request_body: HookWith<bool, DataStatus>,
    pub request_trailers: Hook<TrailersStatus>,
    pub response_headers: HookWith<bool, HeadersStatus>,
    pub response_body: HookWith<bool, DataStatus>,
    pub response_trailers: Hook<TrailersStatus>,
    pub scheduled: HookWith<u64, ()>,
    pub above: ReadingHook<()>,
    pub below: ReadingHook<()>,
    pub local_reply: ReadingHook<LocalReplyStatus>,
    pub stream_complete: ReadingHook<()>,
    pub dropped: Dropped,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            journal: Journal::default(),
            request_headers: Box::new(|_, _| HeadersStatus::StopIteration),
            request_body: Box::new(|_, _| DataStatus::StopIterationAndWatermark),
            request_trailers: Box::new(|_| TrailersStatus::StopIteration),
            response_headers: Box::new(|_, _| HeadersStatus::Continue),
            response_body: Box::new(|_, _| DataStatus::Continue),
            response_trailers: Box::new(|_| TrailersStatus::Continue),
            scheduled: Box::new(|_, _| ()),
            above: Box::new(|_| ()),
            below: Box::new(|_| ()),
            local_reply: Box::new(|_| LocalReplyStatus::Continue),
            stream_complete: Box::new(|_| ()),
            dropped: Dropped::default(),
        }
    }
}

impl HttpFilter for Script {
    fn on_request_headers(&self, envoy: &mut EnvoyFilter<'_>, end: bool) -> HeadersStatus {
        self.journal.add(format_args!("request_headers end={end}"));
        (self.request_headers)(envoy, end)
    }

    fn on_request_body(&self, envoy: &mut EnvoyFilter<'_>, end: bool) -> DataStatus {
        self.journal.add(format_args!("request_body end={end}"));
        (self.request_body)(envoy, end)
    }

    fn on_request_trailers(&self, envoy: &mut EnvoyFilter<'_>) -> TrailersStatus {
        self.journal.add("request_trailers");
        (self.request_trailers)(envoy)
    }

    fn on_response_headers(&self, envoy: &mut EnvoyFilter<'_>, end: bool) -> HeadersStatus {
        self.journal.add(format_args!("response_headers end={end}"));
        (self.response_headers)(envoy, end)
    }

    fn on_response_body(&self, envoy: &mut EnvoyFilter<'_>, end: bool) -> DataStatus {
        self.journal.add(format_args!("response_body end={end}"));
        (self.response_body)(envoy, end)
    }

    fn on_response_trailers(&self, envoy: &mut EnvoyFilter<'_>) -> TrailersStatus {
        self.journal.add("response_trailers");
        (self.response_trailers)(envoy)
    }

    fn on_scheduled(&self, envoy: &mut EnvoyFilter<'_>, event: u64) {
        self.journal.add(format_args!("scheduled {event}"));
        (self.scheduled)(envoy, event);
    }

    fn on_downstream_above_write_buffer_high_watermark(&self, envoy: &EnvoyFilter<'_>) {
        self.journal.add("above");
        (self.above)(envoy);
    }

    fn on_downstream_below_write_buffer_low_watermark(&self, envoy: &EnvoyFilter<'_>) {
        self.journal.add("below");
        (self.below)(envoy);
    }

    fn on_local_reply(&self, envoy: &EnvoyFilter<'_>, reply: LocalReply<'_>) -> LocalReplyStatus {
        let details = String::from_utf8_lossy(reply.details);
        self.journal
            .add(format_args!("local_reply {} {details}", reply.status));
        assert!(!reply.reset_imminent);
        (self.local_reply)(envoy)
    }

    fn on_stream_complete(&self, envoy: &EnvoyFilter<'_>) {
        self.journal.add("stream_complete");
        (self.stream_complete)(envoy);
    }
}

/// Runs its closure when it is dropped.
#[derive(Default)]
pub struct Dropped(Option<Box<dyn Fn()>>);

impl Dropped {
    pub fn then(act: impl Fn() + 'static) -> Self {
        Self(Some(Box::new(act)))
    }

    pub fn note(journal: &Journal) -> Self {
        let journal = journal.clone();
        Self::then(move || journal.add("drop"))
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        if let Some(act) = &self.0 {
            act();
        }
    }
}

type MainHook = Box<dyn Fn(&EnvoyBootstrap<'_>)>;
type MainHookWith<T> = Box<dyn Fn(&EnvoyBootstrap<'_>, T)>;

/// A bootstrap extension made of closures.
pub struct Extension {
    pub journal: Journal,
    pub server_initialized: MainHook,
    pub shutdown: MainHookWith<ShutdownCompletion>,
    pub scheduled: MainHookWith<u64>,
    pub dropped: Dropped,
}

impl Default for Extension {
    fn default() -> Self {
        Self {
            journal: Journal::default(),
            server_initialized: Box::new(|_| ()),
            shutdown: Box::new(|_, done| done.complete()),
            scheduled: Box::new(|_, _| ()),
            dropped: Dropped::default(),
        }
    }
}

impl BootstrapExtension for Extension {
    fn on_server_initialized(&self, envoy: &EnvoyBootstrap<'_>) {
        self.journal.add("server_initialized");
        (self.server_initialized)(envoy);
    }

    fn on_drain_started(&self, _: &EnvoyBootstrap<'_>) {
        self.journal.add("drain_started");
    }

    fn on_shutdown(&self, envoy: &EnvoyBootstrap<'_>, done: ShutdownCompletion) {
        self.journal.add("shutdown");
        (self.shutdown)(envoy, done);
    }

    fn on_scheduled(&self, envoy: &EnvoyBootstrap<'_>, event: u64) {
        self.journal.add(format_args!("scheduled {event}"));
        (self.scheduled)(envoy, event);
    }

    fn on_destroy(&self) {
        self.journal.add("destroy");
    }
}
