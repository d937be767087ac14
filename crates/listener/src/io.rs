//! One HTTP/2 connection within the connection limit: it must begin in time, and is read only as fast as its frames
//! earn. Must not depend on the messages.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::frames::FrameLimiter;
use crate::limit::ConnectionPermit;

/// The time limit for a client to send the HTTP/2 preface.
const HELLO: Duration = Duration::from_secs(10);
/// The bytes of this beginning: the preface (24) and a frame's head.
const GREETING: usize = 33;

/// The time limit for the headers of a call, from their first frame on: nothing else limits it, and nothing else can be
/// sent meanwhile.
const HEADERS: Duration = Duration::from_secs(10);

/// How long after the last response a client's data is read and discarded, if it does not close. Calls that crossed our
/// GOAWAY are retried elsewhere; closing the connection on them would reset it, and lose responses in flight.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes read at once then, and in total: as no window is returned, well-behaved clients have no more to send.
const DISCARDED: usize = 4 << 10;
const CROSSED: usize = 2 << 20;

/// A connection with its place within the connection limit.
pub struct LimitedIo<W> {
    wire: W,
    /// Bytes of the beginning still missing, and their deadline.
    silent: Option<(usize, Pin<Box<Sleep>>)>,
    patrol: FrameLimiter,
    /// The deadline for an open header block, and which block it is.
    headers: Option<(u64, Pin<Box<Sleep>>)>,
    /// After the last response: until when the client's data is read and discarded, and how many bytes.
    linger: Option<(Pin<Box<Sleep>>, usize)>,
    seat: ConnectionPermit,
}

impl<W> LimitedIo<W> {
    /// A connection that has not sent anything yet.
    pub fn new(wire: W, seat: ConnectionPermit) -> LimitedIo<W> {
        let silent = Some((GREETING, Box::pin(sleep(HELLO))));
        let patrol = FrameLimiter::new(seat.activity().toll.clone());
        LimitedIo { wire, silent, patrol, headers: None, linger: None, seat }
    }

    /// Its place within the connection limit.
    pub fn permit(&self) -> &ConnectionPermit {
        &self.seat
    }

    /// Checks the deadline of an incomplete header block.
    fn in_time(&mut self, pending: bool, context: &mut Context<'_>) -> Result<()> {
        let Some(block) = self.patrol.open_block() else {
            self.headers = None;
            return Ok(());
        };
        if self.headers.as_ref().is_none_or(|(number, _)| *number != block) {
            self.headers = Some((block, Box::pin(sleep(HEADERS))));
        }
        if let Some((_, time)) = &mut self.headers
            && pending
            && time.as_mut().poll(context).is_ready()
        {
            return Err(Error::new(ErrorKind::TimedOut, "the headers of a call were not complete in time"));
        }
        Ok(())
    }

    fn count(&mut self, wrote: Poll<Result<usize>>) -> Poll<Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = wrote {
            self.patrol.wrote(bytes);
        }
        wrote
    }
}

impl<W: AsyncRead + Unpin> AsyncRead for LimitedIo<W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        ready!(self.patrol.pass(context));
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.wire).poll_read(context, buffer);
        self.patrol.read(&buffer.filled()[before..], context);
        self.in_time(read.is_pending(), context)?;
        let Some((missing, time)) = &mut self.silent else { return read };
        if read.is_pending() {
            ready!(time.as_mut().poll(context));
            return Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "no HTTP/2 preface in time")));
        }
        *missing = missing.saturating_sub(buffer.filled().len() - before);
        if *missing == 0 {
            self.silent = None;
        }
        read
    }
}

impl<W: AsyncRead + Unpin> LimitedIo<W> {
    /// Reads and discards until the client closes or its time is over. Frames cost as before, so that a client gains
    /// nothing from being asked to close.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (time, left) = self.linger.get_or_insert_with(|| (Box::pin(sleep(LINGER)), CROSSED));
        let mut bytes = [0; DISCARDED];
        loop {
            let over = *left == 0 || time.as_mut().poll(context).is_ready();
            if over || self.patrol.pass(context).is_pending() {
                return Poll::Ready(());
            }
            let mut buffer = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(&mut self.wire).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    self.patrol.read(buffer.filled(), context);
                    *left = left.saturating_sub(buffer.filled().len());
                }
                // The client closed or is gone.
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
    }
}

impl<W: AsyncRead + AsyncWrite + Unpin> AsyncWrite for LimitedIo<W> {
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
        ready!(self.poll_linger(context));
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
