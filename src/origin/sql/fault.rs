//! Why a question got no answer, and whether the connection is any good afterwards.

use std::fmt::{self, Display};

use sqlx::error::Error;

/// Characters of a database's message that are passed on.
const MESSAGE_CHARS: usize = 300;

/// What went wrong with a question.
#[derive(Debug)]
pub(super) enum Fault {
    /// The database refused it, or could not be reached.
    Database(Error),
    /// It answered with what is of no use; says why.
    Answer(String),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

impl Fault {
    /// Whether the connection can be asked again.
    ///
    /// Not after most errors: a server that goes down says so with one, and a statement that was prepared before a
    /// table was changed fails until it is prepared anew. Other keys do well after an error in the data of one (class
    /// 22) and after the server's own time limit (PostgreSQL's 57014, MariaDB's 70100).
    pub(super) fn spares_the_connection(&self) -> bool {
        let Self::Database(error) = self else { return true };
        let Error::Database(error) = error else { return false };
        error.code().is_some_and(|code| {
            code.len() == 5 && (code.starts_with("22") || code == "57014" || code == "70100")
        })
    }

    /// Whether the database said so itself, over a connection that works.
    pub(super) fn is_the_databases_own(&self) -> bool {
        matches!(self, Self::Database(Error::Database(_)))
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(error) => f.write_str(&message(error)),
            Self::Answer(why) => f.write_str(why),
        }
    }
}

/// What the database or the system said, in one line and cut.
///
/// Keys in it can be read: what is no character of a line is escaped.
fn message(error: &Error) -> String {
    let text = match error {
        Error::Database(error) => error.message().to_owned(),
        Error::Io(error) => error.to_string(),
        error => error.to_string(),
    };
    let mut shown = String::new();
    for letter in text.chars().take(MESSAGE_CHARS) {
        if letter.is_control() {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    if text.chars().count() > MESSAGE_CHARS {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_short_line() {
        assert_eq!(
            message(&Error::Protocol("a\n\0\u{1b}ä".to_owned())),
            "encountered unexpected or invalid data: a\\n\\u{0}\\u{1b}ä"
        );
        let long = message(&Error::Protocol("ä".repeat(1_000)));
        assert!(long.ends_with("ä...") && long.chars().count() == MESSAGE_CHARS + 3, "{long}");
    }
}
