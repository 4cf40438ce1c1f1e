//! A bootstrap extension in a fake Envoy: start, events, shutdown.

#![allow(clippy::unwrap_used)]

mod support;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::thread;

use envoy::ShutdownCompletion;
use envoy::fake::{self, Bootstrap, Envoy};
use support::{Dropped, Extension, Journal, SCRIPTED, on_new_extension};

/// An Envoy with one extension.
fn start(extension: Extension) -> (Envoy, Bootstrap) {
    let envoy = fake::load(&SCRIPTED).unwrap();
    let slot = RefCell::new(Some(extension));
    on_new_extension(move |_, _, _| Ok(Box::new(slot.take().unwrap())));
    let bootstrap = envoy.bootstrap("scripted", b"").unwrap();
    (envoy, bootstrap)
}

#[test]
fn hooks_come_in_order() {
    let journal = Journal::default();
    let (_envoy, bootstrap) = start(Extension {
        journal: journal.clone(),
        dropped: Dropped::note(&journal),
        ..Extension::default()
    });
    bootstrap.server_initialized();
    bootstrap.drain_started();
    bootstrap.shutdown();
    drop(bootstrap);
    assert_eq!(
        journal.take(),
        [
            "server_initialized",
            "drain_started",
            "shutdown",
            "destroy",
            "drop"
        ]
    );
}

#[test]
fn holds_traffic_back_until_another_thread_is_ready() {
    let envoy = fake::load(&SCRIPTED).unwrap();
    on_new_extension(|envoy, name, config| {
        assert_eq!((name, config), ("start", &b"slowly"[..]));
        // Statistics are out of reach until the extension is there.
        assert_eq!((envoy.gauge("a"), envoy.counter("a")), (None, None));
        envoy.for_each_gauge(|_, _| unreachable!());
        let scheduler = envoy.new_scheduler();
        thread::spawn(move || scheduler.commit(1));
        Ok(Box::new(Extension {
            scheduled: Box::new(|envoy, _| envoy.signal_init_complete()),
            ..Extension::default()
        }))
    });
    let bootstrap = envoy.bootstrap("start", b"slowly").unwrap();
    bootstrap.server_initialized();
    assert!(!bootstrap.is_init_complete());
    envoy.run_until(|| bootstrap.is_init_complete());
}

#[test]
fn reads_statistics() {
    let journal = Journal::default();
    let seen = journal.clone();
    let (_envoy, bootstrap) = start(Extension {
        server_initialized: Box::new(move |envoy| {
            assert_eq!(envoy.gauge("active"), Some(7));
            assert_eq!(envoy.counter("active"), None);
            assert_eq!(envoy.counter("requests"), Some(9));
            envoy.for_each_gauge(|name, value| {
                // The iterator may ask for statistics in turn.
                assert_eq!(envoy.gauge(name), Some(value));
                seen.add(format_args!("{name}={value}"));
            });
        }),
        ..Extension::default()
    });
    bootstrap.set_gauge("active", 7);
    bootstrap.set_gauge("idle", 0);
    bootstrap.set_counter("requests", 9);
    bootstrap.server_initialized();
    assert_eq!(journal.take(), ["active=7", "idle=0"]);
}

#[test]
fn shutdown_waits_for_another_thread() {
    let (_envoy, bootstrap) = start(Extension {
        shutdown: Box::new(|_, done| {
            thread::spawn(move || done.complete());
        }),
        ..Extension::default()
    });
    bootstrap.shutdown().wait();
}

#[test]
fn each_shutdown_is_completed_for_itself() {
    let kept = Rc::new(RefCell::new(Vec::<ShutdownCompletion>::new()));
    let keep = Rc::clone(&kept);
    let (_envoy, bootstrap) = start(Extension {
        shutdown: Box::new(move |_, done| keep.borrow_mut().push(done)),
        ..Extension::default()
    });
    let (first, second) = (bootstrap.shutdown(), bootstrap.shutdown());
    assert!(!first.is_complete() && !second.is_complete());
    let mut kept = kept.take().into_iter();
    kept.next().unwrap().complete();
    assert!(first.is_complete() && !second.is_complete());
    // Dropped is complete too.
    drop(kept);
    assert!(second.is_complete());
}

#[test]
fn events_of_a_destroyed_extension_are_dropped() {
    let journal = Journal::default();
    let scheduler = Rc::new(Cell::new(None));
    let keep = Rc::clone(&scheduler);
    let (envoy, bootstrap) = start(Extension {
        journal: journal.clone(),
        dropped: Dropped::note(&journal),
        server_initialized: Box::new(move |envoy| keep.set(Some(envoy.new_scheduler()))),
        ..Extension::default()
    });
    bootstrap.server_initialized();
    let scheduler = scheduler.take().unwrap();
    scheduler.commit(1);
    envoy.run_events();
    drop(bootstrap);
    scheduler.commit(2);
    envoy.run_events();
    assert_eq!(
        journal.take(),
        ["server_initialized", "scheduled 1", "destroy", "drop"]
    );
}

#[test]
fn refusal_is_logged() {
    let envoy = fake::load(&SCRIPTED).unwrap();
    on_new_extension(|_, _, _| Err("the application cannot be imported".to_owned()));
    let refused = envoy.bootstrap("scripted", b"").err();
    assert_eq!(
        refused.as_deref(),
        Some(
            "bootstrap extension `scripted` refused its configuration: \
             the application cannot be imported"
        )
    );
}

#[test]
fn panics_are_logged_and_complete_the_shutdown() {
    let (envoy, bootstrap) = start(Extension {
        server_initialized: Box::new(|envoy| envoy.for_each_gauge(|name, _| panic!("{name}"))),
        shutdown: Box::new(|_, _done| panic!("broken")),
        ..Extension::default()
    });
    bootstrap.set_gauge("first", 1);
    bootstrap.set_gauge("second", 2);
    bootstrap.server_initialized();
    assert!(bootstrap.shutdown().is_complete());
    let logs = envoy.logs();
    let messages: Vec<_> = logs.iter().map(|record| record.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "panic in `envoy_dynamic_module_on_bootstrap_extension_server_initialized`: first",
            "panic in `envoy_dynamic_module_on_bootstrap_extension_shutdown`: broken",
        ]
    );
}

#[test]
fn default_hooks_stop_at_once() {
    struct Plain;
    impl envoy::BootstrapExtension for Plain {}
    let envoy = fake::load(&SCRIPTED).unwrap();
    on_new_extension(|envoy, _, _| {
        envoy.new_scheduler().commit(1);
        Ok(Box::new(Plain))
    });
    let bootstrap = envoy.bootstrap("plain", b"").unwrap();
    bootstrap.server_initialized();
    bootstrap.drain_started();
    assert_eq!(envoy.run_events(), 1);
    assert!(bootstrap.shutdown().is_complete());
}
