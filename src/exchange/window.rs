//! Runs on: any thread.
//!
//! How much of a body may wait where, and what counts in it.

use super::fields::Fields;

/// Bytes of request body that may lie unread on the loop's side of one exchange, give or take
/// one piece as Envoy read it. What comes beyond stays in Envoy, whose own buffer limit then
/// stops the client.
pub(crate) const REQUEST_WINDOW: usize = 256 * 1024;

/// Bytes of response body that may be posted and not yet taken by Envoy before `send` waits.
/// One message may go beyond it: the application has those bytes in memory anyway.
pub(crate) const RESPONSE_WINDOW: usize = 256 * 1024;

/// What a message between the two sides counts for at least in either window: an allocation and
/// its place in the mailbox cost memory however little is in it.
pub(crate) const LEAST_COST: usize = 64;

/// What a piece of a request body counts for in [`REQUEST_WINDOW`] until the loop has it.
pub(crate) fn piece_cost(length: usize) -> usize {
    length.max(LEAST_COST)
}

/// What an interim head counts for in [`RESPONSE_WINDOW`].
pub(crate) fn interim_cost(fields: &Fields) -> usize {
    LEAST_COST + fields.size()
}

/// Window updates in both directions are sent in steps of this many bytes, so that a small
/// body costs none. Smaller than either window, or the last step would never be sent.
pub(crate) const WINDOW_STEP: usize = 64 * 1024;
