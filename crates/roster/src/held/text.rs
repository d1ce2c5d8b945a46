//! Texts of clients, made fit to be shown.

use std::borrow::Cow;

/// Bytes as text: what is no UTF-8, and characters that can't be seen or change how others are, are escaped
/// as in a URI. At most about `limit` bytes of it.
pub fn clean(bytes: &[u8], limit: usize) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if text.len() > limit {
                return text;
            }
            if is_hidden(c) {
                escape(c.encode_utf8(&mut [0; 4]).as_bytes(), &mut text);
            } else {
                text.push(c);
            }
        }
        escape(chunk.invalid(), &mut text);
    }
    text
}

/// The path of a URI as a client sent it, without arguments.
pub fn path(uri: &[u8], limit: usize) -> String {
    let path = uri.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
    clean(path, limit)
}

/// A text that may be too long for its room, cut between characters and escapes, with an ellipsis.
pub fn cut(text: &str, room: usize) -> Cow<'_, str> {
    const ELLIPSIS: &str = "…";
    if text.len() <= room {
        return Cow::Borrowed(text);
    }
    let Some(room) = room.checked_sub(ELLIPSIS.len()) else {
        return Cow::Borrowed("");
    };
    let mut end = 0;
    let mut escape = 0;
    for (at, c) in text.char_indices() {
        // Of an escape all or nothing.
        let unit = if escape > 0 { escape } else { c.len_utf8() };
        if at.saturating_add(if c == '%' { 3 } else { unit }) > room {
            break;
        }
        escape = if c == '%' { 2 } else { escape.saturating_sub(1) };
        end = at.saturating_add(c.len_utf8());
    }
    let kept = text.get(..end).unwrap_or_default();
    Cow::Owned(format!("{kept}{ELLIPSIS}"))
}

fn escape(bytes: &[u8], to: &mut String) {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    for byte in bytes {
        to.push('%');
        for digit in [byte >> 4, byte & 15] {
            to.extend(DIGITS.get(usize::from(digit)));
        }
    }
}

/// Controls, and what turns the direction of writing or takes no room.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_no_arguments_and_nothing_that_hides() {
        for (uri, expected) in [
            (&b"/a/b?token=secret"[..], "/a/b"),
            (b"/a#?b", "/a"),
            (b"?", ""),
            (b"/a%3Fb%0a", "/a%3Fb%0a"),
            ("/ä/日本".as_bytes(), "/ä/日本"),
            (b"/\x00\x1b[31m\x7f", "/%00%1B[31m%7F"),
            (b"/\xff\xc3", "/%FF%C3"),
            ("/\u{202e}gpj.exe\u{85}".as_bytes(), "/%E2%80%AEgpj.exe%C2%85"),
        ] {
            assert_eq!(path(uri, 100), expected);
        }
    }

    #[test]
    fn it_ends_between_characters_and_escapes() {
        for (text, room, expected) in [
            ("abcdef", 6, "abcdef"),
            ("abcdefg", 6, "abc…"),
            ("äöüß", 7, "äö…"),
            ("äöüß", 6, "ä…"),
            ("ab%C3%A4cd", 8, "ab%C3…"),
            ("ab%C3%A4cd", 7, "ab…"),
            ("ab%C3%A4cd", 6, "ab…"),
            ("abcd", 3, "…"),
            ("abcd", 2, ""),
            ("", 0, ""),
        ] {
            assert_eq!(cut(text, room), expected, "{text} in {room}");
        }
    }

    #[test]
    fn what_is_clean_stays() {
        let clean_once = clean(b"/\xff\x00\xe2\x80\xaea", 100);
        assert_eq!(clean(clean_once.as_bytes(), 100), clean_once);
        let long = clean(&[0xff; 1000], 20);
        assert!(long.len() <= 3000 && cut(&long, 20).len() <= 20);
    }
}
