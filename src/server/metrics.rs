//! This node's metrics for Prometheus. They are published through the `metrics` facade whenever somebody asks, so that
//! the code that executes commands does not know them.
//!
//! [`families`] has every name; `memcached_exporter` has those that dashboards made for
//! memcached know.

mod cluster;
pub mod families;
mod groups;
mod memcached_exporter;
mod recorder;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::Label;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use metrics_process::Collector;
use metrics_util::MetricKindMask;
use parking_lot::Mutex;

use crate::cache::clustered::ClusterContext;
use crate::logs::Lines;
use crate::peer::link::stats::Totals;
use crate::protocol::COMPATIBLE_VERSION;
use crate::server::ServerContext;
use crate::server::metrics::families::{FAMILIES, Kind};
use crate::server::metrics::recorder::{Made, Recorder};
use crate::stats::histogram::{AGE, BATCH, DURATION, Distribution, Scale, Tally};
use crate::stats::{self, Counter, Ending, Route};

/// A series that is no longer published, such as that of a peer that has gone, is forgotten after this long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// The metrics of one node.
pub struct Exporter {
    context: Arc<ServerContext>,
    cluster: Option<Arc<ClusterContext>>,
    requests: Arc<Requests>,
    log_lines: Lines,
    memcached_names: bool,
    recorder: Recorder,
    process: Collector,
    /// The part of each histogram that was already handed on.
    published: Mutex<HashMap<Series, Vec<Tally>>>,
}

/// Series of histograms: the recorder also keeps those of peers that have gone. At this number, series of new peers are
/// left out.
const SERIES_MAX: usize = 4_096;

/// A name with its labels.
type Series = (&'static str, Vec<Label>);

impl Exporter {
    /// Those of this node, and in this cluster. `memcached_names` adds the names
    /// of memcached_exporter.
    ///
    /// # Errors
    /// None that a table without buckets could not cause.
    pub fn new(
        (context, cluster): (Arc<ServerContext>, Option<Arc<ClusterContext>>),
        requests: Arc<Requests>,
        log_lines: Lines,
        memcached_names: bool,
    ) -> Result<Self, metrics_exporter_prometheus::BuildError> {
        let mut builder = PrometheusBuilder::new()
            .idle_timeout(MetricKindMask::COUNTER | MetricKindMask::GAUGE, Some(FORGOTTEN_AFTER));
        for (name, scale) in HISTOGRAMS {
            let bounds: Vec<f64> = scale.shown().collect();
            builder = builder.set_buckets_for_metric(Matcher::Full(name.into()), &bounds)?;
        }
        let recorder = Recorder::new(builder, describe);
        let (process, published) = (Collector::default(), Mutex::default());
        Ok(Self { context, cluster, requests, log_lines, memcached_names, recorder, process, published })
    }

    /// Everything, as it is now, in Prometheus' text format.
    pub async fn render(&self) -> String {
        let Made { recorder, handle } = self.recorder.get().await;
        metrics::with_local_recorder(recorder, || self.publish(&self.links()));
        let text = handle.render();
        match &self.cluster {
            Some(shared) => cluster::without_others(&text, shared),
            None => text,
        }
    }

    /// Must be called every few seconds. It hands on the timings; after a long time there would be too many to hand on
    /// at once.
    pub async fn keep_up(&self) {
        let Made { recorder, handle } = self.recorder.get().await;
        metrics::with_local_recorder(recorder, || self.publish_distributions(&self.links()));
        handle.run_upkeep();
    }

    /// What the links to each peer have done; there is none to a node that is alone.
    fn links(&self) -> BTreeMap<String, Totals> {
        self.cluster.as_ref().map(|shared| cluster::links(shared)).unwrap_or_default()
    }

    fn publish(&self, links: &BTreeMap<String, Totals>) {
        let context = &self.context;
        let counts = context.registry.totals();
        for &each in Counter::ALL.iter().filter(|counter| !counter.metric_name().is_empty()) {
            metrics::counter!(each.metric_name(), each.labels()).absolute(counts.get(each));
        }
        let micros = Duration::from_micros(counts.get(Counter::ListenDisabledMicros));
        metrics::counter!("filbert_listen_disabled_seconds_total").absolute(micros.as_secs());

        for (quota, direction) in [(&context.requests, "in"), (&context.replies, "out")] {
            let usage = quota.usage();
            let labels = [("direction", direction)];
            metrics::gauge!("filbert_buffers_used_bytes", &labels).set(usage.bytes as f64);
            metrics::gauge!("filbert_buffers_limit_bytes", &labels).set(usage.limit.unwrap_or(0) as f64);
            metrics::counter!("filbert_buffers_refused_total", &labels).absolute(usage.refused);
        }
        let accepting = context.connections.accepting.load(Ordering::Relaxed);
        for (name, value) in [
            ("filbert_connections_open", context.connections.open() as f64),
            ("filbert_connections_limit", context.connections.max() as f64),
            ("filbert_accepting_connections", f64::from(u8::from(accepting))),
            ("filbert_items", context.store.len() as f64),
            ("filbert_item_bytes", context.store.item_bytes() as f64),
            ("filbert_item_size_limit_bytes", context.store.item_size_max() as f64),
            ("filbert_memory_used_bytes", context.store.used_bytes() as f64),
            ("filbert_memory_limit_bytes", context.store.budget_bytes() as f64),
        ] {
            metrics::gauge!(name).set(value);
        }
        metrics::gauge!(
            "filbert_build_info",
            "version" => env!("CARGO_PKG_VERSION"),
            "memcached_version" => COMPATIBLE_VERSION,
        )
        .set(1.0);
        self.requests.publish();
        for (level, lines) in [("error", self.log_lines.errors()), ("warn", self.log_lines.warnings())] {
            metrics::counter!("filbert_log_lines_total", "level" => level).absolute(lines);
        }
        metrics::counter!("filbert_log_lines_lost_total").absolute(self.log_lines.lost());
        for (thread, age) in context.watchdog.ages() {
            metrics::gauge!("filbert_thread_beat_age_seconds", "thread" => thread).set(age.as_secs_f64());
        }
        groups::publish(&context.loads.groups(), &context.store);
        self.process.collect();
        if let Some(shared) = &self.cluster {
            cluster::publish(shared, links);
        }
        if self.memcached_names {
            memcached_exporter::publish(context, &counts);
        }
        self.publish_distributions(links);
    }

    fn publish_distributions(&self, links: &BTreeMap<String, Totals>) {
        let durations = self.context.registry.durations();
        for (kind, by_route) in stats::Kind::ALL.iter().zip(&durations) {
            // Alone, nothing is ever forwarded.
            let routes = Route::ALL.iter().zip(by_route).take(1 + usize::from(self.cluster.is_some()));
            for (route, by_ending) in routes {
                for (ending, distribution) in Ending::ALL.iter().zip(by_ending) {
                    let labels = vec![
                        Label::new("command", kind.name()),
                        Label::new("route", route.name()),
                        Label::new("result", ending.name()),
                    ];
                    self.hand_on(("filbert_command_duration_seconds", labels), distribution);
                }
            }
        }
        for group in self.context.loads.groups().iter().filter(|group| group.origin.is_some()) {
            let labels = vec![Label::new("group", group.options.name.clone())];
            self.hand_on(("filbert_group_load_duration_seconds", labels), &group.stats.latency());
        }
        let ages = self.context.registry.eviction_ages();
        self.hand_on(("filbert_eviction_age_seconds", Vec::new()), &ages);
        for (peer, totals) in links {
            let labels = || vec![Label::new("peer", peer.clone())];
            self.hand_on(("filbert_forward_duration_seconds", labels()), &totals.durations);
            self.hand_on(("filbert_forward_batch_operations", labels()), &totals.batch_sizes);
        }
    }

    /// Hands on what is new since the last time. Only the mean of a bucket is known; counts and sum stay right.
    fn hand_on(&self, series: Series, distribution: &Distribution) {
        let (name, labels) = &series;
        let mut published = self.published.lock();
        if published.len() >= SERIES_MAX && !published.contains_key(&series) {
            return;
        }
        let histogram = metrics::histogram!(*name, labels.clone());
        let before = published.entry(series).or_default();
        let begins_anew = before.iter().zip(distribution.tallies()).any(|(old, new)| new.count < old.count);
        if begins_anew {
            before.clear();
        }
        before.resize(distribution.tallies().len(), Tally::default());
        let scale = distribution.scale();
        let above = scale.shown().chain([f64::INFINITY]);
        let below = [0.0].into_iter().chain(scale.shown().map(f64::next_up));
        let bounds = below.zip(above);
        for ((old, new), (below, above)) in before.iter_mut().zip(distribution.tallies()).zip(bounds) {
            let (count, sum) = (new.count - old.count, new.sum.wrapping_sub(old.sum));
            if count == 0 {
                continue;
            }
            // Stays within its bucket, despite rounding, and although a count may be read before its sum.
            let mean = (sum as f64 / count as f64 / scale.per_unit).clamp(below, above);
            histogram.record_many(mean, usize::try_from(count).unwrap_or(usize::MAX));
            *old = *new;
        }
    }
}

/// HTTP requests by the first digit of their status.
#[derive(Debug, Default)]
pub struct Requests([AtomicU64; 5]);

impl Requests {
    const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

    /// One was answered with this status.
    pub fn count(&self, status: u16) {
        if let Some(count) = self.0.get(usize::from(status / 100).wrapping_sub(1)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn publish(&self) {
        // Nothing here is answered with 1xx.
        for (class, count) in Self::CLASSES.iter().zip(&self.0).skip(1) {
            metrics::counter!("filbert_http_requests_total", "code" => *class)
                .absolute(count.load(Ordering::Relaxed));
        }
    }
}

/// Where the buckets of each histogram end.
const HISTOGRAMS: [(&str, &Scale); 5] = [
    ("filbert_group_load_duration_seconds", &DURATION),
    ("filbert_command_duration_seconds", &DURATION),
    ("filbert_forward_duration_seconds", &DURATION),
    ("filbert_forward_batch_operations", &BATCH),
    ("filbert_eviction_age_seconds", &AGE),
];

fn describe() {
    Collector::default().describe();
    for family in FAMILIES {
        match family.kind {
            Kind::Counter => metrics::describe_counter!(family.name, family.help),
            Kind::Gauge => metrics::describe_gauge!(family.name, family.help),
            Kind::Histogram => metrics::describe_histogram!(family.name, family.help),
        }
    }
}
