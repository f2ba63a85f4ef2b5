//! The channel of the replies to one job.
//!
//! Whoever polls it must not be put to sleep by it, and no reply may take longer than another. The channel of tokio does the
//! first where it finds a reply half sent, as it did at every 32nd, whose sender allocates: the token came 30 us late. Any
//! channel without a bound is late at the replies for which it allocates, that of `async_channel` by 5 to 10 us at every 31st.
//! So replies go through a ring that is as long as a client may fall behind, and the rest of an answer through a channel
//! without a bound once one has fallen behind further: nobody counts its microseconds, and its engine must not wait for it.

use async_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded, unbounded};

use super::job::Reply;

/// Replies that wait until their client has fallen behind: some tenth of a second of a small model, and 100 KiB a job.
const RING: usize = 512;

/// The two ends of a channel.
pub(super) fn channel() -> (ReplySender, ReplyReceiver) {
    let ((ring, from_ring), (rest, from_rest)) = (bounded(RING), unbounded());
    (ReplySender { ring, rest }, ReplyReceiver { ring: from_ring, rest: from_rest })
}

/// The engine's end.
#[derive(Clone)]
pub(super) struct ReplySender {
    ring: Sender<Reply>,
    rest: Sender<Reply>,
}

impl ReplySender {
    /// Sends a reply. A client that has left hears nothing, and that is all there is to it.
    pub fn send(&self, reply: Reply) {
        let left = match self.ring.try_send(reply) {
            Ok(()) => return,
            Err(TrySendError::Full(reply) | TrySendError::Closed(reply)) => reply,
        };
        let _ = self.rest.try_send(left);
        // From here on nothing may go through the ring: its replies come before the rest.
        self.ring.close();
    }

    /// Whether the client has left.
    pub fn is_closed(&self) -> bool {
        self.rest.is_closed()
    }
}

/// The client's end.
pub(super) struct ReplyReceiver {
    ring: Receiver<Reply>,
    rest: Receiver<Reply>,
}

impl ReplyReceiver {
    /// The next reply; `None` where none will come.
    pub async fn recv(&self) -> Option<Reply> {
        match self.ring.recv().await {
            Ok(reply) => Some(reply),
            // Closed and read to its end.
            Err(_) => self.rest.recv().await.ok(),
        }
    }

    /// The next reply, if there is one by now.
    ///
    /// # Errors
    /// There is none yet, or none will come.
    pub fn try_recv(&self) -> Result<Reply, TryRecvError> {
        match self.ring.try_recv() {
            Err(TryRecvError::Closed) => self.rest.try_recv(),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: u32) -> Reply {
        Reply::Token { id, text: String::new() }
    }

    fn id(reply: Reply) -> u32 {
        match reply {
            Reply::Token { id, .. } => id,
            other => panic!("{other:?} in place of a token"),
        }
    }

    /// Takes every reply that is there, by polling and by waiting in turns.
    async fn drain(replies: &ReplyReceiver, count: usize) -> Vec<u32> {
        let mut ids = Vec::new();
        for i in 0..count {
            let reply = if i % 2 == 0 { replies.try_recv().ok() } else { replies.recv().await };
            ids.push(id(reply.expect("it was sent")));
        }
        ids
    }

    #[tokio::test]
    async fn a_client_that_falls_behind_the_ring_misses_nothing_and_hears_all_in_order() {
        let (sender, receiver) = channel();
        let behind = RING as u32 + 100;
        (0..behind).for_each(|i| sender.send(token(i)));
        // The ring has room again, but what is sent now comes after what did not fit.
        assert_eq!(drain(&receiver, 10).await, (0..10).collect::<Vec<_>>());
        sender.send(token(behind));
        assert_eq!(drain(&receiver, behind as usize - 9).await, (10..=behind).collect::<Vec<_>>());
        assert!(matches!(receiver.try_recv(), Err(TryRecvError::Empty)));
        drop(sender);
        assert!(receiver.recv().await.is_none());
    }

    #[tokio::test]
    async fn only_a_client_that_has_left_closes_the_channel() {
        let (sender, receiver) = channel();
        (0..=RING as u32).for_each(|i| sender.send(token(i)));
        assert!(!sender.is_closed(), "it has fallen behind and is there");
        drop(receiver);
        assert!(sender.is_closed());
        sender.send(token(0));
    }
}
