//! The settings from each place: the command line, the environment and the file, laid over each other.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::config::ConfigError;
use crate::config::option_specs::{self, Fate, OptionSpec, Spelled, Takes};

/// Options that were given, by name; later layers win.
#[derive(Debug, Default)]
pub(super) struct Settings {
    given: BTreeMap<&'static str, Setting>,
    /// Words of the command line that are neither flags nor values of one.
    stray: Vec<String>,
}

/// One option as it was given.
#[derive(Debug)]
pub(super) struct Setting {
    spec: &'static OptionSpec,
    source: Source,
    /// In the order given; never empty.
    values: Vec<OsString>,
}

/// Where an option was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    CommandLine,
    Environment,
    File(PathBuf),
}

impl Settings {
    /// Adds one value of an option, as one place says it.
    ///
    /// # Errors
    ///
    /// An option that is refused whatever its value, and a word of `-o` that does not exist.
    pub fn add(
        &mut self,
        spec: &'static OptionSpec,
        source: &Source,
        value: OsString,
    ) -> Result<(), ConfigError> {
        if spec.name == option_specs::EXTENDED {
            return self.add_extended(source, &value);
        }
        // -U 0 and -B ascii ask for our usual behaviour; launch.rs decides which values do so, with all other values.
        if let Fate::Refused(why) = spec.fate
            && !matches!(spec.name, "udp-port" | "protocol")
            && !(spec.takes == Takes::Switch && value == "false")
        {
            return Err(ConfigError::value(said(spec, source, &value), why));
        }
        self.given
            .entry(spec.name)
            .or_insert_with(|| Setting { spec, source: source.clone(), values: Vec::new() })
            .values
            .push(value);
        Ok(())
    }

    /// Notes a word that has no meaning.
    pub fn add_stray(&mut self, word: &OsStr) {
        self.stray.push(word.to_string_lossy().into_owned());
    }

    /// The words that have no meaning.
    pub fn stray(&self) -> &[String] {
        &self.stray
    }

    /// Adds the value of `-o`: words divided by commas, some with `=value`.
    fn add_extended(&mut self, source: &Source, words: &OsStr) -> Result<(), ConfigError> {
        let extended =
            option_specs::named(option_specs::EXTENDED).ok_or_else(|| ConfigError::Usage("no -o".into()))?;
        let refuse =
            |word: &str, why: String| Err(ConfigError::value(said(extended, source, OsStr::new(word)), why));
        let Some(words) = words.to_str() else {
            return refuse(&words.to_string_lossy(), "is not UTF-8 text".into());
        };
        for word in words.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word, None),
            };
            let Some((spec, off)) = option_specs::extended(name) else {
                return refuse(word, unknown_word(name));
            };
            let value = match (spec.takes, value) {
                (_, Some(value)) => value,
                (Takes::Switch, None) if off => "false",
                (Takes::Switch, None) => "true",
                // It has no effect, so nothing is missing.
                (_, None) if spec.fate == Fate::NoEffect => "",
                (_, None) => return refuse(word, format!("needs a value: -o {name}=...")),
            };
            self.add(spec, source, value.into())?;
        }
        Ok(())
    }

    /// Lays `higher` over these: what it gives replaces what stands here, lists whole, each
    /// word of `-o` by itself.
    pub fn overlay(&mut self, higher: Settings) {
        self.given.extend(higher.given);
        self.stray.extend(higher.stray);
    }

    /// The option of that name, where it was given.
    pub fn of(&self, name: &str) -> Option<&Setting> {
        debug_assert!(option_specs::named(name).is_some(), "{name} is no option");
        self.given.get(name)
    }

    /// A switch: off unless given as on.
    pub fn switch(&self, name: &str) -> Result<bool, ConfigError> {
        Ok(self.switch_given(name)?.unwrap_or(false))
    }

    /// A switch, where it was given.
    pub fn switch_given(&self, name: &str) -> Result<Option<bool>, ConfigError> {
        self.of(name).map(|setting| setting.parse(crate::config::values::boolean)).transpose()
    }

    /// An option's value through `parse`, where it was given.
    pub fn value<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        self.of(name).map(|setting| setting.parse(parse)).transpose()
    }

    /// A path, where it was given.
    pub fn path(&self, name: &str) -> Result<Option<PathBuf>, ConfigError> {
        let Some(setting) = self.of(name) else {
            return Ok(None);
        };
        if setting.last().is_empty() {
            return Err(setting.refuse("needs the path of a file"));
        }
        Ok(Some(PathBuf::from(setting.last())))
    }

    /// How to say the options that have no effect here, in the order of the table.
    pub fn without_effect(&self) -> Vec<String> {
        let idle = option_specs::OPTION_SPECS.iter().filter(|spec| spec.fate == Fate::NoEffect);
        idle.filter_map(|spec| self.given.get(spec.name)).map(Setting::said_name).collect()
    }
}

impl Setting {
    /// Every value, in the order given.
    pub fn values(&self) -> &[OsString] {
        &self.values
    }

    /// The value that counts.
    pub fn last(&self) -> &OsStr {
        self.values.last().map_or(OsStr::new(""), OsString::as_os_str)
    }

    /// The value that counts, parsed; `parse` says what is allowed.
    pub fn parse<T>(&self, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, ConfigError> {
        let text = self.last().to_str().ok_or_else(|| self.refuse("is not UTF-8 text"))?;
        parse(text.trim()).map_err(|why| self.refuse(why))
    }

    /// Refuses this option's value.
    pub fn refuse(&self, why: impl Into<String>) -> ConfigError {
        self.refuse_value(self.last(), why)
    }

    /// Refuses one of this option's values.
    pub fn refuse_value(&self, value: &OsStr, why: impl Into<String>) -> ConfigError {
        ConfigError::value(said(self.spec, &self.source, value), why)
    }

    /// How to say the option where it was given: `-m 64`, `FILBERT_MEMORY_LIMIT=64`.
    pub fn said(&self) -> String {
        said(self.spec, &self.source, self.last())
    }

    fn said_name(&self) -> String {
        said_name(self.spec, &self.source)
    }
}

/// `-m lots`, `FILBERT_MEMORY_LIMIT=lots`, `memory-limit = lots in filbert.toml`.
fn said(spec: &OptionSpec, source: &Source, value: &OsStr) -> String {
    let name = said_name(spec, source);
    let value = value.to_string_lossy();
    match source {
        Source::CommandLine if spec.takes == Takes::Switch && value == "true" => name,
        Source::CommandLine if spec.spelled == Spelled::Extended => format!("{name}={value}"),
        Source::CommandLine if value.is_empty() => format!("{name} ''"),
        Source::CommandLine => format!("{name} {value}"),
        Source::Environment => format!("{name}={value}"),
        Source::File(path) => format!("{} = {value} in {}", spec.name, path.display()),
    }
}

/// `-m`, `FILBERT_MEMORY_LIMIT`, `memory-limit in filbert.toml`.
fn said_name(spec: &OptionSpec, source: &Source) -> String {
    match source {
        Source::CommandLine => match spec.spelled {
            Spelled::Short(letter) => format!("-{letter}"),
            Spelled::Long => format!("--{}", spec.name),
            Spelled::Extended => format!("-o {}", spec.extended_word()),
        },
        Source::Environment => spec.variable(),
        Source::File(path) => format!("{} in {}", spec.name, path.display()),
    }
}

/// Why a word of `-o` is refused.
fn unknown_word(word: &str) -> String {
    let bare = word.strip_prefix("no_").unwrap_or(word);
    if bare.starts_with("ext_") {
        return option_specs::NO_EXTSTORE.into();
    }
    if bare.starts_with("proxy_") {
        return option_specs::NO_PROXY.into();
    }
    let words: Vec<_> = option_specs::OPTION_SPECS
        .iter()
        .filter(|spec| spec.spelled == Spelled::Extended && spec.fate == Fate::Used)
        .map(OptionSpec::extended_word)
        .collect();
    let near = option_specs::nearest(&bare.replace('_', "-"), |spelled| spelled == Spelled::Extended);
    match near {
        Some(near) => format!("is no option of -o; did you mean {}?", near.extended_word()),
        None => format!("is no option of -o; those with an effect are {}", words.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(source: &Source, given: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        let mut settings = Settings::default();
        for (name, value) in given {
            settings.add(option_specs::named(name).expect("an option"), source, value.into())?;
        }
        Ok(settings)
    }

    #[test]
    fn each_place_is_named_in_its_own_words() {
        let file = Source::File("/etc/filbert.toml".into());
        for (source, expected) in [
            (Source::CommandLine, "-m lots"),
            (Source::Environment, "FILBERT_MEMORY_LIMIT=lots"),
            (file, "memory-limit = lots in /etc/filbert.toml"),
        ] {
            let settings = settings(&source, &[("memory-limit", "lots")]).expect("parsed later");
            assert_eq!(settings.of("memory-limit").expect("given").said(), expected);
        }
    }

    #[test]
    fn words_of_o_add_up_and_the_last_of_a_kind_counts() {
        let line = Source::CommandLine;
        let settings = settings(
            &line,
            &[("extended", "modern,idle_timeout=3,no_maxconns_fast"), ("extended", "idle_timeout=5")],
        )
        .expect("all known");
        assert_eq!(settings.of("idle-timeout").expect("given").said(), "-o idle_timeout=5");
        assert_eq!(settings.switch_given("maxconns-fast").expect("a switch"), Some(false));
        assert_eq!(settings.without_effect(), ["-o modern"]);
    }

    #[test]
    fn words_of_o_that_are_refused_say_why() {
        for (given, reason) in [
            ("ext_path=/x:1G", "-o ext_path=/x:1G: items are kept in memory only"),
            ("proxy_config=x.lua", "-o proxy_config=x.lua: there is no Lua proxy"),
            ("ssl_ciphers=ALL", "-o ssl_ciphers=ALL: an OpenSSL cipher list"),
            ("idle_timeout", "-o idle_timeout: needs a value"),
            ("idle_timeot=3", "-o idle_timeot=3: is no option of -o; did you mean idle_timeout?"),
            ("sparkle", "-o sparkle: is no option of -o; those with an effect are idle_timeout, "),
        ] {
            let error = settings(&Source::CommandLine, &[("extended", given)]).expect_err(given);
            assert!(error.to_string().starts_with(reason), "{error}");
        }
    }

    #[test]
    fn a_higher_layer_replaces_lists_whole_and_words_one_by_one() {
        let mut low = settings(
            &Source::Environment,
            &[("listen", "a"), ("listen", "b"), ("ssl-key", "k"), ("idle-timeout", "1")],
        )
        .expect("valid");
        low.overlay(
            settings(&Source::CommandLine, &[("listen", "c"), ("extended", "idle_timeout=2")])
                .expect("valid"),
        );
        assert_eq!(low.of("listen").expect("given").values(), ["c"]);
        assert_eq!(low.of("idle-timeout").expect("given").last(), "2");
        assert_eq!(low.of("ssl-key").expect("given").last(), "k");
    }
}
