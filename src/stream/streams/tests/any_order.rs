//! Whatever happens in whatever order: nobody gets what is another's, nothing is left behind, and
//! all is counted.

use envoy::fake::{Request, Stream};

use crate::envoy_thread::{self, EnvoyThread, PlayedLoop, Random};
use crate::exchange::WINDOW_STEP;

#[test]
fn each_gets_its_own_in_any_order_of_events() {
    const STEPS: usize = 40_000;
    let (envoy, played) = envoy_thread::start();
    let mut all = All {
        envoy,
        played,
        clients: Vec::new(),
        calls: Vec::new(),
        arrived: 0,
        random: Random::new(0x5eed),
    };
    for _ in 0..STEPS {
        all.step();
    }
    all.clients.clear();
    all.check();
    all.played.return_calls();
    assert_eq!(all.envoy.in_flight(), 0);
    let [answered, disconnected] = [false, true].map(|disconnected| {
        let exchanges = all.played.exchanges.iter();
        exchanges
            .filter(|it| it.disconnected == disconnected)
            .count()
    });
    assert!(answered > STEPS / 100 && disconnected > STEPS / 100);
}

struct All {
    envoy: EnvoyThread,
    played: PlayedLoop,
    /// Those whose streams are not destroyed.
    clients: Vec<Client>,
    /// The application's calls, by the numbers of their exchanges.
    calls: Vec<Call>,
    /// How many clients there have been.
    arrived: usize,
    random: Random,
}

struct Client {
    stream: Stream,
    /// Which it is of all, which its request says too.
    name: usize,
    requested: bool,
    /// What it has sent of its request's body.
    sent: Vec<u8>,
    sent_all: bool,
}

#[derive(Default)]
struct Call {
    /// What it has sent of its response's body; `None` before its head.
    sent: Option<Vec<u8>>,
    ended: bool,
}

impl All {
    fn step(&mut self) {
        match self.random.below(13) {
            0 | 1 if self.clients.len() < 6 => self.arrives(),
            2..=4 if !self.clients.is_empty() => {
                let client = self.random.below(self.clients.len());
                self.sends(client);
            }
            5 if self.random.once_in(4) && !self.clients.is_empty() => {
                let client = self.random.below(self.clients.len());
                self.goes(client);
            }
            6..=9 if !self.calls.is_empty() => {
                // The last few are those that may live.
                let newest = self.calls.len() - 1;
                let call = newest - self.random.below(self.calls.len().min(8));
                self.answers(call);
            }
            10 => self.take(),
            11 => self.check(),
            _ => drop(self.envoy.run_events()),
        }
    }

    fn arrives(&mut self) {
        let name = self.arrived;
        self.arrived += 1;
        let stream = self.envoy.stream(Request::post(&name.to_string()));
        if self.random.once_in(8) {
            stream.set_response_limit(self.random.below(2 * WINDOW_STEP));
        }
        self.clients.push(Client {
            stream,
            name,
            requested: false,
            sent: Vec::new(),
            sent_all: false,
        });
    }

    /// A client sends its request, or some of the body.
    fn sends(&mut self, client: usize) {
        let random = &mut self.random;
        let client = &mut self.clients[client];
        if client.sent_all || client.stream.is_complete() {
            return;
        }
        client.sent_all = random.once_in(4);
        if !client.requested {
            client.requested = true;
            client.stream.request_headers(client.sent_all);
        } else if client.sent_all && random.once_in(2) {
            client.stream.request_trailers(&[]);
        } else {
            let data = piece(random);
            client.sent.extend_from_slice(&data);
            client.stream.request_body(data, client.sent_all);
        }
    }

    /// A client goes away, or Envoy ends its stream.
    fn goes(&mut self, client: usize) {
        let client = &self.clients[client].stream;
        if !client.is_complete() {
            if self.random.once_in(2) {
                client.disconnect();
            } else {
                client.local_reply(504, "of Envoy's own");
            }
        }
    }

    /// A call does something that a call may do, whether or not its client lives.
    fn answers(&mut self, number: usize) {
        let random = &mut self.random;
        let call = &mut self.calls[number];
        if call.ended {
            return;
        }
        if random.once_in(3) {
            self.played.read(number, random.below(2 * WINDOW_STEP));
            return;
        }
        if random.once_in(8) {
            call.ended = true;
            self.played.fail(number);
            return;
        }
        let data = piece(random);
        call.ended = random.once_in(3);
        match &mut call.sent {
            None => {
                self.played.start(number, &data, call.ended);
                call.sent = Some(data);
            }
            Some(sent) => {
                self.played.body(number, &data, call.ended);
                sent.extend_from_slice(&data);
            }
        }
    }

    fn take(&mut self) {
        self.played.take();
        let calls = self.played.exchanges.len();
        self.calls.resize_with(calls, Call::default);
    }

    /// With nothing on its way any more.
    fn check(&mut self) {
        self.envoy.run_events();
        self.take();
        assert_eq!(self.envoy.run_events(), 0);
        let open = |client: &&Client| client.requested && !client.stream.is_complete();
        let open = self.clients.iter().filter(open).count();
        assert!(open == 0 || !self.played.has_posted());
        self.clients
            .iter()
            .filter(|client| client.requested)
            .for_each(|client| self.check_client(client));
        self.played.return_calls();
        assert_eq!(self.envoy.in_flight(), open);
        self.clients.retain(|client| !client.stream.is_complete());
    }

    fn check_client(&self, client: &Client) {
        let name = client.name.to_string();
        let mut exchanges = self.played.exchanges.iter();
        let number = exchanges.rposition(|it| it.head.target == name.as_bytes());
        let number = number.expect("its request was given");
        let (exchange, call) = (&self.played.exchanges[number], &self.calls[number]);
        assert!(client.sent.starts_with(&exchange.body));
        assert!(!exchange.complete || client.sent_all && client.sent == exchange.body);
        let response = client.stream.response();
        let sent = call.sent.as_deref().unwrap_or_default();
        let answered = response.body == b"Internal Server Error";
        if !client.stream.is_complete() {
            assert!(response.body == sent || answered);
            assert_eq!(
                response.heads.len(),
                usize::from(call.sent.is_some() || answered)
            );
            // An end may wait for that of the request.
            assert!(!call.ended || !client.sent_all);
            assert!(!exchange.disconnected);
            return;
        }
        let failed = answered || response.details == "aiovoy_application_failed";
        let ended = response.details.is_empty() && !answered;
        assert!(!ended || response.body == sent);
        assert!(!(ended || failed) || call.ended);
        // A call whose last piece was too much, or whose end waited, has ended its response all the
        // same.
        if !call.ended || failed || ended {
            assert_eq!(exchange.disconnected, !failed && !ended);
        }
    }
}

/// A piece of some body: mostly small.
fn piece(random: &mut Random) -> Vec<u8> {
    let largest = [10, 10, 10, 3 * WINDOW_STEP][random.below(4)];
    vec![random.byte(); random.below(largest)]
}
