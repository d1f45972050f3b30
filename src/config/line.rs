//! The command line, split as getopt_long does it for memcached.

use std::ffi::OsString;

use clap::builder::OsStringValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command};

use crate::config::ConfigError;
use crate::config::option_specs::{self, OPTION_SPECS, Spelled, Takes};
use crate::config::settings::{Settings, Source};

/// Words that are not flags. getopt_long puts them behind the flags, and memcached ignores them. So a container that
/// names the program itself starts with the command `memcached -m 64`.
const STRAY: &str = "stray";

/// The contents of the command line.
pub(super) enum Asked {
    Run(Settings),
    /// Whether it could run so.
    Check(Settings),
    Help,
    License,
    Version,
}

/// Reads the command line, its first word (the program's name) included.
pub(super) fn read(args: impl Iterator<Item = OsString>) -> Result<Asked, ConfigError> {
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => {
            return match error.kind() {
                ErrorKind::DisplayHelp => Ok(Asked::Help),
                ErrorKind::DisplayVersion => Ok(Asked::Version),
                _ => Err(ConfigError::Usage(explain(&error))),
            };
        }
    };
    if matches.get_flag("license") {
        return Ok(Asked::License);
    }
    let mut settings = Settings::default();
    for spec in OPTION_SPECS.iter().filter(|spec| spec.spelled != Spelled::Extended) {
        for value in matches.get_many::<OsString>(spec.name).into_iter().flatten() {
            settings.add(spec, &Source::CommandLine, value.clone())?;
        }
    }
    for word in matches.get_many::<OsString>(STRAY).into_iter().flatten() {
        settings.add_stray(word);
    }
    Ok(if matches.get_flag("check") { Asked::Check(settings) } else { Asked::Run(settings) })
}

/// Knows the flags, and not the meaning of their values. Values are parsed later, so that a refusal has the same words
/// wherever the value was given.
fn command() -> Command {
    let mut command = Command::new("filbert")
        .disable_help_flag(true)
        .disable_version_flag(true)
        // getopt_long takes any unambiguous beginning of a long name.
        .infer_long_args(true)
        .arg(Arg::new("help").short('h').long("help").action(ArgAction::Help))
        .arg(Arg::new("version").short('V').long("version").action(ArgAction::Version))
        // clap shows the version only when it has one; ours is printed by version().
        .version(env!("CARGO_PKG_VERSION"))
        .arg(Arg::new("license").short('i').long("license").action(ArgAction::SetTrue))
        .arg(Arg::new("check").long("check").action(ArgAction::SetTrue))
        .arg(Arg::new(STRAY).num_args(0..).value_parser(OsStringValueParser::new()));
    for spec in OPTION_SPECS {
        let arg = Arg::new(spec.name)
            .long(spec.name)
            .action(ArgAction::Append)
            .value_parser(OsStringValueParser::new());
        let arg = match spec.spelled {
            Spelled::Short(letter) => arg.short(letter),
            Spelled::Long => arg,
            Spelled::Extended => continue,
        };
        command = command.arg(match spec.takes {
            Takes::Switch => optional(arg, "true"),
            Takes::Count => optional(arg, "1"),
            // As getopt: the next word is the value, also when it begins with a dash (-p -1).
            Takes::Value | Takes::List => arg.num_args(1).allow_hyphen_values(true),
        });
    }
    command
}

/// A flag that takes a value behind `=` only, so that `-dv` and `-d -v` are two flags.
fn optional(arg: Arg, default: &'static str) -> Arg {
    arg.num_args(0..=1).require_equals(true).default_missing_value(default)
}

/// Clap's error, in one line.
pub(super) fn explain(error: &clap::Error) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let flag = context(ContextKind::InvalidArg).unwrap_or_default();
    match error.kind() {
        ErrorKind::UnknownArgument if !flag.starts_with('-') => {
            format!("{flag}: only flags are taken, and this is none")
        }
        ErrorKind::UnknownArgument => match context(ContextKind::SuggestedArg) {
            Some(near) => format!("{flag} is no flag; did you mean {near}?"),
            None => format!("{flag} is no flag"),
        },
        // clap names the argument as `--port <port>`; both spellings help more.
        ErrorKind::InvalidValue => {
            let long = flag.trim_start_matches('-').split([' ', '=']).next().unwrap_or_default();
            match option_specs::named(long).map(|spec| spec.spelled) {
                Some(Spelled::Short(letter)) => format!("-{letter} (--{long}) needs a value"),
                _ => format!("--{long} needs a value"),
            }
        }
        _ => {
            let text = error.to_string();
            text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(args: &[&str]) -> Result<Settings, ConfigError> {
        let args = std::iter::once("filbert").chain(args.iter().copied()).map(OsString::from);
        match read(args)? {
            Asked::Run(settings) => Ok(settings),
            _ => Err(ConfigError::Usage("asked for a text".into())),
        }
    }

    fn line_values(args: &[&str], name: &str) -> Vec<String> {
        let settings = line(args).expect("valid");
        let values = settings.of(name).map(|setting| setting.values().to_vec()).unwrap_or_default();
        values.into_iter().map(|value| value.into_string().expect("UTF-8")).collect()
    }

    #[test]
    fn clap_finds_no_fault_in_the_flags() {
        command().debug_assert();
    }

    #[test]
    fn the_habits_of_getopt_work() {
        assert_eq!(line_values(&["-m64"], "memory-limit"), ["64"]);
        assert_eq!(
            line_values(&["-m", "64", "--memory-limit=65", "--memory-l", "66"], "memory-limit"),
            ["64", "65", "66"]
        );
        // Also the beginning of --listen-backlog.
        assert_eq!(line_values(&["--listen", "a"], "listen"), ["a"]);
        assert_eq!(line_values(&["-p", "-1"], "port"), ["-1"]);
        assert_eq!(line_values(&["-p-1"], "port"), ["-1"]);
        assert_eq!(line_values(&["-vvv"], "verbose"), ["1", "1", "1"]);
        assert_eq!(line_values(&["-v", "--verbose", "--verbose=2"], "verbose"), ["1", "1", "2"]);
        assert_eq!(line_values(&["-dvMm64"], "daemon"), ["true"]);
        assert_eq!(line_values(&["-dvMm64"], "disable-evictions"), ["true"]);
        assert_eq!(line_values(&["-dvMm64"], "memory-limit"), ["64"]);
        assert_eq!(line_values(&["--disable-cas=false"], "disable-cas"), ["false"]);
        assert_eq!(line_values(&["-l", "a,b", "-lc"], "listen"), ["a,b", "c"]);
    }

    #[test]
    fn faults_of_the_command_line_name_the_flag() {
        for (args, expected) in [
            (&["-m"][..], "-m (--memory-limit) needs a value"),
            (&["--config"], "--config needs a value"),
            (&["--sparkle"], "--sparkle is no flag"),
            (&["-q"], "-q is no flag"),
            (&["--memory-limits", "3"], "--memory-limits is no flag; did you mean --memory-limit?"),
            (&["-e", "/x"], "-e /x: items do not live in a file here: --snapshot FILE"),
        ] {
            let error = line(args).expect_err(expected).to_string();
            assert!(error.starts_with(expected), "{args:?}: {error}");
        }
    }

    #[test]
    fn words_that_are_no_flag_are_passed_over_wherever_they_stand() {
        for args in [
            &["memcached", "-m", "64", "-v"][..],
            &["-m", "64", "memcached", "-v"],
            &["-m", "64", "-v", "memcached"],
            &["-m64", "-v", "--", "memcached"],
        ] {
            let settings = line(args).expect("valid");
            assert_eq!(settings.stray(), ["memcached"], "{args:?}");
            assert_eq!(line_values(args, "memory-limit"), ["64"], "{args:?}");
            assert_eq!(line_values(args, "verbose"), ["1"], "{args:?}");
        }
        assert_eq!(line(&["a", "-m", "64", "b", "--", "-c"]).expect("valid").stray(), ["a", "b", "-c"]);
    }

    #[test]
    fn help_and_its_like_win_over_what_follows() {
        let ask = |words: &[&str]| read(words.iter().map(OsString::from));
        assert!(matches!(ask(&["filbert", "-h", "--sparkle"]), Ok(Asked::Help)));
        assert!(matches!(ask(&["filbert", "--help"]), Ok(Asked::Help)));
        assert!(matches!(ask(&["filbert", "-vV"]), Ok(Asked::Version)));
        assert!(matches!(ask(&["filbert", "-i"]), Ok(Asked::License)));
        assert!(matches!(ask(&["filbert", "-m", "64", "--check", "-v"]), Ok(Asked::Check(_))));
    }
}
