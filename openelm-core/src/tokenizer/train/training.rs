//! Training of a BPE vocabulary.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{merges, words::Words};
use crate::{
    documents::for_each_document,
    error::{Error, Remedy, Result},
    files::{Activity, CreatedFolders, WriteLock, check_inputs, resolve, write_file},
    tokenizer::Tokenizer,
};

/// Ids before the alphabet: three special tokens, 256 bytes.
const FIRST_CHARACTER: usize = 259;
/// The files that training writes.
const FILES: [&str; 2] = ["tokenizer.json", "tokenizer_config.json"];
/// The limit of the reader of such files.
const MAX_VOCAB: usize = 1 << 20;

/// Options of a tokenizer's training.
///
/// ```no_run
/// use openelm_core::tokenizer::TokenizerTraining;
///
/// # fn main() -> openelm_core::Result<()> {
/// let training = TokenizerTraining { vocab_size: 4096, ..TokenizerTraining::default() };
/// let report = training.train(&["tales.jsonl".into()], "tokenizer".as_ref())?;
/// println!("{} pieces from {} documents", report.vocab_size, report.documents);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TokenizerTraining {
    /// Number of pieces, including special tokens and bytes. Default 32,000, as in LLaMA.
    pub vocab_size: usize,
    /// Key of the text in rows of JSON and parquet. Default `text`.
    pub text_key: String,
    /// Fraction of the text's characters that the alphabet must cover, over 0 and at most 1; rarer
    /// characters are encoded as bytes. Default 0.99995, as in LLaMA.
    pub character_coverage: f64,
    /// Replace existing tokenizer files. Default false.
    pub force: bool,
}

impl Default for TokenizerTraining {
    fn default() -> Self {
        Self {
            vocab_size: 32_000,
            text_key: "text".to_owned(),
            character_coverage: 0.99995,
            force: false,
        }
    }
}

/// Counts of the text that a tokenizer was trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenizerReport {
    /// Documents read.
    pub documents: u64,
    /// Characters of the text.
    pub characters: u64,
    /// Distinct words.
    pub words: usize,
    /// Characters with their own piece.
    pub alphabet: usize,
    /// Total number of pieces.
    pub vocab_size: usize,
}

impl TokenizerTraining {
    /// Trains on `files` (as for a [corpus](crate::corpus): files, folders and patterns) and
    /// writes `tokenizer.json` and `tokenizer_config.json` into the folder `output`, which is created
    /// if needed. The text is first normalized to NFC. The same data gives the same bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Destination`] if the folder holds these files or the data, or another process
    /// writes there;
    /// [`Error::Option`] if the vocabulary has no room for the alphabet, or the text gives too few
    /// pieces; [`Error::Data`] if a file is malformed or there is no text;
    /// [`Error::Io`] and [`Error::MissingFile`].
    pub fn train(&self, files: &[PathBuf], output: &Path) -> Result<TokenizerReport> {
        self.check()?;
        check_inputs(output, files.iter().map(|file| ("data", file.as_path())))?;
        self.check_output(output)?;
        let mut words = Words::default();
        let mut documents = 0;
        let mut last = None;
        for_each_document(files, &self.text_key, |path, text, continues| {
            documents += u64::from(!continues);
            last = Some(path.to_owned());
            words.add(text);
        })?;
        if words.is_empty() {
            return Err(Error::data(
                last.or_else(|| files.first().cloned()).unwrap_or_default(),
                None,
                "there is no text to train a tokenizer on",
            ));
        }
        let (characters, different) = (words.characters(), words.len());
        let alphabet = words.alphabet(self.character_coverage);
        let smallest = FIRST_CHARACTER + alphabet.len();
        if self.vocab_size < smallest {
            return Err(Error::option(
                "vocab_size",
                format!(
                    "expected at least {smallest} (3 special tokens, 256 bytes, {} characters of the \
                 text), found {}; a lower character coverage needs fewer",
                    alphabet.len(),
                    self.vocab_size
                ),
            ));
        }
        let mut pieces = first_pieces();
        pieces.extend(alphabet.iter().map(char::to_string));
        let ids: HashMap<char, u32> = alphabet.iter().copied().zip(259..).collect();
        let merges = merges::learn(words.split(&ids), &mut pieces, self.vocab_size);
        if pieces.len() < self.vocab_size {
            return Err(Error::option(
                "vocab_size",
                format!(
                    "the text gives {} pieces, expected {}; use a smaller vocabulary or more text",
                    pieces.len(),
                    self.vocab_size
                ),
            ));
        }
        let mut created = CreatedFolders::create(&resolve(output)?)?;
        let lock = WriteLock::acquire(output, Activity::Writing)?;
        self.check_output(output)?;
        write(output, &pieces, &merges)?;
        created.keep();
        drop(lock);
        Ok(TokenizerReport {
            documents,
            characters,
            words: different,
            alphabet: alphabet.len(),
            vocab_size: pieces.len(),
        })
    }

    fn check_output(&self, output: &Path) -> Result<()> {
        CreatedFolders::check(output)?;
        for name in FILES {
            let path = output.join(name);
            match fs::symlink_metadata(&path) {
                Ok(_) if path.is_dir() => {
                    return Err(Error::destination(path, "a folder, expected a file"));
                }
                Ok(_) if !self.force => {
                    let problem = "exists, and replacing it was not requested";
                    return Err(Error::destination(path, problem).with_remedy(Remedy::Force));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        if self.vocab_size <= FIRST_CHARACTER || self.vocab_size > MAX_VOCAB {
            return Err(Error::option(
                "vocab_size",
                format!(
                    "expected 260 (3 special tokens, 256 bytes, 1 character) to {MAX_VOCAB}, found {}",
                    self.vocab_size
                ),
            ));
        }
        if self.character_coverage > 0.0 && self.character_coverage <= 1.0 {
            return Ok(());
        }
        Err(Error::option(
            "character_coverage",
            format!(
                "expected more than 0 and at most 1, found {}",
                self.character_coverage
            ),
        ))
    }
}

fn first_pieces() -> Vec<String> {
    let special = ["<unk>", "<s>", "</s>"].map(str::to_owned);
    let bytes = (0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>"));
    special.into_iter().chain(bytes).collect()
}

fn write(output: &Path, pieces: &[String], merges: &[(String, String)]) -> Result<()> {
    let save = |name: &str, value: &Value| {
        let path = output.join(name);
        let mut text = format!("{value:#}");
        text.push('\n');
        // The written file must be readable by this crate.
        if name == FILES[0] {
            Tokenizer::from_bytes(&path, text.as_bytes())?;
        }
        write_file(&path, &text)
    };
    save(FILES[0], &tokenizer_json(pieces, merges))?;
    save(
        FILES[1],
        &json!({
            "tokenizer_class": "LlamaTokenizer",
            "add_bos_token": true,
            "add_eos_token": false,
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "clean_up_tokenization_spaces": false,
            "model_max_length": 2048,
            "legacy": false,
        }),
    )
}

/// The file in the form of LLaMA's `tokenizer.json`.
fn tokenizer_json(pieces: &[String], merges: &[(String, String)]) -> Value {
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false, "special": true})
    };
    let bos = |type_id: u32| json!({"SpecialToken": {"id": "<s>", "type_id": type_id}});
    let text = |id: &str, type_id: u32| json!({"Sequence": {"id": id, "type_id": type_id}});
    let vocab: serde_json::Map<String, Value> = pieces
        .iter()
        .zip(0_u32..)
        .map(|(piece, id)| (piece.clone(), json!(id)))
        .collect();
    let merges: Vec<_> = merges
        .iter()
        .map(|(left, right)| format!("{left} {right}"))
        .collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "post_processor": {"type": "TemplateProcessing",
            "single": [bos(0), text("A", 0)],
            "pair": [bos(0), text("A", 0), bos(1), text("B", 1)],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>",
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
            "byte_fallback": true, "ignore_merges": false, "vocab": vocab, "merges": merges},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use openelm_testing::TempDir;

    fn training(vocab_size: usize) -> TokenizerTraining {
        TokenizerTraining {
            vocab_size,
            ..TokenizerTraining::default()
        }
    }

    fn train(scratch: &TempDir, text: &str, vocab_size: usize) -> Result<TokenizerReport> {
        let file = scratch.write("data/a.txt", text);
        training(vocab_size).train(&[file], &scratch.join("out"))
    }

    #[test]
    fn pieces_are_ordered_by_pair_frequency() {
        let scratch = TempDir::new();
        // Words: ▁low x5, er x2: `▁` `l` `o` `w` tie and go by id; `e` `r` comes after them.
        let report = train(&scratch, "low low low lower lower", 259 + 6 + 4).unwrap();
        assert_eq!((report.documents, report.characters), (1, 23));
        assert_eq!((report.alphabet, report.vocab_size), (6, 269));
        let tokenizer = Tokenizer::from_file(scratch.join("out/tokenizer.json")).unwrap();
        // e l o r w ▁ are 259 to 264. (l, o) has the lowest ids of the pairs with count five.
        let pieces: Vec<_> = (259..269).map(|id| tokenizer.piece(id).unwrap()).collect();
        assert_eq!(
            pieces,
            ["e", "l", "o", "r", "w", "▁", "lo", "▁lo", "▁low", "er"]
        );
        assert_eq!(
            tokenizer.encode_prompt("lower low").unwrap(),
            [1, 267, 268, 267]
        );
        assert_eq!((tokenizer.bos_id(), tokenizer.eos_id()), (1, 2));
        assert_eq!(tokenizer.encode("x\n").unwrap(), [264, 3 + 0x78, 3 + 0x0A]);
    }

    #[test]
    fn random_text_round_trips() {
        let scratch = TempDir::new();
        let text = "Once upon a time, 12 ducks   went; \"quack\", said they.\n\n".repeat(20);
        train(&scratch, &text, 310).unwrap();
        let tokenizer = Tokenizer::from_file(scratch.join("out/tokenizer.json")).unwrap();
        let all: String = (0..=char::MAX as u32)
            .filter_map(char::from_u32)
            // The one character that this kind of tokenizer reads as a space.
            .filter(|&c| c != '▁')
            .collect();
        for text in [
            "",
            " ",
            "  a   b    ",
            "\n\n\t ",
            "🦙👩‍👩‍👧 naïve नमस्ते 漢字",
            "<0x41> <0x0A>",
            "e\u{301}\u{0}\u{7F}\u{FFFD}",
            &all,
        ] {
            let ids = tokenizer.encode_prompt(text).unwrap();
            assert_eq!((ids[0], ids.contains(&2)), (1, false));
            assert!(!ids.contains(&0), "{text:?} has unknown pieces");
            assert!(tokenizer.decode(&ids).unwrap() == text, "{text:?}");
        }
    }

    #[test]
    fn training_is_deterministic() {
        let scratch = TempDir::new();
        let text: String = (0..400_u32)
            .map(|i| format!("{:x} wörd{} ", i.wrapping_mul(2_654_435_761), i % 37))
            .collect();
        let file = scratch.write("a.jsonl", json!({"content": text}).to_string());
        let run = |name: &str| {
            let training = TokenizerTraining {
                text_key: "content".into(),
                force: true,
                ..training(350)
            };
            training
                .train(std::slice::from_ref(&file), &scratch.join(name))
                .unwrap();
            ["tokenizer.json", "tokenizer_config.json"]
                .map(|file| fs::read(scratch.join(name).join(file)).unwrap())
        };
        let first = run("one");
        for _ in 0..3 {
            assert!(run("two") == first);
        }
    }

    #[test]
    fn rare_characters_become_bytes_below_full_coverage() {
        let scratch = TempDir::new();
        let file = scratch.write("a.txt", format!("{}漢", "ab ".repeat(1_000)));
        for (coverage, pieces) in [(0.999, 3), (1.0, 4)] {
            let training = TokenizerTraining {
                character_coverage: coverage,
                force: true,
                ..training(264)
            };
            let report = training
                .train(std::slice::from_ref(&file), &scratch.join("out"))
                .unwrap();
            assert_eq!(report.alphabet, pieces, "{coverage}");
        }
    }

    #[test]
    fn replaces_only_its_own_files_and_only_with_force() {
        let scratch = TempDir::new();
        let file = scratch.write("a.txt", "ab ".repeat(1_000));
        let train = |force: bool, output: &str| {
            let training = TokenizerTraining {
                force,
                ..training(262)
            };
            training.train(std::slice::from_ref(&file), &scratch.join(output))
        };
        for name in FILES {
            let path = format!("{name}-there/{name}");
            scratch.write(&path, "theirs");
            scratch.write(&format!("{name}-there/notes.txt"), "notes");
            let output = format!("{name}-there");
            let error = train(false, &output).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Destination);
            assert!(error.to_string().contains("exists"), "{error}");
            assert_eq!(fs::read(scratch.join(&path)).unwrap(), b"theirs");
            assert_eq!(scratch.files(&output).len(), 2);
            train(true, &output).unwrap();
            assert_ne!(fs::read(scratch.join(&path)).unwrap(), b"theirs");
            let files = scratch.files(&output);
            assert_eq!((files.len(), &*files["notes.txt"]), (3, &b"notes"[..]));
        }
        // The data in the output folder; a file, and a folder, in place of the output.
        scratch.write("folder/tokenizer.json/notes", "");
        for (output, expected) in [
            ("", "contains an input"),
            ("a.txt", "is an input"),
            ("a.txt/out", "not a folder"),
            ("folder", "a folder, expected a file"),
        ] {
            let error = train(true, output).unwrap_err().to_string();
            assert!(error.contains(expected), "{output}: {error}");
        }
        let lock = WriteLock::acquire(&scratch.join("folder"), Activity::Training).unwrap();
        fs::remove_dir_all(scratch.join("folder/tokenizer.json")).unwrap();
        let error = train(false, "folder").unwrap_err().to_string();
        assert!(error.contains("is training here"), "{error}");
        drop(lock);
    }

    #[test]
    fn rejects_invalid_options() {
        let scratch = TempDir::new();
        let problem = |text: &str, size| train(&scratch, text, size).unwrap_err().to_string();
        assert!(problem("abc", 259).contains("vocab_size: expected 260 (3 special tokens"));
        assert!(problem("abc", 262).contains("expected at least 263"));
        assert!(problem("abc", 999).contains("the text gives 266 pieces, expected 999"));
        assert!(problem("", 300).contains("a.txt: there is no text"));
        assert!(!scratch.join("out").exists());
        for coverage in [0.0, 1.1, f64::NAN] {
            let training = TokenizerTraining {
                character_coverage: coverage,
                ..training(300)
            };
            let problem = training
                .train(&[], Path::new("out"))
                .unwrap_err()
                .to_string();
            assert!(
                problem.contains("character_coverage: expected more than 0"),
                "{problem}"
            );
        }
    }
}
