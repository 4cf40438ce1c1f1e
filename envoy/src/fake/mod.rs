//! An Envoy for tests: the callbacks, defined in Rust.
//!
//! It drives a [`Module`] through the very functions that Envoy calls, so that tests cover the
//! unsafe code too:
//!
//! ```
//! # use envoy::{BootstrapExtension, EnvoyBootstrap, EnvoyFilter, EnvoyFilterConfig};
//! # use envoy::{HeadersStatus, HttpFilter, HttpFilterConfig, Module};
//! # use std::rc::Rc;
//! # struct Hello;
//! # impl Module for Hello {
//! #     fn new_http_filter_config(
//! #         &self,
//! #         _: &mut EnvoyFilterConfig<'_>,
//! #         _: &str,
//! #         _: &[u8],
//! #     ) -> Result<Box<dyn HttpFilterConfig>, String> {
//! #         Ok(Box::new(HelloConfig))
//! #     }
//! #     fn new_bootstrap_extension(
//! #         &self,
//! #         _: &EnvoyBootstrap<'_>,
//! #         _: &str,
//! #         _: &[u8],
//! #     ) -> Result<Box<dyn BootstrapExtension>, String> {
//! #         Err("none".to_owned())
//! #     }
//! # }
//! # struct HelloConfig;
//! # impl HttpFilterConfig for HelloConfig {
//! #     fn new_filter(&self, _: &EnvoyFilter<'_>) -> Option<Rc<dyn HttpFilter>> {
//! #         Some(Rc::new(HelloFilter))
//! #     }
//! # }
//! # struct HelloFilter;
//! # impl HttpFilter for HelloFilter {
//! #     fn on_request_headers(&self, envoy: &mut EnvoyFilter<'_>, _: bool) -> HeadersStatus {
//! #         envoy.send_response(200, &[], b"hello", "hello");
//! #         HeadersStatus::StopIteration
//! #     }
//! # }
//! # static HELLO: Hello = Hello;
//! use envoy::fake::{self, Request};
//!
//! let envoy = fake::load(&HELLO)?;
//! let config = envoy.http_filter_config("hello", b"")?;
//! let stream = config.stream(Request::get("/"));
//! stream.request_headers(true);
//! assert_eq!(stream.response().status(), Some(200));
//! assert_eq!(stream.response().body, b"hello");
//! # Ok::<(), String>(())
//! ```
//!
//! A thread that loads a module becomes Envoy's main thread and one worker thread at once. What
//! the handles of this module are for lives on that thread; another thread has an Envoy of its own,
//! or none. Only schedulers and completions cross threads, as they do in Envoy, and what they post
//! waits for [`Envoy::run_events`].
//!
//! A callback that Envoy would not survive (from a foreign thread, on a destroyed stream, sending from
//! a watermark hook) aborts the test with a message.

mod bootstrap;
mod callbacks;
mod config;
mod queue;
mod request;
mod stream;
mod stream_state;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

pub use bootstrap::{Bootstrap, Shutdown};
pub use config::FilterConfig;
pub use request::{Attribute, Request};
pub use stream::{Response, Stream};

use crate::module::{self, Module};
use queue::{Event, Queue};

/// Loads `module` into this thread's Envoy, as if `export!` had named it. `Err` is the message
/// with which it refused.
pub fn load(module: &'static dyn Module) -> Result<Envoy, String> {
    Envoy::builder().load(module)
}

/// This thread's Envoy with a module loaded.
pub struct Envoy {
    world: Rc<World>,
}

/// The settings of an Envoy that a module can ask for.
#[derive(Clone, Debug)]
pub struct Builder {
    validation_mode: bool,
    concurrency: u32,
    worker_index: u32,
    log_level: log::LevelFilter,
}

impl Builder {
    /// As with `--mode validate`. Default: false.
    pub fn validation_mode(mut self, on: bool) -> Self {
        self.validation_mode = on;
        self
    }

    /// How many workers it claims to have. Default: 1.
    pub fn concurrency(mut self, workers: u32) -> Self {
        self.concurrency = workers;
        self
    }

    /// Which of them this thread is. Default: 0.
    pub fn worker_index(mut self, index: u32) -> Self {
        self.worker_index = index;
        self
    }

    /// From which level on it logs. Default: all.
    pub fn log_level(mut self, level: log::LevelFilter) -> Self {
        self.log_level = level;
        self
    }

    /// See [`load`].
    pub fn load(self, module: &'static dyn Module) -> Result<Envoy, String> {
        let world = Rc::new(World {
            settings: self,
            module,
            logs: RefCell::default(),
            configs: RefCell::default(),
            streams: RefCell::default(),
            bootstraps: RefCell::default(),
            queue: Arc::new(Queue::default()),
            next_id: Cell::new(1),
            reading_only: Cell::new(0),
        });
        WORLD.set(Some(Rc::clone(&world)));
        let version = module::program_init(module);
        if version.is_null() {
            return Err(world.last_error());
        }
        Ok(Envoy { world })
    }
}

impl Envoy {
    /// To change settings before loading.
    pub fn builder() -> Builder {
        Builder {
            validation_mode: false,
            concurrency: 1,
            worker_index: 0,
            log_level: log::LevelFilter::Trace,
        }
    }

    /// Makes a filter configuration; `Err` is the message with which the module refused.
    pub fn http_filter_config(&self, name: &str, config: &[u8]) -> Result<FilterConfig, String> {
        FilterConfig::new(&self.world, name, config)
    }

    /// Makes a bootstrap extension; `Err` is the message with which the module refused.
    pub fn bootstrap(&self, name: &str, config: &[u8]) -> Result<Bootstrap, String> {
        Bootstrap::new(&self.world, name, config)
    }

    /// What Envoy's event loop does next: delivers the events committed so far and while it does,
    /// then destroys the streams that are complete. Says how many events there were.
    pub fn run_events(&self) -> usize {
        let mut delivered = 0;
        while let Some(event) = self.world.queue.pop() {
            delivered += 1;
            match event {
                Event::Stream { id, event } => stream_state::deliver(&self.world, id, event),
                Event::Bootstrap { id, event } => bootstrap::deliver(&self.world, id, event),
            }
        }
        stream_state::destroy_complete(&self.world);
        delivered
    }

    /// Runs events, waiting for those of other threads, until `done`. A test that would wait for
    /// longer than ten seconds fails.
    #[track_caller]
    pub fn run_until(&self, mut done: impl FnMut() -> bool) {
        loop {
            self.run_events();
            if done() {
                return;
            }
            assert!(
                self.world.queue.wait(),
                "no event came that brought the condition about"
            );
        }
    }

    /// What the module logged on this thread, oldest first.
    pub fn logs(&self) -> Vec<LogRecord> {
        self.world.logs.borrow().clone()
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // Handles hold the world too, and their hooks may still look it up.
        if Rc::strong_count(&self.world) == 2 {
            WORLD.set(None);
        }
    }
}

/// One message in Envoy's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// Its level.
    pub level: log::Level,
    /// What it says.
    pub message: String,
    /// The source file it comes from.
    pub file: String,
    /// The line in `file`.
    pub line: u32,
}

/// The module of this thread's Envoy.
pub(crate) fn loaded() -> Option<&'static dyn Module> {
    World::current().map(|world| world.module)
}

/// What Envoy is to one thread.
struct World {
    settings: Builder,
    module: &'static dyn Module,
    logs: RefCell<Vec<LogRecord>>,
    configs: RefCell<HashMap<usize, Rc<config::ConfigState>>>,
    streams: RefCell<HashMap<usize, Rc<stream_state::StreamState>>>,
    bootstraps: RefCell<HashMap<usize, Rc<bootstrap::BootstrapState>>>,
    queue: Arc<Queue>,
    next_id: Cell<usize>,
    /// How many hooks are running in which no stream must be ended.
    reading_only: Cell<u32>,
}

thread_local! {
    static WORLD: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}

impl World {
    /// `None` on a thread that has no Envoy, and while the thread ends.
    fn current() -> Option<Rc<Self>> {
        WORLD
            .try_with(|world| world.borrow().clone())
            .ok()
            .flatten()
    }

    /// The pointers handed to the module are such numbers, and are looked up rather than followed:
    /// one that is no longer good is noticed.
    fn new_id(&self) -> usize {
        self.next_id.replace(self.next_id.get() + 1)
    }

    fn last_error(&self) -> String {
        let logs = self.logs.borrow();
        let error = logs
            .iter()
            .rev()
            .find(|record| record.level == log::Level::Error);
        error.map_or_else(
            || "no reason was logged".to_owned(),
            |record| record.message.clone(),
        )
    }
}
