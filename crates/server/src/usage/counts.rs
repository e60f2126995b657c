//! The numbers of one endpoint since the start, under the names that Databricks' metrics of an endpoint have.
//!
//! Owns the counters and their text for Prometheus. What is not known of one endpoint alone is left out.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::Entry;
use crate::endpoints::Endpoint;

/// Upper bounds of the latencies' buckets, in milliseconds.
const MILLISECONDS: [u64; 16] =
    [1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 120_000, 300_000];

/// How long a share of the processors is measured at least.
const SHARE_OF: Duration = Duration::from_secs(1);

/// The numbers of every endpoint.
pub(crate) struct Counts {
    /// By the endpoint's id, then by the entity's name, which is empty for what was refused before one was chosen.
    endpoints: Mutex<HashMap<String, BTreeMap<String, Count>>>,
    processors: Mutex<Processors>,
}

#[derive(Clone, Default)]
struct Count {
    requests: u64,
    refused: u64,
    failed: u64,
    milliseconds: f64,
    /// Requests of each bucket alone; the last is for those beyond all bounds.
    buckets: [u64; MILLISECONDS.len() + 1],
}

impl Default for Counts {
    fn default() -> Self {
        Self { endpoints: Mutex::default(), processors: Mutex::new(Processors::begin()) }
    }
}

impl Counts {
    fn endpoints(&self) -> MutexGuard<'_, HashMap<String, BTreeMap<String, Count>>> {
        // Whatever was being counted, numbers are left that are sound but for that.
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request that has ended.
    pub(super) fn add(&self, entry: &Entry, took: Duration) {
        let mut endpoints = self.endpoints();
        // The usual case clones no name.
        let known = endpoints.get_mut(&entry.endpoint_id).and_then(|all| all.get_mut(&entry.served_entity_name));
        let count = match known {
            Some(count) => count,
            None => {
                let entities = endpoints.entry(entry.endpoint_id.clone()).or_default();
                entities.entry(entry.served_entity_name.clone()).or_default()
            }
        };
        let milliseconds = took.as_secs_f64() * 1000.0;
        let bucket = MILLISECONDS.partition_point(|bound| (*bound as f64) < milliseconds);
        count.requests += 1;
        count.refused += u64::from((400..500).contains(&entry.status_code));
        count.failed += u64::from(entry.status_code >= 500);
        count.milliseconds += milliseconds;
        count.buckets[bucket] += 1;
    }

    /// The numbers of an endpoint as text for Prometheus. `memory` is what there is for models, in bytes.
    pub(crate) fn render(&self, endpoint: &Endpoint, memory: u64) -> String {
        let mut counts = self.endpoints().get(endpoint.id()).cloned().unwrap_or_default();
        for entity in endpoint.entities() {
            counts.entry(entity.name().to_owned()).or_default();
        }
        let processors = self.processors.lock().unwrap_or_else(PoisonError::into_inner).share();
        let mut text = String::new();
        // A text takes whatever is written into it.
        let _ = write_counts(&mut text, endpoint.name(), &counts);
        let _ = write_gauges(&mut text, endpoint, memory, processors);
        text
    }
}

fn write_counts(text: &mut String, endpoint: &str, counts: &BTreeMap<String, Count>) -> fmt::Result {
    let labels = |entity: &str| format!("endpoint_name=\"{endpoint}\",served_model_name=\"{entity}\"");
    type Number = fn(&Count) -> u64;
    let numbers: [(&str, &str, Number); 3] = [
        ("request_count_total", "Requests", |count| count.requests),
        ("request_4xx_count_total", "Requests that were refused, or whose caller went away", |count| count.refused),
        ("request_5xx_count_total", "Requests that failed", |count| count.failed),
    ];
    for (name, help, number) in numbers {
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter")?;
        for (entity, count) in counts {
            writeln!(text, "{name}{{{}}} {}", labels(entity), number(count))?;
        }
    }
    let name = "request_latency_ms";
    let help = "Milliseconds from a request's arrival to the end of its answer";
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram")?;
    for (entity, count) in counts {
        let labels = labels(entity);
        let bounds = MILLISECONDS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        let mut sum = 0;
        for (bound, requests) in bounds.zip(count.buckets) {
            sum += requests;
            writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {sum}")?;
        }
        writeln!(text, "{name}_sum{{{labels}}} {}\n{name}_count{{{labels}}} {sum}", count.milliseconds)?;
    }
    Ok(())
}

fn write_gauges(text: &mut String, endpoint: &Endpoint, memory: u64, processors: f64) -> fmt::Result {
    let mut gauge = |name: &str, help: &str, value: f64| {
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge")?;
        writeln!(text, "{name}{{endpoint_name=\"{}\"}} {value}", endpoint.name())
    };
    // External models take nothing of this machine that could be told apart.
    let hosted: Vec<_> = endpoint.entities().iter().filter_map(|entity| entity.provider().hosted()).collect();
    if hosted.is_empty() {
        return Ok(());
    }
    let held: u64 = hosted.iter().map(|hosted| hosted.status().memory).sum();
    let help = "Share of this machine's processors that the server takes, all endpoints together";
    gauge("cpu_usage_percentage", help, processors)?;
    let help = "Share of the memory for models that this endpoint's models hold";
    gauge("mem_usage_percentage", help, 100.0 * held as f64 / memory.max(1) as f64)
}

/// How much of the processors' time this process takes.
struct Processors {
    looked: Instant,
    used: Duration,
    share: f64,
}

impl Processors {
    fn begin() -> Self {
        Self { looked: Instant::now(), used: processor_time(), share: 0.0 }
    }

    /// In percent of all processors, since it was last asked for.
    fn share(&mut self) -> f64 {
        let elapsed = self.looked.elapsed();
        if elapsed >= SHARE_OF {
            let (before, used) = (self.used, processor_time());
            let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
            let most = elapsed.as_secs_f64() * processors as f64;
            self.share = 100.0 * used.saturating_sub(before).as_secs_f64() / most;
            (self.looked, self.used) = (Instant::now(), used);
        }
        self.share
    }
}

fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}
