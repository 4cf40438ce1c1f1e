mod end;
mod limits;
mod request_body;
mod response;
