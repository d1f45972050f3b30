//! The forms of options' values. Each parser's error says what is allowed.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::logs;
use crate::protocol::codec::Protocol;
use crate::tls::{ClientVerify, MinVersion};

/// Where memcached listens (memcached.c, `settings_init`).
pub(super) const DEFAULT_PORT: u16 = 11211;

const MEBIBYTE: u64 = 1 << 20;

/// memcached.h, ITEM_SIZE_MAX_LOWER_LIMIT and ITEM_SIZE_MAX_UPPER_LIMIT.
const ITEM_SIZE_BYTES: RangeInclusive<u64> = 1024..=1 << 30;

/// A budget above this is a typing mistake: no machine has it.
const MEMORY_MAX_BYTES: u64 = 1 << 50;

/// More than any machine has.
const INT_MAX_MEGABYTES: u32 = 1 << 30;

/// A whole number within `range`.
pub(super) fn number<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    move |text| match text.parse::<T>() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("needs a whole number from {} to {}", range.start(), range.end())),
    }
}

/// On or off.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err("needs true or false (yes, no, on, off, 1 and 0 will do)".into()),
    }
}

/// How often a flag was repeated: its values added up, 3 at most, since more has no meaning.
pub(super) fn verbosity(text: &str) -> Result<u8, String> {
    let number = text.parse::<u8>().map_err(|_| "needs a number from 0 to 3".to_owned())?;
    Ok(number.min(3))
}

/// `-B`.
pub(super) fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "auto" => Ok(Protocol::Auto),
        "ascii" => Ok(Protocol::Ascii),
        "binary" => Ok(Protocol::Binary),
        _ => Err("needs auto, ascii or binary".into()),
    }
}

/// `--log-format`.
pub(super) fn log_format(text: &str) -> Result<logs::Format, String> {
    match text {
        "text" => Ok(logs::Format::Text),
        "json" => Ok(logs::Format::Json),
        _ => Err("needs text or json".into()),
    }
}

/// `-m`: bytes, from a number of megabytes or a number with a unit.
pub(super) fn memory(text: &str) -> Result<u64, String> {
    size(text, MEBIBYTE).filter(|bytes| (MEBIBYTE..=MEMORY_MAX_BYTES).contains(bytes)).ok_or_else(|| {
        "needs a number of megabytes, such as 64, or a size such as 512m or 4g, and at least 1m".into()
    })
}

/// `-I`: bytes, from a number of bytes or a number with a unit.
pub(super) fn item_size(text: &str) -> Result<usize, String> {
    size(text, 1)
        .filter(|bytes| ITEM_SIZE_BYTES.contains(bytes))
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| "needs a number of bytes, or a size such as 512k or 2m, from 1k to 1g".into())
}

/// A time, such as `250ms`, `10s`, `5m`, `1h` or `2d`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    let millis = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

/// A number, in `plain` bytes each, or with k, m, g or t behind it.
pub(super) fn size(text: &str, plain: u64) -> Option<u64> {
    let (digits, unit) = match text.char_indices().last()? {
        (_, '0'..='9') => (text, plain),
        (at, 'k' | 'K') => (&text[..at], 1 << 10),
        (at, 'm' | 'M') => (&text[..at], MEBIBYTE),
        (at, 'g' | 'G') => (&text[..at], 1 << 30),
        (at, 't' | 'T') => (&text[..at], 1 << 40),
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// Bytes a second; 0 is without a limit.
pub(super) fn rate(text: &str) -> Result<u64, String> {
    size(text, 1).ok_or_else(|| "needs a number of bytes a second, such as 64m, or 0 for no limit".to_owned())
}

/// A TCP port: -1 and 0 are told apart, since they differ for `-p`.
pub(super) fn port(text: &str) -> Result<Option<u16>, String> {
    match text.parse::<i32>() {
        Ok(-1) => Ok(None),
        Ok(port) => u16::try_from(port).map(Some).map_err(|_| ()),
        Err(_) => Err(()),
    }
    .map_err(|()| "needs a port from 0 to 65535 (0: no TCP), or -1 for any free one".into())
}

/// `-a`: permissions in octal.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| "needs permissions in octal, such as 700 or 0666".into())
}

/// `-D`: one byte.
pub(super) fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [byte] if byte.is_ascii_graphic() => Ok(*byte),
        _ => Err("needs one character that keys can have, such as : or /".into()),
    }
}

/// `-o read_buf_mem_limit`, `-o resp_obj_mem_limit`: bytes, from a number of megabytes; 0 for any
/// number.
pub(super) fn buffers(text: &str) -> Result<usize, String> {
    let megabytes = number::<u32>(0..=INT_MAX_MEGABYTES)(text)
        .map_err(|why| format!("{why}, in megabytes (0: no limit)"))?;
    Ok((megabytes as usize) << 20)
}

/// `-o idle_timeout`: seconds, and 0 for none.
pub(super) fn idle_timeout(text: &str) -> Result<Option<Duration>, String> {
    let seconds = number::<u32>(0..=i32::MAX as u32)(text)
        .map_err(|why| format!("{why}, in seconds (0: no timeout)"))?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds.into())))
}

/// `-o ssl_verify_mode` (memcached.c, SSL_VERIFY_MODE).
pub(super) fn verify_mode(text: &str) -> Result<ClientVerify, String> {
    match text {
        "0" => Ok(ClientVerify::None),
        "1" => Ok(ClientVerify::Request),
        // "Once" spares a second request at a renegotiation, which rustls does not do.
        "2" | "3" => Ok(ClientVerify::Require),
        _ => Err("needs 0 (no client certificates), 1 (checked when shown), 2 or 3 (required)".into()),
    }
}

/// `-o ssl_min_version` (memcached.c, SSL_MIN_VERSION).
pub(super) fn min_version(text: &str) -> Result<MinVersion, String> {
    match text {
        "2" => Ok(MinVersion::Tls12),
        "3" => Ok(MinVersion::Tls13),
        "0" | "1" => {
            Err("TLS 1.0 and 1.1 are broken and not spoken here: 2 (TLS 1.2) and 3 (TLS 1.3) are allowed"
                .into())
        }
        _ => Err("needs 2 (TLS 1.2) or 3 (TLS 1.3)".into()),
    }
}

/// `-o ssl_keyformat`: memcached takes OpenSSL's number for it (SSL_FILETYPE_PEM is 1).
pub(super) fn key_format(text: &str) -> Result<(), String> {
    match text {
        "1" | "PEM" | "pem" => Ok(()),
        _ => Err("only PEM (1) is read here".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_megabytes_unless_it_says_otherwise() {
        for (text, bytes) in [("64", 64 << 20), ("512m", 512 << 20), ("4G", 4 << 30), ("2048k", 2 << 20)] {
            assert_eq!(memory(text), Ok(bytes), "{text}");
        }
        for text in
            ["", "lots", "-1", "0", "m", "64mb", "1.5g", "1023k", "18446744073709551615", "9999t", "6é"]
        {
            assert!(memory(text).expect_err(text).contains("number of megabytes"), "{text}");
        }
    }

    #[test]
    fn item_sizes_are_bytes_within_memcacheds_limits() {
        for (text, bytes) in
            [("1024", 1024), ("1k", 1024), ("2M", 2 << 20), ("1g", 1 << 30), ("2097152", 2 << 20)]
        {
            assert_eq!(item_size(text), Ok(bytes), "{text}");
        }
        for text in ["1000", "1023", "2g", "1025m", "big", "", "-1"] {
            assert!(item_size(text).expect_err(text).contains("from 1k to 1g"), "{text}");
        }
    }

    #[test]
    fn numbers_stay_in_their_range() {
        let parse = number(1..=1024_usize);
        assert_eq!(parse("1024"), Ok(1024));
        for text in ["0", "1025", "-1", "four", ""] {
            assert_eq!(parse(text), Err("needs a whole number from 1 to 1024".into()), "{text}");
        }
    }

    #[test]
    fn ports_tell_off_from_any() {
        assert_eq!(port("-1"), Ok(None));
        assert_eq!(port("0"), Ok(Some(0)));
        assert_eq!(port("65535"), Ok(Some(65535)));
        for text in ["65536", "-2", "http", ""] {
            assert!(port(text).expect_err(text).contains("0 to 65535"), "{text}");
        }
    }

    #[test]
    fn small_values() {
        assert_eq!(mode("0666"), Ok(0o666));
        assert!(mode("888").is_err() && mode("7777").is_err() && mode("rw").is_err());
        assert_eq!(delimiter(":"), Ok(b':'));
        assert!(delimiter("").is_err() && delimiter("::").is_err() && delimiter(" ").is_err());
        assert_eq!(idle_timeout("0"), Ok(None));
        assert_eq!((buffers("0"), buffers("3")), (Ok(0), Ok(3 << 20)));
        assert!(buffers("2m").expect_err("a unit").contains("in megabytes"));
        assert_eq!(idle_timeout("30"), Ok(Some(Duration::from_secs(30))));
        assert!(idle_timeout("-1").expect_err("negative").contains("in seconds"));
        assert_eq!(verify_mode("3"), Ok(ClientVerify::Require));
        assert!(verify_mode("4").is_err());
        assert_eq!(min_version("3"), Ok(MinVersion::Tls13));
        assert!(min_version("1").expect_err("old").contains("TLS 1.0 and 1.1 are broken"));
        assert!(key_format("1").is_ok() && key_format("DER").is_err());
        assert_eq!(boolean("Yes"), Ok(true));
        assert!(boolean("maybe").is_err());
        assert_eq!(verbosity("7"), Ok(3));
    }
}
