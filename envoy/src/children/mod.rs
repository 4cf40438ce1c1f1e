//! Runs on: any thread.
//!
//! What Envoy leaves to children of the process: nothing.
//!
//! Envoy starts no programs, so it takes no care of what one would inherit: its listening sockets and
//! connections are not close-on-exec, and its signal handlers write to a pipe that a forked child
//! shares. A module whose host language starts children calls [`keep_from_children`] once:
//!
//! - **Programs** inherit none of Envoy's descriptors, however they are started (`fork`, `vfork`,
//!   `posix_spawn`): each is close-on-exec from the moment when it is opened. For that the calls by
//!   which Envoy opens descriptors are [redirected](redirect).
//! - **Forked children** have none of Envoy's descriptors open and none of its signal handlers, from
//!   their first instruction on: see [`fork`]. Nor do they find anything half done: see [`gate`].

mod descriptors;
mod fork;
mod gate;
mod redirect;

use std::sync::OnceLock;

pub use descriptors::{close_known, duplicate, know_inherited};
pub use fork::is_forked;
pub use gate::waiting;
use redirect::Program;

/// Envoy, or the program in its place in tests.
static PROGRAM: OnceLock<Program> = OnceLock::new();

/// Keeps what Envoy has, and will have, from children of the process. A second call does nothing.
///
/// Main thread only, and before there are others that fork.
///
/// # Errors
///
/// The names of functions that can't be redirected in this Envoy: what it opens by those, programs
/// that are started still inherit. One that is linked statically, say, calls none of them by its name.
pub fn keep_from_children() -> Result<(), String> {
    let mut outcome = Ok(());
    PROGRAM.get_or_init(|| {
        let program = Program::running();
        let [closing, opening @ ..] = descriptors::redirections();
        // What Envoy closes unseen may be somebody else's by the next fork: rather nothing then.
        let mut kept = program.redirect(&[closing]);
        if kept.is_empty() {
            kept = program.redirect(&opening);
            descriptors::take_open_ones();
        }
        if !program.calls(c"accept4") {
            kept.push("accept4".to_owned());
        }
        if !kept.is_empty() {
            outcome = Err(kept.join(", "));
        }
        fork::watch();
        program
    });
    outcome
}
