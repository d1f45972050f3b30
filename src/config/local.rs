//! `filbert local-cluster`: a few options of its own, and behind `--` those of its nodes.

use std::ffi::OsString;

use clap::builder::OsStringValueParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command};

use crate::config::line::{self, Asked};
use crate::config::{ConfigError, Outcome, environment, file, node, option_specs, values};
use crate::local_cluster::Options;
use crate::local_cluster::die_with_parent::{self, DieWithParent};

/// The first word of a command line for a local cluster.
const WORD: &str = "local-cluster";

const DEFAULT_NODES: u16 = 3;
/// More than a machine is worth, and few enough for a table on a screen.
const NODES_MAX: u16 = 16;

/// Options that the nodes cannot be given: their addresses and how they are found, and options that would keep this
/// program from talking to them or ending them.
const DECIDED: [&str; 20] = [
    "port",
    "listen",
    "unix-socket",
    "http-listen",
    "etcd-endpoints",
    "cluster",
    "node-id",
    "peer-listen",
    "peer-advertise",
    "advertise",
    "etcd-user",
    "etcd-password-file",
    "etcd-ca",
    "etcd-cert",
    "etcd-key",
    "enable-ssl",
    "auth-file",
    "daemon",
    "pidfile",
    "user",
];

const HELP: &str = "\
filbert local-cluster [--nodes=<num>] [--port=<num>] [-- <options of the nodes>]

Starts an etcd and a few nodes on 127.0.0.1, says where they are, shows what
they log, and stops all of them on Ctrl-C. Nothing is kept. Needs etcd on the
PATH (Debian and Ubuntu: apt-get install etcd-server).

  --nodes=<num>   1 to 16 (default: 3)
  --port=<num>    the first node's port for clients; the others' follow. A free
                  one takes the place of one that is taken; 0 picks free ones
                  for all (default: 11211)

    filbert local-cluster --nodes 5 -- -m 512 -v
";

/// The first word of a command line that does not start with a flag; `None` when there is none.
pub(super) fn read(
    args: &[OsString],
    environment: &[(OsString, OsString)],
) -> Option<Result<Outcome, ConfigError>> {
    let (word, rest) = args.get(1..)?.split_first()?;
    match word.to_str()? {
        WORD => Some(local_cluster(rest, environment)),
        die_with_parent::WORD => Some(die_with_parent(rest)),
        _ => None,
    }
}

fn local_cluster(words: &[OsString], environment: &[(OsString, OsString)]) -> Result<Outcome, ConfigError> {
    let matches = match command().try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => return Ok(Outcome::Print(HELP.into())),
        Err(error) => return Err(ConfigError::Usage(format!("{WORD}: {}", line::explain(&error)))),
    };
    let number = |name: &str, default, range| -> Result<u16, ConfigError> {
        let Some(given) = matches.get_one::<OsString>(name) else {
            return Ok(default);
        };
        let said = format!("{WORD} --{name} {}", given.display());
        values::number(range)(&given.to_string_lossy()).map_err(|why| ConfigError::value(said, why))
    };
    let nodes = number("nodes", DEFAULT_NODES, 1..=NODES_MAX)?;
    let port = number("port", values::DEFAULT_PORT, 0..=u16::MAX)?;
    let node_args: Vec<_> = matches.get_many::<OsString>("of-nodes").into_iter().flatten().cloned().collect();

    let hidden_variables: Vec<_> =
        DECIDED.into_iter().filter_map(option_specs::named).map(option_specs::OptionSpec::variable).collect();
    check_node(&node_args, environment, &hidden_variables)?;
    Ok(Outcome::LocalCluster(Options {
        nodes,
        port,
        node_args,
        hidden_variables,
        scratch: std::env::temp_dir(),
    }))
}

fn command() -> Command {
    let value = |name| Arg::new(name).long(name).value_parser(OsStringValueParser::new());
    Command::new(WORD)
        .no_binary_name(true)
        .disable_help_flag(true)
        .arg(Arg::new("help").short('h').long("help").action(ArgAction::Help))
        .arg(value("nodes"))
        .arg(value("port"))
        .arg(Arg::new("of-nodes").num_args(0..).last(true).value_parser(OsStringValueParser::new()))
}

/// Refuses here what a node would refuse, once instead of once for each node.
fn check_node(
    node_args: &[OsString],
    environment: &[(OsString, OsString)],
    hidden: &[String],
) -> Result<(), ConfigError> {
    let with = |more: &[&str]| {
        let words = std::iter::once("filbert".into()).chain(node_args.iter().cloned());
        words.chain(more.iter().map(OsString::from)).collect::<Vec<_>>()
    };
    let Asked::Run(settings) = line::read(with(&[]).into_iter())? else {
        return Err(ConfigError::Usage(format!(
            "{WORD}: behind -- only what a node can be started with is taken"
        )));
    };
    let seen = environment.iter().filter(|(name, _)| !hidden.iter().any(|hidden| name == hidden.as_str()));
    let seen: Vec<_> = seen.cloned().collect();
    let file = settings.path(option_specs::CONFIG)?.or(environment::read(seen.clone().into_iter())?.config);
    let file = file.as_deref().map(file::read).transpose()?.unwrap_or_default();
    for settings in [settings, file] {
        if let Some(given) = DECIDED.into_iter().find_map(|name| settings.of(name)) {
            return Err(given.refuse(format!("cannot be told to the nodes of {WORD}")));
        }
    }
    let all = with(&["--etcd-endpoints=127.0.0.1:2379", "--peer-listen=127.0.0.1:0"]);
    node::load(all, seen).map(drop)
}

fn die_with_parent(words: &[OsString]) -> Result<Outcome, ConfigError> {
    let parent = words.first().and_then(|word| word.to_str()?.parse().ok());
    match parent {
        Some(parent) => Ok(Outcome::DieWithParent(DieWithParent { parent, command: words[1..].to_vec() })),
        None => Err(ConfigError::Usage(format!("{} is for {WORD} alone", die_with_parent::WORD))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(args: &str, variables: &[(&str, &str)]) -> Result<Outcome, ConfigError> {
        crate::config::load(
            format!("filbert {args}").split_whitespace().map(OsString::from),
            variables.iter().map(|(name, value)| (name.into(), value.into())),
        )
    }

    fn options(args: &str, variables: &[(&str, &str)]) -> Options {
        match asked(args, variables) {
            Ok(Outcome::LocalCluster(options)) => options,
            other => panic!("{args}: {other:?}"),
        }
    }

    #[test]
    fn three_nodes_on_the_usual_ports_unless_told_otherwise() {
        let default = options("local-cluster", &[]);
        assert_eq!((default.nodes, default.port, default.node_args.len()), (3, 11211, 0));
        let told = options("local-cluster --nodes=5 --port 0 -- -m 512 -v --zone z", &[]);
        assert_eq!((told.nodes, told.port), (5, 0));
        assert_eq!(told.node_args, ["-m", "512", "-v", "--zone", "z"]);
    }

    #[test]
    fn the_nodes_do_not_see_variables_of_what_is_decided() {
        let told = options("local-cluster", &[("FILBERT_ETCD_CA", "/no/such"), ("FILBERT_DAEMON", "yes")]);
        for hidden in ["FILBERT_ETCD_CA", "FILBERT_DAEMON", "FILBERT_PORT"] {
            assert!(told.hidden_variables.iter().any(|name| name == hidden), "{hidden}");
        }
        assert_eq!(told.hidden_variables.len(), DECIDED.len(), "each is an option");
    }

    #[test]
    fn a_file_may_say_what_a_node_may_be_told() {
        let directory = tempfile::tempdir().expect("there is room");
        let path = directory.path().join("filbert.toml");
        let file = path.to_str().expect("UTF-8");
        let with = format!("local-cluster -- --config {file}");
        let groups = "memory-limit = 64\n[[group]]\nname = 'g'\nprefix = 'g:'\n";
        std::fs::write(&path, groups).expect("it can be written");
        assert_eq!(options(&with, &[]).node_args, ["--config", file]);
        options("local-cluster", &[("FILBERT_CONFIG", file)]);
        std::fs::write(&path, format!("port = 5\n{groups}")).expect("it can be written");
        for (args, variables) in [(&*with, &[][..]), ("local-cluster", &[("FILBERT_CONFIG", file)])] {
            let error = asked(args, variables).expect_err("a port").to_string();
            assert!(error.contains("port") && error.contains("cannot be told to the nodes"), "{error}");
        }
        std::fs::write(&path, groups.replace("name", "nam")).expect("it can be written");
        assert!(asked(&with, &[]).is_err());
    }

    #[test]
    fn what_a_node_would_refuse_is_refused_at_once() {
        for (args, expected) in [
            ("local-cluster --nodes 0", "local-cluster --nodes 0: needs a whole number from 1 to 16"),
            ("local-cluster --nodes 17", "local-cluster --nodes 17: needs a whole number from 1 to 16"),
            ("local-cluster --port -1", "local-cluster: -1 is no flag"),
            (
                "local-cluster --port=65536",
                "local-cluster --port 65536: needs a whole number from 0 to 65535",
            ),
            ("local-cluster 3", "local-cluster: 3: only flags are taken, and this is none"),
            ("local-cluster --sparkle", "local-cluster: --sparkle is no flag"),
            ("local-cluster -- -m lots", "-m lots: needs a number of megabytes"),
            ("local-cluster -- -p 5", "-p 5: cannot be told to the nodes of local-cluster"),
            ("local-cluster -- --node-id a", "--node-id a: cannot be told to the nodes of local-cluster"),
            ("local-cluster -- -d", "-d: cannot be told to the nodes of local-cluster"),
            ("local-cluster -- -h", "local-cluster: behind -- only what a node can be started with"),
            ("local-cluster-child", "local-cluster-child is for local-cluster alone"),
        ] {
            let error = asked(args, &[]).expect_err(args).to_string();
            assert!(error.starts_with(expected), "{args}: {error}");
        }
        let error = asked("local-cluster", &[("FILBERT_WEIGHT", "0")]).expect_err("zero").to_string();
        assert!(error.starts_with("FILBERT_WEIGHT=0: needs"), "{error}");
    }

    #[test]
    fn the_page_tells_what_it_takes() {
        let Ok(Outcome::Print(page)) = asked("local-cluster -h", &[]) else {
            panic!("no page");
        };
        for word in ["--nodes=<num>", &format!("1 to {NODES_MAX} (default: {DEFAULT_NODES})"), "--port=<num>"]
        {
            assert!(page.contains(word), "{word}");
        }
        assert!(page.lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn a_child_is_told_its_parent_and_its_program() {
        let Ok(Outcome::DieWithParent(child)) = asked("local-cluster-child 7 etcd --name a", &[]) else {
            panic!("no child");
        };
        assert_eq!(
            child,
            DieWithParent { parent: 7, command: ["etcd", "--name", "a"].map(OsString::from).to_vec() }
        );
    }
}
