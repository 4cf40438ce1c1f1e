"""How clients get to the server, and as whom: addresses, Unix sockets, TLS, proxies in front."""
