//! aiovoy's bridge: answers HTTP requests by ASGI applications. It is two libraries: the dynamic module
//! that Envoy loads, which embeds CPython (feature `module`), and the extension module that Python
//! imports, with a server of its own instead of Envoy (feature `extension`).
//!
//! # Layout
//!
//! Five rooms, one a thread, and grounds that have none. To find a behaviour, ask which thread it
//! runs on.
//!
//! - [`life`], tokio and the process's main thread: the process's start, drain and end
//! - `stream`, Envoy worker threads: Envoy's hooks in, bytes out
//! - [`network`], network threads: the same without Envoy
//! - [`app`], loop threads: Python, and what applications see
//! - [`exchange`], any thread: what the two sides share, which is messages and mailboxes
//! - [`admission`], the threads of either front: which requests are let in
//! - [`websocket`], the threads of either front: WebSockets, of bytes alone
//! - [`config`], no thread: the settings
//! - `module` and `extension`, the entries of the two libraries
//! - `envoy_thread`, for tests: an Envoy worker thread whose loop the test plays
//!
//! The path through Envoy's router and the server of HTTP are the crate `upstream`, which `stream` and
//! [`network`] alone know.
//!
//! ```text
//!      module                       extension
//!       │  └──────────┐                 │
//!       ▼             ▼                 ▼
//!    stream          life ◀─────────────┘
//!       │             │ │ └──────────▶ app
//!       │    network ◀┘ │               │
//!       ▼       ▼       ▼               │
//!     admission ──▶ exchange ◀──────────┘
//!     websocket
//!                     config, which all know
//! ```
//!
//! # Threads
//!
//! Each module says where it runs. An Envoy worker thread never attaches to Python; its loop
//! thread never waits for Envoy; they meet in the mailboxes of [`exchange`] alone.

#![deny(unsafe_code)]
// Each of the two libraries leaves some of what they share to the other one.
#![cfg_attr(
    not(all(feature = "module", feature = "extension")),
    allow(dead_code, unused_imports)
)]

mod admission;
mod app;
mod config;
#[cfg(all(test, feature = "module"))]
mod envoy_thread;
mod exchange;
#[cfg(feature = "extension")]
mod extension;
mod life;
#[cfg(feature = "module")]
mod module;
mod network;
#[cfg(feature = "module")]
mod stream;
mod websocket;
