mod connection;
mod end;
mod held_end;
mod limits;
mod refused;
mod request_body;
mod response;
mod websocket;
