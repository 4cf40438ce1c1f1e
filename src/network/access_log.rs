//! Runs on: network thread.
//!
//! The access log: a line for each request.

use std::cell::RefCell;
use std::io::Write;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::log_writer::LogWriter;
use crate::admission::write_log_field;
use crate::config::{AccessLogForm, LogField};
use crate::exchange::RequestHead;

/// The log of a thread.
pub(super) struct AccessLog {
    form: AccessLogForm,
    writer: LogWriter,
    /// Of this turn.
    lines: RefCell<Vec<u8>>,
}

/// The line of a request, but for what is known at its end.
pub(super) struct Entry {
    /// What is before the status.
    before: Vec<u8>,
    /// What is behind the bytes.
    behind: Vec<u8>,
    since: Instant,
}

impl AccessLog {
    pub(super) fn new(form: AccessLogForm, writer: LogWriter) -> Self {
        Self {
            form,
            writer,
            lines: RefCell::default(),
        }
    }

    /// Begins the line of a request.
    pub(super) fn begin(&self, head: &RequestHead) -> Entry {
        let (mut before, mut behind) = (Vec::with_capacity(128), Vec::new());
        match self.form {
            AccessLogForm::Json => json(head, &mut before, &mut behind),
            AccessLogForm::Common | AccessLogForm::Combined => {
                write_log_field(LogField::Client, head, &mut before);
                before.extend_from_slice(b" - - [");
                write_time(&mut before);
                before.extend_from_slice(b"] \"");
                or_dash(LogField::Request, head, &mut before);
                before.extend_from_slice(b"\" ");
            }
        }
        if self.form == AccessLogForm::Combined {
            for field in [LogField::Referer, LogField::UserAgent] {
                behind.extend_from_slice(b" \"");
                or_dash(field, head, &mut behind);
                behind.push(b'"');
            }
        }
        behind.push(b'\n');
        Entry {
            before,
            behind,
            since: Instant::now(),
        }
    }

    /// Ends the line of a request that was answered with `status`, 0 if it was not, and so many bytes of body.
    pub(super) fn end(&self, entry: &Entry, status: u16, bytes: u64) {
        let mut lines = self.lines.borrow_mut();
        lines.extend_from_slice(&entry.before);
        let written = match self.form {
            AccessLogForm::Json => {
                let milliseconds = entry.since.elapsed().as_millis();
                write!(
                    lines,
                    r#"{status},"bytes":{bytes},"milliseconds":{milliseconds}"#
                )
            }
            AccessLogForm::Common | AccessLogForm::Combined => write!(lines, "{status} {bytes}"),
        };
        written.expect("memory takes all");
        lines.extend_from_slice(&entry.behind);
    }

    /// Gives away the lines of a turn.
    pub(super) fn flush(&self) {
        let mut lines = self.lines.borrow_mut();
        if !lines.is_empty() {
            self.writer.put(&mut lines);
        }
    }
}

fn or_dash(field: LogField, head: &RequestHead, line: &mut Vec<u8>) {
    let before = line.len();
    write_log_field(field, head, line);
    if line.len() == before {
        line.push(b'-');
    }
}

/// The time as in `10/Oct/2000:13:55:36 +0000`.
fn write_time(line: &mut Vec<u8>) {
    let date = httpdate::fmt_http_date(SystemTime::now());
    let [day, month, year, time] = parts(&date);
    write!(line, "{day}/{month}/{year}:{time} +0000").expect("memory takes all");
}

/// The time as in RFC 3339.
fn write_json_time(line: &mut Vec<u8>) {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let now = SystemTime::now();
    let date = httpdate::fmt_http_date(now);
    let [day, month, year, time] = parts(&date);
    let month = MONTHS.find(month).map_or(0, |at| at / 3 + 1);
    let millis = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = millis.subsec_millis();
    write!(line, "\"{year}-{month:02}-{day}T{time}.{millis:03}Z\"").expect("memory takes all");
}

/// Day, month, year and time of `Tue, 10 Oct 2000 13:55:36 GMT`.
fn parts(date: &str) -> [&str; 4] {
    [&date[5..7], &date[8..11], &date[12..16], &date[17..25]]
}

fn json(head: &RequestHead, before: &mut Vec<u8>, behind: &mut Vec<u8>) {
    let mut client = Vec::new();
    write_log_field(LogField::Client, head, &mut client);
    before.extend_from_slice(b"{\"time\":");
    write_json_time(before);
    let is_known = !head.method.is_empty();
    let version = format!("HTTP/{}", head.version.number());
    for (name, value) in [
        ("client", Some(client.as_slice())),
        ("method", is_known.then_some(head.method.as_slice())),
        ("path", is_known.then_some(head.target.as_slice())),
        ("protocol", is_known.then_some(version.as_bytes())),
    ] {
        write!(before, ",\"{name}\":").expect("memory takes all");
        write_json(before, value);
    }
    before.extend_from_slice(b",\"status\":");
    for (name, field) in [
        ("request_id", "x-request-id"),
        ("referer", "referer"),
        ("user_agent", "user-agent"),
    ] {
        write!(behind, ",\"{name}\":").expect("memory takes all");
        write_json(behind, head.field(field.as_bytes()));
    }
    behind.push(b'}');
}

/// Text; null if there is none.
fn write_json(line: &mut Vec<u8>, value: Option<&[u8]>) {
    let value = value.map(String::from_utf8_lossy);
    serde_json::to_writer(line, &value).expect("memory takes all");
}
