//! The commands that are not about one key.

use crate::item::{Exptime, KEY_MAX};
use crate::protocol::error::ProtocolError;
use crate::protocol::token::{Tokens, fraction, integer, number_u32};

/// Least and most megabytes of `cache_memlimit` (proto_text.c, `process_memlimit_command`).
const MEMLIMIT_MEGABYTES: std::ops::RangeInclusive<u32> = 8..=1_000_000_000;

/// Most microseconds of `lru_crawler sleep`.
const SLEEP_MICROS_MAX: u32 = 1_000_000;

/// Most percents of memory for the hot and the warm part of an LRU (proto_text.c,
/// `process_lru_command`).
const HOT_AND_WARM_MAX: u32 = 80;

/// A request that is not about one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminCommand<'a> {
    /// `mn`: `MN`, a sign that everything before it has been answered.
    NoOp,
    /// `version`
    Version,
    /// `quit`: answer what came before, then close.
    Quit,
    /// `stats` and what follows it.
    Stats(Tokens<'a>),
    /// `verbosity`
    Verbosity {
        /// The same as this many `v` of `-v`.
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
    /// `flush_prefix`: every key that begins like this.
    FlushPrefix {
        /// With what they begin.
        prefix: &'a [u8],
        /// `noreply`
        quiet: bool,
    },
    /// `flush_group`: every key of a group.
    FlushGroup {
        /// The group's name.
        name: &'a [u8],
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
    Shutdown {
        /// Whether its argument is a known way to shut down.
        is_known: bool,
    },
    /// `watch` and the kinds of events that follow it.
    Watch(Tokens<'a>),
    /// `lru_crawler`, and the classes it is for; none where it is for no class.
    Crawler(Crawler, &'a [u8]),
    /// A tuning command that is valid and has no meaning here.
    Tuned {
        /// `noreply`
        quiet: bool,
    },
    /// `refresh_certs`
    RefreshCerts,
    /// `why`: which node owns this key, and which item is under it.
    Why(&'a [u8]),
    /// `config get cluster`
    ClusterConfig,
}

/// The subcommands of `lru_crawler`.
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

/// Parses an admin command; `None` when `name` is unknown.
pub(super) fn parse<'a>(
    name: &[u8],
    mut tokens: Tokens<'a>,
) -> Option<Result<AdminCommand<'a>, ProtocolError>> {
    let quiet = tokens.end_in_noreply();
    Some(match name {
        b"version" => Ok(AdminCommand::Version),
        b"quit" => Ok(AdminCommand::Quit),
        b"stats" => Ok(AdminCommand::Stats(tokens)),
        b"watch" => Ok(AdminCommand::Watch(tokens)),
        b"shutdown" => Ok(AdminCommand::Shutdown {
            is_known: matches!((tokens.next(), tokens.next()), (None | Some(b"graceful"), None)),
        }),
        b"flush_all" | b"flush_prefix" | b"flush_group" => flush(name, tokens, quiet),
        b"verbosity" => match tokens.next() {
            None => Err(ProtocolError::BadFormat),
            Some(level) => number_u32(level)
                .map(|level| AdminCommand::Verbosity { level, quiet })
                .ok_or(ProtocolError::BadNumber),
        },
        b"cache_memlimit" => match tokens.next().and_then(number_u32) {
            None => Err(ProtocolError::Unknown),
            Some(megabytes) if megabytes < *MEMLIMIT_MEGABYTES.start() => {
                Err(ProtocolError::MemlimitTooSmall)
            }
            Some(megabytes) if megabytes > *MEMLIMIT_MEGABYTES.end() => Err(ProtocolError::MemlimitTooLarge),
            Some(megabytes) => Ok(AdminCommand::MemoryLimit { bytes: u64::from(megabytes) << 20, quiet }),
        },
        b"refresh_certs" => Ok(AdminCommand::RefreshCerts),
        b"why" => match (tokens.next(), tokens.next()) {
            (Some(key), None) if key.len() <= KEY_MAX => Ok(AdminCommand::Why(key)),
            _ => Err(ProtocolError::BadFormat),
        },
        b"config" => match (tokens.next(), tokens.next(), tokens.next()) {
            (Some(b"get"), Some(b"cluster"), None) => Ok(AdminCommand::ClusterConfig),
            _ => Err(ProtocolError::Unknown),
        },
        b"lru_crawler" => crawler(tokens),
        b"lru" => lru(tokens).map(|()| AdminCommand::Tuned { quiet }),
        b"slabs" => match (tokens.next(), tokens.next()) {
            (Some(b"automove"), Some(what)) => {
                automove(what, tokens.next()).map(|()| AdminCommand::Tuned { quiet })
            }
            (Some(b"reassign"), Some(_)) if tokens.count() == 1 => Err(ProtocolError::NoSlabs),
            _ => Err(ProtocolError::Unknown),
        },
        b"extstore" => Err(ProtocolError::NoExtstore),
        _ => return None,
    })
}

fn flush<'a>(name: &[u8], mut tokens: Tokens<'a>, quiet: bool) -> Result<AdminCommand<'a>, ProtocolError> {
    if name == b"flush_all" {
        return match tokens.next() {
            None | Some(b"noreply") => Ok(AdminCommand::FlushAll { delay: Exptime::Never, quiet }),
            Some(delay) => integer(delay)
                .map(|delay| AdminCommand::FlushAll { delay: Exptime::from_wire(delay.max(0)), quiet })
                .ok_or(ProtocolError::InvalidExptime),
        };
    }
    match (tokens.next(), tokens.next()) {
        (Some(what), None | Some(b"noreply")) if what.len() <= KEY_MAX => Ok(match name {
            b"flush_group" => AdminCommand::FlushGroup { name: what, quiet },
            _ => AdminCommand::FlushPrefix { prefix: what, quiet },
        }),
        _ => Err(ProtocolError::BadFormat),
    }
}

fn crawler(mut tokens: Tokens<'_>) -> Result<AdminCommand<'_>, ProtocolError> {
    let (verb, argument, more) = (tokens.next(), tokens.next(), tokens.next());
    let number = || argument.and_then(number_u32).ok_or(ProtocolError::BadFormat);
    Ok(match (verb, argument) {
        _ if more.is_some() => return Err(ProtocolError::Unknown),
        (Some(b"enable"), None) => AdminCommand::Crawler(Crawler::Enable(true), b""),
        (Some(b"disable"), None) => AdminCommand::Crawler(Crawler::Enable(false), b""),
        (Some(b"crawl"), Some(classes)) => AdminCommand::Crawler(Crawler::Crawl, classes),
        (Some(b"metadump"), Some(classes)) => AdminCommand::Crawler(Crawler::MetaDump, classes),
        (Some(b"mgdump"), Some(classes)) => AdminCommand::Crawler(Crawler::KeyDump, classes),
        (Some(b"tocrawl"), Some(_)) => {
            number()?;
            AdminCommand::Tuned { quiet: false }
        }
        (Some(b"sleep"), Some(_)) => {
            if number()? > SLEEP_MICROS_MAX {
                return Err(ProtocolError::SleepTooLong);
            }
            AdminCommand::Tuned { quiet: false }
        }
        _ => return Err(ProtocolError::Unknown),
    })
}

/// Whether `lru_crawler` must look at class 1, the only one, which holds everything; memcached has classes up to 63
/// (crawler.c, `lru_crawler_crawl`).
///
/// # Errors
/// When the class does not exist, or is not named.
pub fn names_our_class(classes: &[u8]) -> Result<bool, ProtocolError> {
    if matches!(classes, b"all" | b"hash") {
        return Ok(true);
    }
    let mut ours = None;
    for class in classes.split(|&byte| byte == b',').filter(|class| !class.is_empty()) {
        match number_u32(class) {
            Some(class @ 1..=63) => ours = Some(ours.unwrap_or(false) || class == 1),
            _ => return Err(ProtocolError::BadClass),
        }
    }
    ours.ok_or(ProtocolError::NothingToCrawl)
}

/// `slabs automove 0|1|2`, or one of its settings with a value.
fn automove(what: &[u8], value: Option<&[u8]>) -> Result<(), ProtocolError> {
    match what {
        b"ratio" | b"freeratio" => value.and_then(fraction).map(drop).ok_or(ProtocolError::Unknown),
        b"window" => value.and_then(number_u32).map(drop).ok_or(ProtocolError::BadNumber),
        level => match number_u32(level) {
            Some(0..=2) => Ok(()),
            Some(_) => Err(ProtocolError::Unknown),
            None => Err(ProtocolError::BadNumber),
        },
    }
}

/// `tune <hot %> <warm %> <hot factor> <warm factor>`, `mode flat|segmented`, `temp_ttl <ttl>`
fn lru(mut tokens: Tokens<'_>) -> Result<(), ProtocolError> {
    let valid = match (tokens.next(), tokens.next()) {
        (Some(b"tune"), Some(hot)) => return tune(hot, tokens),
        (Some(b"mode"), Some(mode)) => matches!(mode, b"flat" | b"segmented"),
        (Some(b"temp_ttl"), Some(ttl)) => integer(ttl).is_some(),
        _ => false,
    };
    if valid { Ok(()) } else { Err(ProtocolError::Unknown) }
}

fn tune(hot: &[u8], mut tokens: Tokens<'_>) -> Result<(), ProtocolError> {
    let percents = [Some(hot), tokens.next()].map(|token| token.and_then(number_u32));
    let factors = [tokens.next(), tokens.next()].map(|token| token.and_then(fraction));
    let ([Some(hot), Some(warm)], [Some(hot_factor), Some(warm_factor)]) = (percents, factors) else {
        return Err(ProtocolError::Unknown);
    };
    if hot.saturating_add(warm) > HOT_AND_WARM_MAX {
        return Err(ProtocolError::HotAndWarm);
    }
    if hot_factor <= 0.0 || warm_factor <= 0.0 {
        return Err(ProtocolError::AgeFactor);
    }
    Ok(())
}
