//! The text of one transcript line: escapes, repetitions, captured values, and matching against what arrived.

use std::collections::HashMap;
use std::ops::RangeInclusive;

/// Values captured so far, by name.
pub type Captured = HashMap<String, Vec<u8>>;

/// The text of one line, sent or expected.
#[derive(Debug, Default)]
pub struct Pattern {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Bytes(Vec<u8>),
    /// `{name}`: the value captured under that name.
    Value(String),
    /// `{name:kind}`: matches and remembers; a name seen before must match the same again.
    Capture {
        name: String,
        kind: Kind,
    },
}

#[derive(Debug)]
enum Kind {
    /// `u64`: decimal digits that fit.
    Number,
    /// `u64!other`: a number that is not the one captured as `other`.
    NumberOtherThan(String),
    /// `lo..hi`: a number in this range, both ends included.
    Range(RangeInclusive<u64>),
    /// `any`: whatever is there, perhaps nothing.
    Any,
}

impl Pattern {
    /// Parses the text after the mark. `README.md` beside the transcripts describes the syntax.
    ///
    /// # Errors
    ///
    /// A sentence on what is wrong.
    pub fn parse(text: &str) -> Result<Pattern, String> {
        let mut parts = Vec::new();
        let mut bytes = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            match c {
                '\\' => rest = unescape(rest, &mut bytes)?,
                '{' => {
                    let (inside, after) = rest.split_once('}').ok_or("`{` without `}`")?;
                    rest = after;
                    match parse_braces(inside)? {
                        Part::Bytes(repeated) => bytes.extend(repeated),
                        part => {
                            parts.push(Part::Bytes(std::mem::take(&mut bytes)));
                            parts.push(part);
                        }
                    }
                }
                _ => bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        parts.push(Part::Bytes(bytes));
        Ok(Pattern { parts })
    }

    /// The bytes to send.
    ///
    /// # Errors
    ///
    /// If it names something not captured, or would capture.
    pub fn render(&self, captured: &Captured) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        for part in &self.parts {
            match part {
                Part::Bytes(literal) => bytes.extend(literal),
                Part::Value(name) => {
                    bytes.extend(captured.get(name).ok_or(format!("`{name}` is not captured"))?)
                }
                Part::Capture { name, .. } => {
                    return Err(format!("`{name}` cannot be captured from what is sent"));
                }
            }
        }
        Ok(bytes)
    }

    /// How many bytes it matches, if that does not depend on what arrives.
    pub fn fixed_len(&self, captured: &Captured) -> Option<usize> {
        self.render(captured).ok().map(|bytes| bytes.len())
    }

    /// Whether all of `got` matches; remembers what was captured if so.
    pub fn matches(&self, got: &[u8], captured: &mut Captured) -> bool {
        let mut attempt = captured.clone();
        let matched = match_parts(&self.parts, got, &mut attempt);
        if matched {
            *captured = attempt;
        }
        matched
    }
}

fn match_parts(parts: &[Part], got: &[u8], captured: &mut Captured) -> bool {
    let Some((part, rest)) = parts.split_first() else {
        return got.is_empty();
    };
    match part {
        Part::Bytes(literal) => {
            got.strip_prefix(&literal[..]).is_some_and(|got| match_parts(rest, got, captured))
        }
        Part::Value(name) => {
            let Some(value) = captured.get(name).cloned() else {
                return false;
            };
            got.strip_prefix(&value[..]).is_some_and(|got| match_parts(rest, got, captured))
        }
        // The longest first; lines are short, so trying every length costs nothing.
        Part::Capture { name, kind } => (0..=got.len()).rev().any(|len| {
            let (value, after) = got.split_at(len);
            let known = captured.get(name);
            if !kind.accepts(value, captured) || known.is_some_and(|known| known != value) {
                return false;
            }
            let mut attempt = captured.clone();
            if name != "_" {
                attempt.insert(name.clone(), value.to_vec());
            }
            let matched = match_parts(rest, after, &mut attempt);
            if matched {
                *captured = attempt;
            }
            matched
        }),
    }
}

impl Kind {
    fn parse(text: &str) -> Result<Kind, String> {
        if let Some((low, high)) = text.split_once("..") {
            let bound = |text: &str| text.parse().map_err(|_| format!("`{text}` is not a number"));
            return Ok(Kind::Range(bound(low)?..=bound(high)?));
        }
        match text.split_once('!') {
            Some(("u64", other)) => Ok(Kind::NumberOtherThan(other.to_owned())),
            None if text == "u64" => Ok(Kind::Number),
            None if text == "any" => Ok(Kind::Any),
            _ => Err(format!("no kind of capture is called `{text}`")),
        }
    }

    fn accepts(&self, value: &[u8], captured: &Captured) -> bool {
        let number = || -> Option<u64> {
            let digits = value.iter().all(u8::is_ascii_digit);
            std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
        };
        match self {
            Kind::Any => true,
            Kind::Number => number().is_some(),
            Kind::NumberOtherThan(other) => {
                number().is_some() && captured.get(other).is_some_and(|o| o != value)
            }
            Kind::Range(range) => number().is_some_and(|number| range.contains(&number)),
        }
    }
}

/// `text*count`, `name` or `name:kind`.
fn parse_braces(inside: &str) -> Result<Part, String> {
    if let Some((text, count)) = inside.rsplit_once('*') {
        let count = count.parse().map_err(|_| format!("`{count}` is not a count"))?;
        let mut bytes = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            match c {
                '\\' => rest = unescape(rest, &mut bytes)?,
                _ => bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        return Ok(Part::Bytes(bytes.repeat(count)));
    }
    Ok(match inside.split_once(':') {
        Some((name, kind)) => Part::Capture { name: name.to_owned(), kind: Kind::parse(kind)? },
        None => Part::Value(inside.to_owned()),
    })
}

/// Decodes the escape after a backslash and returns what follows it.
fn unescape<'a>(rest: &'a str, bytes: &mut Vec<u8>) -> Result<&'a str, String> {
    let escape = rest.chars().next().ok_or("a backslash at the end")?;
    bytes.push(match escape {
        'r' => b'\r',
        'n' => b'\n',
        't' => b'\t',
        's' => b' ',
        '\\' | '{' | '}' => escape as u8,
        'x' => {
            let digits = rest.get(1..3).ok_or("`\\x` needs two hex digits")?;
            bytes.push(u8::from_str_radix(digits, 16).map_err(|e| format!("\\x{digits}: {e}"))?);
            return Ok(&rest[3..]);
        }
        _ => return Err(format!("no escape is called `\\{escape}`")),
    });
    Ok(&rest[1..])
}
