//! Whether answers are well formed: every line one that the protocol knows, every value as long
//! as its line says.

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

/// How an answer in the binary protocol begins.
const BINARY_ANSWER: u8 = 0x81;

/// Goes through all answers; what is cut off at the end is left alone, as a client may be.
pub fn check(mut answers: &[u8]) -> Result<(), String> {
    while let Some(end) = answers.iter().position(|&byte| byte == b'\n') {
        if answers[0] == BINARY_ANSWER {
            // The last one on its connection, and with bytes of the client's own in it.
            return Ok(());
        }
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
