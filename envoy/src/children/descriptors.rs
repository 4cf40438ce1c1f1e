//! Envoy's descriptors: close-on-exec each, and known, so that a forked child can close them.
//!
//! Invariant: a descriptor that Envoy has opened by one of the calls below is marked as long as it is
//! open, and none else is. Between a mark and its descriptor nobody forks ([`gated`]), but for a file's
//! and for those that another process sends: opening one, and waiting for the others, may take long.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io, ptr, slice};

use libc::{mmsghdr, mode_t, msghdr, sockaddr, socklen_t, ssize_t, timespec};

use super::gate::{gated, waiting};

/// The calls by which Envoy closes, the first, and opens descriptors, and by which its threads wait,
/// each with ours.
pub(super) fn redirections() -> [(&'static CStr, *const c_void); 18] {
    [
        (c"close", close as *const c_void),
        (c"socket", socket as *const c_void),
        (c"accept4", accept4 as *const c_void),
        (c"recvmsg", recvmsg as *const c_void),
        (c"recvmmsg", recvmmsg as *const c_void),
        (c"socketpair", socketpair as *const c_void),
        (c"pipe", pipe as *const c_void),
        (c"pipe2", pipe2 as *const c_void),
        (c"dup", dup as *const c_void),
        (c"eventfd", eventfd as *const c_void),
        (c"epoll_create", epoll_create as *const c_void),
        (c"epoll_create1", epoll_create1 as *const c_void),
        (c"timerfd_create", timerfd_create as *const c_void),
        (c"inotify_init1", inotify_init1 as *const c_void),
        (c"open", open_file as *const c_void),
        (c"open64", open_file as *const c_void),
        (c"epoll_wait", epoll_wait as *const c_void),
        (c"nanosleep", nanosleep as *const c_void),
    ]
}

/// One bit for each descriptor. Those beyond, which hardly a process may have, are not known.
static OPEN: [AtomicU64; MOST / 64] = [const { AtomicU64::new(0) }; MOST / 64];
const MOST: usize = 1 << 20;

fn mark(descriptor: RawFd, open: bool) {
    let Ok(index) = usize::try_from(descriptor) else {
        return;
    };
    let Some(word) = OPEN.get(index / 64) else {
        return;
    };
    let bit = 1 << (index % 64);
    if open {
        word.fetch_or(bit, Ordering::Relaxed);
    } else {
        word.fetch_and(!bit, Ordering::Relaxed);
    }
}

fn is_marked(descriptor: RawFd) -> bool {
    let Ok(index) = usize::try_from(descriptor) else {
        return false;
    };
    let word = OPEN.get(index / 64);
    word.is_some_and(|word| word.load(Ordering::Relaxed) & 1 << (index % 64) != 0)
}

/// Takes the descriptors that are open now for Envoy's, but for the standard streams and what
/// systemd has passed (sd_listen_fds(3)).
pub(super) fn take_open_ones() {
    let of_us = |name: &str| {
        let pid = std::env::var(name).ok()?;
        pid.parse::<u32>().ok()
    };
    let passed = match of_us("LISTEN_PID") {
        Some(pid) if pid == std::process::id() => of_us("LISTEN_FDS").unwrap_or(0),
        _ => 0,
    };
    let first = 3 + RawFd::try_from(passed).unwrap_or(0);
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return;
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let descriptors: Vec<RawFd> = names.filter_map(|name| name.parse().ok()).collect();
    for descriptor in descriptors.into_iter().filter(|number| *number >= first) {
        // SAFETY: a flag of a descriptor. That of the folder is closed by now: then it fails.
        if unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) } == 0 {
            mark(descriptor, true);
        }
    }
}

/// Takes `descriptor`, with which the process was started, for known. In Envoy all such are.
pub fn know_inherited(descriptor: RawFd) {
    mark(descriptor, true);
}

/// Closes `descriptor` if it is one of Envoy's, as are those that the process was started with: none that
/// anybody else has opened.
pub fn close_known(descriptor: RawFd) {
    if is_marked(descriptor) {
        close(descriptor);
    }
}

/// Another descriptor of what `descriptor` is one of, which stays its owner's. Programs don't inherit it.
///
/// # Errors
///
/// That of fcntl(2), as if `descriptor` is none.
pub fn duplicate(descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes any number.
    let own = unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 3) };
    if own < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is new, so nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(own) })
}

/// Closes Envoy's descriptors. For a child, in which nobody has a use for them.
pub(super) fn close_all() {
    for (index, word) in OPEN.iter().enumerate() {
        let mut bits = word.swap(0, Ordering::Relaxed);
        while bits != 0 {
            let bit = bits.trailing_zeros();
            bits &= bits - 1;
            if let Ok(descriptor) = RawFd::try_from(index * 64 + bit as usize) {
                close_now(descriptor);
            }
        }
    }
}

/// Opens a descriptor and marks it.
fn open(open: impl FnOnce() -> RawFd) -> RawFd {
    gated(|| {
        let descriptor = open();
        mark(descriptor, descriptor >= 0);
        descriptor
    })
}

/// Opens two, and marks them.
///
/// # Safety
///
/// `open` fills both places if it returns 0.
unsafe fn open_two(pair: *mut c_int, open: impl FnOnce() -> c_int) -> c_int {
    gated(|| {
        let result = open();
        if result == 0 {
            // SAFETY: the contract.
            let both = unsafe { slice::from_raw_parts(pair, 2) };
            both.iter().for_each(|descriptor| mark(*descriptor, true));
        }
        result
    })
}

/// Marks the descriptors that have come with a message (unix(7)), and shows it as it would be if they
/// had been asked for with `flags`. For the messages of networks, which bring none, that is a look at
/// their few control messages.
///
/// # Safety
///
/// `message` was filled by the kernel.
unsafe fn take_received(message: &mut msghdr, flags: c_int) {
    message.msg_flags &= flags | !libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the kernel has filled what the message says that it has.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: null, or one of the message's.
    while let Some(header) = unsafe { control.as_ref() } {
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: arithmetic only.
            let empty = unsafe { libc::CMSG_LEN(0) } as usize;
            let size = header.cmsg_len - empty;
            // SAFETY: the data of the header follow it.
            let data = unsafe { libc::CMSG_DATA(control) }.cast::<RawFd>();
            for index in 0..size / size_of::<RawFd>() {
                // SAFETY: so many are there.
                let place = unsafe { data.add(index) };
                // SAFETY: as above, in whatever place.
                mark(unsafe { place.read_unaligned() }, true);
            }
        }
        // SAFETY: as above.
        control = unsafe { libc::CMSG_NXTHDR(message, control) };
    }
}

// In place of libc's functions, with their contracts. They ask the kernel, since a name would lead a
// program that has this library linked in back to here.

/// A system call that gives a number, or -1 and `errno`.
macro_rules! system_call {
    ($number:ident $(, $argument:expr)*) => {
        // A descriptor, or 0, or -1.
        libc::syscall(libc::$number $(, $argument)*) as c_int
    };
}

extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    let kind = kind | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers.
    open(|| unsafe { system_call!(SYS_socket, domain, kind, protocol) })
}

unsafe extern "C" fn accept4(
    socket: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
    flags: c_int,
) -> c_int {
    let flags = flags | libc::SOCK_CLOEXEC;
    // SAFETY: the caller's pointers.
    open(|| unsafe { system_call!(SYS_accept4, socket, address, length, flags) })
}

unsafe extern "C" fn recvmsg(socket: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    let close_too = flags | libc::MSG_CMSG_CLOEXEC;
    // Not gated, since it may wait for the sender.
    // SAFETY: the caller's message.
    let received = unsafe { libc::syscall(libc::SYS_recvmsg, socket, message, close_too) };
    if received >= 0 {
        // SAFETY: as above.
        let message = unsafe { &mut *message };
        // SAFETY: the kernel has just filled it.
        unsafe { take_received(message, flags) };
    }
    received as ssize_t
}

unsafe extern "C" fn recvmmsg(
    socket: c_int,
    messages: *mut mmsghdr,
    most: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    let close_too = flags | libc::MSG_CMSG_CLOEXEC;
    // Not gated, as above.
    // SAFETY: the caller's place for so many messages, and its pointer to a time.
    let count = unsafe { system_call!(SYS_recvmmsg, socket, messages, most, close_too, timeout) };
    if let Ok(count @ 1..) = usize::try_from(count) {
        // SAFETY: the kernel has just filled so many.
        for message in unsafe { slice::from_raw_parts_mut(messages, count) } {
            // SAFETY: as above.
            unsafe { take_received(&mut message.msg_hdr, flags) };
        }
    }
    count
}

unsafe extern "C" fn socketpair(
    domain: c_int,
    kind: c_int,
    protocol: c_int,
    pair: *mut c_int,
) -> c_int {
    let kind = kind | libc::SOCK_CLOEXEC;
    // SAFETY: the caller's place for two.
    let open = || unsafe { system_call!(SYS_socketpair, domain, kind, protocol, pair) };
    // SAFETY: as above.
    unsafe { open_two(pair, open) }
}

unsafe extern "C" fn pipe(pair: *mut c_int) -> c_int {
    // SAFETY: the caller's place for two.
    unsafe { pipe2(pair, 0) }
}

unsafe extern "C" fn pipe2(pair: *mut c_int, flags: c_int) -> c_int {
    let flags = flags | libc::O_CLOEXEC;
    // SAFETY: the caller's place for two.
    let open = || unsafe { system_call!(SYS_pipe2, pair, flags) };
    // SAFETY: as above.
    unsafe { open_two(pair, open) }
}

extern "C" fn dup(descriptor: c_int) -> c_int {
    // SAFETY: no pointers.
    open(|| unsafe { system_call!(SYS_fcntl, descriptor, libc::F_DUPFD_CLOEXEC, 0) })
}

extern "C" fn eventfd(count: c_uint, flags: c_int) -> c_int {
    let flags = flags | libc::EFD_CLOEXEC;
    // SAFETY: no pointers.
    open(|| unsafe { system_call!(SYS_eventfd2, count, flags) })
}

extern "C" fn epoll_create(_: c_int) -> c_int {
    epoll_create1(0)
}

extern "C" fn epoll_create1(flags: c_int) -> c_int {
    let flags = flags | libc::EPOLL_CLOEXEC;
    // SAFETY: no pointers.
    open(|| unsafe { system_call!(SYS_epoll_create1, flags) })
}

extern "C" fn timerfd_create(clock: libc::clockid_t, flags: c_int) -> c_int {
    let flags = flags | libc::TFD_CLOEXEC;
    // SAFETY: no pointers.
    open(|| unsafe { system_call!(SYS_timerfd_create, clock, flags) })
}

extern "C" fn inotify_init1(flags: c_int) -> c_int {
    let flags = flags | libc::IN_CLOEXEC;
    // SAFETY: no pointers.
    open(|| unsafe { system_call!(SYS_inotify_init1, flags) })
}

/// `open` and `open64`, which on 64 bits are the same. The last argument is there for some flags only,
/// and is then passed as if it always were.
unsafe extern "C" fn open_file(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    let flags = flags | libc::O_CLOEXEC;
    // Not gated, since opening a FIFO may wait for its other end.
    // SAFETY: the caller's path.
    let descriptor = unsafe { system_call!(SYS_openat, libc::AT_FDCWD, path, flags, mode) };
    mark(descriptor, descriptor >= 0);
    descriptor
}

extern "C" fn close(descriptor: c_int) -> c_int {
    gated(|| {
        mark(descriptor, false);
        close_now(descriptor)
    })
}

unsafe extern "C" fn epoll_wait(
    poller: c_int,
    events: *mut libc::epoll_event,
    most: c_int,
    timeout: c_int,
) -> c_int {
    let signals = ptr::null::<libc::sigset_t>();
    // SAFETY: the caller's place for so many events; no signals are given.
    waiting(|| unsafe {
        system_call!(
            SYS_epoll_pwait,
            poller,
            events,
            most,
            timeout,
            signals,
            8usize
        )
    })
}

unsafe extern "C" fn nanosleep(time: *const libc::timespec, left: *mut libc::timespec) -> c_int {
    // SAFETY: the caller's pointers.
    waiting(|| unsafe { system_call!(SYS_nanosleep, time, left) })
}

fn close_now(descriptor: RawFd) -> c_int {
    // SAFETY: no pointers; who calls it has the descriptor.
    unsafe { system_call!(SYS_close, descriptor) }
}
