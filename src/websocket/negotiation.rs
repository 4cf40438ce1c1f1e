//! Runs on: any thread; pure.
//!
//! The parameters of permessage-deflate. RFC 7692, section 7.1.

use super::handshake::Extension;

/// What client and server have agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreement {
    pub(super) server: Direction,
    pub(super) client: Direction,
}

/// How one of the two compresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Direction {
    /// Messages refer to what was sent before them.
    pub(super) context_takeover: bool,
    /// The logarithm to base 2 of how far back, in bytes, they refer: 8 to 15.
    pub(super) window_bits: u8,
}

const NAME: &str = "permessage-deflate";

/// A client that can limit its window is asked for this one, which costs us 4 KiB of its last
/// messages instead of 32 KiB.
const CLIENT_WINDOW_BITS: u8 = 12;

/// Takes the first offer that is one. Also returns its element for `sec-websocket-extensions` of
/// the response.
pub(crate) fn negotiate(offers: &[Extension]) -> Option<(Agreement, String)> {
    offers
        .iter()
        .filter(|extension| extension.name == NAME)
        .find_map(|extension| Offer::read(&extension.parameters))
        .map(Offer::accept)
}

/// An offer that we understand.
#[derive(Default)]
struct Offer {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    client_max_window_bits: Option<u8>,
}

impl Offer {
    /// An unknown, repeated or wrong parameter declines the offer.
    fn read(parameters: &[(String, Option<String>)]) -> Option<Self> {
        let mut offer = Self::default();
        for (name, value) in parameters {
            let is_new = match (name.as_str(), value.as_deref()) {
                ("server_no_context_takeover", None) => set(&mut offer.server_no_context_takeover),
                ("client_no_context_takeover", None) => set(&mut offer.client_no_context_takeover),
                ("server_max_window_bits", Some(bits)) => {
                    let bits = window_bits(bits)?;
                    offer.server_max_window_bits.replace(bits).is_none()
                }
                ("client_max_window_bits", bits) => {
                    let bits = bits.map_or(Some(15), window_bits)?;
                    offer.client_max_window_bits.replace(bits).is_none()
                }
                _ => return None,
            };
            if !is_new {
                return None;
            }
        }
        Some(offer)
    }

    fn accept(self) -> (Agreement, String) {
        let mut response = NAME.to_owned();
        if self.server_no_context_takeover {
            response += "; server_no_context_takeover";
        }
        if self.client_no_context_takeover {
            response += "; client_no_context_takeover";
        }
        if let Some(bits) = self.server_max_window_bits {
            response += &format!("; server_max_window_bits={bits}");
        }
        let client_max_window_bits = self
            .client_max_window_bits
            .map(|bits| bits.min(CLIENT_WINDOW_BITS));
        if let Some(bits) = client_max_window_bits {
            response += &format!("; client_max_window_bits={bits}");
        }
        let agreement = Agreement {
            server: Direction {
                context_takeover: !self.server_no_context_takeover,
                window_bits: self.server_max_window_bits.unwrap_or(15),
            },
            client: Direction {
                context_takeover: !self.client_no_context_takeover,
                window_bits: client_max_window_bits.unwrap_or(15),
            },
        };
        (agreement, response)
    }
}

/// Sets a parameter without a value; false if it was set before.
fn set(parameter: &mut bool) -> bool {
    !std::mem::replace(parameter, true)
}

/// 8 to 15, without leading zeros.
fn window_bits(value: &str) -> Option<u8> {
    (8..=15).find(|bits| bits.to_string() == value)
}

#[cfg(test)]
mod tests {
    use super::super::handshake::Handshake;
    use super::*;

    fn answer(offers: &str) -> Option<(Agreement, String)> {
        let fields = [
            ("sec-websocket-version", "13"),
            ("sec-websocket-extensions", offers),
        ];
        let fields = fields
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        negotiate(
            &Handshake::read(fields, false)
                .expect("well-formed")
                .extensions,
        )
    }

    #[test]
    fn offers_are_answered() {
        for (offers, expected) in [
            ("permessage-deflate", "permessage-deflate"),
            (
                "permessage-deflate; client_max_window_bits",
                "permessage-deflate; client_max_window_bits=12",
            ),
            (
                "permessage-deflate; client_max_window_bits=\"9\"",
                "permessage-deflate; client_max_window_bits=9",
            ),
            (
                "permessage-deflate; client_max_window_bits=15; server_max_window_bits=8",
                "permessage-deflate; server_max_window_bits=8; client_max_window_bits=12",
            ),
            (
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            ),
            // The first that can be taken.
            (
                "x-webkit-deflate-frame, permessage-deflate; new, permessage-deflate; server_max_window_bits=10, \
                 permessage-deflate",
                "permessage-deflate; server_max_window_bits=10",
            ),
        ] {
            let response = answer(offers).map(|(_, response)| response);
            assert_eq!(response.as_deref(), Some(expected), "{offers}");
        }
    }

    #[test]
    fn an_offer_that_is_not_understood_is_declined() {
        for offers in [
            "",
            "permessage-bzip2",
            "permessage-deflate; unknown",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover=true",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=08",
            "permessage-deflate; server_max_window_bits=+9",
            "permessage-deflate; client_max_window_bits=0",
            "permessage-deflate; client_max_window_bits=12; client_max_window_bits=12",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        ] {
            assert_eq!(answer(offers), None, "{offers}");
        }
    }

    #[test]
    fn the_agreement_says_what_the_response_says() {
        let (agreement, _) =
            answer("permessage-deflate; server_no_context_takeover; client_max_window_bits")
                .expect("taken");
        let server = Direction {
            context_takeover: false,
            window_bits: 15,
        };
        let client = Direction {
            context_takeover: true,
            window_bits: 12,
        };
        assert_eq!(agreement, Agreement { server, client });
    }
}
