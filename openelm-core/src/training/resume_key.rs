//! The resume key of a run: the options and data that a resumed run must share with the saved one.
//!
//! Fine-tuning and pre-training share one rule: the key holds all options that change the trained
//! weights. These are
//!
//! - the optimizer, the learning rate and its schedule, gradient accumulation and clipping, z-loss,
//!   label smoothing, the moving average, the seed, the batch size, the dtype of the computation
//!   and autocast;
//! - fine-tuning: the base model, the kind of adapter, its rank, scale, dropout and modules, the longest row, the
//!   loss of preferences, mlx-lm compatibility;
//! - pre-training: the architecture and the tokenizer;
//! - the training data (pre-training: in the state of its source).
//!
//! The key does not hold options that may change on every resume:
//!
//! - the length of the run, `iters`. A schedule over this length is stored as `schedule_steps`,
//!   which is in the key;
//! - the intervals of saves, validations and reports; checkpoints to keep and to average; patience;
//! - the validation data and the part of it that is used. Losses of other data are not comparable,
//!   so the best validation is then reset;
//! - `grad_checkpoint`, which gives the same bytes;
//! - `micro_batch_size` and the number of processes, which change the order of sums, and so only
//!   the rounding;
//! - `corenet_losses`, which changes the reported losses alone;
//! - `compile`, which changes only the rounding.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    optimizer::OptimizerKind,
    schedule::{Schedule, ScheduleKind},
    trainer_options::TrainerOptions,
};
use crate::error::RunDifference;

/// Largest number of differences in an error.
const LISTED: usize = 8;

/// Option names in snake case, and values.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct ResumeKey(Map<String, Value>);

impl ResumeKey {
    /// The part that all trainers share.
    pub(super) fn new(options: &TrainerOptions) -> Self {
        let TrainerOptions {
            optimizer,
            schedule,
            grad_accumulation_steps,
            clip_norm,
            grad_checkpoint: _,
            z_loss,
            label_smoothing,
            ema_decay,
            seed,
            autocast,
            corenet_losses: _,
            compile: _,
        } = options;
        let mut key = Self::default();
        key.set(
            "optimizer",
            match optimizer.kind {
                OptimizerKind::Adam => "adam",
                OptimizerKind::AdamW => "adamw",
                OptimizerKind::Sgd => "sgd",
                OptimizerKind::Lion => "lion",
                OptimizerKind::Adafactor => "adafactor",
            },
        );
        key.set("betas", json!(optimizer.betas.map(decimal)));
        key.set("eps", decimal(optimizer.eps));
        key.set("weight_decay", decimal(optimizer.weight_decay));
        key.set("momentum", decimal(optimizer.momentum));
        key.set("bias_correction", optimizer.bias_correction);
        key.set("decay_vectors", optimizer.decay_vectors);
        key.set_schedule(schedule);
        key.set("grad_accumulation_steps", *grad_accumulation_steps);
        key.set("clip_norm", clip_norm.map(decimal));
        key.set("z_loss", decimal(*z_loss));
        key.set("label_smoothing", decimal(*label_smoothing));
        key.set("ema_decay", ema_decay.map(decimal));
        key.set("seed", *seed);
        // States of earlier versions have no such key.
        if *autocast {
            key.set("autocast", true);
        }
        key
    }

    fn set_schedule(&mut self, schedule: &Schedule) {
        let (name, course) = match schedule.kind {
            ScheduleKind::Constant => ("constant", None),
            ScheduleKind::Linear { end, steps } => ("linear", Some((end, steps))),
            ScheduleKind::Cosine { end, steps } => ("cosine", Some((end, steps))),
            ScheduleKind::CoreNet {
                end,
                max_iterations,
            } => ("corenet", Some((end, max_iterations))),
        };
        self.set("learning_rate", schedule.learning_rate);
        self.set("lr_schedule", name);
        self.set("lr_end", course.map(|(end, _)| end));
        self.set("schedule_steps", course.map(|(_, steps)| steps));
        self.set("warmup", schedule.warmup);
        self.set("warmup_init", schedule.warmup_init);
    }

    /// Sets an option, or replaces its value.
    pub(super) fn set(&mut self, option: &str, value: impl Into<Value>) {
        self.0.insert(option.to_owned(), value.into());
    }

    /// True if the key holds `option`.
    pub(super) fn has(&self, option: &str) -> bool {
        self.0.contains_key(option)
    }

    /// The options that differ between `new` and this key of a saved run. Each member of an
    /// object is compared separately.
    pub(super) fn differences(&self, new: &Self) -> Vec<RunDifference> {
        let mut differences = Vec::new();
        compare(&self.0, &new.0, &mut differences);
        // Earlier versions accepted settings that an optimizer ignores.
        let kind = self.0.get("optimizer").and_then(Value::as_str);
        let ignored = match kind.filter(|_| self.0.get("optimizer") == new.0.get("optimizer")) {
            Some("adam") => "weight_decay",
            Some("sgd" | "lion" | "adafactor") => "bias_correction",
            _ => "",
        };
        differences.retain(|difference| difference.option != ignored);
        if differences.len() > LISTED {
            let more = differences.len() - LISTED;
            differences.truncate(LISTED);
            differences.push(RunDifference {
                option: "more options".into(),
                expected: "no difference".into(),
                found: more.to_string(),
            });
        }
        differences
    }
}

/// The shortest decimal of `number`; a plain conversion shows the digits of the nearest `f64`.
pub(super) fn decimal(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

fn compare(saved: &Map<String, Value>, new: &Map<String, Value>, into: &mut Vec<RunDifference>) {
    let added = new.keys().filter(|key| !saved.contains_key(*key));
    for option in saved.keys().chain(added) {
        let pair = (saved.get(option), new.get(option));
        if let (Some(Value::Object(saved)), Some(Value::Object(new))) = pair {
            compare(saved, new, into);
        } else if pair.0 != pair.1 {
            into.push(RunDifference {
                option: option.clone(),
                expected: text(pair.0),
                found: text(pair.1),
            });
        }
    }
}

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "none".into(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(saved: Value, new: Value) -> Vec<String> {
        let key = |value: Value| ResumeKey(value.as_object().cloned().unwrap());
        let differences = key(saved).differences(&key(new));
        differences.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn differences_name_option_and_both_values() {
        let saved = json!({"optimizer": "adam", "eps": decimal(0.1), "clip_norm": null});
        let new = json!({"optimizer": "sgd", "eps": decimal(1e-8), "clip_norm": null});
        assert_eq!(
            shown(saved, new),
            [
                "optimizer: expected adam, found sgd",
                "eps: expected 0.1, found 1e-8"
            ]
        );
    }

    #[test]
    fn settings_that_the_optimizer_ignores_do_not_differ() {
        let key = |kind, decay| json!({"optimizer": kind, "weight_decay": decay});
        let none: [&str; 0] = [];
        assert_eq!(shown(key("adam", 0.1), key("adam", 0.0)), none);
        let differs = ["weight_decay: expected 0.1, found 0.0"];
        assert_eq!(shown(key("adamw", 0.1), key("adamw", 0.0)), differs);
        let corrected = json!({"optimizer": "sgd", "bias_correction": true});
        let plain = json!({"optimizer": "sgd", "bias_correction": false});
        assert_eq!(shown(corrected, plain), none);
    }

    #[test]
    fn nested_missing_and_added_options_differ() {
        let saved = json!({"config": {"model_dim": 64, "gone": [1, 2]}});
        let new = json!({"config": {"model_dim": 128}, "rank": 8});
        assert_eq!(
            shown(saved, new),
            [
                "model_dim: expected 64, found 128",
                "gone: expected [1,2], found none",
                "rank: expected none, found 8"
            ]
        );
    }

    #[test]
    fn saved_key_equals_itself() {
        let mut options = TrainerOptions {
            clip_norm: Some(0.3),
            ..TrainerOptions::default()
        };
        options.schedule.learning_rate = 1.0 / 3.0;
        let key = ResumeKey::new(&options);
        let saved = serde_json::to_string(&key).unwrap();
        let saved: ResumeKey = serde_json::from_str(&saved).unwrap();
        assert_eq!(saved.differences(&key), []);
    }
}
