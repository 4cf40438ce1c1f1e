//! Filter configurations of the fake Envoy.

use std::cell::{Cell, RefCell};
use std::ptr;
use std::rc::Rc;

use super::World;
use super::request::Request;
use super::stream::Stream;
use super::stream_state::StreamState;
use crate::hooks;
use crate::sys::{self, EnvoyBuffer};

/// A filter configuration. It is destroyed when this and the streams made of it are dropped.
pub struct FilterConfig {
    world: Rc<World>,
    state: Rc<ConfigState>,
}

pub(super) struct ConfigState {
    id: usize,
    /// The module's pointer.
    pub(super) config: Cell<*const hooks::FilterConfig>,
    /// Metrics are defined while the configuration is made, and not later.
    pub(super) frozen: Cell<bool>,
    pub(super) counters: RefCell<Vec<(String, u64)>>,
    pub(super) gauges: RefCell<Vec<(String, u64)>>,
    pub(super) histograms: RefCell<Vec<(String, Vec<u64>)>>,
}

impl FilterConfig {
    pub(super) fn new(world: &Rc<World>, name: &str, config: &[u8]) -> Result<Self, String> {
        let state = Rc::new(ConfigState {
            id: world.new_id(),
            config: Cell::new(ptr::null()),
            frozen: Cell::new(false),
            counters: RefCell::default(),
            gauges: RefCell::default(),
            histograms: RefCell::default(),
        });
        world
            .configs
            .borrow_mut()
            .insert(state.id, Rc::clone(&state));
        // SAFETY: this is the thread's Envoy; the buffers outlive the call.
        let config = unsafe {
            hooks::envoy_dynamic_module_on_http_filter_config_new(
                ptr::without_provenance_mut(state.id),
                EnvoyBuffer::lend(name.as_bytes()),
                EnvoyBuffer::lend(config),
            )
        };
        state.frozen.set(true);
        world.configs.borrow_mut().remove(&state.id);
        if config.is_null() {
            return Err(world.last_error());
        }
        state.config.set(config);
        Ok(Self {
            world: Rc::clone(world),
            state,
        })
    }

    /// Begins a stream: its filter is made. If the module makes none, the stream is over, answered
    /// with a 500 as Envoy does.
    pub fn stream(&self, request: Request) -> Stream {
        Stream::new(StreamState::new(&self.world, &self.state, request))
    }

    /// The value of a counter that the module defined.
    pub fn counter(&self, name: &str) -> Option<u64> {
        find(&self.state.counters, name)
    }

    /// The value of a gauge that the module defined.
    pub fn gauge(&self, name: &str) -> Option<u64> {
        find(&self.state.gauges, name)
    }

    /// The samples of a histogram that the module defined.
    pub fn histogram(&self, name: &str) -> Option<Vec<u64>> {
        find(&self.state.histograms, name)
    }
}

fn find<T: Clone>(metrics: &RefCell<Vec<(String, T)>>, name: &str) -> Option<T> {
    let metrics = metrics.borrow();
    metrics
        .iter()
        .find(|(defined, _)| defined == name)
        .map(|(_, value)| value.clone())
}

impl Drop for ConfigState {
    fn drop(&mut self) {
        // SAFETY: `config` came from `config_new` (or is null) and is not used again.
        unsafe {
            hooks::envoy_dynamic_module_on_http_filter_config_destroy(self.config.get());
        }
    }
}

impl World {
    /// The configuration behind one of Envoy's pointers, while it is being made.
    pub(super) fn config(&self, pointer: *mut sys::HttpFilterConfig) -> Rc<ConfigState> {
        let state = self.configs.borrow().get(&pointer.addr()).cloned();
        state.expect("the filter configuration of a callback is being made on this thread")
    }
}
