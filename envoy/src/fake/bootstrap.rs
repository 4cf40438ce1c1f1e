//! Bootstrap extensions of the fake Envoy.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ptr;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::World;
use crate::hooks::{self, Extension};
use crate::sys::EnvoyBuffer;

/// A bootstrap extension. Dropping it is Envoy's exit: the destroy hooks run.
pub struct Bootstrap {
    world: Rc<World>,
    state: Rc<BootstrapState>,
}

pub(super) struct BootstrapState {
    /// Stands for both of Envoy's pointers.
    id: usize,
    /// The module's pointer.
    extension: Cell<*const Extension>,
    pub(super) init_complete: Cell<bool>,
    /// Whether `bootstrap_extension_new` has been called, without which statistics are out of reach.
    created: Cell<bool>,
    pub(super) counters: RefCell<BTreeMap<String, u64>>,
    pub(super) gauges: RefCell<BTreeMap<String, u64>>,
}

impl Bootstrap {
    pub(super) fn new(world: &Rc<World>, name: &str, config: &[u8]) -> Result<Self, String> {
        let state = Rc::new(BootstrapState {
            id: world.new_id(),
            extension: Cell::new(ptr::null()),
            init_complete: Cell::new(false),
            created: Cell::new(false),
            counters: RefCell::default(),
            gauges: RefCell::default(),
        });
        world
            .bootstraps
            .borrow_mut()
            .insert(state.id, Rc::clone(&state));
        let envoy = ptr::without_provenance_mut(state.id);
        // SAFETY: this is the thread's Envoy; the buffers outlive the call.
        let extension = unsafe {
            hooks::envoy_dynamic_module_on_bootstrap_extension_config_new(
                envoy,
                EnvoyBuffer::lend(name.as_bytes()),
                EnvoyBuffer::lend(config),
            )
        };
        if extension.is_null() {
            world.bootstraps.borrow_mut().remove(&state.id);
            return Err(world.last_error());
        }
        let envoy = ptr::without_provenance_mut(state.id);
        // SAFETY: `extension` came from `config_new` just now.
        let extension =
            unsafe { hooks::envoy_dynamic_module_on_bootstrap_extension_new(extension, envoy) };
        state.extension.set(extension);
        state.created.set(true);
        let this = Self {
            world: Rc::clone(world),
            state,
        };
        // SAFETY: `extension` came from `new` just now.
        unsafe {
            hooks::envoy_dynamic_module_on_bootstrap_extension_worker_thread_initialized(
                ptr::without_provenance_mut(this.state.id),
                extension,
            );
        }
        Ok(this)
    }

    /// The configuration was read; the main loop comes next.
    pub fn server_initialized(&self) {
        let (envoy, extension) = self.pointers();
        // SAFETY: `extension` is not destroyed before `drop`.
        unsafe {
            hooks::envoy_dynamic_module_on_bootstrap_extension_server_initialized(envoy, extension);
        }
    }

    /// `POST /drain_listeners`.
    pub fn drain_started(&self) {
        let (envoy, extension) = self.pointers();
        // SAFETY: `extension` is not destroyed before `drop`.
        unsafe {
            hooks::envoy_dynamic_module_on_bootstrap_extension_drain_started(envoy, extension);
        }
    }

    /// SIGTERM; may come more than once.
    pub fn shutdown(&self) -> Shutdown {
        let shutdown = Shutdown {
            shared: Arc::default(),
        };
        let context = Arc::into_raw(Arc::clone(&shutdown.shared))
            .cast_mut()
            .cast();
        let (envoy, extension) = self.pointers();
        // SAFETY: `extension` is not destroyed before `drop`; `completed` takes `context` once.
        unsafe {
            hooks::envoy_dynamic_module_on_bootstrap_extension_shutdown(
                envoy, extension, completed, context,
            );
        }
        shutdown
    }

    /// Whether the module lets Envoy accept traffic.
    pub fn is_init_complete(&self) -> bool {
        self.state.init_complete.get()
    }

    /// Gives Envoy a counter of this value.
    pub fn set_counter(&self, name: &str, value: u64) {
        self.state
            .counters
            .borrow_mut()
            .insert(name.to_owned(), value);
    }

    /// Gives Envoy a gauge of this value.
    pub fn set_gauge(&self, name: &str, value: u64) {
        self.state
            .gauges
            .borrow_mut()
            .insert(name.to_owned(), value);
    }

    fn pointers(&self) -> (*mut crate::sys::BootstrapExtension, *const Extension) {
        (
            ptr::without_provenance_mut(self.state.id),
            self.state.extension.get(),
        )
    }
}

impl Drop for Bootstrap {
    fn drop(&mut self) {
        let extension = self.state.extension.replace(ptr::null());
        // SAFETY: `extension` came from `new` and is not used again as an instance.
        unsafe { hooks::envoy_dynamic_module_on_bootstrap_extension_destroy(extension) };
        self.state.created.set(false);
        // SAFETY: `extension` came from `config_new` and is not used again.
        unsafe { hooks::envoy_dynamic_module_on_bootstrap_extension_config_destroy(extension) };
        self.world.bootstraps.borrow_mut().remove(&self.state.id);
    }
}

/// One shutdown that the module was told of.
#[derive(Clone, Debug)]
pub struct Shutdown {
    shared: Arc<Completion>,
}

#[derive(Debug, Default)]
struct Completion {
    done: Mutex<bool>,
    changed: Condvar,
}

impl Shutdown {
    /// Whether the module has completed it.
    pub fn is_complete(&self) -> bool {
        *self
            .shared
            .done
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until another thread has completed it. A test that would wait for longer than ten
    /// seconds fails.
    #[track_caller]
    pub fn wait(&self) {
        let done = self
            .shared
            .done
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let patience = Duration::from_secs(10);
        let wait = self
            .shared
            .changed
            .wait_timeout_while(done, patience, |done| !*done);
        let complete = *wait.unwrap_or_else(PoisonError::into_inner).0;
        assert!(complete, "the module did not complete its shutdown");
    }
}

unsafe extern "C" fn completed(context: *mut c_void) {
    // SAFETY: `context` came from `Arc::into_raw` in `shutdown`, for one call of this function.
    let shared = unsafe { Arc::from_raw(context.cast_const().cast::<Completion>()) };
    *shared.done.lock().unwrap_or_else(PoisonError::into_inner) = true;
    shared.changed.notify_all();
}

impl World {
    /// The bootstrap extension behind one of Envoy's pointers to its configuration.
    pub(super) fn bootstrap_config<T>(&self, pointer: *const T) -> Rc<BootstrapState> {
        let state = self.bootstraps.borrow().get(&pointer.addr()).cloned();
        state.expect("the bootstrap extension of a callback exists on this thread")
    }

    /// The bootstrap extension behind one of Envoy's pointers to its instance.
    pub(super) fn bootstrap<T>(&self, pointer: *const T) -> Rc<BootstrapState> {
        let state = self.bootstrap_config(pointer);
        assert!(
            state.created.get(),
            "the bootstrap extension is not created yet, or destroyed"
        );
        state
    }
}

pub(super) fn deliver(world: &Rc<World>, id: usize, event: u64) {
    let state = world.bootstraps.borrow().get(&id).cloned();
    let Some(state) = state else { return };
    let envoy = ptr::without_provenance_mut(id);
    // SAFETY: the extension exists as long as it is in `bootstraps`.
    unsafe {
        hooks::envoy_dynamic_module_on_bootstrap_extension_config_scheduled(
            envoy,
            state.extension.get(),
            event,
        );
    }
}
