//! One node's settings, from all three places together.

use std::ffi::OsString;

use crate::config::line::Asked;
use crate::config::settings::Settings;
use crate::config::{
    ConfigError, Outcome, check, environment, file, groups, help, launch, line, option_specs,
};
use crate::node::{GroupsOptions, ReadGroups};
use crate::process;

/// Reads the command line (its first word is the program's name), the environment and the file
/// that one of them may name.
pub(super) fn load(
    args: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
) -> Result<Outcome, ConfigError> {
    let (line, check_only) = match line::read(args.into_iter())? {
        Asked::Run(settings) => (settings, false),
        Asked::Check(settings) => (settings, true),
        Asked::Help => return Ok(Outcome::Print(help::page())),
        Asked::License => return Ok(Outcome::Print(help::license())),
        Asked::Version => return Ok(Outcome::Print(help::version())),
    };
    let environment = environment::read(environment.into_iter())?;
    let path = line.path(option_specs::CONFIG)?.or(environment.config);
    let file = path.as_deref().map(file::read).transpose()?.unwrap_or_default();

    let mut all = file;
    all.overlay(environment.settings);
    all.overlay(line);
    // A machine that does not tell has as many CPUs as memcached's default assumes.
    let cpus = std::thread::available_parallelism().map_or(launch::DEFAULT_THREADS, usize::from);
    let mut launch = launch::launch(&all, cpus, environment.sasl_users)?;
    launch.node.port_file = environment.port_file;
    launch.node.held_by = environment.held_by;
    launch.warnings.splice(0..0, environment.warnings);
    if let Some(path) = path {
        let value_max = launch.node.store.item_size_max;
        let path = std::path::absolute(&path).unwrap_or(path);
        launch.node.groups = GroupsOptions {
            at_start: groups::read(&path, value_max)?,
            read_again: Some(ReadGroups::new(move || {
                groups::read(&path, value_max).map_err(|error| error.to_string())
            })),
        };
    }
    let bound = process::memory::bound();
    launch.warnings.extend(memory_warning(&all, launch.node.store.budget_bytes, bound));
    if check_only {
        return check::check(&launch).map(Outcome::Print);
    }
    if launch.process.daemon {
        launch::make_paths_absolute(&mut launch);
    }
    Ok(Outcome::Launch(Box::new(launch)))
}

/// The warning about a budget larger than the memory. `bound` is the memory, and what sets it.
pub(super) fn memory_warning(
    settings: &Settings,
    budget_bytes: u64,
    bound: Option<(u64, &str)>,
) -> Option<String> {
    let (bytes, whose) = bound.filter(|(bytes, _)| budget_bytes > *bytes)?;
    let said = settings.of("memory-limit").map_or("the default of -m".to_owned(), |given| given.said());
    Some(format!(
        "{said}: more than the {} MiB that {whose}: the system may end the process when the cache fills up",
        bytes >> 20
    ))
}
