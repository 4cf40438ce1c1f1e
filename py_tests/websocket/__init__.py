"""WebSockets: handshake, messages, frames, compression, pings, errors, and the end of a server that has some."""
