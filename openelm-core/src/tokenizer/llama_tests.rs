//! Tests on the LLaMA tokenizer in both formats; its files are not in the repository.

mod external_data {
    use std::{fs, path::Path};

    use openelm_testing::{Random, external_data, random_text};
    use serde_json::Value;

    use crate::tokenizer::{Tokenizer, find::FILE_NAMES};

    /// The LLaMA tokenizer in both formats.
    fn llama() -> [Tokenizer; 2] {
        let folder = external_data().join("llama-tokenizer");
        FILE_NAMES.map(|name| Tokenizer::from_file(folder.join(name)).unwrap())
    }

    fn lines(path: &Path) -> Vec<Value> {
        let text = fs::read_to_string(path).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    #[ignore = "needs OPENELM_TEST_DATA"]
    fn random_text_round_trips() {
        let [json, model] = llama();
        let mut random = Random(5);
        for _ in 0..3_000 {
            let text = random_text(&mut random);
            let ids = json.encode(&text).unwrap();
            assert_eq!(json.decode(&ids).unwrap(), text);
            assert_eq!(model.encode(&text).unwrap(), ids, "{text:?}");
        }
    }

    #[test]
    #[ignore = "needs OPENELM_TEST_DATA"]
    fn golden_texts_have_the_golden_ids() {
        let tokenizers = llama();
        let folder = external_data().join("llama-tokenizer");
        let [texts, ids] = ["inp", "out"]
            .map(|end| fs::read_to_string(folder.join("golden").with_extension(end)).unwrap());
        let texts: Vec<_> = texts.split("\n__ggml_vocab_test__\n").collect();
        let ids: Vec<_> = ids.split('\n').collect();
        assert_eq!((texts.len(), ids.len()), (47, 47));
        for (text, ids) in texts.iter().zip(ids) {
            let ids: Vec<u32> = ids
                .split_whitespace()
                .map(|id| id.parse().unwrap())
                .collect();
            for tokenizer in &tokenizers {
                assert_eq!(tokenizer.encode(text).unwrap(), ids, "{text:?}");
                assert_eq!(tokenizer.decode(&ids).unwrap(), *text);
            }
        }
    }

    #[test]
    #[ignore = "needs OPENELM_TEST_DATA"]
    fn both_formats_agree_with_the_tokenizers_crate() {
        let [json, model] = llama();
        let corpus = external_data().join("corpus");
        let library = tokenizers::Tokenizer::from_file(json.path()).unwrap();
        let mut tokens = 0;
        for (file, count) in [
            ("fairytales_val.jsonl", 23),
            ("gutenberg_children.jsonl", 2),
        ] {
            for line in lines(&corpus.join(file)).iter().take(count) {
                let text = line["text"].as_str().unwrap();
                let ids = json.encode(text).unwrap();
                assert_eq!(model.encode(text).unwrap(), ids);
                assert_eq!(library.encode_fast(text, false).unwrap().get_ids(), ids);
                assert_eq!(model.decode(&ids).unwrap(), text);
                assert_eq!(library.decode(&ids, true).unwrap(), text);
                tokens += ids.len();
            }
        }
        assert!(tokens > 100_000, "{tokens}");
    }
}
