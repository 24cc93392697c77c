//! Metrics in Prometheus' text format.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{admission::Admission, router::PATHS};

/// Upper bounds of the histograms, in seconds.
const BOUNDS: [f64; 12] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// Counts and times since the start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// By path and status.
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    prompt_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    generated_tokens: AtomicU64,
    request_seconds: Histogram,
    first_token_seconds: Histogram,
}

#[derive(Debug, Default)]
struct Histogram(Mutex<Values>);

#[derive(Debug, Default, Clone, Copy)]
struct Values {
    /// Number of values up to each bound, and all.
    counts: [u64; BOUNDS.len() + 1],
    sum: f64,
}

impl Metrics {
    /// Counts a request that has ended.
    pub(crate) fn count_request(
        &self,
        path: &str,
        status: u16,
        time: Duration,
        first_token: Option<Duration>,
    ) {
        // Unknown paths share a label: clients choose them.
        let path = PATHS.into_iter().find(|known| *known == path);
        let key = (path.unwrap_or("other"), status);
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry(key).or_default() += 1;
        drop(requests);
        self.request_seconds.add(time);
        if let Some(time) = first_token {
            self.first_token_seconds.add(time);
        }
    }

    /// Counts tokens of a request.
    pub(crate) fn count_tokens(&self, prompt: usize, cached: usize, generated: usize) {
        for (total, tokens) in [
            (&self.prompt_tokens, prompt),
            (&self.cached_tokens, cached),
            (&self.generated_tokens, generated),
        ] {
            total.fetch_add(tokens as u64, Ordering::Relaxed);
        }
    }

    /// All metrics.
    pub(crate) fn text(&self, admission: &Admission) -> String {
        let mut text = String::new();
        head(
            &mut text,
            "requests_total",
            "counter",
            "Requests by path and status; 499 is a client that closed the connection.",
        );
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        for ((path, status), count) in requests.iter() {
            let labels = format!("path=\"{path}\",status=\"{status}\"");
            line(&mut text, "requests_total", &labels, *count);
        }
        drop(requests);
        for (name, help, total) in [
            (
                "prompt_tokens_total",
                "Tokens of prompts.",
                &self.prompt_tokens,
            ),
            (
                "cached_tokens_total",
                "Tokens of prompts whose keys and values were cached.",
                &self.cached_tokens,
            ),
            (
                "generated_tokens_total",
                "Generated tokens.",
                &self.generated_tokens,
            ),
        ] {
            head(&mut text, name, "counter", help);
            line(&mut text, name, "", total.load(Ordering::Relaxed));
        }
        for (name, help, value) in [
            (
                "requests",
                "Requests for texts, waiting or running.",
                admission.requests(),
            ),
            (
                "generations",
                "Texts that are being generated.",
                admission.generations(),
            ),
        ] {
            head(&mut text, name, "gauge", help);
            line(&mut text, name, "", value);
        }
        for (name, help, histogram) in [
            (
                "request_seconds",
                "Time of a request.",
                &self.request_seconds,
            ),
            (
                "first_token_seconds",
                "Time from a request to its first generated token.",
                &self.first_token_seconds,
            ),
        ] {
            head(&mut text, name, "histogram", help);
            histogram.write(&mut text, name);
        }
        text
    }
}

impl Histogram {
    fn add(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        values.sum += seconds;
        let bounds = BOUNDS.iter().chain([&f64::INFINITY]);
        for (count, bound) in values.counts.iter_mut().zip(bounds) {
            *count += u64::from(seconds <= *bound);
        }
    }

    fn write(&self, text: &mut String, name: &str) {
        let values = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bounds = BOUNDS.iter().map(f64::to_string).chain(["+Inf".into()]);
        let bucket = format!("{name}_bucket");
        for (count, bound) in values.counts.iter().zip(bounds) {
            line(text, &bucket, &format!("le=\"{bound}\""), *count);
        }
        line(text, &format!("{name}_sum"), "", values.sum);
        let all = values.counts.last().copied().unwrap_or_default();
        line(text, &format!("{name}_count"), "", all);
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "# HELP openelm_{name} {help}");
    let _ = writeln!(text, "# TYPE openelm_{name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let labels = match labels {
        "" => String::new(),
        labels => format!("{{{labels}}}"),
    };
    let _ = writeln!(text, "openelm_{name}{labels} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::ServerOptions;

    #[test]
    fn writes_counts_and_buckets() {
        let metrics = Metrics::default();
        let first = Some(Duration::from_millis(20));
        metrics.count_request("/v1/completions", 200, Duration::from_millis(300), first);
        metrics.count_request("/secret", 404, Duration::from_millis(1), None);
        metrics.count_tokens(7, 3, 2);
        let text = metrics.text(&Admission::new(&ServerOptions::default()));
        for expected in [
            "openelm_requests_total{path=\"/v1/completions\",status=\"200\"} 1\n",
            "openelm_requests_total{path=\"other\",status=\"404\"} 1\n",
            "openelm_prompt_tokens_total 7\n",
            "openelm_generations 0\n",
            "openelm_request_seconds_bucket{le=\"0.25\"} 1\n",
            "openelm_request_seconds_bucket{le=\"0.5\"} 2\n",
            "openelm_request_seconds_bucket{le=\"+Inf\"} 2\n",
            "openelm_request_seconds_sum 0.301\n",
            "openelm_first_token_seconds_bucket{le=\"0.025\"} 1\n",
            "openelm_first_token_seconds_count 1\n",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert!(!text.contains("secret"));
    }
}
