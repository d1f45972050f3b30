//! Decimal numbers as `incr` and `decr` read and write them.

/// Reads a value as memcached does (util.c, `safe_strtoull`): blanks, digits, then the end or
/// a blank. `None` when there is no number of 64 bits.
pub(super) fn parse(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii_start();
    let digits = digits.strip_prefix(b"+").unwrap_or(digits);
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    if end == 0 || digits.get(end).is_some_and(|byte| !byte.is_ascii_whitespace()) {
        return None;
    }
    digits[..end]
        .iter()
        .try_fold(0_u64, |number, digit| number.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
}

/// A number's digits, without an allocation.
pub(super) struct Decimal {
    digits: [u8; u64::MAX.ilog10() as usize + 1],
    len: usize,
}

impl Decimal {
    pub(super) fn new(number: u64) -> Self {
        let mut buffer = itoa::Buffer::new();
        let text = buffer.format(number).as_bytes();
        let mut decimal = Self { digits: [0; _], len: text.len() };
        decimal.digits[..text.len()].copy_from_slice(text);
        decimal
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.digits[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_memcached_reads() {
        for (value, number) in [
            (&b"0"[..], Some(0)),
            (b"007", Some(7)),
            (b" 12", Some(12)),
            (b"5  ", Some(5)),
            (b"5 apples", Some(5)),
            (b"18446744073709551615", Some(u64::MAX)),
            (b"18446744073709551616", None),
            (b"", None),
            (b"-1", None),
            (b"5x", None),
            (b"x", None),
        ] {
            assert_eq!(parse(value), number, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn writes_every_length() {
        assert_eq!(Decimal::new(0).as_bytes(), b"0");
        assert_eq!(Decimal::new(u64::MAX).as_bytes(), b"18446744073709551615");
    }
}
