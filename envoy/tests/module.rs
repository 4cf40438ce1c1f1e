//! What holds for the whole process: loading, settings, the log.

#![allow(clippy::unwrap_used)]

mod support;

use envoy::fake::{Envoy, load};
use envoy::{BootstrapExtension, EnvoyBootstrap, EnvoyFilterConfig, HttpFilterConfig, Module};
use support::SCRIPTED;

/// A module that does `init` when it is loaded and has nothing else to offer.
struct Loading(fn() -> Result<(), String>);

impl Module for Loading {
    fn on_program_init(&self) -> Result<(), String> {
        (self.0)()
    }

    fn new_http_filter_config(
        &self,
        _: &mut EnvoyFilterConfig<'_>,
        _: &str,
        _: &[u8],
    ) -> Result<Box<dyn HttpFilterConfig>, String> {
        Err("none".to_owned())
    }

    fn new_bootstrap_extension(
        &self,
        _: &EnvoyBootstrap<'_>,
        _: &str,
        _: &[u8],
    ) -> Result<Box<dyn BootstrapExtension>, String> {
        Err("none".to_owned())
    }
}

#[test]
fn can_refuse_to_load() {
    static REFUSES: Loading = Loading(|| Err("wrong interpreter".to_owned()));
    let refused = load(&REFUSES).err();
    assert_eq!(
        refused.as_deref(),
        Some("module refused to load: wrong interpreter")
    );
}

#[test]
fn panic_refuses_to_load() {
    static PANICS: Loading = Loading(|| panic!("broken"));
    let refused = load(&PANICS).err();
    assert_eq!(
        refused.as_deref(),
        Some("panic in `on_program_init`: broken")
    );
}

#[test]
fn settings_can_be_asked_for_at_once() {
    static ASKS: Loading = Loading(|| {
        assert!(envoy::is_validation_mode());
        assert_eq!(envoy::concurrency(), 4);
        Ok(())
    });
    Envoy::builder()
        .validation_mode(true)
        .concurrency(4)
        .load(&ASKS)
        .unwrap();
}

#[test]
fn records_keep_their_level_place_and_lines() {
    let envoy = load(&SCRIPTED).unwrap();
    let line = line!() + 1;
    log::warn!("first line\nsecond {}", "line");
    log::trace!("constant");
    let logs = envoy.logs();
    assert_eq!(logs[0].level, log::Level::Warn);
    assert_eq!(logs[0].message, "first line\nsecond line");
    assert!(logs[0].file.ends_with("tests/module.rs"));
    assert_eq!(logs[0].line, line);
    assert_eq!(logs[1].level, log::Level::Trace);
    assert_eq!(logs[1].message, "constant");
}

#[test]
fn envoys_level_decides() {
    let envoy = Envoy::builder()
        .log_level(log::LevelFilter::Warn)
        .load(&SCRIPTED)
        .unwrap();
    assert!(log::log_enabled!(log::Level::Warn));
    assert!(!log::log_enabled!(log::Level::Info));
    log::info!("unheard");
    log::error!("heard");
    assert_eq!(envoy.logs().len(), 1);
}
