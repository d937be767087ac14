//! One connection that speaks HTTP/2, on its seat: it has to begin in time, and is read no faster than what it sends is
//! worth. Must never know what is said on it.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::patrol::Patrol;
use crate::seats::Seat;

/// How long a client may take until it has begun to speak HTTP/2.
const HELLO: Duration = Duration::from_secs(10);
/// What it says then: the preface of 24 bytes, and the head of a frame.
const GREETING: usize = 33;

/// A connection with its seat.
pub struct Line<W> {
    wire: W,
    /// What it has still to say, and until when.
    silent: Option<(usize, Pin<Box<Sleep>>)>,
    patrol: Patrol,
    seat: Seat,
}

impl<W> Line<W> {
    /// A connection that has not said anything yet.
    pub fn new(wire: W, seat: Seat) -> Line<W> {
        let silent = Some((GREETING, Box::pin(sleep(HELLO))));
        Line { wire, silent, patrol: Patrol::new(), seat }
    }

    /// What it sits on.
    pub fn seat(&self) -> &Seat {
        &self.seat
    }

    fn count(&mut self, wrote: Poll<Result<usize>>) -> Poll<Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = wrote {
            self.patrol.wrote(bytes);
        }
        wrote
    }
}

impl<W: AsyncRead + Unpin> AsyncRead for Line<W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        ready!(self.patrol.pass(context));
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.wire).poll_read(context, buffer);
        self.patrol.read(&buffer.filled()[before..], context);
        let Some((missing, time)) = &mut self.silent else { return read };
        if read.is_pending() {
            ready!(time.as_mut().poll(context));
            return Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the client does not speak")));
        }
        *missing = missing.saturating_sub(buffer.filled().len() - before);
        if *missing == 0 {
            self.silent = None;
        }
        read
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Line<W> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let wrote = Pin::new(&mut self.wire).poll_write(context, bytes);
        self.count(wrote)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let flushed = Pin::new(&mut self.wire).poll_flush(context);
        if flushed.is_ready() {
            self.seat.activity().flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let wrote = Pin::new(&mut self.wire).poll_write_vectored(context, parts);
        self.count(wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }
}
