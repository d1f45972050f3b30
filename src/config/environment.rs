//! The environment: `FILBERT_` and an option's long name in capitals.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::config::ConfigError;
use crate::config::option_specs::{OPTION_SPECS, OptionSpec, VARIABLE_PREFIX, nearest};
use crate::config::settings::{Settings, Source};

/// The settings from the environment.
#[derive(Debug, Default)]
pub(super) struct Environment {
    pub settings: Settings,
    /// `FILBERT_CONFIG`.
    pub config: Option<PathBuf>,
    /// `MEMCACHED_PORT_FILENAME`.
    pub port_file: Option<PathBuf>,
    /// `MEMCACHED_SASL_PWDB`: the users of `-S`.
    pub sasl_users: Option<PathBuf>,
    /// `FILBERT_TEST_HOLD`, of debug builds.
    pub held_by: Option<PathBuf>,
    pub warnings: Vec<String>,
}

/// Reads the environment.
///
/// An unknown variable causes a warning, not an error: Kubernetes and Docker links put `FILBERT_...` variables of their
/// own into every container beside a service named like ours.
pub(super) fn read(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Environment, ConfigError> {
    let mut read = Environment::default();
    // In the order of names: warnings always have the same order, and FILBERT_EXTENDED comes before the variables of
    // single words, which win.
    let mut variables: Vec<_> = variables.collect();
    variables.sort();
    for (name, value) in variables {
        // Compose files write `FILBERT_USER: ${USER_OF_CACHE}`: an empty value counts as not set.
        if value.is_empty() {
            continue;
        }
        let Some(name) = name.to_str() else { continue };
        match name {
            "FILBERT_CONFIG" => read.config = Some(value.into()),
            "MEMCACHED_PORT_FILENAME" => read.port_file = Some(value.into()),
            "MEMCACHED_SASL_PWDB" => read.sasl_users = Some(value.into()),
            "FILBERT_TEST_HOLD" if cfg!(debug_assertions) => read.held_by = Some(value.into()),
            _ if !name.starts_with(VARIABLE_PREFIX) || is_not_ours(name, &value) => {}
            _ => match OPTION_SPECS.iter().find(|spec| spec.variable() == name) {
                Some(spec) => read.settings.add(spec, &Source::Environment, value)?,
                None => {
                    let bare = name[VARIABLE_PREFIX.len()..].to_lowercase().replace('_', "-");
                    let near = nearest(&bare, |_| true).map(OptionSpec::variable);
                    let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
                    read.warnings.push(format!("{name} in the environment is no option: ignored{near}"));
                }
            },
        }
    }
    Ok(read)
}

/// Whether a variable that begins with our prefix belongs to another program.
fn is_not_ours(name: &str, value: &OsStr) -> bool {
    // Our own tests.
    name.starts_with("FILBERT_TEST_")
        || name == "FILBERT_SEED"
        // kubernetes.io, "Discovering services": what a Service called filbert, or filbert-...,
        // puts into each container of its namespace.
        || name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.starts_with("FILBERT_PORT_")
        || name.ends_with("_PORT") && value.to_str().is_some_and(|value| value.contains("://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment_of(variables: &[(&str, &str)]) -> Environment {
        read(variables.iter().map(|(name, value)| (name.into(), value.into()))).expect("valid")
    }

    #[test]
    fn the_environment_has_flags_and_words_of_o() {
        let read = environment_of(&[
            ("FILBERT_MEMORY_LIMIT", "64"),
            ("FILBERT_IDLE_TIMEOUT", "30"),
            ("FILBERT_EXTENDED", "idle_timeout=20,modern"),
            ("FILBERT_CONFIG", "/etc/filbert.toml"),
            ("MEMCACHED_PORT_FILENAME", "/run/ports"),
            ("MEMCACHED_SASL_PWDB", "/run/users"),
            ("FILBERT_USER", ""),
            ("HOME", "/root"),
        ]);
        assert_eq!(read.settings.of("memory-limit").expect("given").last(), "64");
        assert_eq!(read.settings.of("idle-timeout").expect("given").last(), "30");
        assert!(read.settings.of("user").is_none(), "an empty variable is none");
        assert_eq!(read.config, Some("/etc/filbert.toml".into()));
        assert_eq!(read.port_file, Some("/run/ports".into()));
        assert_eq!(read.sasl_users, Some("/run/users".into()));
        assert_eq!(read.warnings, [""; 0]);
    }

    #[test]
    fn variables_that_a_service_called_filbert_brings_are_not_ours() {
        let read = environment_of(&[
            ("FILBERT_SERVICE_HOST", "10.0.0.1"),
            ("FILBERT_SERVICE_PORT", "11211"),
            ("FILBERT_PORT", "tcp://10.0.0.1:11211"),
            ("FILBERT_PORT_11211_TCP_ADDR", "10.0.0.1"),
            ("FILBERT_TEST_NODES", "3"),
            ("FILBERT_SEED", "7"),
        ]);
        assert!(read.settings.of("port").is_none());
        assert_eq!(read.warnings, [""; 0]);
        let given = [("FILBERT_MEMORY", "64"), ("FILBERT_PORT", "11212"), ("FILBERT_QQ", "1")];
        let read = environment_of(&given);
        assert_eq!(read.settings.of("port").expect("given").last(), "11212");
        assert_eq!(
            read.warnings,
            [
                "FILBERT_MEMORY in the environment is no option: ignored; did you mean FILBERT_MEMORY_LIMIT?",
                "FILBERT_QQ in the environment is no option: ignored",
            ]
        );
    }
}
