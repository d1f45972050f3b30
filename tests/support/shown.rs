//! What a failed assertion shows of a value that may be large: as much as a person reads.
//!
//! The unit tests in `src/` and the benches use this file, too.

use std::fmt::{self, Debug, Display, Write};
use std::path::PathBuf;

/// Bytes of a value that are shown.
const SHOWN_BYTES: usize = 2_000;

/// Bytes before the first difference that are shown.
const BEFORE_BYTES: usize = 200;

/// A value that is shown cut, with `{}` and with `{:?}`: `assert_eq!(Cut(got), Cut(wanted))`.
#[derive(PartialEq)]
pub struct Cut<T>(pub T);

impl<T: Display> Display for Cut<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        cut(f, format_args!("{}", self.0))
    }
}

impl<T: Debug> Debug for Cut<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        cut(f, format_args!("{:?}", self.0))
    }
}

fn cut(f: &mut fmt::Formatter<'_>, text: fmt::Arguments<'_>) -> fmt::Result {
    let mut head = Head { f, left: SHOWN_BYTES, dropped: 0 };
    head.write_fmt(text)?;
    match head.dropped {
        0 => Ok(()),
        dropped => write!(f, "... and {dropped} bytes more"),
    }
}

/// Passes on the beginning of what is written to it.
struct Head<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    left: usize,
    dropped: usize,
}

impl Write for Head<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let (shown, rest) = text.split_at(text.floor_char_boundary(self.left));
        self.left = if rest.is_empty() { self.left - shown.len() } else { 0 };
        self.dropped += rest.len();
        self.f.write_str(shown)
    }
}

/// Sees that two are the same, byte by byte; otherwise shows both from where they begin to differ.
///
/// # Panics
///
/// When they differ.
#[track_caller]
pub fn assert_same(got: impl AsRef<[u8]>, wanted: impl AsRef<[u8]>) {
    let (got, wanted) = (got.as_ref(), wanted.as_ref());
    if got == wanted {
        return;
    }
    let at = got.iter().zip(wanted).take_while(|(got, wanted)| got == wanted).count();
    let from = at.saturating_sub(BEFORE_BYTES);
    panic!(
        "they differ at byte {at}; from byte {from} on:\n   got {}, of {} bytes\nwanted {}, of {} bytes",
        Cut(got[from..].escape_ascii()),
        got.len(),
        Cut(wanted[from..].escape_ascii()),
        wanted.len(),
    );
}

/// A text that is too long to be shown, as messages of many lines about many events are: its beginning, and the file in
/// which all of it is.
pub fn kept(name: &str, text: &str) -> String {
    let folder = option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let path = folder.join(format!("{name}-{}.txt", std::process::id()));
    let all = match std::fs::write(&path, text) {
        Ok(()) => format!("all of it is in {}", path.display()),
        Err(error) => format!("{} cannot be written: {error}", path.display()),
    };
    format!("{}\n{all}", Cut(text))
}

/// The end of a log.
pub fn last_of(log: &str) -> &str {
    const SHOWN_LOG_BYTES: usize = 8 << 10;
    &log[log.ceil_char_boundary(log.len().saturating_sub(SHOWN_LOG_BYTES))..]
}

mod tests {
    use super::*;

    fn said(failing: impl FnOnce() + std::panic::UnwindSafe) -> String {
        let panic = std::panic::catch_unwind(failing).expect_err("it fails");
        panic.downcast_ref::<String>().expect("a text").clone()
    }

    #[test]
    fn a_small_value_is_shown_whole() {
        assert_eq!(Cut([1, 2]), Cut([1, 2]));
        assert_eq!(format!("{} {:?}", Cut("a\n"), Cut("a\n")), "a\n \"a\\n\"");
    }

    #[test]
    fn a_large_value_is_cut() {
        for value in ["x".repeat(1 << 20), "ä".repeat(1 << 20)] {
            let shown = format!("{:?}", Cut(&value));
            assert!((1_990..2_048).contains(&shown.len()), "{} bytes", shown.len());
            assert!(shown.ends_with(" bytes more"));
        }
        let numbers: Vec<u32> = (0..100_000).collect();
        assert!(format!("{:?}", Cut(&numbers)).len() < 2_048);
    }

    #[test]
    fn what_differs_is_shown_from_there_on() {
        let (same, rest) = ("a".repeat(1 << 20), "z".repeat(1 << 20));
        assert_same(&same, &same);
        let said = said(move || assert_same(format!("{same}-{rest}"), format!("{same}+{rest}")));
        assert!(said.len() < 2 * 2_048 + 200, "{} bytes", said.len());
        assert!(said.contains("differ at byte 1048576") && said.contains("aa-zz") && said.contains("aa+zz"));
    }
}
