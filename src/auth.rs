//! The users of `-Y` that may log in, and reading the file again.
//!
//! The file is memcached's (authfile.c): one `user:password` a line, the first colon divides.
//! A user may stand there twice with two passwords, so that a password can be changed without
//! a moment in which clients fail. Unlike memcached, more users than fit are an error rather
//! than dropped, and so is a file without any: it is more often half-written than meant.

use std::fmt;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

/// Most users a file may have; memcached takes 8 (authfile.c, MAX_ENTRIES). A login looks at
/// each of them.
const USERS_MAX: usize = 1024;
/// Longest line; memcached takes 256 bytes (authfile.c, MAX_ENTRY_LEN).
const LINE_MAX_BYTES: usize = 1024;
/// Longest file: every user with the longest line and its end.
const FILE_MAX_BYTES: usize = USERS_MAX * (LINE_MAX_BYTES + 2);

/// The users that may log in. Clones share them: after [`Users::reload`], all see the new ones.
#[derive(Clone)]
pub struct Users {
    file: Arc<UserFile>,
}

struct UserFile {
    path: PathBuf,
    entries: RwLock<Vec<Entry>>,
}

struct Entry {
    user: Vec<u8>,
    password: Vec<u8>,
}

/// Why a file of users cannot be used. Never quotes the file: it holds passwords.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the users of -Y from {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A line is not `user:password`.
    #[error("{}, line {line}: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The file has too many users, or none.
    #[error("{}: {why}", path.display())]
    Count {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl Users {
    /// Reads the users from a file.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, has a line that is not `user:password`, no line at all, or
    /// more than a thousand.
    pub fn load(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let entries = RwLock::new(read(&path)?);
        Ok(Self { file: Arc::new(UserFile { path, entries }) })
    }

    /// Reads the file again. Connections that are logged in stay so.
    ///
    /// # Errors
    ///
    /// As [`Users::load`]; the users stay as they were.
    pub fn reload(&self) -> Result<(), Error> {
        let entries = read(&self.file.path)?;
        *self.file.entries.write() = entries;
        Ok(())
    }

    /// Whether this user has this password.
    ///
    /// Takes as long whether they match or not, and wherever they differ; how long a name and
    /// a password are can be seen in the time, as in memcached (util.c, safe_memcmp). Looks at
    /// every user: microseconds for a thousand of them, once a connection.
    pub fn allow(&self, user: &[u8], password: &[u8]) -> bool {
        let mut allowed = false;
        for entry in self.file.entries.read().iter() {
            // & and |, not && and ||: these would stop early.
            allowed |= same(user, &entry.user) & same(password, &entry.password);
        }
        allowed
    }

    /// How many users there are.
    pub fn count(&self) -> usize {
        self.file.entries.read().len()
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("path", &self.file.path).field("count", &self.count()).finish()
    }
}

/// Compares without stopping at the first difference.
fn same(given: &[u8], expected: &[u8]) -> bool {
    if given.len() != expected.len() {
        return false;
    }
    let differences = given.iter().zip(expected).fold(0, |sum, (a, b)| sum | (a ^ b));
    // Without it the compiler may find that the loop could stop early.
    black_box(differences) == 0
}

fn read(path: &Path) -> Result<Vec<Entry>, Error> {
    let unreadable = |error| Error::Unreadable { path: path.to_owned(), error };
    let mut text = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_MAX_BYTES as u64 + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() > FILE_MAX_BYTES {
        let why = format!("is longer than {FILE_MAX_BYTES} bytes");
        return Err(Error::Count { path: path.to_owned(), why });
    }
    parse(&text, path)
}

fn parse(text: &[u8], path: &Path) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // memcached refuses an empty line; an editor's last one is not worth that.
        if line.is_empty() {
            continue;
        }
        entries.push(entry(line).map_err(|why| Error::Malformed {
            path: path.to_owned(),
            line: index + 1,
            why,
        })?);
        if entries.len() > USERS_MAX {
            let why = format!("has more than {USERS_MAX} users");
            return Err(Error::Count { path: path.to_owned(), why });
        }
    }
    if entries.is_empty() {
        let why = "has no users: it needs lines of user:password".into();
        return Err(Error::Count { path: path.to_owned(), why });
    }
    Ok(entries)
}

fn entry(line: &[u8]) -> Result<Entry, &'static str> {
    if line.len() > LINE_MAX_BYTES {
        return Err("is longer than 1024 bytes");
    }
    if line.contains(&0) {
        return Err("has a zero byte");
    }
    let colon = line.iter().position(|byte| *byte == b':').ok_or("is not user:password")?;
    Ok(Entry { user: line[..colon].to_vec(), password: line[colon + 1..].to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("users");
        std::fs::write(&path, text).expect("written");
        (folder, path)
    }

    fn load(text: &[u8]) -> Result<Users, String> {
        let (_folder, path) = file(text);
        Users::load(path).map_err(|error| error.to_string())
    }

    #[test]
    fn users_log_in_with_their_own_password() {
        // t/authfile, and its lines as other editors leave them.
        for text in [&b"foo:bar\nbaaaz:quux\n"[..], b"foo:bar\r\nbaaaz:quux", b"\nfoo:bar\n\nbaaaz:quux\n\n"]
        {
            let users = load(text).expect("valid");
            assert_eq!(users.count(), 2);
            assert!(users.allow(b"foo", b"bar") && users.allow(b"baaaz", b"quux"));
            for (user, password) in [
                ("foo", "quux"),
                ("foo", "ba"),
                ("foo", "barr"),
                ("fo", "bar"),
                ("", ""),
                ("foo", ""),
                ("foo:bar", ""),
            ] {
                assert!(!users.allow(user.as_bytes(), password.as_bytes()), "{user} {password}");
            }
        }
    }

    #[test]
    fn the_first_colon_divides_and_any_byte_may_follow() {
        let users = load(b"a:b:c\n\xff:\xfe\nnone:\na:second\n").expect("valid");
        assert!(users.allow(b"a", b"b:c") && users.allow(b"a", b"second"));
        assert!(users.allow(b"\xff", b"\xfe") && users.allow(b"none", b""));
    }

    #[test]
    fn faults_name_the_file_and_the_line_but_no_password() {
        let long = [b"a:".as_slice(), &[b'x'; 1024]].concat();
        for (text, expected) in [
            (&b"foo:bar\nhunter2\n"[..], "users, line 2: is not user:password"),
            (b"foo:b\0r", "line 1: has a zero byte"),
            (&long, "line 1: is longer than 1024 bytes"),
            (b"", "users: has no users: it needs lines of user:password"),
            (b"\n\n", "has no users"),
        ] {
            let error = load(text).expect_err(expected);
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        }
        let error = load(&b"a:b\n".repeat(USERS_MAX + 1)).expect_err("too many");
        assert!(error.ends_with("has more than 1024 users"), "{error}");
        let error = load(&vec![b'\n'; FILE_MAX_BYTES + 1]).expect_err("too long");
        assert!(error.contains("is longer than"), "{error}");
        let error = Users::load("/nowhere/users").expect_err("missing").to_string();
        assert!(
            error.starts_with("cannot read the users of -Y from /nowhere/users: No such file"),
            "{error}"
        );
    }

    #[test]
    fn a_bad_file_keeps_the_old_users() {
        let (_folder, path) = file(b"foo:bar\n");
        let users = Users::load(&path).expect("valid");
        let context = users.clone();

        std::fs::write(&path, "half-writ").expect("written");
        assert!(users.reload().is_err());
        assert!(context.allow(b"foo", b"bar"));

        std::fs::write(&path, "foo:new\n").expect("written");
        users.reload().expect("valid");
        assert!(
            context.allow(b"foo", b"new") && !context.allow(b"foo", b"bar"),
            "every clone sees the new ones"
        );
    }

    #[test]
    fn passwords_are_not_printed() {
        let users = load(b"foo:hunter2\n").expect("valid");
        let printed = format!("{users:?}");
        assert!(printed.contains("count: 1") && !printed.contains("hunter2"), "{printed}");
    }
}
