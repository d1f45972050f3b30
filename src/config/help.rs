//! The texts that `-h`, `-V` and `-i` print.

/// The memcached whose behaviour is the norm here, and which `version` answers: clients such as
/// libmemcached refuse a server whose version they do not know.
pub use crate::protocol::COMPATIBLE_VERSION as MEMCACHED_VERSION;

/// What `-V` prints: our version and the memcached we stand for.
pub fn version() -> String {
    format!("filbert {} (memcached {MEMCACHED_VERSION})\n", env!("CARGO_PKG_VERSION"))
}

/// The output of `-h`. memcached's own test files look for words in it to decide what to test. Clients' test suites
/// accept only a server whose page begins with `memcached` and its version (Test::Memcached; Dalli's
/// memcached_mock.rb).
pub(super) fn page() -> String {
    format!(
        "memcached {MEMCACHED_VERSION} compatible server: filbert {}\n{}",
        env!("CARGO_PKG_VERSION"),
        include_str!("help.txt")
    )
}

/// What `-i` prints.
pub(super) fn license() -> String {
    format!(
        "filbert {}\n\nLicensed under either of the Apache License, Version 2.0\n\
         <https://www.apache.org/licenses/LICENSE-2.0> or the MIT license\n\
         <https://opensource.org/licenses/MIT>, at your option.\n",
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::option_specs::{Fate, OPTION_SPECS, Spelled};

    #[test]
    fn the_page_begins_with_a_version_of_memcached() {
        assert!(page().starts_with(&format!("memcached {MEMCACHED_VERSION} ")), "{}", page());
    }

    #[test]
    fn the_page_names_every_option() {
        let page = page();
        for spec in OPTION_SPECS {
            let words = match spec.spelled {
                Spelled::Short(letter) if spec.fate == Fate::Used => {
                    vec![format!("-{letter}, --{}", spec.name)]
                }
                Spelled::Short(letter) => vec![format!("-{letter}")],
                Spelled::Long => vec![format!("--{}", spec.name)],
                // The prefixes cover the many options without effect.
                Spelled::Extended if spec.fate == Fate::NoEffect => continue,
                Spelled::Extended => vec![spec.extended_word()],
            };
            for word in words {
                assert!(page.contains(&word), "{word} is missing");
            }
        }
    }

    #[test]
    fn the_documents_have_a_row_for_every_option() {
        let document = include_str!("../../docs/configuration.md");
        for spec in OPTION_SPECS.iter().filter(|spec| spec.fate == Fate::Used) {
            let name = match spec.spelled {
                Spelled::Extended => format!("| `-o {}` |", spec.extended_word()),
                _ => format!("| `--{}` |", spec.name),
            };
            for word in [name, format!("| `{}` |", spec.variable())] {
                assert!(document.contains(&word), "{word} is missing");
            }
        }
    }

    #[test]
    fn the_page_fits_a_terminal() {
        for line in page().lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn memcacheds_tests_see_what_there_is_and_no_more() {
        // t/lib/MemcachedTest.pm: a word found means that the feature is there to be tested.
        let page = page().to_lowercase();
        for there in ["enable-ssl", "unix-socket"] {
            assert!(page.contains(there), "{there}");
        }
        for missing in ["ext_path", "proxy_config", "no_drop_privileges"] {
            assert!(!page.contains(missing), "{missing}");
        }
    }
}
