mod connection;
mod end;
mod held_back;
mod held_end;
mod limits;
mod request_body;
mod response;
mod websocket;
