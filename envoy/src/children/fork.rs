//! What a forked child begins with.
//!
//! It has one thread, and of Envoy nothing but memory. Its signals are blocked until Envoy's handlers
//! are gone, which would write into a pipe that the parent reads: a signal for the child would be one
//! for the server.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{PROGRAM, descriptors, gate};

static FORKED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The signals that were blocked when this thread began a fork.
    static BLOCKED: Cell<Option<libc::sigset_t>> = const { Cell::new(None) };
}

/// Whether this is a child that was forked inside Envoy. It must not call Envoy any more.
#[inline]
pub fn is_forked() -> bool {
    FORKED.load(Ordering::Relaxed)
}

/// Has every fork begin and end here.
pub(super) fn watch() {
    // SAFETY: the functions are of this library, which is never unloaded.
    unsafe { libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child)) };
    on_exit(leave, ptr::null_mut());
}

unsafe extern "C" {
    /// on_exit(3), of the GNU C library: as `atexit`, and says with which status.
    safe fn on_exit(
        function: unsafe extern "C" fn(c_int, *mut c_void),
        argument: *mut c_void,
    ) -> c_int;
}

/// A child ends without the destructors of Envoy, which would wait for threads that it does not have.
unsafe extern "C" fn leave(status: c_int, _: *mut c_void) {
    if is_forked() {
        crate::exit_now(status);
    }
}

unsafe extern "C" fn before() {
    let mut all = MaybeUninit::uninit();
    // SAFETY: fills the set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    let mut blocked = MaybeUninit::uninit();
    // SAFETY: `all` was filled; the other is filled.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), blocked.as_mut_ptr()) };
    // SAFETY: filled above.
    BLOCKED.set(Some(unsafe { blocked.assume_init() }));
    gate::begin_fork();
}

unsafe extern "C" fn after_in_parent() {
    gate::end_fork();
    restore_signals();
}

unsafe extern "C" fn after_in_child() {
    FORKED.store(true, Ordering::Relaxed);
    gate::end_fork_in_child();
    descriptors::close_all();
    for signal in 1..=libc::SIGRTMAX() {
        let mut action = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: asks only. Fails for numbers that are the C library's own.
        if unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } != 0 {
            continue;
        }
        // SAFETY: filled above.
        let handler = unsafe { action.assume_init() }.sa_sigaction;
        if PROGRAM.get().is_some_and(|program| program.has(handler)) {
            // SAFETY: the default needs no function.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    restore_signals();
}

fn restore_signals() {
    if let Some(blocked) = BLOCKED.take() {
        // SAFETY: a set that the function has filled itself.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const blocked, ptr::null_mut()) };
    }
}
