//! The C ABI of Envoy 1.40.0's dynamic modules: declarations and nothing else.
//!
//! Names are Envoy's less its prefixes, `envoy_dynamic_module_type_` for types and
//! `envoy_dynamic_module_callback_` for functions.

mod callbacks;
mod types;

pub(crate) use callbacks::*;
pub(crate) use types::*;

/// What `on_program_init` answers: the version of the ABI declared here. Envoy 1.40.0 loads a
/// module that says anything else too, but warns on every start.
pub(crate) const ABI_VERSION: &std::ffi::CStr = c"v0.2.0";
