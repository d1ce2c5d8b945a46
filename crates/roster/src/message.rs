//! A text from outside that an event carries: what nginx logged when a load failed.

use std::fmt;

/// A text of at most [`Message::SIZE`] bytes without control characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Message {
    length: usize,
    bytes: [u8; Message::SIZE],
}

impl Message {
    /// The longest, bytes.
    pub const SIZE: usize = 512;

    /// The text of an event that has none.
    pub(crate) const EMPTY: Message = Message { length: 0, bytes: [0; Message::SIZE] };

    /// What stands for the rest of a text that is longer.
    const CUT: &'static str = "...";

    /// From any bytes: control characters, and bytes that are not UTF-8, become `\x` and two digits of hex.
    ///
    /// ```
    /// use roster::Message;
    ///
    /// let message = Message::new(b"unknown directive \"a\tb\xff\" in nginx.conf:3");
    /// assert_eq!(message.as_str(), r#"unknown directive "a\x09b\xff" in nginx.conf:3"#);
    /// assert_eq!(Message::new(&[b'a'; 600]).as_str().len(), Message::SIZE);
    /// ```
    pub fn new(bytes: &[u8]) -> Message {
        let mut text = String::new();
        for chunk in bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                if character.is_control() {
                    let mut utf8 = [0; 4];
                    escape(character.encode_utf8(&mut utf8).as_bytes(), &mut text);
                } else {
                    text.push(character);
                }
            }
            escape(chunk.invalid(), &mut text);
            if text.len() > Self::SIZE {
                break;
            }
        }
        Self::cut(text)
    }

    fn cut(mut text: String) -> Message {
        if text.len() > Self::SIZE {
            let mut end = Self::SIZE.saturating_sub(Self::CUT.len());
            while !text.is_char_boundary(end) {
                end = end.saturating_sub(1);
            }
            text.truncate(end);
            text.push_str(Self::CUT);
        }
        let mut message = Message { length: text.len(), bytes: [0; Self::SIZE] };
        for (to, from) in message.bytes.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        message
    }

    /// As it lies in the zone: the length, and the bytes with zeros behind them.
    pub(crate) fn parts(&self) -> (usize, &[u8; Message::SIZE]) {
        (self.length, &self.bytes)
    }

    /// Back from the zone.
    pub(crate) fn from_parts(length: usize, bytes: [u8; Message::SIZE]) -> Message {
        Message { length: length.min(Message::SIZE), bytes }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..self.length).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

fn escape(bytes: &[u8], to: &mut String) {
    use fmt::Write;
    for byte in bytes {
        // A String takes whatever is written to it.
        let _ = write!(to, "\\x{byte:02x}");
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_too_long_is_cut_between_characters() {
        let long = "é".repeat(300);
        let text = Message::new(long.as_bytes()).as_str().to_string();
        assert!(text.len() <= Message::SIZE && text.len() > Message::SIZE - 8);
        assert!(text.ends_with("é..."));
    }

    #[test]
    fn control_characters_of_every_length_are_escaped() {
        assert_eq!(
            Message::new("a\u{85}\n\0\u{7f}b".as_bytes()).as_str(),
            r"a\xc2\x85\x0a\x00\x7fb"
        );
        assert_eq!(Message::new(b"").as_str(), "");
    }
}
