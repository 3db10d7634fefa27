//! Where every connection of a thread reads to. What was read is copied to where there is just room
//! for it, so that a connection holds nothing while it waits.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

/// Read at once, and thus the most that is held for somebody who does not take it.
pub(crate) const READ_BYTES_MAX: usize = 32 * 1024;

thread_local! {
    static ROOM: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES_MAX].into());
}

/// Reads what has come, and gives it to `take`: nothing, if the peer has ended.
pub(crate) fn read<S: AsyncRead + Unpin, T>(
    stream: &mut S,
    context: &mut Context<'_>,
    take: impl FnOnce(&[u8]) -> T,
) -> Poll<io::Result<T>> {
    ROOM.with_borrow_mut(|room| {
        let mut read = ReadBuf::new(room);
        ready!(Pin::new(stream).poll_read(context, &mut read))?;
        Poll::Ready(Ok(take(read.filled())))
    })
}
