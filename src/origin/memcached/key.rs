//! A key as a server has it, and as it is sent.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::item::KEY_MAX;

/// A key that a server may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    stored: Vec<u8>,
    base64: Option<String>,
}

impl Key {
    /// The key behind its prefix; `None` where no server can hold it, for it is empty or too long.
    pub fn new(prefix: &[u8], key: &[u8]) -> Option<Self> {
        let stored = [prefix, key].concat();
        if stored.is_empty() || stored.len() > KEY_MAX {
            return None;
        }
        // Bytes above 127 may stand in a line, as those of UTF-8 do.
        let is_plain = stored.iter().all(|&byte| byte > b' ' && byte != 0x7f);
        let base64 = (!is_plain).then(|| BASE64.encode(&stored));
        Some(Self { stored, base64 })
    }

    /// Its bytes, which decide on the server.
    pub fn stored(&self) -> &[u8] {
        &self.stored
    }

    /// Whether it can be sent only in base64, that is by the meta commands.
    pub fn is_binary(&self) -> bool {
        self.base64.is_some()
    }

    /// Its bytes in a meta command, for which flag `b` is set if the key is binary.
    pub fn sent(&self) -> &[u8] {
        self.base64.as_ref().map_or(&self.stored, |text| text.as_bytes())
    }

    /// Whether a line can hold it: the servers apply their limit to the base64 (proto_text.c, `KEY_MAX_LENGTH`), so
    /// that a binary key above 186 bytes is known to the binary protocol alone.
    pub fn can_be_sent(&self) -> bool {
        self.sent().len() <= KEY_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stands_behind_its_prefix_as_it_is() {
        let key = Key::new(b"user:", "sch\u{fc}ssel".as_bytes()).unwrap();
        assert_eq!(key.stored(), "user:sch\u{fc}ssel".as_bytes());
        assert_eq!((key.sent(), key.is_binary()), (key.stored(), false));
    }

    #[test]
    fn a_key_that_would_break_the_line_is_sent_in_base64() {
        for bad in [&b"a b"[..], b"a\r\nflush_all", b"\0", b"\t", b"\x7f"] {
            let key = Key::new(b"", bad).unwrap();
            assert!(key.is_binary());
            assert_eq!(BASE64.decode(key.sent()).unwrap(), bad);
        }
    }

    #[test]
    fn what_no_server_holds_is_no_key() {
        assert_eq!(Key::new(b"", b""), None);
        assert_eq!(Key::new(b"p", &[b'x'; 250]), None);
        assert!(Key::new(b"p", &[b'x'; 249]).unwrap().can_be_sent());
        assert!(Key::new(b" ", &[b'x'; 185]).unwrap().can_be_sent());
        assert!(!Key::new(b" ", &[b'x'; 186]).unwrap().can_be_sent());
    }
}
