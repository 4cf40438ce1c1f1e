//! Runs on: the threads of either front; pure.
//!
//! Proxies in front of the server: whose `x-forwarded-for` and `x-forwarded-proto` are believed,
//! and what these say. The meaning is uvicorn's, so that settings can move from there.

use std::net::{IpAddr, Ipv4Addr};

use crate::exchange::{Endpoint, port};

/// The peers that are believed.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    everybody: bool,
    addresses: Vec<IpAddr>,
    networks: Vec<Network>,
    /// What is neither, such as a name that another proxy put into the list.
    names: Vec<String>,
}

impl Proxies {
    /// The peers of `list`: addresses, networks, names; `*`, alone, is everybody.
    pub(crate) fn new(list: &[String]) -> Self {
        let mut proxies = Self {
            everybody: list == ["*"],
            ..Self::default()
        };
        for peer in list {
            if let Ok(address) = peer.parse() {
                proxies.addresses.push(address);
            } else if let Some(network) = Network::parse(peer) {
                proxies.networks.push(network);
            } else {
                proxies.names.push(peer.clone());
            }
        }
        proxies
    }

    /// Whether the word of `host` is believed.
    pub(crate) fn trust(&self, host: &[u8]) -> bool {
        let Ok(host) = str::from_utf8(host) else {
            return self.everybody;
        };
        self.everybody
            || match host.parse() {
                Ok(address) => {
                    self.addresses.contains(&address)
                        || self.networks.iter().any(|network| network.has(address))
                }
                Err(_) => self.names.iter().any(|name| name == host),
            }
    }

    /// The client by what a trusted peer has sent as `x-forwarded-for`: each proxy has appended
    /// its peer, so it is the last that is not itself trusted, or else the first.
    pub(crate) fn client(&self, forwarded_for: &[&[u8]]) -> Option<Endpoint> {
        let mut first = None;
        let hosts = forwarded_for.iter().rev().flat_map(|value| {
            let hosts = value.rsplit(|&byte| byte == b',');
            hosts.map(<[u8]>::trim_ascii)
        });
        for host in hosts {
            let client = forwarded(host);
            let trusted = self.everybody || !client.host.is_empty() && self.trust(&client.host);
            first = Some(client);
            if !trusted {
                break;
            }
        }
        first.filter(|client| !client.host.is_empty())
    }
}

/// What an element of `x-forwarded-for` names: an address, `ipv4:port`, `[ipv6]` or `[ipv6]:port`.
/// Anything else is taken as it stands. Without a port it is 0, as ASGI wants a number.
fn forwarded(element: &[u8]) -> Endpoint {
    let (host, port) = host_and_port(element).unwrap_or((element, 0));
    // Latin-1, as header values are.
    let host: String = host.iter().copied().map(char::from).collect();
    Endpoint {
        host: host.as_bytes().into(),
        port: Some(port),
    }
}

fn host_and_port(element: &[u8]) -> Option<(&[u8], u16)> {
    if let Some(rest) = element.strip_prefix(b"[") {
        let end = rest.iter().position(|&byte| byte == b']')?;
        return match &rest[end + 1..] {
            [] => Some((&rest[..end], 0)),
            [b':', digits @ ..] => Some((&rest[..end], port(digits).unwrap_or(0))),
            _ => None,
        };
    }
    let colon = element.iter().position(|&byte| byte == b':')?;
    Some((&element[..colon], port(&element[colon + 1..])?))
}

/// An IP network.
#[derive(Debug)]
struct Network {
    first: IpAddr,
    /// The bits in which its addresses may differ.
    hosts: u128,
}

impl Network {
    /// `address/prefix`, or `address/netmask` of IPv4; none if the address has bits beyond.
    fn parse(text: &str) -> Option<Self> {
        let (first, mask) = text.split_once('/')?;
        let first: IpAddr = first.parse().ok()?;
        let (bits, width) = match first {
            IpAddr::V4(address) => (address.to_bits().into(), 32),
            IpAddr::V6(address) => (address.to_bits(), 128),
        };
        let hosts: u128 = match mask.parse::<Ipv4Addr>() {
            Ok(mask) if first.is_ipv4() => (!mask.to_bits()).into(),
            _ => {
                let prefix: u32 = mask.parse().ok().filter(|prefix| *prefix <= width)?;
                u128::MAX.checked_shr(128 - width + prefix).unwrap_or(0)
            }
        };
        // A mask is of ones, then zeros.
        let valid = hosts & hosts.wrapping_add(1) == 0 && bits & hosts == 0;
        valid.then_some(Self { first, hosts })
    }

    fn has(&self, address: IpAddr) -> bool {
        let differing = match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                u128::from(first.to_bits() ^ address.to_bits())
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => first.to_bits() ^ address.to_bits(),
            _ => return false,
        };
        differing & !self.hosts == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(list: &[&str]) -> Proxies {
        let list: Vec<_> = list.iter().map(|&peer| peer.to_owned()).collect();
        Proxies::new(&list)
    }

    /// `host` and port of the client, if there is one.
    fn client(proxies: &Proxies, forwarded_for: &[&str]) -> Option<(String, u16)> {
        let values: Vec<_> = forwarded_for.iter().map(|value| value.as_bytes()).collect();
        let client = proxies.client(&values)?;
        let host = String::from_utf8(client.host.to_vec()).expect("text");
        Some((host, client.port.expect("a port")))
    }

    #[test]
    fn addresses_networks_and_names_are_trusted() {
        let proxies = proxies(&[
            "127.0.0.1",
            "::1",
            "10.0.0.0/8",
            "192.0.2.0/255.255.255.0",
            "2001:db8::/32",
            "proxy",
            "/run/proxy.sock",
        ]);
        for host in [
            "127.0.0.1",
            "0:0:0:0:0:0:0:1",
            "10.255.0.1",
            "192.0.2.77",
            "2001:db8:ffff::1",
            "proxy",
            "/run/proxy.sock",
        ] {
            assert!(proxies.trust(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            "127.0.0.2",
            "11.0.0.1",
            "192.0.3.1",
            "2001:db9::1",
            "::ffff:10.0.0.1",
            "Proxy",
            "10.0.0.0/8",
            "*",
        ] {
            assert!(!proxies.trust(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn whole_and_single_networks_are_networks() {
        let (all, one) = (
            proxies(&["0.0.0.0/0", "::/0"]),
            proxies(&["192.0.2.1/32", "::1/128"]),
        );
        for host in [&b"0.0.0.0"[..], b"255.255.255.255", b"::", b"ffff::ffff"] {
            assert!(all.trust(host));
        }
        assert!(one.trust(b"192.0.2.1") && one.trust(b"::1"));
        assert!(!one.trust(b"192.0.2.0") && !one.trust(b"::"));
    }

    #[test]
    fn what_is_no_network_is_a_name() {
        for network in [
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/255.0.255.0",
            "::/129",
            "::/255.0.0.0",
            "10.0.0.0/-1",
        ] {
            let proxies = proxies(&[network]);
            assert!(proxies.networks.is_empty(), "{network}");
            assert!(!proxies.trust(b"10.0.0.1"), "{network}");
        }
    }

    #[test]
    fn everybody_is_a_star_alone() {
        assert!(proxies(&["*"]).trust(b""));
        assert!(proxies(&["*"]).trust(b"192.0.2.1"));
        assert!(!proxies(&["127.0.0.1", "*"]).trust(b"192.0.2.1"));
        assert!(!proxies(&[]).trust(b"127.0.0.1"));
    }

    #[test]
    fn client_is_the_last_that_is_not_trusted() {
        let proxies = proxies(&["127.0.0.1", "10.0.0.0/8"]);
        for (values, expected) in [
            (&["192.0.2.1"][..], Some(("192.0.2.1", 0))),
            (&["192.0.2.1, 10.0.0.1"], Some(("192.0.2.1", 0))),
            (
                &["198.51.100.1, 192.0.2.1,10.0.0.1"],
                Some(("192.0.2.1", 0)),
            ),
            (
                &["192.0.2.1", "10.0.0.2", "10.0.0.1"],
                Some(("192.0.2.1", 0)),
            ),
            (&["192.0.2.1:4711, 10.0.0.1:80"], Some(("192.0.2.1", 4711))),
            (&["[2001:db8::1]:4711"], Some(("2001:db8::1", 4711))),
            (&["[2001:db8::1]"], Some(("2001:db8::1", 0))),
            (&["2001:db8::1"], Some(("2001:db8::1", 0))),
            (&["[2001:db8::1]:http"], Some(("2001:db8::1", 0))),
            (&["[2001:db8::1"], Some(("[2001:db8::1", 0))),
            (&["unknown, 10.0.0.1"], Some(("unknown", 0))),
            (&["192.0.2.1:http"], Some(("192.0.2.1:http", 0))),
            (&["192.0.2.1:70000"], Some(("192.0.2.1:70000", 0))),
            (&["10.0.0.3, 10.0.0.2"], Some(("10.0.0.3", 0))),
            (&[""], None),
            (&["192.0.2.1, "], None),
        ] {
            let expected = expected.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(client(&proxies, values), expected, "{values:?}");
        }
    }

    #[test]
    fn client_is_the_first_if_everybody_is_trusted() {
        let client = client(&proxies(&["*"]), &["192.0.2.1, , 10.0.0.2", "10.0.0.1"]);
        assert_eq!(client, Some(("192.0.2.1".to_owned(), 0)));
    }

    #[test]
    fn latin_1_becomes_text() {
        let client = proxies(&[]).client(&[b"\xe9"]).expect("a client");
        assert_eq!(client.host.as_slice(), "\u{e9}".as_bytes());
    }
}
