//! The format of the log when the other options are invalid.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::config::option_specs::{self, OptionSpec};
use crate::config::values;
use crate::logs::Format;

/// The requested format, as far as it can be found: a collector of JSON must also be able to read why a node does not
/// start.
pub fn log_format(args: &[OsString], environment: &[(OsString, OsString)]) -> Format {
    let told = |name: &str| {
        let variable = option_specs::named(name).map(OptionSpec::variable)?;
        let found = environment.iter().find(|(name, value)| *name == *variable && !value.is_empty());
        on_the_line(args, name).or(found.map(|(_, value)| value.clone()))
    };
    let in_the_file = || in_the_file(&PathBuf::from(told(option_specs::CONFIG)?));
    let word = told(option_specs::LOG_FORMAT).or_else(in_the_file);
    word.and_then(|word| values::log_format(word.to_str()?).ok()).unwrap_or_default()
}

/// The last `--name value` or `--name=value`.
fn on_the_line(args: &[OsString], name: &str) -> Option<OsString> {
    let flag = format!("--{name}");
    let mut values = args.iter().enumerate().filter_map(|(at, word)| {
        let rest = word.to_str()?.strip_prefix(&flag)?;
        if rest.is_empty() { args.get(at + 1).cloned() } else { Some(rest.strip_prefix('=')?.into()) }
    });
    values.next_back()
}

fn in_the_file(path: &Path) -> Option<OsString> {
    let table: toml::Table = std::fs::read_to_string(path).ok()?.parse().ok()?;
    let names = [option_specs::LOG_FORMAT.to_owned(), option_specs::LOG_FORMAT.replace('-', "_")];
    let value = names.iter().find_map(|name| table.get(name))?;
    value.as_str().map(OsStr::new).map(OsStr::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(args: &[&str], environment: &[(&str, &str)]) -> Format {
        let args: Vec<_> = args.iter().map(OsString::from).collect();
        let environment: Vec<_> =
            environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
        log_format(&args, &environment)
    }

    #[test]
    fn it_is_found_wherever_it_stands_among_what_is_wrong() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("filbert.toml");
        std::fs::write(&path, "sparkle = 3\nlog_format = 'json'\n").expect("written");
        let path = path.to_str().expect("UTF-8");
        let json = ("FILBERT_LOG_FORMAT", "json");
        for (args, environment, expected) in [
            (&["-m", "lots"][..], &[][..], Format::Text),
            (&["--sparkle", "--log-format", "json"], &[], Format::Json),
            (&["--log-format=json", "--sparkle"], &[], Format::Json),
            (&["--log-format=json", "--log-format=text"], &[json], Format::Text),
            (&["--log-format"], &[], Format::Text),
            (&["--log-format", "xml"], &[], Format::Text),
            (&["-m", "lots"], &[json], Format::Json),
            (&["--config", path], &[], Format::Json),
            (&["--config", path], &[("FILBERT_LOG_FORMAT", "text")], Format::Text),
            (&[], &[("FILBERT_CONFIG", path)], Format::Json),
            (&["--config=/no/such"], &[], Format::Text),
        ] {
            assert_eq!(format(args, environment), expected, "{args:?} {environment:?}");
        }
    }
}
