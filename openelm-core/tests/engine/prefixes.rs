//! Requests share the keys and values of their prefixes.

use openelm_core::{
    LanguageModel, LoadOptions,
    adapter::{Adapter, LoraOptions, TargetModules},
    chat::{ChatTemplate, Message, Role},
    engine::ModelHandle,
    generation::Stats,
};
use openelm_testing::{TempDir, block_on, tales};

use super::{greedy, load, read_stats as read};

const STORY: &str = "Once upon a time there was a little girl named Lily. She liked";

fn text_of(model: &ModelHandle, prompt: &str) -> (String, Stats) {
    read(&model.generate(prompt, greedy(12)).unwrap())
}

#[test]
fn a_prompt_continues_an_earlier_text() {
    let model = load();
    let (first, stats) = text_of(&model, STORY);
    assert_eq!(stats.cached_tokens, 0);
    let (again, stats) = text_of(&model, STORY);
    assert_eq!(again, first);
    assert_eq!(stats.cached_tokens, stats.prompt_tokens - 1);
    let (_, later) = text_of(&model, &format!("{STORY}{first} and then"));
    assert!(later.cached_tokens > stats.prompt_tokens, "{later:?}");

    model.engine().clear_caches().unwrap();
    let (again, stats) = text_of(&model, STORY);
    assert_eq!((again, stats.cached_tokens), (first.clone(), 0));

    model.set_prefix_cache_limit(0).unwrap();
    for _ in 0..2 {
        let (again, stats) = text_of(&model, STORY);
        assert_eq!((again, stats.cached_tokens), (first.clone(), 0));
    }
}

#[test]
fn another_adapter_or_model_has_its_own() {
    let model = load();
    let (plain, _) = text_of(&model, STORY);
    let folder = TempDir::new();
    let base = LanguageModel::load(tales(), &LoadOptions::default()).unwrap();
    let (base, targets) = (base.model(), TargetModules::default());
    let adapter = Adapter::lora(base, &targets, &LoraOptions::default(), 1).unwrap();
    adapter.save(folder.join("."), base.config()).unwrap();
    block_on(model.add_adapter("a".into(), folder.join("."))).unwrap();
    let (_, stats) = text_of(&model, STORY);
    assert_eq!(stats.cached_tokens, 0);
    block_on(model.set_adapters(Vec::new())).unwrap();
    let (text, stats) = text_of(&model, STORY);
    assert_eq!(text, plain);
    assert!(stats.cached_tokens > 0);
    for (strength, is_known) in [(0.5, false), (1.0, true), (0.5, true)] {
        block_on(model.set_adapters(vec![("a".into(), strength)])).unwrap();
        let cached = text_of(&model, STORY).1.cached_tokens;
        assert_eq!(cached > 0, is_known, "{strength}");
    }
    // Another adapter of the same name.
    block_on(model.remove_adapter("a".into())).unwrap();
    block_on(model.add_adapter("a".into(), folder.join("."))).unwrap();
    assert_eq!(text_of(&model, STORY).1.cached_tokens, 0);

    let other = model.engine().load_blocking(tales(), Default::default());
    let (text, stats) = text_of(&other.unwrap(), STORY);
    assert_eq!((text, stats.cached_tokens), (plain, 0));
}

#[test]
fn conversations_share_their_beginning() {
    let model = load();
    let system = || {
        vec![Message {
            role: Role::System,
            content: STORY.into(),
        }]
    };
    let mut answers = Vec::new();
    for index in 0..3 {
        let chat = model.chat(ChatTemplate::Plain, system()).unwrap();
        let (answer, stats) = read(&chat.respond(" to", greedy(8)).unwrap());
        answers.push(answer);
        assert_eq!(stats.cached_tokens > 0, index > 0, "{stats:?}");
        let (_, stats) = read(&chat.respond(" And", greedy(8)).unwrap());
        assert!(stats.cached_tokens > 8);
    }
    assert_eq!(answers[1..], [answers[0].clone(), answers[0].clone()]);
}
