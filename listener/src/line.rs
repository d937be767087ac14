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

/// How long a client may take for the headers of a call, from their first frame on: nobody else counts them, and nothing
/// else can be sent meanwhile.
const HEADERS: Duration = Duration::from_secs(10);

/// How long after the last answer what the client still sends is read, if it does not close. Calls that crossed our
/// goodbye are repeated elsewhere; a connection that was closed on them would be reset, and answers on their way lost.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes that are read at once then, and in all: as no window is given back, those who mean well have no more to send.
const DISCARDED: usize = 4 << 10;
const CROSSED: usize = 2 << 20;

/// A connection with its seat.
pub struct Line<W> {
    wire: W,
    /// What it has still to say, and until when.
    silent: Option<(usize, Pin<Box<Sleep>>)>,
    patrol: Patrol,
    /// Until when a header block has to come whole, and which.
    headers: Option<(u64, Pin<Box<Sleep>>)>,
    /// After the last answer: until when what the client still sends is read, and how many bytes of it.
    linger: Option<(Pin<Box<Sleep>>, usize)>,
    seat: Seat,
}

impl<W> Line<W> {
    /// A connection that has not said anything yet.
    pub fn new(wire: W, seat: Seat) -> Line<W> {
        let silent = Some((GREETING, Box::pin(sleep(HELLO))));
        let patrol = Patrol::new(seat.activity().toll.clone());
        Line { wire, silent, patrol, headers: None, linger: None, seat }
    }

    /// What it sits on.
    pub fn seat(&self) -> &Seat {
        &self.seat
    }

    /// Whether there is still time for what was not read yet of a header block.
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
            return Err(Error::new(ErrorKind::TimedOut, "the headers of a call did not come whole"));
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
        self.in_time(read.is_pending(), context)?;
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

impl<W: AsyncRead + Unpin> Line<W> {
    /// Reads and discards until the client has closed, or has had its time. It pays for it as before, so that nobody gains
    /// by being told to go.
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
                // It has closed, or it is gone.
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
    }
}

impl<W: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Line<W> {
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
