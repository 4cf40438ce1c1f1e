//! Filter configurations and their metrics.

use std::cell::Cell;
use std::rc::Rc;

use envoy::fake::Request;
use envoy::{CounterId, GaugeId, HeadersStatus, HistogramId};

use crate::support::{Script, on_new_config, scripted};

#[test]
fn gets_its_name_and_bytes_and_can_refuse() {
    let (envoy, _config) = scripted(Script::default());
    on_new_config(|_, name, config| {
        assert_eq!((name, config), ("scripted", &b"{\xff}"[..]));
        Err("`app` is missing".to_owned())
    });
    let refused = envoy.http_filter_config("scripted", b"{\xff}").err();
    assert_eq!(
        refused.as_deref(),
        Some("http filter `scripted` refused its configuration: `app` is missing")
    );
}

#[test]
fn panic_refuses() {
    let (envoy, _config) = scripted(Script::default());
    on_new_config(|_, _, _| panic!("broken"));
    let refused = envoy.http_filter_config("", b"").err().unwrap();
    assert!(refused.ends_with("config_new`: broken"), "{refused}");
}

#[test]
fn defines_metrics_that_streams_record() {
    type Ids = (CounterId, GaugeId, HistogramId);
    let ids = Rc::new(Cell::new(None::<Ids>));
    let define = Rc::clone(&ids);
    on_new_config(move |envoy, _, _| {
        let unused = envoy
            .define_counter("unused")
            .map_err(|error| error.to_string())?;
        let counter = envoy.define_counter("requests").unwrap();
        assert_ne!(unused, counter);
        let gauge = envoy.define_gauge("active").unwrap();
        let histogram = envoy.define_histogram("milliseconds").unwrap();
        define.set(Some((counter, gauge, histogram)));
        Ok(())
    });
    let (_envoy, config) = scripted(Script {
        request_headers: Box::new(move |envoy, _| {
            let (counter, gauge, histogram) = ids.get().unwrap();
            envoy.increment_counter(counter, 2);
            envoy.set_gauge(gauge, 10);
            envoy.increment_gauge(gauge, 5);
            envoy.decrement_gauge(gauge, 1);
            envoy.record_histogram(histogram, 3);
            envoy.record_histogram(histogram, 4);
            HeadersStatus::StopIteration
        }),
        ..Script::default()
    });
    config.stream(Request::get("/")).request_headers(true);
    assert_eq!(config.counter("unused"), Some(0));
    assert_eq!(config.counter("requests"), Some(2));
    assert_eq!(config.gauge("active"), Some(14));
    assert_eq!(config.histogram("milliseconds"), Some(vec![3, 4]));
    assert_eq!(config.counter("active"), None);
}

#[test]
fn metric_of_another_configuration_is_logged_and_harmless() {
    let id = Rc::new(Cell::new(None::<CounterId>));
    let (define, use_it) = (Rc::clone(&id), Rc::clone(&id));
    on_new_config(move |envoy, name, _| {
        if name == "other" {
            define.set(Some(envoy.define_counter("requests").unwrap()));
        }
        Ok(())
    });
    let (envoy, config) = scripted(Script {
        request_headers: Box::new(move |envoy, _| {
            envoy.increment_counter(use_it.get().unwrap(), 1);
            HeadersStatus::StopIteration
        }),
        ..Script::default()
    });
    let _other = envoy.http_filter_config("other", b"").unwrap();
    let stream = config.stream(Request::get("/"));
    stream.request_headers(true);
    assert!(!stream.is_complete());
    assert_eq!(
        envoy.logs().last().unwrap().message,
        "envoy refused `http_filter_increment_counter`: \
         no such metric in this filter configuration"
    );
}
