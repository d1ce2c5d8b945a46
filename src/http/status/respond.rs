//! An answer in one piece.

use ::status::json;
use ngx::core::Buffer;
use ngx::ffi::{ngx_chain_t, ngx_int_t, ngx_str_t, NGX_ERROR};
use ngx::http::{HTTPStatus, Request};

/// What is answered.
pub struct Response {
    status: u16,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    body: String,
    /// Whether the client is to come back with another connection.
    last: bool,
}

impl Response {
    /// Any text.
    pub fn new(status: u16, content_type: &'static str, body: String) -> Response {
        Response { status, content_type, headers: Vec::new(), body, last: false }
    }

    /// JSON.
    pub fn json(status: u16, body: String) -> Response {
        Response::new(status, "application/json", body)
    }

    /// What is wrong, as JSON.
    pub fn error(status: u16, text: &str) -> Response {
        Response::json(status, json::error(text))
    }

    /// With another header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Response {
        self.headers.push((name, value.into()));
        self
    }

    /// As the last answer on its connection.
    pub fn last(self) -> Response {
        Response { last: true, ..self }
    }

    /// Sends it. Returns what a content handler returns, or what a request is finalized with.
    pub fn send(self, request: &mut Request) -> ngx_int_t {
        let error = NGX_ERROR as ngx_int_t;
        if self.last {
            request.as_mut().set_keepalive(0);
        }
        let headers = self.headers.iter().map(|(name, value)| (*name, value.as_str()));
        if begin(request, self.status, self.content_type, headers).is_none() {
            return error;
        }
        request.set_content_length_n(self.body.len());
        if self.body.is_empty() {
            // nginx takes a buffer with nothing in it for a mistake: "zero size buf in writer".
            request.as_mut().set_header_only(1);
        }
        let status = request.send_header();
        // Not what nginx keeps to send later.
        if status.0 == error || status.0 > 0 || request.header_only() {
            return status.0;
        }
        let Some(mut buffer) = request.pool().create_buffer_from_str(&self.body) else {
            return error;
        };
        // Of a subrequest it is not the last.
        let main = request.is_main();
        buffer.set_last_buf(main);
        buffer.set_last_in_chain(true);
        let mut chain = ngx_chain_t { buf: buffer.as_ngx_buf_mut(), next: core::ptr::null_mut() };
        request.output_filter(&mut chain).0
    }
}

/// Sets the status and the headers that all answers have, and others. None if there is no memory.
pub fn begin<'a>(
    request: &mut Request,
    status: u16,
    content_type: &'static str,
    headers: impl Iterator<Item = (&'a str, &'a str)>,
) -> Option<()> {
    request.set_status(HTTPStatus(status.into()));
    let out = &mut request.as_mut().headers_out;
    // nginx only reads it.
    let text = content_type.as_ptr().cast_mut();
    out.content_type = ngx_str_t { len: content_type.len(), data: text };
    out.content_type_len = content_type.len();
    request.add_header_out("Cache-Control", "no-store")?;
    request.add_header_out("X-Content-Type-Options", "nosniff")?;
    for (name, value) in headers {
        request.add_header_out(name, value)?;
    }
    Some(())
}

/// A header of the request, the first of that name.
pub fn header(request: &Request, name: &str) -> Option<Vec<u8>> {
    let mut headers = request.headers_in_iterator();
    let found = headers.find(|(key, _)| key.as_bytes().eq_ignore_ascii_case(name.as_bytes()));
    found.map(|(_, value)| value.as_bytes().to_vec())
}
