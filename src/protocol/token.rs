//! The pieces of a line: tokens between blanks, and numbers in them.

use nom::bytes::complete::{take_while, take_while1};
use nom::character::complete::{i64 as signed, u64 as unsigned};
use nom::combinator::{all_consuming, opt, recognize};
use nom::sequence::preceded;
use nom::{IResult, Parser};

/// Nothing is said of why: the callers know memcached's words for it.
type Parsed<'a, T> = IResult<&'a [u8], T, ()>;

fn token(input: &[u8]) -> Parsed<'_, &[u8]> {
    preceded(take_while(|byte| byte == b' '), take_while1(|byte| byte != b' ')).parse(input)
}

/// The tokens of a line, from the left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokens<'a>(pub &'a [u8]);

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (rest, token) = token(self.0).ok()?;
        self.0 = rest;
        Some(token)
    }
}

impl<'a> Tokens<'a> {
    /// The last token; `None` when there is none.
    pub(super) fn last_token(self) -> Option<&'a [u8]> {
        self.0.rsplit(|&byte| byte == b' ').find(|token| !token.is_empty())
    }
}

/// A decimal number of 64 bits, the whole token (util.c, `safe_strtoull`).
pub(super) fn number(token: &[u8]) -> Option<u64> {
    parse_all(preceded(opt(nom::character::complete::char('+')), unsigned), token)
}

/// A decimal number of 32 bits, the whole token.
pub(crate) fn number_u32(token: &[u8]) -> Option<u32> {
    number(token)?.try_into().ok()
}

/// A decimal number with a sign or without, the whole token (util.c, `safe_strtol`).
pub(super) fn integer(token: &[u8]) -> Option<i64> {
    parse_all(signed, token)
}

/// A decimal fraction, the whole token.
pub(super) fn fraction(token: &[u8]) -> Option<f64> {
    let text = parse_all(recognize(nom::number::complete::double), token)?;
    str::from_utf8(text).ok()?.parse().ok()
}

fn parse_all<'a, T>(parser: impl Parser<&'a [u8], Output = T, Error = ()>, token: &'a [u8]) -> Option<T> {
    all_consuming(parser).parse(token).ok().map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_stand_between_any_number_of_blanks() {
        let tokens: Vec<_> = Tokens(b"  get a   bc ").collect();
        assert_eq!(tokens, [&b"get"[..], b"a", b"bc"]);
        assert_eq!(Tokens(b"a b ").last_token(), Some(&b"b"[..]));
        assert_eq!(Tokens(b"  ").last_token(), None);
        assert_eq!(Tokens(b"a noreply\t ").last_token(), Some(&b"noreply\t"[..]), "only blanks divide");
    }

    #[test]
    fn numbers_take_the_whole_token() {
        assert_eq!(number(b"0042"), Some(42));
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(number(b"18446744073709551616"), None);
        for bad in [&b""[..], b"-1", b"1x", b"x", b"1.0"] {
            assert_eq!(number(bad), None, "{}", bad.escape_ascii());
        }
        assert_eq!(number_u32(b"4294967296"), None);
        assert_eq!(integer(b"-1"), Some(-1));
        assert_eq!(integer(b"1-"), None);
    }
}
