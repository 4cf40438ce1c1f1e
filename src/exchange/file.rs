//! Runs on: any thread; [`FileReader::read`] on tokio's threads for blocking work.
//!
//! Files that a response is made of, read a piece at a time away from the loop.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::RawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Bytes that are read at a time. Of a pipe or the like it may be fewer.
const PIECE: usize = 128 * 1024;

/// A file, and how much of it is to be read.
#[derive(Debug)]
pub(crate) struct FileReader {
    source: Source,
    /// Where the next piece begins; `None` if that is the descriptor's own position.
    offset: Option<u64>,
    /// Bytes to read still; `None` for all there are.
    left: Option<u64>,
}

#[derive(Debug)]
enum Source {
    /// To be opened at the first read.
    Path(PathBuf),
    Open(File),
}

/// What one read has come to.
#[derive(Debug)]
pub(crate) struct FileRead {
    /// For the next read.
    pub reader: FileReader,
    /// The piece.
    pub piece: io::Result<Piece>,
}

/// A piece of a file.
#[derive(Debug)]
pub(crate) struct Piece {
    /// Its bytes.
    pub data: Vec<u8>,
    /// Whether it is the last.
    pub end: bool,
}

impl FileReader {
    /// All of the file at `path`.
    pub(crate) fn whole(path: PathBuf) -> Self {
        Self {
            source: Source::Path(path),
            offset: None,
            left: None,
        }
    }

    /// `count` bytes, or all there are, of an open file, from `offset` on or else from where it
    /// stands. The descriptor stays its owner's, who may close it at any time.
    pub(crate) fn descriptor(
        descriptor: RawFd,
        offset: Option<u64>,
        count: Option<u64>,
    ) -> io::Result<Self> {
        let own = filedescriptor::FileDescriptor::dup(&descriptor).and_then(|own| own.as_file());
        Ok(Self {
            source: Source::Open(own.map_err(io_error)?),
            offset,
            left: count,
        })
    }

    /// The same, but no more than `bytes`, unless how many there are to be was said.
    pub(crate) fn at_most(mut self, bytes: u64) -> Self {
        self.left.get_or_insert(bytes);
        self
    }

    /// The path that could not be opened, or has not been yet.
    pub(crate) fn path(&self) -> Option<&Path> {
        match &self.source {
            Source::Path(path) => Some(path),
            Source::Open(_) => None,
        }
    }

    /// Reads the next piece.
    pub(crate) fn read(mut self) -> FileRead {
        let piece = self.read_piece();
        FileRead {
            reader: self,
            piece,
        }
    }

    fn read_piece(&mut self) -> io::Result<Piece> {
        if let Source::Path(path) = &self.source {
            // A pipe would otherwise keep us until somebody writes to it.
            let without_waiting = OFlags::NONBLOCK.bits().cast_signed();
            let file = File::options()
                .read(true)
                .custom_flags(without_waiting)
                .open(path)?;
            if !file.metadata()?.is_file() {
                return Err(io::Error::other("not a regular file"));
            }
            self.source = Source::Open(file);
        }
        let Source::Open(file) = &mut self.source else {
            unreachable!("opened above")
        };
        let there_is = there_is(file, self.offset)?;
        self.left = [self.left, there_is].into_iter().flatten().min();
        let left = self.left.unwrap_or(u64::MAX);
        let mut data = vec![0; usize::try_from(left).map_or(PIECE, |left| left.min(PIECE))];
        let read = loop {
            let read = match self.offset {
                Some(offset) => file.read_at(&mut data, offset),
                None => file.read(&mut data),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        data.truncate(read);
        let read = read as u64;
        self.offset = self.offset.map(|offset| offset + read);
        self.left = self.left.map(|left| left - read);
        Ok(Piece {
            data,
            end: read == 0 || self.left == Some(0),
        })
    }
}

/// The bytes of `file` from `offset` on, or from where it stands; `None` if only reading can tell: it
/// is no regular file, or one that the kernel makes up, which seems to be empty.
///
/// What is appended from now on is not part of the response, which might never end.
fn there_is(file: &mut File, offset: Option<u64>) -> io::Result<Option<u64>> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(None);
    }
    let begin = match offset {
        Some(offset) => offset,
        None => file.stream_position()?,
    };
    let bytes = metadata.len().saturating_sub(begin);
    Ok(Some(bytes).filter(|&bytes| bytes > 0))
}

/// The operating system's error in one of the crate that duplicates descriptors.
fn io_error(error: filedescriptor::Error) -> io::Error {
    match error {
        filedescriptor::Error::Dup { source, .. } => source,
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{SeekFrom, Write};
    use std::os::fd::AsRawFd;

    use super::*;

    /// All pieces of what `reader` reads.
    fn read_all(mut reader: FileReader) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let read = reader.read();
            let piece = read.piece?;
            all.extend(piece.data);
            if piece.end {
                return Ok(all);
            }
            reader = read.reader;
        }
    }

    struct Temporary(PathBuf);

    impl Drop for Temporary {
        fn drop(&mut self) {
            std::fs::remove_file(&self.0).expect("the file is ours");
        }
    }

    fn file(name: &str, content: &[u8]) -> (Temporary, File) {
        let path = std::env::temp_dir().join(format!("aiovoy-{name}-{}", std::process::id()));
        let mut file = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&path)
            .expect("a file");
        file.write_all(content).expect("written");
        file.seek(SeekFrom::Start(0)).expect("seekable");
        (Temporary(path), file)
    }

    fn content(bytes: usize) -> Vec<u8> {
        (0..=250).cycle().take(bytes).collect()
    }

    #[test]
    fn a_path_is_read_to_its_end() {
        for bytes in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE] {
            let content = content(bytes);
            let (path, _file) = file(&format!("path-{bytes}"), &content);
            let read = read_all(FileReader::whole(path.0.clone())).expect("readable");
            assert!(read == content, "{bytes}");
        }
    }

    #[test]
    fn a_path_that_is_no_file_is_an_error() {
        let missing = PathBuf::from("/nowhere/at/all");
        let error = read_all(FileReader::whole(missing)).expect_err("missing");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(read_all(FileReader::whole(std::env::temp_dir())).is_err());
    }

    #[test]
    fn a_descriptor_is_read_from_and_up_to_where_was_said() {
        let content = content(2 * PIECE);
        let (_path, mut file) = file("descriptor", &content);
        for (offset, count, expected) in [
            (None, None, &content[..]),
            (Some(0), None, &content),
            (Some(10), Some(5), &content[10..15]),
            (Some(10), Some(0), &[]),
            (
                Some(content.len() as u64 - 3),
                Some(9),
                &content[content.len() - 3..],
            ),
            (None, Some(PIECE as u64 + 1), &content[..=PIECE]),
        ] {
            file.seek(SeekFrom::Start(0)).expect("seekable");
            let reader = FileReader::descriptor(file.as_raw_fd(), offset, count).expect("open");
            assert!(
                read_all(reader).expect("readable") == expected,
                "{offset:?} {count:?}"
            );
        }
        // From where it stands, which reading moves.
        file.seek(SeekFrom::Start(7)).expect("seekable");
        let reader = FileReader::descriptor(file.as_raw_fd(), None, Some(2)).expect("open");
        assert_eq!(read_all(reader).expect("readable"), &content[7..9]);
        assert_eq!(file.stream_position().expect("seekable"), 9);
    }

    #[test]
    fn what_is_no_descriptor_is_an_error() {
        let error = FileReader::descriptor(-1, None, None).expect_err("closed");
        assert_eq!(error.raw_os_error(), Some(9)); // EBADF
    }
}
