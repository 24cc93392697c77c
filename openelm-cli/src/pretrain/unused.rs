//! Options of `openelm pretrain` without effect beside others.

use openelm_core::Config;

use super::settings::Settings;
use crate::{error::Error, given::Given, ranks};

/// Architecture options, without the preset.
const SIZES: &[&str] = &[
    "num-transformer-layers",
    "num-layers",
    "model-dim",
    "head-dim",
    "num-gqa-groups",
    "qkv-multipliers",
    "ffn-multipliers",
    "ffn-dim-divisor",
    "vocab-size",
    "max-context-length",
    "rope-freq-constant",
    "share-input-output-layers",
];

/// Refuses given options that the other options exclude.
pub(super) fn check(settings: &Settings, given: &Given) -> Result<(), Error> {
    let in_file = |name: &&&str| given.has(name) && !given.on_command_line(name);
    if given.on_command_line("preset")
        && let Some(name) = SIZES.iter().find(in_file)
    {
        let problem = format!(
            "{} of the file's [model] would replace the preset's; leave out one of them",
            name.replace('-', "_")
        );
        return Err(given.refusal("preset", &problem));
    }
    let one_process = settings.processes.unwrap_or(1) == 1 && !ranks::is_rank();
    let ordered =
        settings.start_from.is_some() && settings.shuffle == Some(0) && settings.epochs == Some(1);
    given.check(&[
        (
            settings.valid.is_none(),
            &["steps-per-eval", "val-batches", "val-windows"],
            "without validation data; use --valid FILES",
        ),
        (
            given.has("val-batches"),
            &["val-windows"],
            "with --val-batches",
        ),
        (
            one_process,
            &["process-timeout"],
            "with one process; use --processes N",
        ),
        (
            ordered,
            &["seed"],
            "with --start-from, --shuffle 0 and --epochs 1, where nothing is random",
        ),
    ])
}

/// Refuses sequences that are longer than the model's context.
pub(super) fn check_length(
    settings: &Settings,
    given: &Given,
    config: &Config,
) -> Result<(), Error> {
    let (context, length) = (config.max_context_length(), settings.max_seq_length);
    match length {
        Some(length) if length > context => {
            let problem =
                format!("expected at most {context}, the model's context length, found {length}");
            Err(given.refusal("max-seq-length", &problem))
        }
        _ => Ok(()),
    }
}

/// An error that names the model's width, with the option that the user gave instead.
pub(super) fn with_given_size(error: Error, given: &Given) -> Error {
    let Error::Core(openelm_core::Error::Option {
        option: "model_dim",
        problem,
    }) = error
    else {
        return error;
    };
    let names = ["model-dim"].iter().chain(SIZES);
    let mut names = names.chain(&["preset", "start-from"]).copied();
    let option = names.find(|name| given.has(name)).unwrap_or("model_dim");
    openelm_core::Error::Option { option, problem }.into()
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
        let cases: [(&[&str], &str, &str); 8] = [
            (
                &["--steps-per-eval=5"],
                "",
                "--steps-per-eval: no effect without",
            ),
            (&["--val-batches=5"], "", "--val-batches: no effect without"),
            (
                &[],
                "val-windows = 5",
                "settings.toml: val-windows: no effect without",
            ),
            (
                &["--process-timeout=5"],
                "",
                "--process-timeout: no effect with one",
            ),
            (
                &["--start-from=a", "--shuffle=0", "--epochs=1", "--seed=4"],
                "",
                "--seed: no effect with",
            ),
            (
                &["--preset=270M"],
                "[model]\nmodel_dim = 64",
                "--preset: model_dim of",
            ),
            (
                &["--preset=270M"],
                "[model]\nnum_layers = 2",
                "--preset: num_layers of",
            ),
            (
                &["--valid=a.txt"],
                "val-batches = 2\nval-windows = 4",
                "settings.toml: val-windows: no effect with",
            ),
        ];
        for (flags, toml, expected) in cases {
            let problem = refusal(flags, toml).unwrap_or_default();
            assert!(problem.starts_with(expected), "{problem}");
        }
    }

    #[test]
    fn accepts_options_with_effect() {
        let preset = "[model]\npreset = \"270M\"\nmodel_dim = 64";
        let cases: [(&[&str], &str); 6] = [
            (&["--valid=a.txt", "--steps-per-eval=5"], "val-windows = 4"),
            (&["--valid=a.txt", "--val-batches=5"], "val-windows = 4"),
            (&["--processes=2", "--process-timeout=5"], ""),
            (&["--start-from=a", "--shuffle=0", "--seed=4"], ""),
            (&["--model-dim=128"], preset),
            (
                &["--preset=270M", "--model-dim=64"],
                "[model]\npreset = \"3B\"",
            ),
        ];
        for (flags, toml) in cases {
            assert_eq!(refusal(flags, toml), None, "{flags:?}");
        }
    }
}
