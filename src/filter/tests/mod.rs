mod end;
mod request_body;
mod response;
