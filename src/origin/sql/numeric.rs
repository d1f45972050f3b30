//! PostgreSQL's `numeric` as it is sent: digits to the base of ten thousand.

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xc000;
const INFINITY: u16 = 0xd000;
const NEGATIVE_INFINITY: u16 = 0xf000;

/// Decimal digits of each digit that is sent.
const DIGITS: usize = 4;

/// The number as PostgreSQL writes it; `None` when the bytes are no such number (`numeric_send`, numeric.c).
pub(super) fn text(bytes: &[u8]) -> Option<String> {
    let word = |at: usize| Some(u16::from_be_bytes([*bytes.get(2 * at)?, *bytes.get(2 * at + 1)?]));
    let (count, weight) = (usize::from(word(0)?), i32::from(word(1)?.cast_signed()));
    let (sign, scale) = (word(2)?, usize::from(word(3)?));
    match sign {
        NAN => return Some("NaN".to_owned()),
        INFINITY => return Some("Infinity".to_owned()),
        NEGATIVE_INFINITY => return Some("-Infinity".to_owned()),
        _ if bytes.len() != 8 + 2 * count => return None,
        _ => {}
    }
    // The digit at ten thousand to the power of this; what is not sent is zero.
    let digit = |power: i32| {
        let at = usize::try_from(weight - power).ok().filter(|&at| at < count);
        at.and_then(|at| word(4 + at)).unwrap_or(0)
    };
    let whole: String = (0..=weight).rev().map(|power| format!("{:04}", digit(power))).collect();
    let groups = i32::try_from(scale.div_ceil(DIGITS)).ok()?;
    let mut fraction: String = (1..=groups).map(|place| format!("{:04}", digit(-place))).collect();
    fraction.truncate(scale);

    let minus = if sign == NEGATIVE { "-" } else { "" };
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        whole => whole,
    };
    let point = if scale == 0 { "" } else { "." };
    Some(format!("{minus}{whole}{point}{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(weight: i16, sign: u16, scale: u16, digits: &[u16]) -> Vec<u8> {
        let count = u16::try_from(digits.len()).expect("a few");
        let words = [count, weight.cast_unsigned(), sign, scale].into_iter().chain(digits.iter().copied());
        words.flat_map(u16::to_be_bytes).collect()
    }

    #[test]
    fn it_reads_as_the_database_writes_it() {
        let cases = [
            (sent(0, 0, 0, &[]), "0"),
            (sent(0, 0, 2, &[]), "0.00"),
            (sent(0, NEGATIVE, 1, &[1, 5000]), "-1.5"),
            (sent(1, 0, 0, &[1]), "10000"),
            (sent(1, 0, 5, &[12, 3456, 7890, 1200]), "123456.78901"),
            (sent(-2, 0, 8, &[42]), "0.00000042"),
            (sent(0, NAN, 0, &[]), "NaN"),
            (sent(0, NEGATIVE_INFINITY, 0, &[]), "-Infinity"),
        ];
        for (bytes, wanted) in cases {
            assert_eq!(text(&bytes).as_deref(), Some(wanted));
        }
        let whole = sent(1, 0, 0, &[1, 2]);
        for length in 0..whole.len() {
            assert_eq!(text(&whole[..length]), None);
        }
    }
}
