//! Runs on: Envoy's main thread at the start; whichever thread ends the process.
//!
//! What the launcher would remove at its end, and can't if it was killed: the last process of the server
//! does it then. `AIOVOY_REMOVE` says what there is, the server's private folder first. The launcher
//! holds a lock on the folder, by a description of an open file (flock(2)) that each of its processes
//! has from it, as the descriptor `AIOVOY_LOCK`. So whoever gets the lock by itself is the last of them.

use std::env;
use std::fs;
use std::os::fd::RawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{self, Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};

/// Nothing, once it has been seen to. The lock is held meanwhile, so that the process does not end amid
/// it, by another thread.
static LEFTOVERS: Mutex<Option<Leftovers>> = Mutex::new(None);

/// Learns from the environment what there will be to remove.
pub(super) fn know() {
    *LEFTOVERS.lock() = Leftovers::from_environment();
}

/// Removes it if this is the last process of the server, which ends, and the launcher has gone.
pub(super) fn remove() {
    let mut leftovers = LEFTOVERS.lock();
    if let Some(leftovers) = leftovers.take() {
        envoy::close_known(leftovers.lock);
        leftovers.remove();
    }
}

/// Ends the process at once, and leaves nothing behind.
pub(super) fn exit_now(code: i32) -> ! {
    remove();
    envoy::exit_now(code)
}

#[derive(Debug)]
struct Leftovers {
    /// The descriptor with the lock.
    lock: RawFd,
    folder: PathBuf,
    sockets: Vec<SocketFile>,
}

/// The file of a Unix domain socket. By the end another server may have one under the same name.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

/// Device and inode, which may be given again, and the time at which it was made.
type Identity = (u64, u64, i64, i64);

impl Leftovers {
    fn from_environment() -> Option<Self> {
        let lock = env::var("AIOVOY_LOCK").ok()?.parse().ok()?;
        let paths = env::var_os("AIOVOY_REMOVE")?;
        // The application may change its working directory.
        let mut paths = env::split_paths(&paths).filter_map(|path| path::absolute(path).ok());
        let folder = paths.next()?;
        // Rather nothing than all of a folder of somebody else's.
        let is_ours = folder.file_name()?.to_str()?.starts_with("aiovoy-");
        envoy::know_inherited(lock);
        is_ours.then(|| Self::new(lock, folder, paths))
    }

    fn new(lock: RawFd, folder: PathBuf, sockets: impl Iterator<Item = PathBuf>) -> Self {
        let sockets = sockets.filter_map(|path| {
            let identity = identity_of_socket(&path)?;
            Some(SocketFile { path, identity })
        });
        Self {
            lock,
            folder,
            sockets: sockets.collect(),
        }
    }

    /// Removes all of it, unless somebody still has the lock. What can't be removed stays: nobody is left
    /// who could do more about it, but the next launcher, which looks for such folders.
    fn remove(&self) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(folder) = open(&self.folder, flags, Mode::empty()) else {
            return;
        };
        if flock(&folder, FlockOperation::NonBlockingLockExclusive).is_err() {
            return;
        }
        for SocketFile { path, identity } in &self.sockets {
            if identity_of_socket(path) == Some(*identity) {
                let _ = fs::remove_file(path);
            }
        }
        for worker in subfolders(&self.folder) {
            remove_memory(&worker);
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Removes the shared memory that the launcher has made for an Envoy which has died before it took it.
/// The name of the launcher's socket in its folder tells which that is: see
/// `aiovoy/launcher/workers/hot_restart.py`.
fn remove_memory(worker: &Path) {
    for path in subfolders(worker) {
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(number) = name.and_then(|name| name.strip_prefix("hot_parent_")) {
            let _ = fs::remove_file(format!("/dev/shm/envoy_shared_memory_{number}"));
        }
    }
}

fn identity_of_socket(path: &Path) -> Option<Identity> {
    let file = fs::symlink_metadata(path).ok()?;
    let is_socket = file.file_type().is_socket();
    is_socket.then(|| (file.dev(), file.ino(), file.mtime(), file.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A server's folder and its socket file.
    struct Server {
        top: PathBuf,
        folder: PathBuf,
        socket: PathBuf,
    }

    impl Server {
        fn new(name: &str) -> Self {
            let top = env::temp_dir().join(format!("leftovers-{name}-{}", std::process::id()));
            let (folder, socket) = (top.join("folder"), top.join("socket"));
            fs::create_dir_all(folder.join("inner")).expect("folders");
            fs::write(folder.join("inner/file"), "text").expect("a file");
            drop(UnixListener::bind(&socket).expect("a socket"));
            Self {
                top,
                folder,
                socket,
            }
        }

        fn leftovers(&self) -> Leftovers {
            Leftovers::new(-1, self.folder.clone(), [self.socket.clone()].into_iter())
        }

        fn lock(&self) -> File {
            let lock = File::open(&self.folder).expect("the folder");
            lock.lock_shared().expect("the lock");
            lock
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.top);
        }
    }

    #[test]
    fn the_last_one_removes_the_folder_and_the_socket() {
        let server = Server::new("last");
        let lock = server.lock();
        server.leftovers().remove();
        assert!(server.folder.join("inner/file").exists() && server.socket.exists());
        drop(lock);
        server.leftovers().remove();
        assert!(!server.folder.exists() && !server.socket.exists());
        // There is nothing any more.
        server.leftovers().remove();
    }

    #[test]
    fn memory_that_no_envoy_has_taken_is_removed() {
        let server = Server::new("memory");
        // No base id is that large.
        let number = format!("9{:010}", std::process::id());
        let memory = PathBuf::from(format!("/dev/shm/envoy_shared_memory_{number}"));
        fs::write(&memory, "").expect("a file");
        let parent = server
            .folder
            .join("inner")
            .join(format!("hot_parent_{number}"));
        drop(UnixListener::bind(parent).expect("a socket"));
        server.leftovers().remove();
        assert!(!memory.exists());
    }

    #[test]
    fn what_another_server_has_put_in_a_sockets_place_stays() {
        let server = Server::new("other");
        let leftovers = server.leftovers();
        fs::remove_file(&server.socket).expect("the socket");
        // Else the file system may give the same inode again, in the same moment.
        fs::write(server.top.join("more"), "text").expect("a file");
        drop(UnixListener::bind(&server.socket).expect("a socket"));
        leftovers.remove();
        assert!(server.socket.exists() && !server.folder.exists());
    }

    #[test]
    fn a_file_that_is_no_socket_stays() {
        let server = Server::new("file");
        fs::remove_file(&server.socket).expect("the socket");
        fs::write(&server.socket, "text").expect("a file");
        server.leftovers().remove();
        assert!(server.socket.exists() && !server.folder.exists());
    }
}
