//! The requests of random command streams, and which are left out because the two servers may differ there.

/// Stands for the prefix of the stream's keys: another for each run of a stream, so that no run sees items of an
/// earlier one. Keys beginning with it have the same length in every run.
pub const PREFIX: &str = "\u{1}";
/// Stands for the cas token the key has now.
pub const CAS_NOW: &str = "\u{2}now\u{2}";
/// Stands for the cas token the key had when it was last looked up for [`CAS_NOW`].
pub const CAS_BEFORE: &str = "\u{2}before\u{2}";

/// One command with the value that belongs to it, complete in itself: any of a stream can be left out.
#[derive(Clone, Debug)]
pub struct Request {
    /// The bytes, with [`PREFIX`] and perhaps [`CAS_NOW`] or [`CAS_BEFORE`] in them.
    pub template: String,
    /// The key whose cas token is to be filled in.
    pub cas_of: Option<String>,
    /// All replies so far have to be read before this is sent.
    pub sync_before: bool,
}

/// Why the two servers may answer this request differently, if they may: such requests are not generated. The first
/// line decides; `tests/transcripts/DIFFERENCES.md` and the transcripts cover what of this can be pinned down.
///
/// Four more things are left out by the way streams are made. Counters are the only keys that hold numbers, and those
/// have 18 digits, because a number that gets shorter may keep its old length, filled with spaces; and nobody asks
/// whether a counter was fetched, because memcached forgets it when a reply with the old value is still on its way. No value is about as large
/// as `-I`, because where too large begins depends on memcached's item header. The bytes that a malformed value
/// leaves behind are filled up, so that the next command is whole again. No value is white space alone: memcached
/// reads it as the number that its memory happens to hold behind it.
pub fn reason_to_leave_out(request: &Request) -> Option<&'static str> {
    let line = request.template.lines().next().unwrap_or_default();
    let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
    let flag = |first: char| words.iter().skip(2).any(|word| word.starts_with(first));
    let has = |whole: &str| words.iter().skip(2).any(|word| *word == whole);
    let unreadable = |word: Option<&&str>| word.is_some_and(|word| word.parse::<i32>().is_err());
    let unstorable = |word: Option<&&str>| word.is_some_and(|word| word.parse::<i64>().is_err());
    let long_key = words.get(1).is_some_and(|key| key.len() > 250);
    let command = *words.first()?;
    match command {
        _ if line.len() < 3 => Some("short-lines"),
        _ if line.starts_with(' ') => Some("leading-blank"),
        "stats" | "version" | "me" | "lru_crawler" | "watch" | "shutdown" => {
            Some("it shows or drives the server itself")
        }
        "get" | "gets" if words.len() < 2 => Some("malformed-known-command"),
        "gat" | "gats" | "incr" | "decr" | "touch" if words.len() < 3 => Some("malformed-known-command"),
        "set" | "add" | "replace" | "append" | "prepend" | "cas" if long_key => {
            Some("swallow-after-bad-line")
        }
        "set" | "add" | "replace" | "append" | "prepend" | "cas" if words.len() < 5 => {
            Some("malformed-known-command")
        }
        "set" | "add" | "replace" | "append" | "prepend" | "cas" if unstorable(words.get(3)) => {
            Some("swallow-after-bad-line")
        }
        "set" | "add" | "replace" | "append" | "prepend" | "cas"
            if unreadable(words.get(4)) && has("noreply") =>
        {
            Some("noreply-unparsable-line")
        }
        "get" | "gets" if words.iter().any(|key| key.len() > 250) => Some(
            "memcached reads the keys in front of the over-long one, and drops earlier replies with theirs",
        ),
        "gat" | "gats" if words.iter().any(|key| key.len() > 250) => Some(
            "memcached touches the keys in front of the over-long one, though it answers only with the error",
        ),
        "mg" if has("b") && flag('N') => Some("memcached forgets that the key of an item it made was base64"),
        "mg" | "ma" if has("t") && words.iter().any(|word| word.starts_with("T-")) => {
            Some("memcached shows the time left of an expired item wrapped round")
        }
        "ma" if flag('T') && !request.sync_before => {
            Some("memcached forgets the expiry if a reply with the old value is still on its way")
        }
        "ms" if has("s") => Some("ms-size"),
        "ms" if flag('N') => Some("ms-autovivify"),
        "ms" | "ma" | "mg" if flag('E') => Some("meta-explicit-cas"),
        "ma" if has("q") && flag('N') && flag('J') && !has("Jten") => Some("ma-quiet-autovivify"),
        "ma" if long_key => Some("ma-long-key"),
        "mg" if flag('C') => Some("mg-conditional"),
        "md" if flag('x') => Some("md-remove-value"),
        _ => None,
    }
}
