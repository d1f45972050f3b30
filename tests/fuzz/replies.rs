//! Whether answers are well formed: every line one that the protocol knows, every value as long
//! as its line says.

use crate::support::packet::{ANSWER, HEADER_LEN};

/// How the lines of answers begin.
const STARTS: &[&str] = &[
    "END",
    "STORED",
    "NOT_STORED",
    "EXISTS",
    "NOT_FOUND",
    "DELETED",
    "TOUCHED",
    "OK",
    "RESET",
    "ERROR",
    "CLIENT_ERROR ",
    "SERVER_ERROR",
    "VERSION ",
    "STAT ",
    "PREFIX ",
    "ITEM ",
    "HD",
    "EN",
    "NF",
    "NS",
    "EX",
    "MN",
    "ME ",
    "MEMLIMIT_",
    "BADCLASS ",
    "key=",
    "mg ",
    "ts=",
    "skipped=",
    "WATCHER_TOO_MANY ",
];

/// The statuses of answers in the binary protocol (protocol_binary.h).
const STATUSES: &[u16] = &[0, 1, 2, 3, 4, 5, 6, 0x20, 0x21, 0x81, 0x82];

/// Goes through all answers; what is cut off at the end is left alone, as a client may be.
pub fn check(answers: &[u8]) -> Result<(), String> {
    if answers.first() == Some(&ANSWER) { check_packets(answers) } else { check_lines(answers) }
}

fn check_packets(mut answers: &[u8]) -> Result<(), String> {
    while let Some((header, behind)) = answers.split_at_checked(HEADER_LEN) {
        let (extras, key) = (usize::from(header[4]), usize::from(u16::from_be_bytes([header[2], header[3]])));
        let body = u32::from_be_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let status = u16::from_be_bytes([header[6], header[7]]);
        if header[0] != ANSWER || extras + key > body || !STATUSES.contains(&status) {
            return Err(format!("no answer begins like {}", header.escape_ascii()));
        }
        answers = behind.get(body..).unwrap_or_default();
    }
    Ok(())
}

fn check_lines(mut answers: &[u8]) -> Result<(), String> {
    while let Some(end) = answers.iter().position(|&byte| byte == b'\n') {
        let (line, behind) = answers.split_at(end + 1);
        answers = behind;
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let mut words = text.split(|&byte| byte == b' ');
        let len = match words.next() {
            Some(b"VALUE") => words.nth(2),
            Some(b"VA") => words.next(),
            _ => {
                let known = STARTS.iter().any(|start| text.starts_with(start.as_bytes()));
                if !known && (text.is_empty() || !text.iter().all(u8::is_ascii_digit)) {
                    return Err(format!("no answer begins like {}", text.escape_ascii()));
                }
                continue;
            }
        };
        let len = len.and_then(|len| str::from_utf8(len).ok()).and_then(|len| len.parse::<usize>().ok());
        let Some(len) = len else { return Err(format!("no length in {}", text.escape_ascii())) };
        match answers.get(len..len + 2) {
            Some(b"\r\n") => answers = &answers[len + 2..],
            Some(_) => return Err(format!("another length than in {}", text.escape_ascii())),
            None => break,
        }
    }
    Ok(())
}
