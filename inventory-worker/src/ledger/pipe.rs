//! A pipe for bytes between the runtime and a thread that reads or writes them incrementally, so that a snapshot is
//! never held as a whole. A pipe that closes without an explicit end is an error.

use std::io::{self, ErrorKind, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::sync::mpsc;

/// Bytes of a piece.
const PIECE: usize = 128 << 10;
/// The most pieces in the pipe.
const PIECES: usize = 4;

/// A piece; none marks the end.
type Piece = Option<Bytes>;

/// The writing end.
pub(super) struct Inlet {
    pieces: mpsc::Sender<Piece>,
    buffer: Vec<u8>,
}

/// The reading end.
pub(super) struct Outlet {
    pieces: mpsc::Receiver<Piece>,
    piece: Bytes,
    over: bool,
    moved: Arc<AtomicU64>,
}

/// Both ends.
pub(super) fn pipe() -> (Inlet, Outlet) {
    let (sender, receiver) = mpsc::channel(PIECES);
    let inlet = Inlet { pieces: sender, buffer: Vec::with_capacity(PIECE) };
    (inlet, Outlet { pieces: receiver, piece: Bytes::new(), over: false, moved: Arc::default() })
}

fn broken() -> io::Error {
    io::Error::new(ErrorKind::BrokenPipe, "the other end is gone")
}

impl Inlet {
    /// Marks the end, from a thread.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.pieces.blocking_send(None).map_err(|_| broken())
    }

    /// Copies a source to its end. An error of the reading end is reported there.
    pub(super) async fn fill(self, source: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let end = source.read_buf(&mut piece).await? == 0;
            let piece = (!end).then(|| Bytes::from(piece));
            if self.pieces.send(piece).await.is_err() || end {
                return Ok(());
            }
        }
    }
}

impl Write for Inlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        self.pieces.blocking_send(Some(piece.into())).map_err(|_| broken())
    }
}

impl Outlet {
    /// How many pieces were read.
    pub(super) fn moved(&self) -> Arc<AtomicU64> {
        self.moved.clone()
    }

    /// Handles what was received.
    fn note(&mut self, came: Option<Piece>) -> io::Result<()> {
        self.moved.fetch_add(1, Ordering::Relaxed);
        match came {
            Some(Some(piece)) => self.piece = piece,
            Some(None) => self.over = true,
            None => {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, "it ends before its end was marked"));
            }
        }
        Ok(())
    }
}

impl Read for Outlet {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.over {
            let came = self.pieces.blocking_recv();
            self.note(came)?;
        }
        let count = self.piece.len().min(to.len());
        self.piece.copy_to_slice(&mut to[..count]);
        Ok(count)
    }
}

impl AsyncRead for Outlet {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.piece.is_empty() && !self.over {
            let came = ready!(self.pieces.poll_recv(context));
            self.note(came)?;
        }
        let count = self.piece.len().min(to.remaining());
        to.put_slice(&self.piece[..count]);
        self.piece.advance(count);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_goes_in_comes_out_either_way() {
        let bytes: Vec<u8> = (0..3 * PIECE + 7).map(|number| (number % 251) as u8).collect();
        let (mut inlet, mut outlet) = pipe();
        let written = bytes.clone();
        let writes = tokio::task::spawn_blocking(move || {
            inlet.write_all(&written)?;
            inlet.finish()
        });
        let mut read = Vec::new();
        AsyncReadExt::read_to_end(&mut outlet, &mut read).await.unwrap();
        writes.await.unwrap().unwrap();
        assert!(read == bytes);
        let (inlet, mut outlet) = pipe();
        let reads = tokio::task::spawn_blocking(move || {
            let mut read = Vec::new();
            Read::read_to_end(&mut outlet, &mut read).map(|_| read)
        });
        inlet.fill(&mut bytes.as_slice()).await.unwrap();
        assert!(reads.await.unwrap().unwrap() == bytes);
    }

    #[tokio::test]
    async fn a_writer_that_breaks_off_is_an_error_and_no_end() {
        let (mut inlet, mut outlet) = pipe();
        let writes = tokio::task::spawn_blocking(move || {
            inlet.write_all(b"half")?;
            inlet.flush()
        });
        writes.await.unwrap().unwrap();
        let error = AsyncReadExt::read_to_end(&mut outlet, &mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }
}
