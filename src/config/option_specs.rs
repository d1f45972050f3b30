//! Every option: its names, its values, and its effect here.
//!
//! One table, because the same option is read from three places: `-m 64` on the command line,
//! `FILBERT_MEMORY_LIMIT=64` in the environment and `memory-limit = 64` in the file.

/// One option.
#[derive(Debug)]
pub(super) struct OptionSpec {
    /// Its long name, its key in the file and, upper-cased behind `FILBERT_`, its variable.
    pub name: &'static str,
    pub spelled: Spelled,
    pub takes: Takes,
    pub fate: Fate,
}

/// How the command line spells an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelled {
    /// A letter, beside the long name.
    Short(char),
    /// The long name alone.
    Long,
    /// A word of `-o`, with `_` where the name has `-`.
    Extended,
}

/// What follows an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing; `=false` takes back what the file or the environment switched on.
    Switch,
    /// Nothing; repeating it adds up.
    Count,
    /// A value; the last one counts.
    Value,
    /// Values, which add up.
    List,
}

/// The effect of an option here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It does what it does in memcached, or is our own.
    Used,
    /// Taken so that a memcached's command line starts us, and said once to have no effect.
    NoEffect,
    /// Refused, for this reason.
    Refused(&'static str),
}

impl OptionSpec {
    /// The word after `-o`.
    pub fn extended_word(&self) -> String {
        self.name.replace('-', "_")
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.extended_word().to_uppercase())
    }
}

/// What our environment variables begin with.
pub(super) const VARIABLE_PREFIX: &str = "FILBERT_";

/// The option of that long name or file key.
pub(super) fn named(name: &str) -> Option<&'static OptionSpec> {
    OPTION_SPECS.iter().find(|spec| spec.name == name)
}

/// The option that `-o word` means, and whether a `no_` before it turned it round.
///
/// "most options have a 'no_' prefix to disable" (memcached.c, usage).
pub(super) fn extended(word: &str) -> Option<(&'static OptionSpec, bool)> {
    let find = |word: &str| {
        OPTION_SPECS.iter().find(|spec| spec.spelled == Spelled::Extended && spec.extended_word() == word)
    };
    find(word).map(|spec| (spec, false)).or_else(|| {
        let spec = find(word.strip_prefix("no_")?)?;
        (spec.takes == Takes::Switch).then_some((spec, true))
    })
}

/// The option with an effect whose long name is most like an unknown one, if any is: suggested as clap suggests flags
/// (clap_builder, parser/features/suggestions.rs).
pub(super) fn nearest(name: &str, spelled: impl Fn(Spelled) -> bool) -> Option<&'static OptionSpec> {
    let used = OPTION_SPECS.iter().filter(|spec| spec.fate == Fate::Used && spelled(spec.spelled));
    let likeness = used.map(|spec| (strsim::jaro(name, spec.name), spec));
    let alike = likeness.filter(|(likeness, _)| *likeness > LIKE);
    alike.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, spec)| spec)
}

/// How alike two words must be, from 0 to 1; clap's value.
const LIKE: f64 = 0.7;

/// memcached.c, longopts and subopts_tokens, with the names that later 1.6 releases added.
pub(super) const OPTION_SPECS: &[OptionSpec] = &[
    // Where to listen.
    used('p', "port", Takes::Value),
    used('l', "listen", Takes::List),
    used('s', "unix-socket", Takes::Value),
    used('a', "unix-mask", Takes::Value),
    used('b', "listen-backlog", Takes::Value),
    refused('U', "udp-port", Takes::Value, NO_UDP),
    used('B', "protocol", Takes::Value),
    // Memory.
    used('m', "memory-limit", Takes::Value),
    used('I', "max-item-size", Takes::Value),
    used('M', "disable-evictions", Takes::Switch),
    used('C', "disable-cas", Takes::Switch),
    // In place of memcached's -e.
    long(SNAPSHOT, Takes::Value),
    long(SNAPSHOT_MAX_AGE, Takes::Value),
    // Connections and threads.
    used('c', "conn-limit", Takes::Value),
    used('t', "threads", Takes::Value),
    // HTTP; not in memcached.
    long("http-listen", Takes::Value),
    long("http-advertise", Takes::Value),
    long("http-token-file", Takes::Value),
    long("memcached-exporter-metrics", Takes::Switch),
    // The rights of clients.
    used('F', "disable-flush-all", Takes::Switch),
    used('X', "disable-dumping", Takes::Switch),
    used('W', "disable-watch", Takes::Switch),
    used('A', "enable-shutdown", Takes::Switch),
    used('Y', "auth-file", Takes::Value),
    used('S', "enable-sasl", Takes::Switch),
    used('Z', "enable-ssl", Takes::Switch),
    // memcached has no long name for -D.
    used('D', "prefix-delimiter", Takes::Value),
    // The process.
    used('d', "daemon", Takes::Switch),
    used('P', "pidfile", Takes::Value),
    used('u', "user", Takes::Value),
    used('v', "verbose", Takes::Count),
    long(LOG_FORMAT, Takes::Value),
    long(LOG_FILE, Takes::Value),
    long(LOG_SYSLOG, Takes::Switch),
    long(CONFIG, Takes::Value),
    used('o', EXTENDED, Takes::List),
    // The cluster; not in memcached.
    long("etcd-endpoints", Takes::List),
    long("cluster", Takes::Value),
    long("node-id", Takes::Value),
    long("peer-listen", Takes::Value),
    long("peer-advertise", Takes::Value),
    long("advertise", Takes::Value),
    long("weight", Takes::Value),
    long("zone", Takes::Value),
    long("lease-ttl", Takes::Value),
    long("peer-connect-timeout", Takes::Value),
    long("peer-timeout", Takes::Value),
    long("move-rate", Takes::Value),
    long("drain-timeout", Takes::Value),
    long("peer-cert", Takes::Value),
    long("peer-key", Takes::Value),
    long("peer-ca", Takes::Value),
    long("etcd-user", Takes::Value),
    long("etcd-password-file", Takes::Value),
    long("etcd-ca", Takes::Value),
    long("etcd-cert", Takes::Value),
    long("etcd-key", Takes::Value),
    // Words of -o.
    word("idle-timeout", Takes::Value),
    word("maxconns-fast", Takes::Switch),
    word("read-buf-mem-limit", Takes::Value),
    word("resp-obj-mem-limit", Takes::Value),
    word("ssl-chain-cert", Takes::Value),
    word("ssl-key", Takes::Value),
    word("ssl-ca-cert", Takes::Value),
    word("ssl-verify-mode", Takes::Value),
    word("ssl-min-version", Takes::Value),
    word("ssl-keyformat", Takes::Value),
    refused_word("ssl-ciphers", NO_CIPHERS),
    // Flags without effect.
    idle('f', "slab-growth-factor", Takes::Value),
    idle('n', "slab-min-size", Takes::Value),
    idle('L', "enable-largepages", Takes::Switch),
    idle('k', "lock-memory", Takes::Switch),
    idle('r', "enable-coredumps", Takes::Switch),
    idle('R', "max-reqs-per-event", Takes::Value),
    idle('N', "napi-ids", Takes::Value),
    // Words of -o without effect.
    idle_word("modern", Takes::Switch),
    idle_word("hashpower", Takes::Value),
    idle_word("hashexpand", Takes::Switch),
    idle_word("hash-algorithm", Takes::Value),
    idle_word("slab-reassign", Takes::Switch),
    idle_word("slab-automove", Takes::Switch),
    idle_word("slab-automove-ratio", Takes::Value),
    idle_word("slab-automove-window", Takes::Value),
    idle_word("slab-automove-freeratio", Takes::Value),
    idle_word("slab-automove-version", Takes::Value),
    idle_word("slab-sizes", Takes::Value),
    idle_word("slab-chunk-max", Takes::Value),
    idle_word("chunked-items", Takes::Switch),
    idle_word("tail-repair-time", Takes::Value),
    idle_word("lru-crawler", Takes::Switch),
    idle_word("lru-crawler-sleep", Takes::Value),
    idle_word("lru-crawler-tocrawl", Takes::Value),
    idle_word("lru-maintainer", Takes::Switch),
    idle_word("hot-lru-pct", Takes::Value),
    idle_word("warm-lru-pct", Takes::Value),
    idle_word("hot-max-factor", Takes::Value),
    idle_word("warm-max-factor", Takes::Value),
    idle_word("temporary-ttl", Takes::Value),
    idle_word("watcher-logbuf-size", Takes::Value),
    idle_word("worker-logbuf-size", Takes::Value),
    idle_word("track-sizes", Takes::Switch),
    idle_word("inline-ascii-resp", Takes::Switch),
    idle_word("drop-privileges", Takes::Switch),
    // Only memcached-debug has it, and memcached's own tests always pass it.
    idle_word("relaxed-privileges", Takes::Switch),
    idle_word("sock-cookie-id", Takes::Value),
    idle_word("ssl-wbuf-size", Takes::Value),
    idle_word("ssl-session-cache", Takes::Switch),
    idle_word("ssl-kernel-tls", Takes::Switch),
    // Flags refused.
    refused('e', "memory-file", Takes::Value, NO_MEMORY_FILE),
];

pub(super) const CONFIG: &str = "config";
pub(super) const EXTENDED: &str = "extended";
pub(super) const LOG_FORMAT: &str = "log-format";
pub(super) const LOG_FILE: &str = "log-file";
pub(super) const LOG_SYSLOG: &str = "log-syslog";
pub(super) const SNAPSHOT: &str = "snapshot";
pub(super) const SNAPSHOT_MAX_AGE: &str = "snapshot-max-age";

pub(super) const NO_UDP: &str =
    "there is no UDP here (it amplifies attacks, and carries no large values): 0 is allowed";
const NO_MEMORY_FILE: &str = "items do not live in a file here: --snapshot FILE keeps them over a restart";
const NO_CIPHERS: &str =
    "an OpenSSL cipher list has no meaning for rustls, which only has strong suites: leave it out";
/// `-o ext_*`.
pub(super) const NO_EXTSTORE: &str = "items are kept in memory only, never on disk: leave it out";
/// `-o proxy_*`.
pub(super) const NO_PROXY: &str = "there is no Lua proxy here: leave it out";

const fn used(short: char, name: &'static str, takes: Takes) -> OptionSpec {
    OptionSpec { name, spelled: Spelled::Short(short), takes, fate: Fate::Used }
}

const fn long(name: &'static str, takes: Takes) -> OptionSpec {
    OptionSpec { name, spelled: Spelled::Long, takes, fate: Fate::Used }
}

const fn idle(short: char, name: &'static str, takes: Takes) -> OptionSpec {
    OptionSpec { name, spelled: Spelled::Short(short), takes, fate: Fate::NoEffect }
}

const fn refused(short: char, name: &'static str, takes: Takes, why: &'static str) -> OptionSpec {
    OptionSpec { name, spelled: Spelled::Short(short), takes, fate: Fate::Refused(why) }
}

const fn word(name: &'static str, takes: Takes) -> OptionSpec {
    OptionSpec { name, spelled: Spelled::Extended, takes, fate: Fate::Used }
}

const fn idle_word(name: &'static str, takes: Takes) -> OptionSpec {
    OptionSpec { name, spelled: Spelled::Extended, takes, fate: Fate::NoEffect }
}

const fn refused_word(name: &'static str, why: &'static str) -> OptionSpec {
    OptionSpec { name, spelled: Spelled::Extended, takes: Takes::Value, fate: Fate::Refused(why) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_and_letters_are_unique() {
        let mut seen = HashSet::new();
        for spec in OPTION_SPECS {
            assert!(seen.insert(spec.name.to_owned()), "{} twice", spec.name);
            if let Spelled::Short(letter) = spec.spelled {
                assert!(seen.insert(letter.to_string()), "-{letter} twice");
            }
        }
    }

    #[test]
    fn every_letter_of_memcached_is_known() {
        // memcached.c, shortopts; -h, -i and -V are answered before the table is asked.
        for letter in "aAZpsUmMckrvdluPfntDLRCbBISFXWYeoN".chars() {
            assert!(
                OPTION_SPECS.iter().any(|spec| spec.spelled == Spelled::Short(letter)),
                "-{letter} is missing"
            );
        }
    }

    #[test]
    fn a_no_before_a_word_turns_a_switch_round() {
        let (spec, off) = extended("no_maxconns_fast").expect("known");
        assert_eq!((spec.name, off), ("maxconns-fast", true));
        assert!(!extended("maxconns_fast").expect("known").1);
        assert!(extended("no_idle_timeout").is_none(), "takes a value: there is nothing to disable");
        assert!(extended("memory_limit").is_none(), "a flag is no word of -o");
    }
}
