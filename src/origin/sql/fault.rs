//! Why a question got no answer, and whether the connection is any good afterwards.

use std::borrow::Cow;
use std::fmt::{self, Display};

use sqlx::error::Error;

/// Characters of a database's message that are passed on.
const MESSAGE_CHARS: usize = 300;

/// A server's own time limit was over: PostgreSQL's, MariaDB's.
const TIME_LIMITS: [&str; 2] = ["57014", "70100"];

/// What went wrong with a question.
#[derive(Debug)]
pub(super) enum Fault {
    /// The database refused it, or could not be reached.
    Database(Error),
    /// It answered with what is of no use; says why.
    Answer(String),
    /// It has a value for this key that cannot be had; says why.
    Value(String),
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
    /// table was changed fails until it is prepared anew. It can after what was the key's fault, and after the server's own
    /// time limit.
    pub(super) fn spares_the_connection(&self) -> bool {
        match self {
            Self::Answer(_) | Self::Value(_) => true,
            Self::Database(error) => {
                self.is_of_the_key() || sqlstate(error).is_some_and(|code| TIME_LIMITS.contains(&&*code))
            }
        }
    }

    /// Whether other keys do well: after an error in the data of one (class 22), and where one has a value that cannot be
    /// had.
    pub(super) fn is_of_the_key(&self) -> bool {
        match self {
            Self::Value(_) => true,
            Self::Answer(_) => false,
            Self::Database(error) => sqlstate(error).is_some_and(|code| code.starts_with("22")),
        }
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
            Self::Answer(why) | Self::Value(why) => f.write_str(why),
        }
    }
}

/// The SQLSTATE of an error; `None` where it has another code, as in SQLite.
fn sqlstate(error: &Error) -> Option<Cow<'_, str>> {
    error.as_database_error()?.code().filter(|code| code.len() == 5)
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
