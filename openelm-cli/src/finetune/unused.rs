//! Options of `openelm finetune` without effect beside others.

use openelm_core::{Config, adapter::AdapterKind, finetune::DataSplits};

use super::settings::Settings;
use crate::{
    choices::{LrSchedule, Optimizer},
    error::Error,
    given::Given,
};

/// Options of a new LoRA or DoRA adapter.
const LOW_RANK: &[&str] = &["rank", "scale", "alpha", "rslora", "dropout", "tied-head"];

/// Refuses given options that the other options exclude.
pub(super) fn check(settings: &Settings, given: &Given) -> Result<(), Error> {
    let loads = settings.start_from.is_some();
    let full = AdapterKind::from(settings.fine_tune_type) == AdapterKind::Full;
    let names_only_embedding = |keys: &Vec<String>| {
        let mut keys = keys.iter();
        keys.all(|key| key.ends_with("token_embeddings"))
    };
    given.check(&[
        (
            loads,
            LOW_RANK,
            "with --start-from, which trains the adapter with its own options",
        ),
        (
            loads,
            &["fine-tune-type", "num-layers", "keys", "keys-regex"],
            "with --start-from, which trains the adapter with its own options",
        ),
        (full, LOW_RANK, "with --fine-tune-type full"),
        (settings.alpha.is_some(), &["scale"], "with --alpha"),
        (
            settings.alpha.is_none() && settings.rslora,
            &["rslora"],
            "without --alpha",
        ),
        (settings.keys.is_some(), &["keys-regex"], "with --keys"),
        (
            settings.keys.as_ref().is_some_and(names_only_embedding),
            &["num-layers"],
            "on the embedding, the only matrix of --keys",
        ),
        (
            settings.lr_schedule == LrSchedule::Constant && settings.lr_end != 0.0,
            &["lr-end"],
            "with a constant learning rate; use --lr-schedule linear or cosine",
        ),
        (
            settings.warmup == 0 && settings.warmup_ratio.is_none(),
            &["warmup-init"],
            "without --warmup or --warmup-ratio",
        ),
        (settings.epochs.is_some(), &["iters"], "with --epochs"),
        (
            settings.warmup_ratio.is_some(),
            &["warmup"],
            "with --warmup-ratio",
        ),
        (
            matches!(settings.optimizer, Optimizer::Sgd | Optimizer::Adafactor),
            &["betas"],
            "without moments; use --optimizer adam, adamw or lion",
        ),
        (
            !matches!(settings.optimizer, Optimizer::Adam | Optimizer::AdamW),
            &["eps"],
            "without --optimizer adam or adamw",
        ),
        (
            settings.dpo.is_none(),
            &["beta", "max-prompt-length"],
            "without --dpo",
        ),
        (settings.dpo.is_some(), &["z-loss"], "with --dpo"),
        (
            settings.dpo.is_some(),
            &["long-rows"],
            "with --dpo, which drops longer pairs",
        ),
        (
            settings.mlx_lm_compat,
            &["long-rows"],
            "with --mlx-lm-compat, which cuts off longer rows",
        ),
    ])
}

/// Refuses given options that `data` or the model of `config` excludes.
pub(super) fn check_data(
    settings: &Settings,
    given: &Given,
    data: &DataSplits,
    config: &Config,
) -> Result<(), Error> {
    // The last token of a row is only a target.
    let most = config.max_context_length() + 1;
    if given.has("max-seq-length") && settings.max_seq_length > most {
        let problem = format!(
            "expected at most {most}, the model's context length and the last target, found {}",
            settings.max_seq_length
        );
        return Err(given.refusal("max-seq-length", &problem));
    }
    given.check(&[
        (
            data.valid.is_none(),
            &["steps-per-eval", "val-batches", "patience"],
            "without validation data (valid.jsonl)",
        ),
        (
            settings.tied_head && !adapts_tied_embedding(settings, config)?,
            &["tied-head"],
            "without an adapter on a tied embedding; --keys or --keys-regex must select \
             token_embeddings",
        ),
    ])
}

fn adapts_tied_embedding(settings: &Settings, config: &Config) -> Result<bool, Error> {
    let matrices = settings.adapter_options().targets.matrices(config)?;
    let mut names = matrices.iter().map(|(name, _)| name);
    Ok(config.share_input_output_layers() && names.any(|name| name.ends_with("token_embeddings")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::testing::{given, settings};

    fn refusal(flags: &[&str], toml: &str) -> Option<String> {
        let (settings, given) = (settings(flags, toml), given::<Settings>(flags, toml));
        check(&settings, &given)
            .err()
            .map(|error| error.to_string())
    }

    #[test]
    fn refuses_options_without_effect() {
        let cases: [(&[&str], &str); 22] = [
            (&["--start-from=a", "--rank=32"], "rank"),
            (
                &["--start-from=a", "--fine-tune-type=dora"],
                "fine-tune-type",
            ),
            (&["--start-from=a", "--num-layers=1"], "num-layers"),
            (&["--start-from=a", "--keys=proj_1"], "keys"),
            (&["--start-from=a", "--keys-regex=.*"], "keys-regex"),
            (&["--start-from=a", "--dropout=0.1"], "dropout"),
            (&["--start-from=a", "--alpha=16"], "alpha"),
            (&["--start-from=a", "--tied-head"], "tied-head"),
            (&["--fine-tune-type=full", "--rank=4"], "rank"),
            (&["--fine-tune-type=full", "--scale=4"], "scale"),
            (&["--fine-tune-type=full", "--alpha=4"], "alpha"),
            (&["--fine-tune-type=full", "--dropout=0.1"], "dropout"),
            (&["--rslora"], "rslora"),
            (&["--keys=token_embeddings", "--num-layers=2"], "num-layers"),
            (&["--lr-end=0.1"], "lr-end"),
            (&["--lr-end=nan"], "lr-end"),
            (&["--beta=0.1"], "beta"),
            (&["--dpo=hinge", "--z-loss=1e-4"], "z-loss"),
            (&["--dpo=hinge", "--long-rows=split"], "long-rows"),
            (&["--mlx-lm-compat", "--long-rows=drop"], "long-rows"),
            (&["--start-from=a", "--scale=1"], "scale"),
            (&["--start-from=a", "--alpha=1", "--rslora"], "alpha"),
        ];
        for (flags, name) in cases {
            let problem = refusal(flags, "").unwrap_or_default();
            let expected = format!("--{name}: no effect with");
            assert!(
                problem.starts_with(&expected) || problem.contains("no effect on"),
                "{flags:?}: {problem}"
            );
            assert!(problem.starts_with(&format!("--{name}: ")), "{problem}");
        }
    }

    #[test]
    fn refuses_options_of_the_file_without_effect() {
        for (toml, name) in [
            ("alpha = 16\nscale = 2", "scale"),
            ("rslora = true", "rslora"),
            ("keys = [\"proj_1\"]\nkeys-regex = \".*\"", "keys-regex"),
            ("start-from = \"a\"\nrank = 8", "rank"),
        ] {
            let problem = refusal(&[], toml).unwrap_or_default();
            assert!(
                problem.contains(&format!("toml: {name}: no effect")),
                "{problem}"
            );
        }
    }

    #[test]
    fn accepts_options_with_effect() {
        for flags in [
            &["--alpha=16", "--rslora"][..],
            &["--lr-schedule=cosine", "--lr-end=0.1"],
            &["--lr-end=0"],
            &["--warmup=5"],
            &["--dpo=hinge", "--beta=0.1"],
            &["--keys=token_embeddings,proj_1", "--num-layers=2"],
            &["--start-from=a", "--seed=1", "--iters=2"],
            &["--fine-tune-type=full", "--num-layers=2", "--keys=proj_1"],
        ] {
            assert_eq!(refusal(flags, ""), None, "{flags:?}");
        }
        let file = "rslora = true\nalpha = 16\nscale = 2";
        assert_eq!(refusal(&["--alpha=8"], file), None);
        assert_eq!(refusal(&["--scale=8"], file), None);
    }
}
