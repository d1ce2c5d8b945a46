//! The metrics, by the conventions of Prometheus: base units, counters that end in `_total`, labels
//! with few values.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    prometheus_text, text, DescriptorEncoder, EncodeMetric, NoLabelSet,
};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use roster::{CallbackStats, Kind, Reason, Snapshot};

use crate::{count, Age, Facts, WorkerState};

/// What every name begins with.
const PREFIX: &str = "nginx_worker_manager";

/// How the metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's own text format, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// Its content type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The metrics of a node. An error is one of the encoder.
pub fn encode(snapshot: Snapshot, facts: Facts, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Metrics { snapshot, facts }));
    let mut text = String::new();
    match format {
        Format::Text => prometheus_text::encode(&mut text, &registry)?,
        Format::OpenMetrics => text::encode(&mut text, &registry)?,
    }
    Ok(text)
}

#[derive(Debug)]
struct Metrics {
    snapshot: Snapshot,
    facts: Facts,
}

type Labels = Vec<(&'static str, String)>;

/// Writes families of metrics.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    /// One metric for each set of labels.
    fn family<M: EncodeMetric>(
        &mut self,
        (name, help, unit): (&str, &str, Option<&Unit>),
        kind: MetricType,
        metrics: impl IntoIterator<Item = (Labels, M)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit, kind)?;
        for (labels, metric) in metrics {
            metric.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: f64) -> fmt::Result {
        let metric = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        ConstGauge::new(value).encode(metric)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(metric)
    }
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut to = Writer(encoder);
        self.node(&mut to)?;
        self.workers(&mut to)?;
        self.worker_counters(&mut to)?;
        self.draining(&mut to)?;
        self.connections(&mut to)?;
        self.reloads(&mut to)?;
        self.callbacks(&mut to)?;
        self.zone(&mut to)
    }
}

impl Metrics {
    fn kind(&self, kind: Kind) -> u64 {
        let mut counts = Kind::ALL.iter().zip(&self.snapshot.kinds);
        counts.find(|(k, _)| **k == kind).map_or(0, |(_, count)| *count)
    }

    fn node(&self, to: &mut Writer<'_>) -> fmt::Result {
        let facts = &self.facts;
        to.family(
            ("info", "Versions of the module and of nginx", None),
            // The text format has no type for it and OpenMetrics forbids no gauge.
            MetricType::Gauge,
            [(
                vec![
                    ("version", facts.version.to_string()),
                    ("nginx_version", facts.nginx.clone()),
                ],
                ConstGauge::new(1),
            )],
        )?;
        let started = facts.started as f64 / 1000.0;
        to.gauge("start_time", "When the history began", Some(&Unit::Seconds), started)?;
        let generation = self.snapshot.generation as f64;
        to.gauge("generation", "The generation that was committed last", None, generation)?;
        let up = f64::from(self.snapshot.lost_master.is_none());
        to.gauge("master_up", "Whether the master process lives", None, up)
    }

    fn workers(&self, to: &mut Writer<'_>) -> fmt::Result {
        let snapshot = &self.snapshot;
        let states = Age::ALL.into_iter().flat_map(|age| {
            WorkerState::ALL.into_iter().map(move |state| {
                let number = count(snapshot, state, |g| Age::of(g, snapshot) == age);
                let labels =
                    vec![("generation", age.name().into()), ("state", state.name().into())];
                (labels, ConstGauge::new(number as u64))
            })
        });
        to.family(
            ("workers", "Workers that have not ended", None),
            MetricType::Gauge,
            states.collect::<Vec<_>>(),
        )?;
        let current = snapshot.generations.iter().find(|g| g.number == snapshot.generation);
        let expected = current.map_or(0, |g| g.expected);
        let help = "Workers that the current generation is to have";
        to.gauge("workers_expected", help, None, expected.into())
    }

    fn worker_counters(&self, to: &mut Writer<'_>) -> fmt::Result {
        let starts = self.kind(Kind::WorkerStart);
        to.counter("worker_starts", "Workers that started", starts)?;
        let exits = self.kind(Kind::WorkerExit);
        to.counter("worker_exits", "Workers that ended in an orderly way", exits)?;
        let losses = self.snapshot.losses.iter().enumerate().filter_map(|(index, number)| {
            let reason = loss_reason(index, *number)?;
            Some((vec![("reason", reason)], ConstCounter::new(*number)))
        });
        to.family(
            ("worker_losses", "Workers that died without a word", None),
            MetricType::Counter,
            losses,
        )?;
        let hangs = self.kind(Kind::WorkerHung);
        to.counter("worker_hangs", "Heartbeats that workers missed", hangs)?;
        let help = "Workers that started in the place of one of their generation that had ended";
        to.counter("worker_respawns", help, self.snapshot.respawns)
    }

    fn draining(&self, to: &mut Writer<'_>) -> fmt::Result {
        let now = self.facts.now.monotonic;
        let draining = self.snapshot.workers.iter().filter_map(|w| w.draining_since);
        let oldest = draining.map(|since| now.saturating_sub(since)).max().unwrap_or(0);
        let help = "Since when the worker that drains for the longest time does, 0 if none does";
        let oldest = oldest as f64 / 1000.0;
        to.gauge("oldest_draining_worker_age", help, Some(&Unit::Seconds), oldest)
    }

    fn connections(&self, to: &mut Writer<'_>) -> fmt::Result {
        let snapshot = &self.snapshot;
        let mut own: Vec<_> =
            snapshot.workers.iter().filter(|w| w.generation == snapshot.generation).collect();
        // Two of one index, while one that died is not known to be dead: the newer one.
        own.sort_by_key(|w| (w.index, w.since_boot));
        own.reverse();
        own.dedup_by_key(|w| w.index);
        let connections = own.iter().rev().flat_map(|w| {
            let (active, idle) = w.connections.unwrap_or_default();
            [("active", active), ("idle", idle)].map(|(state, number)| {
                let labels = vec![("worker", w.index.to_string()), ("state", state.to_string())];
                (labels, ConstGauge::new(u64::from(number)))
            })
        });
        to.family(
            ("worker_connections", "Open connections at the last heartbeat", None),
            MetricType::Gauge,
            connections.collect::<Vec<_>>(),
        )
    }

    fn reloads(&self, to: &mut Writer<'_>) -> fmt::Result {
        let reloads = self.snapshot.reloads;
        let results = [("success", reloads.succeeded), ("failure", reloads.failed)];
        to.family(
            ("reloads", "Attempts to reload", None),
            MetricType::Counter,
            results.map(|(result, number)| {
                (vec![("result", result.to_string())], ConstCounter::new(number))
            }),
        )?;
        let successful = f64::from(!reloads.last_failed);
        let help = "Whether the last attempt to reload succeeded, 1 if there was none";
        to.gauge("config_last_reload_successful", help, None, successful)?;
        let at = reloads.succeeded_at.unwrap_or(self.facts.started);
        let help = "When the configuration in force was loaded";
        let name = "config_last_reload_success_timestamp";
        to.gauge(name, help, Some(&Unit::Seconds), at as f64 / 1000.0)
    }

    fn callbacks(&self, to: &mut Writer<'_>) -> fmt::Result {
        let of_each = || Kind::ALL.iter().zip(&self.snapshot.callbacks);
        let labels = |kind: &Kind| vec![("event", kind.name().to_string())];
        to.family(
            ("callback_duration", "How long callbacks held the lock", Some(&Unit::Seconds)),
            MetricType::Histogram,
            of_each().map(|(kind, stats)| (labels(kind), Histogram(*stats))),
        )?;
        to.family(
            ("callback_failures", "Callbacks that failed", None),
            MetricType::Counter,
            of_each().map(|(kind, stats)| (labels(kind), ConstCounter::new(stats.failures))),
        )?;
        let now = self.facts.now.monotonic;
        let running = self.snapshot.callback.map_or(0, |(_, since)| now.saturating_sub(since));
        let help = "Since when the callback that runs does, 0 if none does";
        to.gauge("callback_running", help, Some(&Unit::Seconds), running as f64 / 1000.0)
    }

    fn zone(&self, to: &mut Writer<'_>) -> fmt::Result {
        let room = self.facts.room;
        let gauges = |workers: usize, generations: usize| {
            [("workers", workers), ("generations", generations)].map(|(kind, number)| {
                (vec![("kind", kind.to_string())], ConstGauge::new(number as u64))
            })
        };
        let total = gauges(room.workers, room.generations);
        let name = ("zone_slots", "Places in the zone", None);
        to.family(name, MetricType::Gauge, total)?;
        let used = gauges(self.snapshot.workers.len(), self.snapshot.generations.len());
        let name = ("zone_slots_used", "Places in the zone that are taken", None);
        to.family(name, MetricType::Gauge, used)?;
        let help = "Workers that serve without being counted, since the zone was full";
        to.gauge("workers_uncounted", help, None, self.facts.uncounted as f64)?;
        let help = "Workers that drain in a zone that a reload has left";
        to.gauge("former_zone_workers", help, None, self.facts.former_workers as f64)?;
        let help = "Lines of the event log that could not be written";
        to.counter("event_log_lost_lines", help, self.facts.lost_lines)
    }
}

/// The name of the reason that is counted at an index. Signals other than those of a crash and of
/// kill -9 only have one if there is something to count.
fn loss_reason(index: usize, number: u64) -> Option<String> {
    const ALWAYS: [u8; 5] = [4, 6, 7, 9, 11];
    let reason = match index {
        0 => Reason::Unknown,
        1 => Reason::Oom,
        2 => return Some("exit".to_string()),
        _ => Reason::Signal { number: u8::try_from(index.checked_sub(3)?).ok()?, core: false },
    };
    let always = match reason {
        Reason::Signal { number, .. } => ALWAYS.contains(&number),
        _ => true,
    };
    (always || number > 0).then(|| reason.to_string())
}

/// The durations of callbacks.
struct Histogram(CallbackStats);

impl EncodeMetric for Histogram {
    fn encode(&self, mut to: prometheus_client::encoding::MetricEncoder) -> fmt::Result {
        let CallbackStats { time, buckets, .. } = self.0;
        let bounds = CallbackStats::BOUNDS.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(buckets).collect();
        let number = buckets.iter().map(|(_, number)| number).sum();
        let exemplars: Option<&std::collections::HashMap<usize, Exemplar<NoLabelSet, f64>>> = None;
        to.encode_histogram(time as f64 / 1e6, number, &buckets, exemplars)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn lines(format: Format) -> Vec<String> {
        let (snapshot, facts) = fixture::node();
        let text = encode(snapshot, facts, format).expect("text");
        text.lines().map(str::to_string).collect()
    }

    #[test]
    fn they_say_what_is() {
        for format in [Format::Text, Format::OpenMetrics] {
            let lines = lines(format);
            for expected in [
                r#"nginx_worker_manager_info{version="1.2.3",nginx_version="1.28.3"} 1"#,
                r#"nginx_worker_manager_workers{generation="current",state="running"} 1"#,
                r#"nginx_worker_manager_workers{generation="previous",state="draining"} 1"#,
                r#"nginx_worker_manager_workers{generation="older",state="hung"} 0"#,
                r#"nginx_worker_manager_worker_losses_total{reason="signal 11"} 1"#,
                r#"nginx_worker_manager_worker_losses_total{reason="signal 9"} 0"#,
                "nginx_worker_manager_worker_respawns_total 1",
                r#"nginx_worker_manager_reloads_total{result="failure"} 1"#,
                "nginx_worker_manager_config_last_reload_successful 0.0",
                r#"nginx_worker_manager_worker_connections{worker="0",state="idle"} 7"#,
                "nginx_worker_manager_oldest_draining_worker_age_seconds 1.7",
                r#"nginx_worker_manager_callback_duration_seconds_count{event="worker_start"} 1"#,
            ] {
                assert!(lines.iter().any(|l| l == expected), "{expected}\n{}", lines.join("\n"));
            }
            for (bound, number) in [("0.0001", 1), ("+Inf", 1)] {
                // The order of the labels is the encoder's.
                let of_bucket = |l: &&String| {
                    l.contains("_duration_seconds_bucket{")
                        && l.contains(r#"event="worker_start""#)
                        && l.contains(&format!("le=\"{bound}\""))
                };
                let found = lines.iter().find(of_bucket);
                let ends = found.map(|l| l.ends_with(&format!(" {number}")));
                assert_eq!(ends, Some(true), "{bound}: {found:?}");
            }
        }
    }

    #[test]
    fn the_formats_differ_where_they_do() {
        let (text, open) = (lines(Format::Text), lines(Format::OpenMetrics));
        let counter = |name: &str| format!("# TYPE nginx_worker_manager_{name} counter");
        assert!(text.contains(&counter("reloads_total")), "{}", text.join("\n"));
        assert!(open.contains(&counter("reloads")));
        assert!(!text.contains(&"# EOF".to_string()));
        assert_eq!(open.last().map(String::as_str), Some("# EOF"));
    }
}
