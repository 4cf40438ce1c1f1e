"""Applications as their frameworks' users write them, for HTTP, WebSockets and gRPC."""
