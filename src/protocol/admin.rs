//! The commands that are not about one key.

use crate::item::{Exptime, KEY_MAX};
use crate::protocol::error::ProtocolError;
use crate::protocol::token::{Tokens, fraction, integer, number_u32};

/// Least and most megabytes of `cache_memlimit` (proto_text.c, `process_memlimit_command`).
const MEMLIMIT_MEGABYTES: std::ops::RangeInclusive<u32> = 8..=1_000_000_000;

/// Most microseconds of `lru_crawler sleep`.
const SLEEP_MICROS_MAX: u32 = 1_000_000;

/// Something to do that is not about one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admin<'a> {
    /// `mn`: `MN`, to know that what came before has been answered.
    NoOp,
    /// `version`
    Version,
    /// `quit`: answer what came before, then close.
    Quit,
    /// `stats` and what follows it.
    Stats(Tokens<'a>),
    /// `verbosity`
    Verbosity {
        /// Like so many `v` of `-v`.
        level: u32,
        /// `noreply`
        quiet: bool,
    },
    /// `flush_all`
    FlushAll {
        /// When; [`Exptime::Never`] is at once.
        delay: Exptime,
        /// `noreply`
        quiet: bool,
    },
    /// `cache_memlimit`
    MemoryLimit {
        /// The new limit in bytes.
        bytes: u64,
        /// `noreply`
        quiet: bool,
    },
    /// `shutdown`
    Shutdown,
    /// `watch` and the kinds of events that follow it.
    Watch(Tokens<'a>),
    /// `lru_crawler`
    Crawler(Crawler),
    /// A tuning command that is valid and has no meaning here.
    Tuned {
        /// `noreply`
        quiet: bool,
    },
    /// `refresh_certs`
    RefreshCerts,
    /// `why`: who owns this key, and what lies under it.
    Why(&'a [u8]),
    /// `config get cluster`
    ClusterConfig,
}

/// What `lru_crawler` is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crawler {
    /// `enable`, `disable`: the background sweep.
    Enable(bool),
    /// `crawl`: sweep now.
    Crawl,
    /// `metadump`: a line of facts for each item.
    MetaDump,
    /// `mgdump`: an `mg` line for each item.
    KeyDump,
}

/// Understands an admin command; `None` when `name` is none.
pub(super) fn parse<'a>(name: &[u8], mut tokens: Tokens<'a>) -> Option<Result<Admin<'a>, ProtocolError>> {
    let quiet = tokens.end_in_noreply();
    Some(match name {
        b"version" => Ok(Admin::Version),
        b"quit" => Ok(Admin::Quit),
        b"stats" => Ok(Admin::Stats(tokens)),
        b"watch" => Ok(Admin::Watch(tokens)),
        b"shutdown" => match tokens.next() {
            None | Some(b"graceful") => Ok(Admin::Shutdown),
            Some(_) => Err(ProtocolError::ShutdownMode),
        },
        b"flush_all" => match tokens.next() {
            None | Some(b"noreply") => Ok(Admin::FlushAll { delay: Exptime::Never, quiet }),
            Some(delay) => integer(delay)
                .map(|delay| Admin::FlushAll { delay: Exptime::from_wire(delay.max(0).into()), quiet })
                .ok_or(ProtocolError::InvalidExptime),
        },
        b"verbosity" => match tokens.next() {
            None => Err(ProtocolError::BadFormat),
            Some(level) => number_u32(level)
                .map(|level| Admin::Verbosity { level, quiet })
                .ok_or(ProtocolError::BadNumber),
        },
        b"cache_memlimit" => match tokens.next().and_then(number_u32) {
            None => Err(ProtocolError::Unknown),
            Some(megabytes) if megabytes < *MEMLIMIT_MEGABYTES.start() => {
                Err(ProtocolError::MemlimitTooSmall)
            }
            Some(megabytes) if megabytes > *MEMLIMIT_MEGABYTES.end() => Err(ProtocolError::MemlimitTooLarge),
            Some(megabytes) => Ok(Admin::MemoryLimit { bytes: u64::from(megabytes) << 20, quiet }),
        },
        b"refresh_certs" => Ok(Admin::RefreshCerts),
        b"why" => match (tokens.next(), tokens.next()) {
            (Some(key), None) if key.len() <= KEY_MAX => Ok(Admin::Why(key)),
            _ => Err(ProtocolError::BadFormat),
        },
        b"config" => match (tokens.next(), tokens.next(), tokens.next()) {
            (Some(b"get"), Some(b"cluster"), None) => Ok(Admin::ClusterConfig),
            _ => Err(ProtocolError::Unknown),
        },
        b"lru_crawler" => crawler(tokens),
        b"lru" => lru(tokens).map(|()| Admin::Tuned { quiet }),
        b"slabs" => match (tokens.next(), tokens.next()) {
            (Some(b"automove"), Some(level)) => {
                number_u32(level).map(|_| Admin::Tuned { quiet }).ok_or(ProtocolError::BadNumber)
            }
            (Some(b"reassign"), Some(_)) => Err(ProtocolError::NoSlabs),
            _ => Err(ProtocolError::Unknown),
        },
        b"extstore" => Err(ProtocolError::NoExtstore),
        _ => return None,
    })
}

fn crawler(mut tokens: Tokens<'_>) -> Result<Admin<'_>, ProtocolError> {
    let (verb, argument) = (tokens.next(), tokens.next());
    let number = || argument.and_then(number_u32).ok_or(ProtocolError::BadFormat);
    Ok(Admin::Crawler(match (verb, argument) {
        (Some(b"enable"), None) => Crawler::Enable(true),
        (Some(b"disable"), None) => Crawler::Enable(false),
        (Some(b"crawl"), Some(classes)) => {
            has_class(classes)?;
            Crawler::Crawl
        }
        (Some(b"metadump"), Some(classes)) => {
            has_class(classes)?;
            Crawler::MetaDump
        }
        (Some(b"mgdump"), Some(classes)) => {
            has_class(classes)?;
            Crawler::KeyDump
        }
        (Some(b"tocrawl"), Some(_)) => {
            number()?;
            return Ok(Admin::Tuned { quiet: false });
        }
        (Some(b"sleep"), Some(_)) => {
            if number()? > SLEEP_MICROS_MAX {
                return Err(ProtocolError::SleepTooLong);
            }
            return Ok(Admin::Tuned { quiet: false });
        }
        _ => return Err(ProtocolError::Unknown),
    }))
}

/// There is one class, number 1, which holds everything; memcached has classes up to 63.
fn has_class(classes: &[u8]) -> Result<(), ProtocolError> {
    let known = |class: &[u8]| matches!(number_u32(class), Some(1..=63));
    let all = matches!(classes, b"all" | b"hash");
    if all || classes.split(|&byte| byte == b',').all(known) { Ok(()) } else { Err(ProtocolError::BadClass) }
}

/// `tune <hot %> <warm %> <hot factor> <warm factor>`, `mode flat|segmented`, `temp_ttl <ttl>`
fn lru(mut tokens: Tokens<'_>) -> Result<(), ProtocolError> {
    let valid = match (tokens.next(), tokens.next()) {
        (Some(b"tune"), Some(hot)) => {
            let warm = tokens.next().and_then(number_u32);
            let factors = [tokens.next().and_then(fraction), tokens.next().and_then(fraction)];
            number_u32(hot).zip(warm).is_some_and(|(hot, warm)| hot.saturating_add(warm) <= 80)
                && factors.iter().all(|factor| factor.is_some_and(|factor| factor > 0.0))
        }
        (Some(b"mode"), Some(mode)) => matches!(mode, b"flat" | b"segmented"),
        (Some(b"temp_ttl"), Some(ttl)) => integer(ttl).is_some(),
        _ => false,
    };
    if valid { Ok(()) } else { Err(ProtocolError::Unknown) }
}
