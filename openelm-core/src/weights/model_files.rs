//! Names of the files of a model folder that this crate writes.

/// Files of every model folder, in addition to weights.
const FILES: [&str; 15] = [
    "config.json",
    "generation_config.json",
    "convert-report.json",
    "quantize-report.json",
    "quantize.svg",
    "quantize.png",
    "model.safetensors.index.json",
    // The weights of CoreNet's MLX example.
    "weights.safetensors",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// True for a file that belongs to the model of its folder: a new model replaces or removes it.
pub(crate) fn is_model_file(name: &str) -> bool {
    FILES.contains(&name) || is_weights(name)
}

/// `model.safetensors` and shards such as `model-00001-of-00002.safetensors`.
fn is_weights(name: &str) -> bool {
    let stem = name.strip_prefix("model");
    let Some(part) = stem.and_then(|stem| stem.strip_suffix(".safetensors")) else {
        return false;
    };
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let shard = part
        .strip_prefix('-')
        .and_then(|part| part.split_once("-of-"));
    part.is_empty() || shard.is_some_and(|(index, count)| number(index) && number(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_user_are_no_model_files() {
        for name in [
            "config.json",
            "model.safetensors",
            "model-00001-of-00002.safetensors",
            "tokenizer.json",
        ] {
            assert!(is_model_file(name), "{name}");
        }
        for name in [
            "adapters.safetensors",
            "adapter_model.safetensors",
            "training_state.safetensors",
            "model-of-mine.safetensors",
            "model--of-.safetensors",
            "model.safetensors.bak",
            "LICENSE",
            "notes.txt",
            ".git",
        ] {
            assert!(!is_model_file(name), "{name}");
        }
    }
}
