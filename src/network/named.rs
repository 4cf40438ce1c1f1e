//! Runs on: network thread.
//!
//! What a request is called in the log, when the loop has its head.

use smallvec::SmallVec;

use crate::exchange::{RequestHead, Short};

/// What of a head the log shows.
pub(super) struct Named {
    method: Short,
    target: SmallVec<[u8; 64]>,
    client: Short,
    /// Empty if it has none.
    id: SmallVec<[u8; 36]>,
}

impl Named {
    pub(super) fn new(head: &RequestHead) -> Self {
        Self {
            method: Short::from_slice(&head.method),
            target: SmallVec::from_slice(&head.target),
            client: Short::from_slice(&head.client.host),
            id: SmallVec::from_slice(head.field(b"x-request-id").unwrap_or_default()),
        }
    }

    /// A head that the log calls the same.
    pub(super) fn head(&self) -> RequestHead {
        let mut head = RequestHead {
            method: Short::from_slice(&self.method),
            target: self.target.to_vec(),
            ..RequestHead::default()
        };
        head.client.host = Short::from_slice(&self.client);
        if !self.id.is_empty() {
            head.fields.push(b"x-request-id", &self.id);
        }
        head
    }
}
