//! Settings into options: values parsed, defaults filled in, contradictions refused.

use std::path::PathBuf;

use crate::config::settings::Settings;
use crate::config::{ConfigError, Launch, cluster, http, listen, option_specs, snapshot, values};
use crate::logs;
use crate::protocol::codec::Protocol;
use crate::server::{Listen, Security, UnixListen, guests};
use crate::tls::{ClientVerify, MinVersion};
use crate::{node, process, server, store, tls};

/// memcached.c, settings_init.
pub(super) const DEFAULT_THREADS: usize = 4;
const DEFAULT_CONNECTIONS: usize = 1024;
const DEFAULT_BACKLOG: u32 = 1024;
const DEFAULT_UNIX_MODE: u32 = 0o700;

/// memcached listens on every address; a cache without a password should do so only when told to.
const DEFAULT_HOST: &str = "127.0.0.1";

/// memcached.c warns above this many threads.
const MANY_THREADS: usize = 64;
/// More than any machine has; without a bound, a slip would start threads until it failed.
const THREADS_MAX: usize = 1024;

/// Requests on their way in may hold this part of `-m` beside it, and replies on their way out may hold the same; this
/// is more than the least that memcached accepts.
const BUFFERS_PART: u64 = 8;
const BUFFERS_MIN_BYTES: usize = 1 << 20;

/// What memcached's int holds.
const INT_MAX: u32 = i32::MAX as u32;

/// The options under construction.
struct Reader<'a> {
    settings: &'a Settings,
    warnings: Vec<String>,
}

/// Parses and checks everything. `cpus` bounds the default number of threads; `sasl_users` is the
/// environment's file of users for `-S`.
pub(super) fn launch(
    settings: &Settings,
    cpus: usize,
    sasl_users: Option<PathBuf>,
) -> Result<Launch, ConfigError> {
    let mut reader = Reader { settings, warnings: Vec::new() };
    reader.check_refused()?;
    let store = reader.store()?;
    let mut server = reader.server(cpus, store.budget_bytes)?;
    reader.protocol(&mut server, sasl_users)?;
    let cluster = cluster::options(settings, &server, &mut reader.warnings)?;
    let process = process::Options {
        daemon: settings.switch("daemon")?,
        keep_output: server.verbosity > 0,
        pid_file: settings.path("pidfile")?,
        user: settings.value("user", user)?,
        connections: server.max_connections as u64,
        peer_files: cluster.is_some().then_some(guests::FILES),
    };
    let logs = logs::Options {
        format: settings.value(option_specs::LOG_FORMAT, values::log_format)?.unwrap_or_default(),
        target: reader.log_target()?,
        verbosity: server.verbosity,
    };
    if process.daemon && !process.keep_output && logs.target == logs::Target::Stderr {
        reader.warnings.push(
            "in the background (-d) nothing more is logged: give --log-file, or --log-syslog".to_owned(),
        );
    }
    let idle = settings.without_effect();
    if !idle.is_empty() {
        reader.warnings.push(format!("accepted as memcached does, without effect here: {}", idle.join(", ")));
    }
    if !settings.stray().is_empty() {
        reader.warnings.push(format!("passed over as memcached does: {}", settings.stray().join(" ")));
    }
    let http = http::options(settings)?;
    let snapshot = snapshot::options(settings, cluster.is_some(), &mut reader.warnings)?;
    let node = node::Options { store, server, http, cluster, snapshot, ..node::Options::default() };
    Ok(Launch { node, process, logs, warnings: reader.warnings })
}

/// Makes every path that is used after start independent of the working directory, which a
/// daemon leaves.
pub(super) fn make_paths_absolute(launch: &mut Launch) {
    let server = &mut launch.node.server;
    let tls = server.tls.as_mut();
    let tls =
        tls.into_iter().flat_map(|tls| [Some(&mut tls.chain_cert), Some(&mut tls.key), tls.ca_cert.as_mut()]);
    let log_file = match &mut launch.logs.target {
        logs::Target::File(path) => Some(path),
        logs::Target::Stderr | logs::Target::Syslog => None,
    };
    let paths = [
        launch.process.pid_file.as_mut(),
        launch.node.port_file.as_mut(),
        launch.node.snapshot.as_mut().map(|snapshot| &mut snapshot.path),
        log_file,
        server.auth_file.as_mut(),
        server.unix.as_mut().map(|unix| &mut unix.path),
    ];
    let token = launch.node.http.as_mut().and_then(|http| http.token_file.as_mut());
    let cluster = launch.node.cluster.as_mut().into_iter().flat_map(|cluster| {
        let (etcd, peer) = (&mut cluster.membership, cluster.peer.tls.as_mut());
        let peer = peer.into_iter().flat_map(|tls| [&mut tls.cert, &mut tls.key, &mut tls.ca]);
        [etcd.ca.as_mut(), etcd.cert.as_mut(), etcd.key.as_mut()].into_iter().flatten().chain(peer)
    });
    for path in paths.into_iter().chain(tls).flatten().chain(token).chain(cluster) {
        // Without a working directory the path stays as it is, and opening it says what is wrong.
        if let Ok(absolute) = std::path::absolute(&path) {
            *path = absolute;
        }
    }
}

impl Reader<'_> {
    /// Options where one value asks for our usual behaviour.
    fn check_refused(&self) -> Result<(), ConfigError> {
        self.settings.value("udp-port", |text| match text.parse() {
            Ok(0_u16) => Ok(()),
            _ => Err(option_specs::NO_UDP.into()),
        })?;
        Ok(())
    }

    /// The clients' protocol, and the users that may log in.
    fn protocol(&self, server: &mut server::Options, sasl_users: Option<PathBuf>) -> Result<(), ConfigError> {
        let given = self.settings.value("protocol", values::protocol)?;
        server.sasl = self.settings.switch("enable-sasl")?;
        server.protocol = given.unwrap_or_default();
        let Some(sasl) = self.settings.of("enable-sasl").filter(|_| server.sasl) else { return Ok(()) };
        if given == Some(Protocol::Ascii) {
            return Err(sasl.refuse("SASL belongs to the binary protocol, which -B ascii turns off"));
        }
        if server.auth_file.is_some() {
            return Ok(());
        }
        let Some(users) = sasl_users else {
            let why =
                "needs a file of user:password lines: -Y FILE, or MEMCACHED_SASL_PWDB in the environment";
            return Err(sasl.refuse(why));
        };
        server.auth_file = Some(users);
        // memcached.c, main: with SASL alone there are no text clients.
        server.protocol = given.unwrap_or(Protocol::Binary);
        Ok(())
    }

    fn log_target(&self) -> Result<logs::Target, ConfigError> {
        let file = self.settings.path(option_specs::LOG_FILE)?;
        match (file, self.settings.switch(option_specs::LOG_SYSLOG)?) {
            (None, false) => Ok(logs::Target::Stderr),
            (None, true) => Ok(logs::Target::Syslog),
            (Some(path), false) => Ok(logs::Target::File(path)),
            (Some(_), true) => {
                let why = "there is one log: give --log-file or --log-syslog, not both";
                Err(self
                    .settings
                    .of(option_specs::LOG_SYSLOG)
                    .map_or(ConfigError::Usage(why.into()), |given| given.refuse(why)))
            }
        }
    }

    fn store(&self) -> Result<store::Options, ConfigError> {
        let default = store::Options::default();
        let memory = self.settings.value("memory-limit", values::memory)?;
        let item = self.settings.value("max-item-size", values::item_size)?;
        let options = store::Options {
            budget_bytes: memory.unwrap_or(default.budget_bytes),
            item_size_max: item.unwrap_or(default.item_size_max),
            evict: !self.settings.switch("disable-evictions")?,
            cas: !self.settings.switch("disable-cas")?,
            ..default
        };
        // memcached.c: "Cannot set item size limit higher than 1/2 of memory max."
        if options.item_size_max as u64 > options.budget_bytes / 2 {
            let why = format!(
                "the largest item (-I, {} bytes) may take half the memory (-m, {} bytes) and no more",
                options.item_size_max, options.budget_bytes
            );
            // One of the two was given, since the defaults agree.
            let given = self.settings.of("max-item-size").or(self.settings.of("memory-limit"));
            return Err(match given {
                Some(given) => given.refuse(why),
                None => ConfigError::Usage(why),
            });
        }
        Ok(options)
    }

    fn server(&mut self, cpus: usize, memory_bytes: u64) -> Result<server::Options, ConfigError> {
        let settings = self.settings;
        let share = usize::try_from(memory_bytes / BUFFERS_PART).unwrap_or(usize::MAX).max(BUFFERS_MIN_BYTES);
        // memcached has one limit for both since 1.6.7, and had two before.
        let request_bytes = settings.value("read-buf-mem-limit", values::buffers)?;
        let reply_bytes = settings.value("resp-obj-mem-limit", values::buffers)?.or(request_bytes);
        let mut tls = self.tls()?;
        let unix = self.unix()?;
        let port = settings.value("port", values::port)?.unwrap_or(Some(values::DEFAULT_PORT));
        let listen = self.listen(port, unix.is_some(), tls.is_some())?;
        if let Some(tls) = &mut tls {
            self.authorities(tls, &listen)?;
        }
        let threads = settings.value("threads", values::number(1..=THREADS_MAX))?;
        if let Some(threads) = threads
            && threads > MANY_THREADS.max(cpus)
        {
            let said = settings.of("threads").map(|setting| setting.said()).unwrap_or_default();
            self.warnings.push(format!("{said}: memcached advises no more threads than CPUs ({cpus})"));
        }
        Ok(server::Options {
            port: listen.first().map_or(0, |listen| listen.port),
            listen,
            unix,
            threads: threads.unwrap_or(DEFAULT_THREADS.min(cpus)),
            max_connections: settings
                .value("conn-limit", values::number(1..=INT_MAX as usize))?
                .unwrap_or(DEFAULT_CONNECTIONS),
            reject_over_limit: settings.switch_given("maxconns-fast")?.unwrap_or(true),
            backlog: settings
                .value("listen-backlog", values::number(0..=INT_MAX))?
                .unwrap_or(DEFAULT_BACKLOG),
            request_bytes: request_bytes.unwrap_or(share),
            reply_bytes: reply_bytes.unwrap_or(share),
            idle_timeout: settings.value("idle-timeout", values::idle_timeout)?.flatten(),
            verbosity: self.verbosity()?,
            flush_allowed: !settings.switch("disable-flush-all")?,
            dump_allowed: !settings.switch("disable-dumping")?,
            watch_allowed: !settings.switch("disable-watch")?,
            shutdown_allowed: settings.switch("enable-shutdown")?,
            prefix_delimiter: settings.value("prefix-delimiter", values::delimiter)?,
            auth_file: settings.path("auth-file")?,
            tls,
            ..server::Options::default()
        })
    }

    fn unix(&mut self) -> Result<Option<UnixListen>, ConfigError> {
        let mode = self.settings.value("unix-mask", values::mode)?;
        let Some(path) = self.settings.path("unix-socket")? else {
            if let Some(mask) = self.settings.of("unix-mask") {
                self.warnings.push(format!("{} has no effect without a unix socket (-s)", mask.said()));
            }
            return Ok(None);
        };
        Ok(Some(UnixListen { path, mode: mode.unwrap_or(DEFAULT_UNIX_MODE) }))
    }

    /// Where to listen for TCP. `port` is `None` for any free one.
    fn listen(&mut self, port: Option<u16>, unix: bool, tls: bool) -> Result<Vec<Listen>, ConfigError> {
        let off = port == Some(0);
        let mut all: Vec<Listen> = Vec::new();
        if let Some(given) = self.settings.of("listen") {
            for value in given.values() {
                let refuse = |why: String| given.refuse_value(value, why);
                let text = value.to_str().ok_or_else(|| refuse("is not UTF-8 text".into()))?;
                for listen in listen::addresses(text, port.unwrap_or(0)).map_err(refuse)? {
                    if listen.security == Security::Plain && !tls {
                        return Err(refuse("notls: means something with -Z only".into()));
                    }
                    if listen.security == Security::MutualTls && !tls {
                        return Err(refuse("mtls: needs -Z, and a certificate of this node".into()));
                    }
                    // An address that was given twice, perhaps by two tools, is one listener.
                    if !all.contains(&listen) {
                        all.push(listen);
                    }
                }
            }
            if unix || off {
                let cause = if unix { "a unix socket (-s) turns TCP off" } else { "-p 0 turns TCP off" };
                self.warnings.push(format!("{} has no effect: {cause}", given.said()));
            }
        }
        if unix {
            return Ok(Vec::new());
        }
        if off {
            let why = "turns TCP off, so that a unix socket (-s) is needed to be reached at all";
            return Err(match self.settings.of("port") {
                Some(port) => port.refuse(why),
                None => ConfigError::Usage(why.into()),
            });
        }
        if all.is_empty() {
            let host = Some(DEFAULT_HOST.to_owned());
            all.push(Listen { host, port: port.unwrap_or(0), security: Security::Tls });
        }
        Ok(all)
    }

    fn verbosity(&self) -> Result<u8, ConfigError> {
        let Some(given) = self.settings.of("verbose") else {
            return Ok(0);
        };
        let mut sum = 0_u8;
        for value in given.values() {
            let text = value.to_str().unwrap_or_default();
            let times = values::verbosity(text).map_err(|why| given.refuse_value(value, why))?;
            sum = sum.saturating_add(times);
        }
        Ok(sum.min(3))
    }

    fn tls(&mut self) -> Result<Option<tls::Options>, ConfigError> {
        let settings = self.settings;
        let chain_cert = settings.path("ssl-chain-cert")?;
        let key = settings.path("ssl-key")?;
        let ca_cert = settings.path("ssl-ca-cert")?;
        let verify = settings.value("ssl-verify-mode", values::verify_mode)?.unwrap_or(ClientVerify::None);
        let min_version =
            settings.value("ssl-min-version", values::min_version)?.unwrap_or(MinVersion::Tls12);
        settings.value("ssl-keyformat", values::key_format)?;

        let enabled = settings.switch("enable-ssl")?;
        if !enabled || settings.of("unix-socket").is_some() {
            self.tls_without_effect(enabled);
            return Ok(None);
        }
        let ssl = |name| settings.of(name).or_else(|| settings.of("enable-ssl"));
        let refuse = |name, why: &str| match ssl(name) {
            Some(given) => given.refuse(why),
            None => ConfigError::Usage(why.into()),
        };
        let Some(chain_cert) = chain_cert else {
            return Err(refuse("enable-ssl", "needs a certificate: -o ssl_chain_cert=FILE,ssl_key=FILE"));
        };
        if verify != ClientVerify::None && ca_cert.is_none() {
            return Err(refuse(
                "ssl-verify-mode",
                "needs the authorities that client certificates come from: -o ssl_ca_cert=FILE",
            ));
        }
        // memcached.c, usage: "private key, if not part of the -ssl_chain_cert".
        let key = key.unwrap_or_else(|| chain_cert.clone());
        Ok(Some(tls::Options { chain_cert, key, ca_cert, verify, min_version, mutual: false }))
    }

    /// Whether there are authorities for listeners that ask for a client certificate, and such
    /// listeners for the authorities.
    fn authorities(&mut self, tls: &mut tls::Options, listen: &[Listen]) -> Result<(), ConfigError> {
        tls.mutual = listen.iter().any(|listen| listen.security == Security::MutualTls);
        if tls.mutual && tls.ca_cert.is_none() {
            let why = "mtls: needs the authorities that client certificates come from: -o ssl_ca_cert=FILE";
            let given = self.settings.of("listen");
            return Err(given.map_or(ConfigError::Usage(why.into()), |given| given.refuse(why)));
        }
        let asked_for = tls.mutual || tls.verify != ClientVerify::None;
        if let Some(ca) = self.settings.of("ssl-ca-cert").filter(|_| !asked_for) {
            self.warnings.push(format!(
                "{} has no effect: client certificates are not asked for (ssl_verify_mode is 0)",
                ca.said()
            ));
        }
        Ok(())
    }

    /// A person who wanted TLS should learn that it is off.
    fn tls_without_effect(&mut self, enabled: bool) {
        let cause = if enabled { "the unix socket (-s) is plain text" } else { "TLS is off without -Z" };
        for name in
            ["enable-ssl", "ssl-chain-cert", "ssl-key", "ssl-ca-cert", "ssl-verify-mode", "ssl-min-version"]
        {
            if let Some(given) = self.settings.of(name)
                && (enabled || name != "enable-ssl")
            {
                self.warnings.push(format!("{} has no effect: {cause}", given.said()));
            }
        }
    }
}

fn user(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("needs the name of a user".into()) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests;
