//! The lines of access logs, read one by one however long the logs are.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::Failure;

/// Longer than any access record: what is longer is not kept in memory.
const MAX_LINE: usize = 128 * 1024;

/// What gzip's files begin with.
const GZIP: &[u8] = &[0x1f, 0x8b];

/// A line and where it stands.
pub(super) struct Line<'l> {
    pub(super) file: &'l Path,
    /// From 1.
    pub(super) number: u64,
    /// Without its end; none if it is too long or no text.
    pub(super) text: Option<&'l str>,
}

/// Hands over the lines of each file, in order, until `take` has enough. `-` is standard input. Empty lines, with which
/// a log goes on after a failed write, are left out.
pub(super) fn each_line(files: &[PathBuf], mut take: impl FnMut(Line<'_>) -> ControlFlow<()>) -> Result<(), Failure> {
    for file in files {
        let fault = |error: io::Error| Failure::File { path: file.clone(), message: error.to_string() };
        let done = if file == Path::new("-") {
            lines(file, BufReader::new(io::stdin().lock()), &mut take)
        } else {
            let opened = File::open(file).map_err(fault)?;
            lines(file, BufReader::with_capacity(256 * 1024, opened), &mut take)
        };
        if done.map_err(fault)?.is_break() {
            break;
        }
    }
    Ok(())
}

fn lines(
    file: &Path,
    mut log: impl BufRead,
    take: &mut impl FnMut(Line<'_>) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    if log.fill_buf()?.starts_with(GZIP) {
        return Err(io::Error::other("this is compressed: zcat it, and read standard input with --log -"));
    }
    let mut buffer = Vec::new();
    let mut number = 0;
    loop {
        buffer.clear();
        // `u64` holds any `usize` there is.
        let read = log.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut buffer)?;
        if read == 0 {
            return Ok(ControlFlow::Continue(()));
        }
        number += 1;
        let whole = buffer.last() == Some(&b'\n') || read < MAX_LINE;
        if !whole {
            log.skip_until(b'\n')?;
        }
        let text = std::str::from_utf8(&buffer).ok().filter(|_| whole).map(str::trim_end);
        if text.is_some_and(str::is_empty) {
            continue;
        }
        if take(Line { file, number, text }).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Vec<(u64, Option<String>)> {
        let mut seen = Vec::new();
        let done = lines(Path::new("log"), BufReader::with_capacity(7, text), &mut |line: Line<'_>| {
            seen.push((line.number, line.text.map(ToOwned::to_owned)));
            ControlFlow::Continue(())
        });
        assert!(done.is_ok_and(|flow| flow.is_continue()));
        seen
    }

    #[test]
    fn lines_are_numbered_and_bad_ones_keep_their_place() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(read(b"a\n\nb\r\nc"), [(1, text("a")), (3, text("b")), (4, text("c"))]);
        assert_eq!(read(b"\xff\nb\n"), [(1, None), (2, text("b"))]);
        let long = [vec![b'x'; MAX_LINE], b"\nb\n".to_vec()].concat();
        assert_eq!(read(&long), [(1, None), (2, text("b"))]);
        let fits = [vec![b'x'; MAX_LINE - 1], b"\nb\n".to_vec()].concat();
        assert_eq!(read(&fits).len(), 2);
        assert!(read(&fits)[0].1.is_some());
        assert_eq!(read(b""), []);
    }

    #[test]
    fn a_compressed_log_is_named() {
        let done = lines(Path::new("log"), BufReader::new(GZIP), &mut |_: Line<'_>| ControlFlow::Continue(()));
        assert!(done.is_err_and(|error| error.to_string().contains("zcat")));
    }

    #[test]
    fn whoever_has_enough_reads_no_more() {
        let mut seen = 0;
        let done = lines(Path::new("log"), BufReader::new(&b"a\nb\n"[..]), &mut |_: Line<'_>| {
            seen += 1;
            ControlFlow::Break(())
        });
        assert!(done.is_ok_and(|flow| flow.is_break()) && seen == 1);
    }
}
