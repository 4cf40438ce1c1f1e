//! The server of HTTP on real sockets, with a service that answers by path.

mod fuzz;
mod hostile;
mod support;

use support::{Client, LARGE, Server};

const GET: &str = "GET /hello HTTP/1.1\r\nhost: a\r\n\r\n";

mod http1 {
    use super::*;

    #[test]
    fn requests_follow_each_other_on_a_connection() {
        let server = Server::start();
        let mut client = Client::connect(&server);
        for _ in 0..3 {
            client.write(GET);
            assert_eq!(client.response(), (200, "hello".into()));
        }
    }

    #[test]
    fn requests_that_come_at_once_are_answered_in_their_order() {
        let server = Server::start();
        let mut client = Client::connect(&server);
        let echo = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
        client.write(&format!("{GET}{echo}{GET}"));
        assert_eq!(client.response(), (200, "hello".into()));
        assert_eq!(client.response(), (200, "abc".into()));
        assert_eq!(client.response(), (200, "hello".into()));
    }

    #[test]
    fn a_request_may_come_in_any_pieces() {
        let server = Server::start();
        let request = "\r\nPOST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\
                       3;x=y\r\nabc\r\n2 \r\nde\r\n0\r\ntrailer: t\r\n\r\n";
        for size in [1, 2, 7, 50] {
            let mut client = Client::connect(&server);
            for piece in request.as_bytes().chunks(size) {
                client.write_bytes(piece);
            }
            assert_eq!(client.response(), (200, "abcde".into()), "{size}");
            client.write(GET);
            assert_eq!(client.response(), (200, "hello".into()), "{size}");
        }
    }

    #[test]
    fn what_is_not_to_be_understood_is_refused_and_ends_the_connection() {
        let server = Server::start();
        for (request, status) in [
            ("GET /hello HTTP/1.1\r\n\r\n", 400),
            ("GET /hello HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", 400),
            ("GET http://a/hello HTTP/1.1\r\n\r\n", 400),
            ("\rGET /hello HTTP/1.1\r\nhost: a\r\n\r\n", 400),
            ("\r\n\r\rGET /hello HTTP/1.1\r\nhost: a\r\n\r\n", 400),
            ("GET /hello HTTP/1.1\nhost: a\n\n", 400),
            ("GET /hello HTTP/1.1\r\nhost: a\nx: y\r\n\r\n", 400),
            ("GET /hello HTTP/1.1\r\nhost: a\r\nx : y\r\n\r\n", 400),
            ("GET /hello HTTP/1.1\r\nhost: a\r\nx: y\r\n z\r\n\r\n", 400),
            ("GET hello HTTP/1.1\r\nhost: a\r\n\r\n", 400),
            ("GET http:///hello HTTP/1.1\r\nhost: a\r\n\r\n", 400),
            ("GET http://:80/hello HTTP/1.1\r\nhost: a\r\n\r\n", 400),
            ("GET /hello#a HTTP/1.1\r\nhost: a\r\n\r\n", 400),
            (
                "GET /hello HTTP/1.1\r\nhost: a\r\nconnection: x, Host\r\n\r\n",
                400,
            ),
            ("GET  /hello HTTP/1.1\r\nhost: a\r\n\r\n", 400),
            ("GET /hello HTTP/2.0\r\nhost: a\r\n\r\n", 400),
            ("G{T /hello HTTP/1.1\r\nhost: a\r\n\r\n", 400),
            (
                "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc",
                400,
            ),
            (
                "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 3\r\n\r\nabc",
                400,
            ),
            (
                "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc",
                400,
            ),
            (
                "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551616\r\n\r\n",
                400,
            ),
            (
                "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
                400,
            ),
            (
                "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
                501,
            ),
            (
                "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
                400,
            ),
            (
                "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
                501,
            ),
            (
                "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: x\r\n\r\n0\r\n\r\n",
                400,
            ),
            (
                "POST /echo HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
                400,
            ),
        ] {
            let mut client = Client::connect(&server);
            client.write(request);
            client.write(GET);
            assert_eq!(client.response().0, status, "{request:?}");
            assert!(client.is_closed(), "{request:?}");
            assert_eq!(server.requests(), 0, "{request:?}");
        }
    }

    #[test]
    fn chunks_that_are_none_end_the_request_and_the_connection() {
        let server = Server::start();
        for chunks in [
            "x\r\n",
            "-1\r\n",
            "3\r\nabcd\r\n",
            "3\nabc\r\n",
            "11111111111111111\r\n",
            "1 1\r\n",
            "0\r\n\n\r\n",
            "0\r\nx\r\n\r\n",
            "0\r\nx : y\r\n\r\n",
            "0\r\nGET /hello HTTP/1.1\r\nhost: a\r\n\r\n",
        ] {
            let mut client = Client::connect(&server);
            client.write("POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
            client.write(chunks);
            assert_eq!(client.response().0, 400, "{chunks:?}");
            assert!(client.is_closed(), "{chunks:?}");
            server.wait_for_gone(1);
        }
    }

    #[test]
    fn a_target_may_be_absolute_and_then_has_the_authority() {
        let server = Server::start();
        let mut client = Client::connect(&server);
        client.write("GET http://b.example/where HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.response(), (200, "/where at b.example".into()));
        client.write("GET HTTP://b.example HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.response(), (200, "/ at b.example".into()));
    }

    #[test]
    fn a_client_of_http_10_is_told_the_end_by_the_end() {
        let server = Server::start();
        let mut client = Client::connect(&server);
        client.write("GET /stream HTTP/1.0\r\n\r\n");
        let all = client.all();
        assert!(all.ends_with("\r\n\r\nabc"), "{all}");
        assert!(!all.contains("chunked"), "{all}");
        let mut client = Client::connect(&server);
        client.write("GET /hello HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
        assert_eq!(client.response(), (200, "hello".into()));
        client.write("GET /hello HTTP/1.0\r\n\r\n");
        assert_eq!(client.response(), (200, "hello".into()));
        assert!(client.is_closed());
    }

    #[test]
    fn pieces_of_a_response_come_in_chunks() {
        let server = Server::start();
        let mut client = Client::connect(&server);
        client.write("GET /stream HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let all = client.all();
        assert!(
            all.ends_with("\r\n\r\n1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n"),
            "{all}"
        );
    }

    #[test]
    fn the_response_to_head_has_no_body() {
        let server = Server::start();
        let mut client = Client::connect(&server);
        client.write("HEAD /hello HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let all = client.all();
        assert!(
            all.contains("content-length: 5\r\n") && all.ends_with("\r\n\r\n"),
            "{all}"
        );
    }

    #[test]
    fn a_client_that_goes_is_told_to_the_service_once() {
        let server = Server::start();
        for request in [
            "GET /hold HTTP/1.1\r\nhost: a\r\n\r\n",
            "POST /hold HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc",
            "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc",
        ] {
            let mut client = Client::connect(&server);
            client.write(request);
            server.wait_for_requests(1);
            drop(client);
            server.wait_for_gone(1);
        }
    }

    #[test]
    fn a_response_before_the_end_of_its_request_arrives_and_the_rest_is_thrown_away() {
        let server = Server::start();
        let mut client = Client::connect(&server);
        client.write("POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\nabc");
        assert_eq!(client.response(), (200, "early".into()));
        client.write("def");
        client.write(GET);
        assert_eq!(client.response(), (200, "hello".into()));
    }

    #[test]
    fn who_is_slow_with_a_head_is_told_so() {
        let server = Server::start();
        let mut client = Client::connect(&server);
        client.write("GET /hello HTTP/1.1\r\nhost");
        assert_eq!(client.response().0, 408);
        assert!(client.is_closed());
    }

    #[test]
    fn an_idle_connection_is_closed() {
        let server = Server::start();
        let mut fresh = Client::connect(&server);
        let mut used = Client::connect(&server);
        used.write(GET);
        assert_eq!(used.response(), (200, "hello".into()));
        assert!(used.is_closed());
        assert!(fresh.is_closed());
    }

    #[test]
    fn a_head_above_the_limit_is_refused() {
        let server = Server::start();
        let mut client = Client::connect(&server);
        client.write("GET /hello HTTP/1.1\r\nhost: a\r\nx: ");
        client.write(&"y".repeat(20_000));
        assert_eq!(client.response().0, 431);
        assert!(client.is_closed());
    }

    #[test]
    fn a_client_may_take_its_time_with_a_response() {
        let server = Server::start();
        let mut client = Client::connect(&server);
        client.write("GET /large HTTP/1.1\r\nhost: a\r\n\r\n");
        let (status, head) = client.head();
        assert_eq!(status, 200, "{head}");
        let mut left = LARGE;
        while left > 0 {
            let size = left.min(512 * 1024);
            assert!(client.read_bytes(size).iter().all(|byte| *byte == b'x'));
            left -= size;
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        client.write(GET);
        assert_eq!(client.response(), (200, "hello".into()));
    }

    #[test]
    fn what_is_upgraded_is_bytes() {
        let server = Server::start();
        let mut client = Client::connect(&server);
        client.write("GET /raw HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nfirst");
        assert_eq!(client.head().0, 101);
        assert_eq!(client.read(5), "first");
        client.write("more");
        assert_eq!(client.read(4), "more");
    }
}

mod http2 {
    use std::time::Duration;

    use bytes::Bytes;
    use h2::RecvStream;
    use h2::client::SendRequest;
    use http::Request;
    use tokio::net::TcpStream;

    use super::*;

    #[test]
    fn the_preface_tells_http_2() {
        let server = Server::start();
        let mut client = Client::connect(&server);
        client.write("PRI * HTTP/2.0\r\n");
        client.write("\r\nSM\r\n\r\n");
        client.write_bytes(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
        let settings = client.read_bytes(9);
        assert_eq!(settings[3], 4, "a frame of SETTINGS");
    }

    /// Has a client do something with its connection.
    fn with_client<F: Future<Output = ()>>(
        server: &Server,
        act: impl FnOnce(SendRequest<Bytes>) -> F,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let socket = TcpStream::connect(server.address)
                .await
                .expect("it listens");
            let (client, connection) = h2::client::handshake(socket).await.expect("HTTP/2");
            tokio::spawn(async move { drop(connection.await) });
            let within = tokio::time::timeout(Duration::from_secs(10), act(client)).await;
            within.expect("in time");
        });
    }

    async fn body(mut stream: RecvStream) -> Result<Vec<u8>, h2::Error> {
        let mut all = Vec::new();
        while let Some(piece) = stream.data().await {
            let piece = piece?;
            stream.flow_control().release_capacity(piece.len())?;
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    fn request(method: &str, path: &str) -> Request<()> {
        let uri = format!("http://a.example{path}");
        Request::builder()
            .method(method)
            .uri(uri)
            .body(())
            .expect("a request")
    }

    #[test]
    fn requests_at_a_time_each_get_their_response() {
        let server = Server::start();
        with_client(&server, async |client| {
            let mut client = client.ready().await.expect("ready");
            let mut responses = Vec::new();
            for number in 0..20 {
                let (response, _) = client
                    .send_request(request("GET", &format!("/{number}")), true)
                    .expect("sent");
                responses.push((number, response));
            }
            for (number, response) in responses {
                let response = response.await.expect("a response");
                assert_eq!(response.status(), 200);
                let expected = format!("/{number} at a.example");
                assert_eq!(
                    body(response.into_body()).await.expect("a body"),
                    expected.as_bytes()
                );
            }
        });
    }

    #[test]
    fn bodies_go_both_ways_through_windows_that_are_smaller() {
        let server = Server::start();
        with_client(&server, async |client| {
            let mut client = client.ready().await.expect("ready");
            let (response, mut stream) = client
                .send_request(request("POST", "/echo"), false)
                .expect("sent");
            let sent = vec![b'y'; 1_000_000];
            let sending = tokio::spawn({
                let mut rest = Bytes::from(sent.clone());
                async move {
                    while !rest.is_empty() {
                        stream.reserve_capacity(rest.len());
                        let room =
                            std::future::poll_fn(|context| stream.poll_capacity(context)).await;
                        let room = room.expect("open").expect("open");
                        stream
                            .send_data(rest.split_to(room.min(rest.len())), rest.is_empty())
                            .expect("sent");
                    }
                }
            });
            let response = response.await.expect("a response");
            sending.await.expect("all is sent");
            assert!(body(response.into_body()).await.expect("a body") == sent);
        });
    }

    #[test]
    fn a_client_that_resets_is_told_to_the_service_once() {
        let server = Server::start();
        with_client(&server, async |client| {
            let mut client = client.ready().await.expect("ready");
            let (response, mut stream) = client
                .send_request(request("POST", "/hold"), false)
                .expect("sent");
            tokio::time::sleep(Duration::from_millis(20)).await;
            stream.send_reset(h2::Reason::CANCEL);
            assert!(response.await.is_err());
            let (response, _) = client
                .send_request(request("GET", "/hello"), true)
                .expect("sent");
            assert_eq!(
                response.await.expect("the connection goes on").status(),
                200
            );
        });
        server.wait_for_gone(1);
    }

    #[test]
    fn a_response_before_the_end_of_its_request_arrives() {
        let server = Server::start();
        with_client(&server, async |client| {
            let mut client = client.ready().await.expect("ready");
            let (response, _stream) = client
                .send_request(request("POST", "/early"), false)
                .expect("sent");
            let response = response.await.expect("a response");
            assert_eq!(body(response.into_body()).await.expect("a body"), b"early");
        });
    }
}
