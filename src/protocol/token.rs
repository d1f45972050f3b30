//! The pieces of a line: tokens between blanks, and numbers in them.

use memchr::memchr;
use nom::bytes::complete::{take_while, take_while1};
use nom::character::complete::{char, i32 as signed_32, i64 as signed, u32 as unsigned_32, u64 as unsigned};
use nom::combinator::{all_consuming, opt, recognize};
use nom::sequence::preceded;
use nom::{IResult, Parser};

/// The reason is not given: the callers know memcached's words for it.
type Parsed<'a, T> = IResult<&'a [u8], T, ()>;

/// Most characters of a number of 32 bits, the sign included (mcmc.c, `MCMC_TOKTO32_MAX`).
const DIGITS_32_MAX: usize = 11;

/// Most characters of a number of 64 bits (mcmc.c, `MCMC_TOKTO64_MAX`).
const DIGITS_64_MAX: usize = 22;

/// A short word: names, numbers, flags.
fn token(input: &[u8]) -> Parsed<'_, &[u8]> {
    preceded(blanks, take_while1(|byte| byte != b' ')).parse(input)
}

/// A word that may be long.
#[inline]
fn long_token(input: &[u8]) -> Parsed<'_, &[u8]> {
    let (input, ()) = blanks.map(drop).parse(input)?;
    let (word, rest) = input.split_at(memchr(b' ', input).unwrap_or(input.len()));
    if word.is_empty() { Err(nom::Err::Error(())) } else { Ok((rest, word)) }
}

#[inline]
fn blanks(input: &[u8]) -> Parsed<'_, &[u8]> {
    take_while(|byte| byte == b' ').parse(input)
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
    /// The next token, a key: quicker than `next` where it is long.
    #[inline]
    pub(super) fn next_key(&mut self) -> Option<&'a [u8]> {
        let (rest, key) = long_token(self.0).ok()?;
        self.0 = rest;
        Some(key)
    }

    /// Whether there is none.
    #[inline]
    pub(super) fn is_empty(self) -> bool {
        self.0.iter().all(|&byte| byte == b' ')
    }

    /// Whether the last token is `noreply`.
    pub(super) fn end_in_noreply(self) -> bool {
        self.last_token() == Some(b"noreply")
    }

    /// The last token; `None` for an empty line.
    pub(super) fn last_token(self) -> Option<&'a [u8]> {
        self.0.rsplit(|&byte| byte == b' ').find(|token| !token.is_empty())
    }
}

/// A decimal number of 64 bits, digits alone, the whole token (mcmc.c, `mcmc_toktou64`).
pub(super) fn number(token: &[u8]) -> Option<u64> {
    if token.len() <= DIGITS_64_MAX { parse_all(unsigned, token) } else { None }
}

/// A decimal number of 32 bits, digits alone, the whole token (mcmc.c, `mcmc_toktou32`).
pub(crate) fn number_u32(token: &[u8]) -> Option<u32> {
    if token.len() <= DIGITS_32_MAX { parse_all(unsigned_32, token) } else { None }
}

/// A decimal number of 32 bits with a minus or without, the whole token (mcmc.c, `mcmc_tokto32`).
pub(super) fn integer(token: &[u8]) -> Option<i32> {
    if token.len() <= DIGITS_32_MAX && !token.starts_with(b"+") { parse_all(signed_32, token) } else { None }
}

/// A number of a classic storage line, which may have a plus and any number of zeros in front
/// (util.c, `safe_strtoull`).
pub(super) fn loose_number(token: &[u8]) -> Option<u64> {
    parse_all(preceded(opt(char('+')), unsigned), token)
}

/// The same of 32 bits: of a larger one the lower bits count (util.c, `safe_strtoul`).
pub(super) fn loose_number_u32(token: &[u8]) -> Option<u32> {
    loose_number(token).map(|number| number as u32)
}

/// The same with a sign: libmemcached's 4294967295 is -1 (util.c, `safe_strtol`).
pub(super) fn loose_integer(token: &[u8]) -> Option<i32> {
    parse_all(signed, token).map(|number| number as i32)
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
        let mut keys = Tokens(b"  get a   bc ");
        assert_eq!(
            std::array::from_fn(|_| keys.next_key()),
            [Some(&b"get"[..]), Some(b"a"), Some(b"bc"), None]
        );
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
        assert_eq!(integer(b"-2147483648"), Some(i32::MIN));
        assert_eq!(integer(b"2147483648"), None);
        assert_eq!(integer(b"1-"), None);
    }

    #[test]
    fn numbers_have_no_plus_and_no_end_of_zeros() {
        assert_eq!((number(b"+1"), number_u32(b"+1"), integer(b"+1")), (None, None, None));
        assert_eq!((number(&[b'0'; 22]), number(&[b'0'; 23])), (Some(0), None));
        assert_eq!((number_u32(&[b'0'; 11]), number_u32(&[b'0'; 12])), (Some(0), None));
        assert_eq!((integer(b"-0000000001"), integer(b"-00000000001")), (Some(-1), None));
    }

    #[test]
    fn classic_storage_lines_take_larger_numbers_and_cut_them() {
        assert_eq!(loose_number(b"+0000000000000000000000001"), Some(1));
        assert_eq!(loose_number(b"18446744073709551616"), None);
        assert_eq!(loose_number(b"-1"), None);
        assert_eq!(loose_number_u32(b"4294967297"), Some(1));
        assert_eq!(loose_integer(b"4294967295"), Some(-1));
        assert_eq!(loose_integer(b"2147483648"), Some(i32::MIN));
        assert_eq!(loose_integer(b"9223372036854775807"), Some(-1));
        assert_eq!(loose_integer(b"9223372036854775808"), None);
        assert_eq!(loose_integer(b"+5"), Some(5));
    }
}
