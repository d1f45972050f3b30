//! Finds the parameters of a query, so that a wrong one is refused before there is a database to ask.
//!
//! It knows the literals, quoted names and comments of each database as it is configured from the start; what it
//! cannot know (`NO_BACKSLASH_ESCAPES` and `ANSI_QUOTES` of MySQL) the database itself says later.

/// Whose SQL it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// PostgreSQL: `$1`, nested comments, dollar quotes.
    Postgres,
    /// MySQL and MariaDB: `?`, backslashes in literals, `#` comments.
    MySql,
    /// SQLite: `$1` or `?`, names in brackets.
    Sqlite,
}

/// Sees that a query is one statement with one parameter; otherwise says what it needs.
pub(super) fn check(query: &str, dialect: Dialect) -> Result<(), String> {
    let (mut first, mut question, mut other, mut is_over) = (0_u32, 0_u32, 0_u32, false);
    let mut scanner = Scanner { text: query.as_bytes(), at: 0, dialect };
    while let Some(token) = scanner.next() {
        if is_over && token != Token::Semicolon {
            return Err("must be one statement: there is more after a semicolon".to_owned());
        }
        match token {
            Token::First => first += 1,
            Token::Question => question += 1,
            Token::Parameter => other += 1,
            Token::Semicolon => is_over = true,
            Token::Rest => {}
        }
    }
    let (is_one, needed) = match dialect {
        Dialect::Postgres => (first > 0, "$1 (as often as it is needed)"),
        Dialect::MySql => (question == 1, "?"),
        Dialect::Sqlite => ((first > 0) != (question == 1), "$1 (as often as it is needed) or a single ?"),
    };
    if is_one && other == 0 && (first == 0 || question == 0) {
        return Ok(());
    }
    Err(format!("needs exactly one parameter, {needed}, where the key goes"))
}

/// What matters of a piece of SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// `$1`
    First,
    /// `?`
    Question,
    /// Another parameter: `$2`, `?1`, `:name`.
    Parameter,
    Semicolon,
    /// Anything else that is neither space nor comment.
    Rest,
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    dialect: Dialect,
}

impl Scanner<'_> {
    fn next(&mut self) -> Option<Token> {
        self.skip_blank();
        let byte = *self.text.get(self.at)?;
        let start = self.at;
        self.at += 1;
        Some(match byte {
            b';' => Token::Semicolon,
            b'\'' => self.literal(b'\'', self.dialect == Dialect::MySql),
            b'"' => self.literal(b'"', self.dialect == Dialect::MySql),
            b'`' if self.dialect != Dialect::Postgres => self.literal(b'`', false),
            b'[' if self.dialect == Dialect::Sqlite => self.until(b"]"),
            b'$' if self.dialect != Dialect::MySql => self.dollar(),
            b'?' if self.dialect != Dialect::Postgres => self.question(),
            b':' | b'@' if self.dialect == Dialect::Sqlite && self.is_word(0) => {
                self.word();
                Token::Parameter
            }
            byte if is_word(byte) => {
                self.word();
                let is_escaped = self.dialect == Dialect::Postgres
                    && matches!(&self.text[start..self.at], b"e" | b"E")
                    && self.peek(0) == Some(b'\'');
                if is_escaped {
                    self.at += 1;
                    self.literal(b'\'', true);
                }
                Token::Rest
            }
            _ => Token::Rest,
        })
    }

    /// Skips what separates tokens: spaces and comments.
    fn skip_blank(&mut self) {
        while let Some(byte) = self.peek(0) {
            let is_line = match (byte, self.peek(1)) {
                // MySQL takes `5--3` for a sum, as everybody did before there were comments.
                (b'-', Some(b'-')) => {
                    self.dialect != Dialect::MySql || self.peek(2).is_none_or(|byte| byte <= b' ')
                }
                (b'#', _) => self.dialect == Dialect::MySql,
                _ => false,
            };
            if is_line {
                self.until(b"\n");
            } else if byte == b'/' && self.peek(1) == Some(b'*') && !self.is_conditional() {
                self.comment();
            } else if byte.is_ascii_whitespace() || byte == 0x0b {
                self.at += 1;
            } else {
                return;
            }
        }
    }

    /// Whether MySQL runs what is in this comment: `/*! ... */`, `/*M! ... */`.
    fn is_conditional(&self) -> bool {
        let inside = &self.text[self.at + 2..];
        self.dialect == Dialect::MySql && (inside.starts_with(b"!") || inside.starts_with(b"M!"))
    }

    fn comment(&mut self) {
        let mut depth = 0_u32;
        while let Some(byte) = self.peek(0) {
            match (byte, self.peek(1)) {
                (b'/', Some(b'*')) if depth == 0 || self.dialect == Dialect::Postgres => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                }
                _ => self.at += 1,
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// The rest of a literal or quoted name; two quotes are one that belongs to it.
    fn literal(&mut self, quote: u8, has_escapes: bool) -> Token {
        while let Some(byte) = self.peek(0) {
            self.at += 1;
            if byte == b'\\' && has_escapes {
                self.at += 1;
            } else if byte == quote {
                if self.peek(0) != Some(quote) {
                    break;
                }
                self.at += 1;
            }
        }
        Token::Rest
    }

    /// What follows a `$`: a parameter, or PostgreSQL's `$tag$ ... $tag$`.
    fn dollar(&mut self) -> Token {
        let start = self.at;
        self.word();
        let word = &self.text[start..self.at];
        if word == b"1" {
            return Token::First;
        }
        if word.first().is_some_and(u8::is_ascii_digit) {
            return Token::Parameter;
        }
        if self.dialect == Dialect::Sqlite {
            return if word.is_empty() { Token::Rest } else { Token::Parameter };
        }
        // `$` may be in a word, so the word of `$tag$` has the second one, too.
        let Some(end) = self.text[start..].iter().position(|&byte| byte == b'$') else { return Token::Rest };
        if !self.text[start..start + end].iter().all(|&byte| is_word(byte)) {
            return Token::Rest;
        }
        let tag = &self.text[start - 1..=start + end];
        self.at = start + end + 1;
        self.until(tag)
    }

    fn question(&mut self) -> Token {
        if self.dialect == Dialect::Sqlite && self.is_word(0) {
            self.word();
            return Token::Parameter;
        }
        Token::Question
    }

    fn word(&mut self) {
        while self.is_word(0) || self.peek(0) == Some(b'$') {
            self.at += 1;
        }
    }

    fn until(&mut self, end: &[u8]) -> Token {
        let found = self.text[self.at..].windows(end.len()).position(|bytes| bytes == end);
        self.at = found.map_or(self.text.len(), |found| self.at + found + end.len());
        Token::Rest
    }

    fn is_word(&self, ahead: usize) -> bool {
        self.peek(ahead).is_some_and(is_word)
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}
