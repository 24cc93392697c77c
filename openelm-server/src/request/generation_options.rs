//! The options of a generation in the fields of a request, under the core's names.

use std::collections::BTreeMap;

use openelm_core::generation::{GenerateOptions, Sampling};
use serde_json::Value;

use super::structured_output::constraint;
use crate::{
    api_error::ApiError,
    fields::{Fields, expected},
};

/// Largest number of stop strings.
const MAX_STOP: usize = 64;

/// The options of `fields` over those of the server, and the name of the field with their
/// constraint. The log-probabilities are not among them.
pub(super) fn generation_options(
    fields: &mut Fields,
    mut options: GenerateOptions,
) -> Result<(GenerateOptions, Option<&'static str>), ApiError> {
    // OpenAI's newer name comes first.
    let newer = fields.count("max_completion_tokens")?;
    if let Some(tokens) = newer.or(fields.count("max_tokens")?) {
        options.max_tokens = tokens;
    }
    if let Some(stop) = fields.strings("stop")? {
        options.stop = checked_stop(stop)?;
    }
    if let Some(ignore) = fields.boolean("ignore_eos")? {
        options.ignore_eos = ignore;
    }
    sampling(fields, &mut options.sampling)?;
    let constraint = constraint(fields, &mut options)?;
    Ok((options, constraint))
}

fn checked_stop(stop: Vec<String>) -> Result<Vec<String>, ApiError> {
    let problem = if stop.len() > MAX_STOP {
        format!("expected at most {MAX_STOP} strings, found {}", stop.len())
    } else if stop.iter().any(String::is_empty) {
        "expected strings with text, found an empty one".into()
    } else {
        return Ok(stop);
    };
    Err(ApiError::field("stop", problem))
}

/// Sets the fields of the sampling, and checks their ranges.
fn sampling(fields: &mut Fields, sampling: &mut Sampling) -> Result<(), ApiError> {
    for (name, value) in [
        ("temperature", &mut sampling.temperature),
        ("top_p", &mut sampling.top_p),
        ("min_p", &mut sampling.min_p),
        ("typical_p", &mut sampling.typical_p),
        ("top_n_sigma", &mut sampling.top_n_sigma),
        ("xtc_probability", &mut sampling.xtc_probability),
        ("xtc_threshold", &mut sampling.xtc_threshold),
        ("repetition_penalty", &mut sampling.repetition_penalty),
        ("presence_penalty", &mut sampling.presence_penalty),
        ("frequency_penalty", &mut sampling.frequency_penalty),
        ("dry_multiplier", &mut sampling.dry_multiplier),
        ("dry_base", &mut sampling.dry_base),
    ] {
        if let Some(number) = fields.number(name)? {
            *value = number;
        }
    }
    for (name, value) in [
        ("top_k", &mut sampling.top_k),
        ("presence_context_size", &mut sampling.presence_context_size),
        (
            "frequency_context_size",
            &mut sampling.frequency_context_size,
        ),
        ("dry_allowed_length", &mut sampling.dry_allowed_length),
        ("min_tokens", &mut sampling.min_tokens),
    ] {
        if let Some(count) = fields.count(name)? {
            *value = count;
        }
    }
    for (name, value) in [
        (
            "repetition_context_size",
            &mut sampling.repetition_context_size,
        ),
        ("dry_penalty_last_n", &mut sampling.dry_penalty_last_n),
    ] {
        *value = fields.count(name)?.or(*value);
    }
    if let Some(breakers) = fields.strings("dry_sequence_breakers")? {
        sampling.dry_sequence_breakers = breakers;
    }
    if let Some(banned) = fields.strings("banned_strings")? {
        sampling.banned_strings = banned;
    }
    if let Some(prefix) = fields.string("forced_prefix")? {
        sampling.forced_prefix = prefix;
    }
    if let Some(seed) = fields.seed("seed")? {
        sampling.seed = Some(seed);
    }
    if let Some(value) = fields.value("logit_bias") {
        sampling.logit_bias = logit_bias(value)?;
    }
    Ok(sampling.check()?)
}

/// Biases by the decimal ids of tokens, as OpenAI has them.
fn logit_bias(value: Value) -> Result<BTreeMap<u32, f32>, ApiError> {
    let Value::Object(map) = value else {
        let problem = expected("an object of token ids and numbers", &value);
        return Err(ApiError::field("logit_bias", problem));
    };
    let pairs = map.into_iter().map(|(id, bias)| {
        // An id has one spelling: of `5` and `05`, one would be ignored.
        let number = id
            .parse()
            .ok()
            .filter(|number: &u32| number.to_string() == id);
        let number = number.zip(bias.as_f64());
        let (id, bias) = number.ok_or_else(|| {
            let problem = format!("expected a token id and a number, found {id:?}");
            ApiError::field("logit_bias", problem)
        })?;
        Ok((id, bias as f32))
    });
    pairs.collect()
}
