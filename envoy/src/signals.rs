//! Runs on: any thread.
//!
//! Signals that a module has a handler for, as of its host language.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr;

/// The last real-time signal, from which a program counts down: the first ones may be the C library's.
pub fn last_signal() -> c_int {
    libc::SIGRTMAX()
}

/// Runs the handler of `signal` on this thread and no other. Returns whether there is one: by default a
/// signal would end the process.
pub fn raise_if_handled(signal: c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: asks only; fills `action` if it returns 0.
    if unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: filled above.
    let handler = unsafe { action.assume_init() }.sa_sigaction;
    if matches!(handler, libc::SIG_DFL | libc::SIG_IGN) {
        return false;
    }
    // SAFETY: no pointers. What the handler does is the business of who has set it.
    unsafe { libc::raise(signal) == 0 }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    static HANDLED_ON: AtomicU64 = AtomicU64::new(0);

    extern "C" fn handler(_: c_int) {
        HANDLED_ON.store(this_thread(), Ordering::SeqCst);
    }

    fn this_thread() -> u64 {
        // SAFETY: no preconditions.
        unsafe { libc::pthread_self() }
    }

    #[test]
    fn a_signal_is_handled_on_this_thread_or_not_raised() {
        let signal = last_signal() - 1;
        assert!(!raise_if_handled(signal));
        // SAFETY: the handler only stores a number.
        unsafe { libc::signal(signal, handler as *const () as libc::sighandler_t) };
        assert!(raise_if_handled(signal));
        assert_eq!(HANDLED_ON.load(Ordering::SeqCst), this_thread());
        assert!(!raise_if_handled(0));
    }
}
