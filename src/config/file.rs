//! The configuration file: TOML, one key an option, named as the long flag or the word of `-o`.

use std::path::Path;

use crate::config::ConfigError;
use crate::config::groups;
use crate::config::option_specs::{self, OPTION_SPECS, OptionSpec, Spelled, Takes};
use crate::config::settings::{Settings, Source};

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<Settings, ConfigError> {
    let refuse = |why: String| ConfigError::File { path: path.to_owned(), why };
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    let table: toml::Table = text.parse().map_err(|error| refuse(format!("is not TOML: {error}")))?;

    let source = Source::File(path.to_owned());
    let mut settings = Settings::default();
    for (key, value) in table {
        if key == groups::KEY {
            continue;
        }
        let spec = file_key(&key).map_err(|why| refuse(format!("{key}: {why}")))?;
        if settings.of(spec.name).is_some() {
            return Err(refuse(format!("{key}: given twice")));
        }
        let values = words(value, spec).map_err(|why| refuse(format!("{key}: {why}")))?;
        for value in values {
            settings.add(spec, &source, value.into())?;
        }
    }
    Ok(settings)
}

/// The option that a key of the file names; `idle_timeout` is as good as `idle-timeout`.
fn file_key(key: &str) -> Result<&'static OptionSpec, String> {
    let name = key.replace('_', "-");
    match option_specs::named(&name) {
        Some(spec) if spec.name == option_specs::CONFIG => Err("a file cannot name another".into()),
        Some(spec) => Ok(spec),
        None => match OPTION_SPECS.iter().find(|spec| spec.spelled == Spelled::Short(single(key))) {
            Some(spec) => Err(format!("is no key; the long name is {}", spec.name)),
            None => match option_specs::nearest(&name, |_| true) {
                Some(near) => Err(format!("is no key; did you mean {}?", near.name)),
                None => Err("is no key; the keys are the long names of the flags (filbert -h)".into()),
            },
        },
    }
}

/// The only character of a key, for `m = 64`; NUL is no flag.
fn single(key: &str) -> char {
    let mut letters = key.chars();
    match (letters.next(), letters.next()) {
        (Some(letter), None) => letter,
        _ => '\0',
    }
}

/// A TOML value as the words that the command line would have.
fn words(value: toml::Value, spec: &OptionSpec) -> Result<Vec<String>, String> {
    use toml::Value;
    match value {
        Value::Array(values) if spec.takes == Takes::List => {
            let mut all = Vec::new();
            for value in values {
                match value {
                    Value::String(word) => all.push(word),
                    other => return Err(format!("needs strings, not {}", other.type_str())),
                }
            }
            Ok(all)
        }
        Value::String(word) => Ok(vec![word]),
        Value::Integer(number) => Ok(vec![number.to_string()]),
        Value::Float(number) => Ok(vec![number.to_string()]),
        Value::Boolean(on) if matches!(spec.takes, Takes::Switch | Takes::Count) => {
            // `verbose = true` is one -v.
            let word = if spec.takes == Takes::Switch { on.to_string() } else { u8::from(on).to_string() };
            Ok(vec![word])
        }
        other => Err(format!("takes no {}", other.type_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(text: &str) -> Result<Settings, ConfigError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("filbert.toml");
        std::fs::write(&path, text).expect("written");
        read(&path)
    }

    #[test]
    fn a_file_has_the_long_names_as_keys() {
        let settings = file_of(
            "memory-limit = 512\nlisten = ['127.0.0.1', '[::1]:11212']\ndisable-evictions = true\n\
             idle-timeout = 30\nssl_key = '/k.pem'\nmax-item-size = '2m'\nverbose = 2\n\
             slab-growth-factor = 1.08\n",
        )
        .expect("valid");
        assert_eq!(settings.of("memory-limit").expect("given").last(), "512");
        assert_eq!(settings.of("listen").expect("given").values(), ["127.0.0.1", "[::1]:11212"]);
        assert!(settings.switch("disable-evictions").expect("a switch"));
        assert_eq!(settings.of("ssl-key").expect("given").last(), "/k.pem");
        assert_eq!(settings.without_effect().len(), 1);
    }

    #[test]
    fn faults_of_a_file_name_the_file_and_the_key() {
        for (text, expected) in [
            ("memory-limits = 3", "memory-limits: is no key; did you mean memory-limit?"),
            ("etcd_endpoint = 3", "etcd_endpoint: is no key; did you mean etcd-endpoints?"),
            ("zzz = 3", "zzz: is no key; the keys are the long names"),
            ("m = 3", "m: is no key; the long name is memory-limit"),
            ("config = 'x'", "config: a file cannot name another"),
            ("memory-limit = true", "memory-limit: takes no boolean"),
            ("memory-limit = [3]", "memory-limit: takes no array"),
            ("listen = [3]", "listen: needs strings, not integer"),
            ("[ssl]\nkey = 'x'", "ssl: is no key"),
            ("idle-timeout = 1\nidle_timeout = 2", "given twice"),
            ("memory-limit", "is not TOML"),
        ] {
            let error = file_of(text).expect_err(text).to_string();
            assert!(error.contains("filbert.toml: ") && error.contains(expected), "{text}: {error}");
        }
        let error = read(Path::new("/nowhere/filbert.toml")).expect_err("missing").to_string();
        assert!(error.starts_with("/nowhere/filbert.toml: No such file"), "{error}");
        let error = file_of("extended = 'sparkle'").expect_err("unknown word").to_string();
        assert!(error.contains("extended = sparkle in ") && error.contains("is no option of -o"), "{error}");
    }
}
