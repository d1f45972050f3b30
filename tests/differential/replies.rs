//! Replies of two servers, made comparable: what the protocol leaves open is evened out, and nothing else.

use std::collections::HashMap;

/// Seconds by which two times may be apart: the servers are asked one after the other and count whole seconds, and
/// memcached's begin at two places of a second, one on the wall clock and one on the monotonic clock.
const TIME_SLACK: u64 = 2;

/// The first place where the replies differ, or `None` if they say the same.
pub fn difference(left: &[u8], right: &[u8]) -> Option<String> {
    let (left, right) = (lines(left), lines(right));
    for (index, (l, r)) in left.iter().zip(&right).enumerate() {
        if !same(l, r) {
            return Some(format!("line {}: {:?} and {:?}", index + 1, l.join(" "), r.join(" ")));
        }
    }
    (left.len() != right.len()).then(|| format!("{} and {} lines", left.len(), right.len()))
}

/// Lines as words, with cas tokens replaced by the order of their first appearance: a server chooses
/// its tokens freely, but has to repeat them.
fn lines(replies: &[u8]) -> Vec<Vec<String>> {
    let mut seen = HashMap::new();
    let text = replies.escape_ascii().to_string();
    text.split("\\n")
        .map(|line| {
            // The `\r` becomes a word of its own, so that a missing one is seen and the last word stands alone.
            let line = line.strip_suffix("\\r").map_or(line.to_owned(), |body| format!("{body} \\r"));
            let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let value_line = words[0] == "VALUE" && words.len() == 6;
            let meta_line = matches!(words[0].as_str(), "HD" | "VA");
            for (index, word) in words.iter_mut().enumerate().skip(1) {
                let token = match () {
                    () if value_line && index == 4 => Some(word.as_str()),
                    () if meta_line => word.strip_prefix('c').filter(|rest| is_number(rest)),
                    () => None,
                };
                if let Some(token) = token.map(str::to_owned) {
                    let next = seen.len();
                    let order = seen.entry(token).or_insert(next);
                    *word = format!("cas#{order}");
                }
            }
            words
        })
        .collect()
}

fn same(left: &[String], right: &[String]) -> bool {
    let meta = matches!(left[0].as_str(), "HD" | "VA");
    left.len() == right.len()
        && left
            .iter()
            .zip(right)
            .all(|(l, r)| l == r || meta && (close_times('t', l, r) || close_times('l', l, r)))
}

/// Whether both are the same meta flag with a time, about the same.
fn close_times(flag: char, left: &str, right: &str) -> bool {
    let time = |word: &str| word.strip_prefix(flag).and_then(|time| time.parse::<u64>().ok());
    matches!((time(left), time(right)), (Some(l), Some(r)) if l.abs_diff(r) <= TIME_SLACK)
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit())
}

#[test]
fn evens_out_tokens_and_times_only() {
    let same = |l: &str, r: &str| difference(l.as_bytes(), r.as_bytes()).is_none();
    assert!(same("VALUE k 0 1 7\r\nx\r\nHD c7 t99\r\n", "VALUE k 0 1 900\r\nx\r\nHD c900 t98\r\n"));
    assert!(!same("VALUE k 0 1 7\r\nHD c7\r\n", "VALUE k 0 1 900\r\nHD c901\r\n"));
    assert!(!same("HD t99\r\n", "HD t96\r\n"));
    assert!(!same("HD t-1\r\n", "HD t5\r\n"));
    assert!(!same("VALUE k 0 1\r\n", "VALUE k 0 2\r\n"));
    assert!(!same("OK\r\n", "OK\n"));
    assert!(!same("OK\r\n", "OK\r\nOK\r\n"));
}
