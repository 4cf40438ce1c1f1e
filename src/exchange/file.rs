//! Runs on: any thread; [`FileReader::read`] on tokio's threads for blocking work.
//!
//! Files that a response is made of, read a piece at a time away from the loop.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::buffer::spare_capacity;
use rustix::fs::OFlags;
use rustix::io::{pread, read, retry_on_intr};

/// Bytes that are read at a time. Of a pipe or the like it may be fewer. As many, or more, are not worth being read if
/// they can be sent from the file: of fewer that is as much work.
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
pub(crate) enum Piece {
    /// Bytes, and whether they are the last.
    Bytes(Vec<u8>, bool),
    /// What is left, to be sent from the file.
    Rest(FilePart),
}

/// A part of a file.
#[derive(Debug)]
pub(crate) struct FilePart {
    /// A regular one.
    pub file: File,
    /// Where it begins.
    pub offset: u64,
    /// Bytes of it.
    pub length: usize,
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
    /// stands.
    pub(crate) fn open(file: File, offset: Option<u64>, count: Option<u64>) -> Self {
        Self {
            source: Source::Open(file),
            offset,
            left: count,
        }
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

    /// Reads the next piece, unless it is much and `sends_files`.
    pub(crate) fn read(mut self, sends_files: bool) -> FileRead {
        let piece = self.read_piece(sends_files);
        FileRead {
            reader: self,
            piece,
        }
    }

    fn read_piece(&mut self, sends_files: bool) -> io::Result<Piece> {
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
        if left == 0 {
            return Ok(Piece::Bytes(Vec::new(), true));
        }
        if sends_files
            && there_is.is_some()
            && let Ok(length @ PIECE..) = usize::try_from(left)
        {
            let offset = match self.offset {
                Some(offset) => offset,
                // As if it had been read.
                None => file.seek(SeekFrom::Current(left.cast_signed()))? - left,
            };
            let file = file.try_clone()?;
            return Ok(Piece::Rest(FilePart {
                file,
                offset,
                length,
            }));
        }
        let mut data =
            Vec::with_capacity(usize::try_from(left).map_or(PIECE, |left| left.min(PIECE)));
        let read = retry_on_intr(|| match self.offset {
            Some(offset) => pread(&*file, spare_capacity(&mut data), offset),
            None => read(&*file, spare_capacity(&mut data)),
        })?;
        let read = read as u64;
        self.offset = self.offset.map(|offset| offset + read);
        self.left = self.left.map(|left| left - read);
        Ok(Piece::Bytes(data, read == 0 || self.left == Some(0)))
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// All pieces of what `reader` reads.
    fn read_all(mut reader: FileReader) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let read = reader.read(false);
            let Piece::Bytes(data, end) = read.piece? else {
                unreachable!("nobody sends it")
            };
            all.extend(data);
            if end {
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
            let reader = FileReader::open(file.try_clone().expect("open"), offset, count);
            assert!(
                read_all(reader).expect("readable") == expected,
                "{offset:?} {count:?}"
            );
        }
        // From where it stands, which reading moves.
        file.seek(SeekFrom::Start(7)).expect("seekable");
        let reader = FileReader::open(file.try_clone().expect("open"), None, Some(2));
        assert_eq!(read_all(reader).expect("readable"), &content[7..9]);
        assert_eq!(file.stream_position().expect("seekable"), 9);
    }
}
