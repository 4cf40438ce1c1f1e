//! What children get of a program, which is this test in Envoy's place.

use std::ffi::c_int;
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
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
    of_what_it_is_sent();
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
    envoy::close_known(late);
    assert_eq!(flags(late), -1);
    // What is opened by others afterwards is theirs, also under the same number.
    // SAFETY: no pointers; takes the lowest number from `late` on.
    let of_others = unsafe { libc::fcntl(0, libc::F_DUPFD, late) };
    assert_eq!(of_others, late);
    envoy::close_known(of_others);
    envoy::close_known(-1);
    assert!(in_child(|| flags(late) == 0));
    // A second call changes nothing.
    assert_eq!(envoy::keep_from_children(), Ok(()));
}

/// Descriptors that come from another process, as Envoy's from the one that it replaces.
fn of_what_it_is_sent() {
    let (ours, theirs) = UnixDatagram::pair().expect("a socket pair");
    let sent = socket();
    for receive in [receive_one, receive_many] {
        let mut message = Message::new([sent.as_raw_fd(); 2]);
        // SAFETY: filled.
        let count = unsafe { libc::sendmsg(theirs.as_raw_fd(), message.header(), 0) };
        assert_eq!(count, 1);
        for received in receive(ours.as_raw_fd()) {
            assert!(received > 2 && received != sent.as_raw_fd());
            assert_eq!(flags(received), libc::FD_CLOEXEC);
            assert!(in_child(|| flags(received) == -1));
            assert!(flags(received) != -1, "the parent keeps it");
            // SAFETY: it has just been received.
            drop(unsafe { OwnedFd::from_raw_fd(received) });
        }
    }
    ours.set_nonblocking(true).expect("a flag");
    let mut message = Message::new([0; 2]);
    // SAFETY: a place for what comes.
    let count = unsafe { libc::recvmsg(ours.as_raw_fd(), message.header(), 0) };
    let error = std::io::Error::last_os_error();
    assert_eq!((count, error.kind()), (-1, ErrorKind::WouldBlock));
}

/// A message of one byte and two descriptors, or a place for it.
struct Message {
    byte: u8,
    part: libc::iovec,
    control: Control,
    header: MaybeUninit<libc::mmsghdr>,
}

/// As cmsg(3) lays it out.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    descriptors: [RawFd; 2],
}

impl Message {
    fn new(descriptors: [RawFd; 2]) -> Self {
        let header = libc::cmsghdr {
            cmsg_len: size_of::<Control>(),
            cmsg_level: libc::SOL_SOCKET,
            cmsg_type: libc::SCM_RIGHTS,
        };
        Self {
            byte: 0,
            part: libc::iovec {
                iov_base: ptr::null_mut(),
                iov_len: 1,
            },
            control: Control {
                header,
                descriptors,
            },
            header: MaybeUninit::zeroed(),
        }
    }

    /// For the calls that take many; it stands where this object does.
    fn headers(&mut self) -> &mut libc::mmsghdr {
        self.part.iov_base = (&raw mut self.byte).cast();
        // SAFETY: nothing but numbers and pointers.
        let header = unsafe { self.header.assume_init_mut() };
        let message = &mut header.msg_hdr;
        message.msg_iov = &raw mut self.part;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut self.control).cast();
        message.msg_controllen = size_of::<Control>();
        header
    }

    fn header(&mut self) -> &mut libc::msghdr {
        &mut self.headers().msg_hdr
    }

    /// The descriptors that it has brought.
    fn descriptors(&mut self) -> [RawFd; 2] {
        // SAFETY: as above.
        let header = unsafe { self.header.assume_init_ref() };
        assert_eq!(header.msg_hdr.msg_flags, 0, "none that nobody asked for");
        assert_eq!(header.msg_hdr.msg_controllen, size_of::<Control>());
        self.control.descriptors
    }
}

fn receive_one(socket: RawFd) -> [RawFd; 2] {
    let mut message = Message::new([0; 2]);
    // SAFETY: a place for what comes.
    let count = unsafe { libc::recvmsg(socket, message.header(), 0) };
    assert_eq!(count, 1);
    message.descriptors()
}

fn receive_many(socket: RawFd) -> [RawFd; 2] {
    let mut message = Message::new([0; 2]);
    // SAFETY: a place for one; no time.
    let count = unsafe { libc::recvmmsg(socket, message.headers(), 1, 0, ptr::null_mut()) };
    assert_eq!(count, 1);
    message.descriptors()
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
