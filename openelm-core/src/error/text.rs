//! The text of errors: one safe line.

use std::{
    fmt::{self, Display},
    path::Path,
};

use super::{error::Error, mlx_reason, one_line::one_line, run_difference::RunDifference};

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.text()))
    }
}

impl Error {
    fn text(&self) -> String {
        match self {
            Self::Io { path, source } => format!("{}: {source}", place(path)),
            Self::MissingFile { path, problem }
            | Self::Checkpoint { path, problem }
            | Self::Tokenizer { path, problem }
            | Self::Adapter { path, problem }
            | Self::Destination { path, problem } => format!("{}: {problem}", place(path)),
            Self::Config { path, key, problem } => {
                format!("{}: `{key}`: {problem}", place(path))
            }
            Self::MissingTensor { path, name, shape } => {
                let path = place(path);
                format!("{path}: tensor `{name}` of shape {shape:?} is missing")
            }
            Self::UnexpectedTensor { path, name } => {
                let path = place(path);
                format!("{path}: tensor `{name}` does not belong to this model")
            }
            Self::TensorShape {
                path,
                name,
                expected,
                found,
            } => {
                let path = place(path);
                format!("{path}: tensor `{name}`: expected shape {expected:?}, found {found:?}")
            }
            Self::TensorDtype { path, name, found } => {
                let path = place(path);
                format!("{path}: tensor `{name}`: expected F32, F16 or BF16, found {found}")
            }
            Self::Dtype { dtype, problem } => format!("dtype {dtype}: {problem}"),
            Self::Data {
                path,
                line,
                problem,
            } => {
                let line = line.map(|line| format!(":{line}")).unwrap_or_default();
                format!("{}{line}: {problem}", place(path))
            }
            Self::Option { option, problem } => format!("{option}: {problem}"),
            Self::PromptTooLong { tokens, context } => {
                format!("the prompt has {tokens} tokens; the model's context holds {context}")
            }
            Self::NonFinite { place, problem } => {
                format!("{place} computes NaN or infinity: {problem}")
            }
            Self::FailedTrainer { iteration } => format!(
                "iteration {iteration}: MLX failed, so the weights are not usable; resume the run \
                 from its last save"
            ),
            Self::Diverged { iteration, loss } => {
                format!("the loss is {loss} at iteration {iteration}: try a lower learning rate")
            }
            Self::Group { problem } => {
                format!("another process of the group is gone or cannot be reached: {problem}")
            }
            Self::OtherRun { path, differences } => format!(
                "{}: the run was begun with other options or data: {}",
                place(path),
                list(differences)
            ),
            Self::Verification { path, problem } => format!(
                "{}: verification failed: {problem}; nothing was kept",
                place(path)
            ),
            Self::WithRemedy { error, remedy } => format!("{error}; {remedy}"),
            Self::Memory {
                part,
                needed,
                available,
            } => {
                let [needed, available] = [*needed, *available].map(size);
                format!("{part} needs {needed} of memory; {available} is available")
            }
            Self::Incomplete { tokens } => format!(
                "at_limit: the text is incomplete after {tokens} token{}",
                if *tokens == 1 { "" } else { "s" }
            ),
            Self::Cancelled => "cancelled".into(),
            Self::Busy => "the session is already answering".into(),
            Self::Unloaded => "the model was unloaded".into(),
            Self::Unexpected { problem } => format!("unexpected failure: {problem}"),
            Self::Unusable => "the thread that runs MLX has ended; restart the program".into(),
            Self::Mlx(error) => format!("mlx: {}", mlx_reason::reason(error)),
            Self::Read(error) => format!("mlx: {}", mlx_reason::unreadable(error)),
        }
    }
}

fn list(differences: &[RunDifference]) -> String {
    let texts: Vec<String> = differences.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// A number of bytes with three digits or more: `6.43 GB`.
fn size(bytes: u64) -> String {
    let units = [(1e9, "GB"), (1e6, "MB")];
    match units.into_iter().find(|(unit, _)| bytes as f64 >= *unit) {
        Some((unit, name)) => format!("{:.2} {name}", bytes as f64 / unit),
        None => format!("{bytes} bytes"),
    }
}

/// The path in a message; an empty one is visible.
fn place(path: &Path) -> String {
    if path.as_os_str().is_empty() {
        return "\"\"".into();
    }
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_memory_is_stated_with_both_sizes() {
        let text = |needed, available| {
            let part = "models/3b: the model in bfloat16".into();
            let error = Error::Memory {
                part,
                needed,
                available,
            };
            error.to_string()
        };
        assert_eq!(
            text(6_428_000_000, 999_000),
            "models/3b: the model in bfloat16 needs 6.43 GB of memory; 999000 bytes is available"
        );
        assert!(text(1_000_000, 0).ends_with("needs 1.00 MB of memory; 0 bytes is available"));
    }

    #[test]
    fn a_text_is_one_short_line() {
        let name = format!("\u{202e}{}\n", "x".repeat(300_000));
        let error = Error::UnexpectedTensor {
            path: "a\u{1b}[2J".into(),
            name,
        };
        let text = error.to_string();
        assert!(
            text.starts_with(r"a\u{1b}[2J: tensor `\u{202e}xx"),
            "{text}"
        );
        assert!(
            text.ends_with(r"xx\n` does not belong to this model"),
            "{text}"
        );
        assert!(text.len() < 400, "{}", text.len());
        let empty = Error::missing_file("", "no tokenizer");
        assert_eq!(empty.to_string(), r#""": no tokenizer"#);
    }
}
