//! Makes random command streams.

use std::ops::RangeInclusive;

use fastrand::Rng;

use crate::differential::stream::{CAS_BEFORE, CAS_NOW, PREFIX, Request, reason_to_leave_out};

/// Longest stream, in commands behind those that fill it.
const COMMANDS_MAX: usize = 30;
/// Keys of a stream: few, so that commands meet each other's items.
const KEYS: usize = 4;
/// Counters of a stream: keys that only ever hold numbers of one width (see [`crate::differential::stream::reason_to_leave_out`]).
const COUNTERS: usize = 2;

/// Makes the stream that belongs to a seed. It begins by storing under most of its keys, or it would be about misses.
pub fn generate(seed: u64) -> Vec<Request> {
    let mut rng = Rng::with_seed(seed);
    let stampede = rng.u8(0..3) == 0;
    let mut maker = Maker { rng, stampede };
    let mut stream = Vec::new();
    for key in 0..KEYS {
        if maker.rng.u8(0..4) > 0 {
            let expiry = maker.pick(&["", "", " T90000", " T20"]);
            let value = maker.value();
            stream.push(maker.with_value(&format!("ms {PREFIX}k{key}"), expiry, value));
        }
    }
    for counter in 0..COUNTERS {
        if maker.rng.u8(0..4) > 0 {
            let number = maker.counter_value();
            stream.push(maker.with_value(&format!("set {PREFIX}n{counter} 0 0"), "", number));
        }
    }
    let len = maker.rng.usize(5..=COMMANDS_MAX);
    let requests = (0..len).map(|_| maker.request());
    stream.extend(requests.filter(|request| reason_to_leave_out(request).is_none()));
    stream
}

/// Lengths that no value can have.
const LENGTHS_REFUSED: [&str; 8] =
    ["-1", "many", "2147483646", "2147483647", "4294967295", "-2147483648", "9223372036854775808", "S3"];

struct Maker {
    rng: Rng,
    /// Whether this stream is about the marks of stale and of won items: meta commands on one key.
    stampede: bool,
}

impl Maker {
    fn request(&mut self) -> Request {
        let dice = if self.stampede && self.rng.u8(0..5) > 0 { 56..87 } else { 0..100 };
        match self.rng.u8(dice) {
            0..22 => self.storage(),
            22..28 => self.cas(),
            28..42 => self.get(),
            42..50 => self.touch_delete(),
            50..56 => self.incr_decr(),
            56..70 => self.meta_get(),
            70..82 => self.meta_set(),
            82..87 => self.meta_delete(),
            87..93 => self.meta_arithmetic(),
            93..98 => self.broken(),
            _ => {
                let line = self.pick(&["flush_all", "flush_all noreply", "flush_all 0", "verbosity 0"]);
                self.line(line.to_owned())
            }
        }
    }

    fn storage(&mut self) -> Request {
        let command = self.pick(&["set", "set", "add", "replace", "append", "prepend"]);
        let (key, flags, exptime) = (self.key(), self.stored_flags(), self.stored_exptime());
        let noreply = self.noreply();
        if self.rng.u8(0..12) == 0 {
            let counter = self.counter();
            let number = self.counter_value();
            return self.with_value(&format!("set {counter} {flags} {exptime}"), noreply, number);
        }
        let value = if matches!(command, "append" | "prepend") { self.text(0..=6) } else { self.value() };
        self.with_value(&format!("{command} {key} {flags} {exptime}"), noreply, value)
    }

    fn cas(&mut self) -> Request {
        let (key, flags, exptime) = (self.key(), self.stored_flags(), self.stored_exptime());
        let token = self.cas_token();
        let value = self.value();
        let noreply = self.noreply();
        let mut request =
            self.with_value(&format!("cas {key} {flags} {exptime}"), &format!(" {token}{noreply}"), value);
        request.cas_of = needs_cas(token).then_some(key);
        request.sync_before = request.cas_of.is_some();
        request
    }

    fn get(&mut self) -> Request {
        let command = self.pick(&[
            "get",
            "gets",
            "get",
            "gets",
            "gat 0",
            "gats 0",
            "gat 90000",
            "gats 90000",
            "gat -1",
        ]);
        let count = if self.rng.u8(0..10) == 0 { self.rng.usize(20..70) } else { self.rng.usize(1..5) };
        let mut keys: Vec<String> = (0..count).map(|_| self.any_key()).collect();
        let spoiled = !command.starts_with("gat") && self.rng.u8(0..20) == 0;
        if spoiled {
            let at = self.rng.usize(0..=keys.len());
            keys.insert(at, self.long_key());
        }
        let mut request = self.line(format!("{command} {}", keys.join(" ")));
        request.sync_before = spoiled;
        request
    }

    fn touch_delete(&mut self) -> Request {
        let key = self.any_key();
        let noreply = self.noreply();
        let exptime = self.exptime();
        let line = match self.rng.u8(0..8) {
            0..4 => format!("touch {key} {exptime}{noreply}"),
            4..7 => format!("delete {key}{noreply}"),
            _ => format!("delete {key} 0{noreply}"),
        };
        self.line(line)
    }

    fn incr_decr(&mut self) -> Request {
        let key = if self.rng.u8(0..4) == 0 { self.key() } else { self.counter() };
        let command = self.pick(&["incr", "decr"]);
        let delta = self.delta(command == "incr");
        let noreply = self.noreply();
        self.line(format!("{command} {key} {delta}{noreply}"))
    }

    fn meta_get(&mut self) -> Request {
        let key = self.key();
        let mut flags = self.some_flags(&["v", "v", "s", "c", "t", "f", "k", "O", "h", "l", "u", "q"]);
        let key = self.sometimes_base64(key, &mut flags);
        let often = if self.stampede { 2 } else { 4 };
        if !flags.iter().any(|flag| flag == "b") && self.rng.u8(0..often) == 0 {
            flags.push(self.pick(&["N0", "N30", "N9000", "N2147483647"]).to_owned());
        }
        if self.rng.u8(0..often) == 0 {
            flags.push(self.pick(&["R10", "R300", "R100000", "R2147483647", "R-2147483648"]).to_owned());
        }
        if self.rng.u8(0..6) == 0 {
            flags.push(self.pick(&["T0", "T30", "T9000", "T2147483647"]).to_owned());
        } else if self.rng.u8(0..20) == 0 && !flags.iter().any(|flag| flag == "t") {
            flags.push(self.pick(&["T-1", "T-2147483648"]).to_owned());
        }
        self.rng.shuffle(&mut flags);
        self.line(format!("mg {key}{}", joined(&flags)))
    }

    fn meta_set(&mut self) -> Request {
        let key = self.key();
        let mut flags = self.some_flags(&["c", "k", "O", "q"]);
        let key = self.sometimes_base64(key, &mut flags);
        if self.rng.u8(0..3) == 0 {
            flags.push(format!("F{}", self.flags()));
        }
        if self.rng.u8(0..3) == 0 {
            flags.push(format!("T{}", self.exptime()));
        }
        let base64 = flags.iter().any(|flag| flag == "b");
        let mode = self.rng.u8(0..if base64 { 10 } else { 12 });
        match mode {
            0..7 => {}
            7 => flags.push("ME".to_owned()),
            8 => flags.push("MR".to_owned()),
            9 => flags.push("MS".to_owned()),
            10 => flags.push("MA".to_owned()),
            _ => flags.push("MP".to_owned()),
        }
        let token = (self.rng.u8(0..4) == 0).then(|| self.cas_token());
        if let Some(token) = token {
            flags.push(format!("C{token}"));
            if self.rng.bool() {
                flags.push("I".to_owned());
            }
        }
        self.rng.shuffle(&mut flags);
        let value = if mode >= 10 { self.text(0..=6) } else { self.value() };
        let mut request = self.with_value(&format!("ms {key}"), &joined(&flags), value);
        request.cas_of = token.filter(|token| needs_cas(token)).map(|_| key);
        request.sync_before = request.cas_of.is_some();
        request
    }

    fn meta_delete(&mut self) -> Request {
        let key = self.key();
        let mut flags = self.some_flags(&["k", "O", "q"]);
        let key = self.sometimes_base64(key, &mut flags);
        if self.rng.bool() {
            flags.push("I".to_owned());
        }
        if self.rng.u8(0..3) == 0 {
            flags.push(self.pick(&["T0", "T30", "T9000", "T2147483647"]).to_owned());
        }
        let token = (self.rng.u8(0..3) == 0).then(|| self.cas_token());
        if let Some(token) = token {
            flags.push(format!("C{token}"));
        }
        self.rng.shuffle(&mut flags);
        let mut request = self.line(format!("md {key}{}", joined(&flags)));
        request.cas_of = token.filter(|token| needs_cas(token)).map(|_| key);
        request.sync_before = request.cas_of.is_some();
        request
    }

    fn meta_arithmetic(&mut self) -> Request {
        let counts = self.rng.u8(0..5) > 0;
        let key = if counts { self.counter() } else { self.key() };
        let mut flags = self.some_flags(&["v", "v", "c", "t", "k", "O"]);
        if counts && self.rng.bool() {
            flags.push(self.pick(&["N0", "N30", "N9000"]).to_owned());
            flags.push(format!("J{}", self.counter_value()));
        } else if self.rng.u8(0..4) == 0 {
            flags.push("q".to_owned());
        }
        let mode = self.pick(&["", "", "MI", "M+", "MD", "M-"]);
        if !mode.is_empty() {
            flags.push(mode.to_owned());
        }
        if self.rng.bool() {
            flags.push(format!("D{}", self.delta(!matches!(mode, "MD" | "M-"))));
        }
        let new_expiry = self.rng.u8(0..5) == 0;
        if new_expiry {
            flags.push(self.pick(&["T0", "T30", "T9000"]).to_owned());
        }
        let token = (self.rng.u8(0..5) == 0).then(|| self.cas_token());
        if let Some(token) = token {
            flags.push(format!("C{token}"));
        }
        self.rng.shuffle(&mut flags);
        let mut request = self.line(format!("ma {key}{}", joined(&flags)));
        request.cas_of = token.filter(|token| needs_cas(token)).map(|_| key);
        request.sync_before = request.cas_of.is_some() || new_expiry;
        request
    }

    /// Requests that both servers refuse in the same words.
    fn broken(&mut self) -> Request {
        let key = self.key();
        let counter = self.counter();
        let long = self.long_key();
        match self.rng.u8(0..14) {
            0 => {
                let line = self.pick(&[
                    "nonsense",
                    "GET a",
                    "mx k",
                    "SET k 0 0 1",
                    "get\u{9}a",
                    "incrdecr a",
                    "bye now",
                ]);
                self.line(line.to_owned())
            }
            1 => {
                let delta = self.pick(&["ten", "-1", "18446744073709551616", "1x"]);
                self.line(format!("incr {counter} {delta}"))
            }
            2 => self.line(format!("decr {counter} -5 noreply")),
            3 => {
                let exptime = self.pick(&["soon", "9223372036854775808", "1-"]);
                self.line(format!("touch {key} {exptime}"))
            }
            4 => {
                let exptime = self.pick(&["soon", "-9223372036854775809"]);
                self.line(format!("gat {exptime} {key}"))
            }
            5 => {
                let flags = self.pick(&[
                    "v v",
                    "!",
                    "v Tsoon",
                    "Nsoon",
                    "q Rx",
                    "q k k",
                    "T9223372036854775808",
                    "N9223372036854775808",
                    "R-9223372036854775809",
                ]);
                self.line(format!("mg {key} {flags}"))
            }
            6 => {
                let flags = self.pick(&[
                    "D1 D2",
                    "!",
                    "Dten",
                    "D-1",
                    "D18446744073709551616",
                    "q N0 Jten",
                    "N0 J18446744073709551616",
                    "C18446744073709551616",
                    "M! MI",
                    "MZ",
                ]);
                self.line(format!("ma {counter} {flags}"))
            }
            7 => self.line(format!("md {long} q")),
            8 => {
                let command = self.pick(&["delete", "touch", "incr"]);
                let argument = if command == "delete" { "" } else { " 1" };
                self.line(format!("{command} {long}{argument}"))
            }
            9 => self.line(format!("mg {long} v")),
            10 => {
                let bad = self.pick(&LENGTHS_REFUSED);
                self.line(format!("ms {key} {bad}"))
            }
            11 => {
                let bad = self.pick(&LENGTHS_REFUSED);
                self.line(format!("set {key} 0 0 {bad}"))
            }
            12 => {
                let flags = self.pick(&[
                    " F1 F2",
                    " !",
                    " Tsoon",
                    " T9223372036854775808",
                    " Cabc",
                    " C18446744073709551616",
                    " MZ",
                    " q k k",
                    " Fred",
                    " F18446744073709551616",
                ]);
                let value = self.text(1..=20);
                self.with_value(&format!("ms {key}"), flags, value)
            }
            _ => self.bad_chunk(&key),
        }
    }

    /// A value that does not end where it was announced to. What is sent is exactly what the server has to take,
    /// or that and one whole line of nonsense.
    fn bad_chunk(&mut self, key: &str) -> Request {
        let noreply = self.noreply();
        let quiet = self.pick(&["", " q"]);
        let len = self.rng.usize(1..30);
        let head = if self.rng.bool() {
            format!("set {key} 0 0 {len}{noreply}")
        } else {
            format!("ms {key} {len}{quiet}")
        };
        let mut chunk = match self.rng.u8(0..3) {
            0 => "x".repeat(len + 2),
            1 => format!("{}\ny", "x".repeat(len)),
            _ => format!("\r\n{}", "get z ".repeat(6))[..len + 2].to_owned(),
        };
        if chunk.ends_with("\r\n") {
            chunk.replace_range(chunk.len() - 1.., "?");
        }
        if self.rng.bool() {
            chunk.push_str("left behind\r\n");
        }
        Request { template: format!("{head}\r\n{chunk}"), cas_of: None, sync_before: false }
    }

    /// `head`, the length of `value`, `tail`; then the value.
    fn with_value(&mut self, head: &str, tail: &str, value: String) -> Request {
        let mut request = self.line(format!("{head} {}{tail}", value.len()));
        request.template.push_str(&value);
        request.template.push_str("\r\n");
        request
    }

    /// A line with any of the line ends and spacings that change nothing.
    fn line(&mut self, line: String) -> Request {
        let mut line = line;
        if self.rng.u8(0..12) == 0 {
            line = line.replace(' ', "   ");
        }
        if self.rng.u8(0..12) == 0 {
            line.push_str("  ");
        }
        line.push_str(if self.rng.u8(0..12) == 0 { "\n" } else { "\r\n" });
        Request { template: line, cas_of: None, sync_before: false }
    }

    fn key(&mut self) -> String {
        let keys = if self.stampede { 1 } else { KEYS };
        format!("{PREFIX}k{}", self.rng.usize(0..keys))
    }

    /// Now and then another key, in base64: the prefix and one letter are eight characters, which any base64 is.
    fn sometimes_base64(&mut self, key: String, flags: &mut Vec<String>) -> String {
        if self.rng.u8(0..10) > 0 {
            return key;
        }
        flags.push("b".to_owned());
        format!("{PREFIX}{}", self.pick(&["A", "B"]))
    }

    fn counter(&mut self) -> String {
        format!("{PREFIX}n{}", self.rng.usize(0..COUNTERS))
    }

    fn any_key(&mut self) -> String {
        if self.rng.u8(0..5) == 0 { self.counter() } else { self.key() }
    }

    fn long_key(&mut self) -> String {
        format!("{PREFIX}{}", "k".repeat(self.rng.usize(251..300)))
    }

    fn flags(&mut self) -> u32 {
        match self.rng.u8(0..3) {
            0 => 0,
            1 => self.rng.u32(1..100),
            _ => self.rng.u32(..),
        }
    }

    /// A number as classic storage lines take it, at the edges of 32 and 64 bits, too.
    fn stored_flags(&mut self) -> String {
        if self.rng.u8(0..6) > 0 {
            return self.flags().to_string();
        }
        self.pick(&["4294967295", "4294967296", "4294967301", "9223372036854775808", "18446744073709551615"])
            .to_owned()
    }

    /// The same for times: what is beyond 31 bits is cut to 32 of them, and the highest is the sign.
    fn stored_exptime(&mut self) -> &'static str {
        if self.rng.u8(0..4) > 0 {
            return self.exptime();
        }
        self.pick(&[
            "2147483647",
            "2147483648",
            "4294967294",
            "4294967295",
            "4294967296",
            "99999999999",
            "9223372036854775807",
            "-9223372036854775808",
        ])
    }

    /// What can be added to a counter, or taken from it, so that it stays one.
    fn delta(&mut self, added: bool) -> u64 {
        if added && self.rng.u8(0..6) == 0 { u64::MAX } else { self.rng.u32(0..1_000_000).into() }
    }

    /// Never, far ahead, absolute and far ahead, negative, absolute and past.
    fn exptime(&mut self) -> &'static str {
        self.pick(&[
            "0",
            "0",
            "0",
            "0",
            "0",
            "90000",
            "90000",
            "90000",
            "2592000",
            "2000000000",
            "-1",
            "-2147483648",
            "2147483647",
            "2592001",
        ])
    }

    fn noreply(&mut self) -> &'static str {
        if self.rng.u8(0..6) == 0 { " noreply" } else { "" }
    }

    fn cas_token(&mut self) -> &'static str {
        // 1 is below any token: both servers hand out more than that before the first stream.
        self.pick(&[CAS_NOW, CAS_NOW, CAS_BEFORE, "1", "18446744073709551615"])
    }

    fn counter_value(&mut self) -> String {
        self.rng.u64(500_000_000_000_000_000..600_000_000_000_000_000).to_string()
    }

    /// Mostly short text; rarely, for it costs time, larger than `-I` allows.
    fn value(&mut self) -> String {
        if self.rng.u16(0..1_000) == 0 { "large ".repeat(200_000) } else { self.text(0..=40) }
    }

    /// Text with line ends and zeros in it that is no number, nor white space alone.
    fn text(&mut self, len: RangeInclusive<usize>) -> String {
        const LETTERS: &[char] = &['a', 'b', 'c', 'x', 'y'];
        const ANY: &[char] = &['a', 'b', 'c', 'x', 'y', ' ', '\r', '\n', '\0'];
        let len = self.rng.usize(len);
        (0..len)
            .map(|at| {
                let of = if at == 0 { LETTERS } else { ANY };
                of[self.rng.usize(0..of.len())]
            })
            .collect()
    }

    /// Some of these, each once, with an opaque behind `O`.
    fn some_flags(&mut self, all: &[&str]) -> Vec<String> {
        let mut flags: Vec<String> = Vec::new();
        for flag in all {
            if self.rng.u8(0..3) == 0 && !flags.iter().any(|seen| seen == flag) {
                flags.push((*flag).to_owned());
            }
        }
        for flag in &mut flags {
            if flag == "O" {
                flag.push_str(self.pick(&["1", "opaque", ""]));
            }
        }
        flags
    }

    fn pick(&mut self, of: &[&'static str]) -> &'static str {
        of[self.rng.usize(0..of.len())]
    }
}

fn needs_cas(token: &str) -> bool {
    token == CAS_NOW || token == CAS_BEFORE
}

fn joined(flags: &[String]) -> String {
    flags.iter().map(|flag| format!(" {flag}")).collect()
}
