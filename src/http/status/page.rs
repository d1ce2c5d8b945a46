//! The page for people.

use ngx::ffi::ngx_int_t;
use ngx::http::Request;

use super::respond::Response;

/// One document that needs nothing else: page.html ends where its script begins. `@NONCE@` stands where
/// the nonce of an answer goes: only what carries it may run or change the style.
const PAGE: &str = concat!(
    include_str!("page.html"),
    include_str!("page_words.js"),
    include_str!("page_holders.js"),
    include_str!("page.js"),
    "</script>
</html>
"
);

/// Sends it.
pub fn send(request: &mut Request) -> ngx_int_t {
    let Some(nonce) = nonce() else {
        return Response::error(500, "there are no random numbers").send(request);
    };
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; \
         connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    Response::new(200, "text/html; charset=utf-8", PAGE.replace("@NONCE@", &nonce))
        .with("Content-Security-Policy", policy)
        .with("Referrer-Policy", "no-referrer")
        .with("Vary", "Accept")
        .send(request)
}

/// 16 random bytes in hexadecimal.
fn nonce() -> Option<String> {
    let mut bytes = [0u8; 16];
    // SAFETY: there is room for what is asked for. So few bytes come in one piece or not at all.
    let n = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    (n == bytes.len() as isize).then(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
