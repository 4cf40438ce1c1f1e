//! What children get of a program, which is this test in Envoy's place.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

extern "C" fn handler(_: c_int) {}

/// As Envoy opens its sockets.
fn socket() -> OwnedFd {
    // SAFETY: no pointers.
    let descriptor = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) };
    assert!(descriptor >= 0);
    // SAFETY: it has just been opened.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// Its flags, or -1 if it is not open.
fn flags(descriptor: RawFd) -> c_int {
    // SAFETY: asks only.
    unsafe { libc::fcntl(descriptor, libc::F_GETFD) }
}

fn is_handled(signal: c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: asks only.
    let asked = unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) };
    assert_eq!(asked, 0);
    // SAFETY: filled above.
    unsafe { action.assume_init() }.sa_sigaction != libc::SIG_DFL
}

/// Whether `check` says yes in a forked child. It may do what a signal's handler may.
fn in_child(check: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child does not come back.
    let child = unsafe { libc::fork() };
    if child == 0 {
        envoy::exit_now(i32::from(!check()));
    }
    let mut status = 0;
    // SAFETY: a place for the status.
    let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(ended, child);
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

/// In one test, since all of it is of the whole process.
#[test]
fn children_get_nothing_of_the_program() {
    of_what_it_has();
    of_what_it_opens_meanwhile();
    of_what_it_is_amid();
}

fn of_what_it_has() {
    let early = socket();
    assert_eq!(flags(early.as_raw_fd()), 0);
    // SAFETY: the handler does nothing.
    unsafe { libc::signal(libc::SIGUSR1, handler as *const () as libc::sighandler_t) };
    // Not all that Envoy calls is called here.
    let _ = envoy::keep_from_children();
    let late = socket();
    let (early, late) = (early.as_raw_fd(), {
        let descriptor = late.as_raw_fd();
        std::mem::forget(late);
        descriptor
    });
    for descriptor in [early, late] {
        assert_eq!(flags(descriptor), libc::FD_CLOEXEC, "{descriptor}");
    }
    assert!(!envoy::is_forked());
    assert!(in_child(envoy::is_forked));
    assert!(in_child(|| flags(early) == -1 && flags(late) == -1));
    assert!(in_child(|| flags(0) != -1 && flags(2) != -1));
    assert!(is_handled(libc::SIGUSR1));
    assert!(in_child(|| !is_handled(libc::SIGUSR1)));
    assert!(flags(late) != -1, "the parent keeps it");
    // SAFETY: opened above.
    let closed = unsafe { libc::close(late) };
    assert_eq!(closed, 0);
    // What is opened by others afterwards is theirs, also under the same number.
    // SAFETY: no pointers; takes the lowest number from `late` on.
    let of_others = unsafe { libc::fcntl(0, libc::F_DUPFD, late) };
    assert_eq!(of_others, late);
    assert!(in_child(|| flags(late) == 0));
    // A second call changes nothing.
    assert_eq!(envoy::keep_from_children(), Ok(()));
}

/// Threads open and close while others fork: nobody waits for ever, and no child has one open.
fn of_what_it_opens_meanwhile() {
    let opening: Vec<_> = (0..3)
        .map(|_| {
            std::thread::spawn(|| {
                for _ in 0..2_000 {
                    drop(socket());
                }
            })
        })
        .collect();
    for _ in 0..100 {
        assert!(in_child(|| (3..256).all(|number| !is_socket(number))));
    }
    for thread in opening {
        thread.join().expect("no panic");
    }
}

/// A thread that does one thing after the other, with a wait between, as an event loop does.
fn of_what_it_is_amid() {
    static IS_AMID: AtomicBool = AtomicBool::new(false);
    static IS_OVER: AtomicBool = AtomicBool::new(false);
    let busy = std::thread::spawn(|| {
        while !IS_OVER.load(Ordering::SeqCst) {
            envoy::waiting(std::thread::yield_now);
            IS_AMID.store(true, Ordering::SeqCst);
            (0..1000).for_each(|_| std::hint::spin_loop());
            IS_AMID.store(false, Ordering::SeqCst);
        }
    });
    for _ in 0..200 {
        assert!(in_child(|| !IS_AMID.load(Ordering::SeqCst)));
    }
    IS_OVER.store(true, Ordering::SeqCst);
    busy.join().expect("no panic");
    assert!(in_child(|| true), "one that has ended is not waited for");
}

fn is_socket(descriptor: RawFd) -> bool {
    let mut status = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: a place for the status.
    if unsafe { libc::fstat(descriptor, status.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: filled above.
    let status = unsafe { status.assume_init() };
    status.st_mode & libc::S_IFMT == libc::S_IFSOCK
}
