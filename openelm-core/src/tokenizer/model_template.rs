//! The chat template of a model, by its files and its name.

use std::path::Path;

use serde_json::Value;

use super::chat_template::ChatTemplate;
use crate::text_file::{MAX_SETTINGS, read_text_file};

impl ChatTemplate {
    /// The template of the model in `folder`: that of OpenELM-Instruct if `chat_template.jinja` or
    /// `tokenizer_config.json` has it, or if the folder or its repository in the Hugging Face Hub
    /// cache has `Instruct` in its name, as Apple's models have; else
    /// [`Plain`](Self::Plain), for base models. Another template in these files belongs to the
    /// tokenizer's own model, such as LLaMA's, and is ignored.
    pub fn of_model(folder: impl AsRef<Path>) -> Self {
        let folder = folder.as_ref();
        if has_instruct_template(folder) || has_instruct_name(folder) {
            Self::OpenElmInstruct
        } else {
            Self::Plain
        }
    }
}

fn has_instruct_template(folder: &Path) -> bool {
    let read = |name: &str| read_text_file(&folder.join(name), MAX_SETTINGS).ok();
    let is_instruct = |template: &str| {
        ["<|user|>", "<|assistant|>", "</s>"].iter().all(|mark| {
            // Templates spell EOS as a string or as a variable.
            template.contains(mark) || (*mark == "</s>" && template.contains("eos_token"))
        })
    };
    let of_settings = || -> Option<String> {
        let settings: Value = serde_json::from_str(&read("tokenizer_config.json")?).ok()?;
        Some(settings.get("chat_template")?.as_str()?.to_owned())
    };
    let templates = [read("chat_template.jinja"), of_settings()];
    templates.iter().flatten().any(|text| is_instruct(text))
}

fn has_instruct_name(folder: &Path) -> bool {
    let full = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let own = full
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let repository = full.components().filter_map(|part| {
        let name = part.as_os_str().to_string_lossy().into_owned();
        name.starts_with("models--").then_some(name)
    });
    let mut names = own.into_iter().chain(repository);
    names.any(|name| name.to_lowercase().contains("instruct"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use openelm_testing::TempDir;

    #[test]
    fn the_name_or_the_files_choose_the_template() {
        use ChatTemplate::{OpenElmInstruct, Plain};
        let folder = TempDir::new();
        let hub = "models--apple--OpenELM-270M-Instruct/snapshots/0123";
        for (name, expected) in [
            ("OpenELM-270M", Plain),
            ("OpenELM-270M-Instruct", OpenElmInstruct),
            ("openelm-270m-instruct-4bit", OpenElmInstruct),
            (hub, OpenElmInstruct),
            ("instruct/base", Plain),
        ] {
            assert_eq!(
                ChatTemplate::of_model(folder.join(name)),
                expected,
                "{name}"
            );
        }
        let instruct = "{% for m in messages %}<|user|>{{ m }}</s><|assistant|>";
        let eos = "<|user|>{{ eos_token }}<|assistant|>";
        let llama = "[INST] {{ m }} [/INST] </s>";
        for (template, expected) in [
            (instruct, OpenElmInstruct),
            (eos, OpenElmInstruct),
            (llama, Plain),
        ] {
            let settings = serde_json::json!({ "chat_template": template }).to_string();
            folder.write("a/tokenizer_config.json", &settings);
            folder.write("b/chat_template.jinja", template);
            for name in ["a", "b"] {
                assert_eq!(
                    ChatTemplate::of_model(folder.join(name)),
                    expected,
                    "{template}"
                );
            }
        }
        folder.write("c/tokenizer_config.json", "{");
        assert_eq!(ChatTemplate::of_model(folder.join("c")), Plain);
    }
}
