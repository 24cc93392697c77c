//! Conversations with the bundled tales model: the KV cache is reused without changing the text.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use openelm_core::{
    Error, LanguageModel, LoadOptions,
    adapter::{Adapter, LoraOptions, TargetModules},
    chat::{Chat, ChatTemplate, ContextOverflow, Message, Role},
    generation::{
        Event, FinishReason, GenerateOptions, Generation, KvCacheOptions, PromptCache, Stats,
    },
};
use openelm_testing::tales;

fn load() -> LanguageModel {
    LanguageModel::load(tales(), &LoadOptions::default()).unwrap()
}

fn greedy(max_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        max_tokens,
        ..GenerateOptions::default()
    }
}

/// Runs a generation to its end.
fn run(generation: &mut Generation<'_>) -> (FinishReason, Stats) {
    for event in generation {
        if let Event::Finished { reason, stats } = event.unwrap() {
            return (reason, stats);
        }
    }
    panic!("no end");
}

/// An answer in `chat` and its statistics.
fn answer(
    chat: &mut Chat,
    model: &LanguageModel,
    question: &str,
    tokens: usize,
) -> (String, Stats) {
    let mut generation = chat.start(model, question, greedy(tokens)).unwrap();
    let (_, stats) = run(&mut generation);
    let text = generation.text().to_owned();
    chat.finish(generation);
    (text, stats)
}

/// The same text with an empty cache.
fn afresh(model: &LanguageModel, prompt: &str, tokens: usize) -> String {
    let mut generation = model.generate(prompt, greedy(tokens)).unwrap();
    let (_, stats) = run(&mut generation);
    assert_eq!(stats.cached_tokens, 0);
    generation.text().to_owned()
}

#[test]
fn second_answer_prefills_new_tokens_only() {
    let model = load();
    let mut chat = Chat::new(ChatTemplate::Plain, Vec::new()).unwrap();
    let (first, stats) = answer(&mut chat, &model, "Once upon a time", 24);
    assert_eq!((stats.cached_tokens, stats.generated_tokens), (0, 24));
    assert_eq!(first, afresh(&model, "Once upon a time", 24));

    let question = " Then the king said";
    let (second, stats) = answer(&mut chat, &model, question, 24);
    let whole = format!("Once upon a time{first}{question}");
    assert_eq!(second, afresh(&model, &whole, 24));
    // The six tokens of the prompt and most of the answer; the last tokens may merge with new text.
    assert!(stats.cached_tokens >= 26, "{stats:?}");
    assert!(stats.prompt_tokens > stats.cached_tokens, "{stats:?}");

    let contents: Vec<&str> = chat.messages().iter().map(|m| m.content.as_str()).collect();
    assert_eq!(contents, ["Once upon a time", &first, question, &second]);
}

#[test]
fn events_count_from_the_cached_tokens() {
    let model = load();
    let mut chat = Chat::new(ChatTemplate::Plain, Vec::new()).unwrap();
    answer(&mut chat, &model, "There was once a king", 8);
    let mut generation = chat.start(&model, " and a queen", greedy(1)).unwrap();
    let Some(Ok(Event::Prefill {
        processed, total, ..
    })) = generation.next()
    else {
        panic!("the prompt comes first");
    };
    let (_, stats) = run(&mut generation);
    assert_eq!(
        (processed, total),
        (stats.prompt_tokens, stats.prompt_tokens)
    );
    assert!(stats.cached_tokens > 0);
}

#[test]
fn changed_adapter_invalidates_the_cache() {
    let mut model = load();
    let mut chat = Chat::new(ChatTemplate::Plain, Vec::new()).unwrap();
    answer(&mut chat, &model, "Once upon a time", 8);
    let targets = TargetModules::default();
    let adapter = Adapter::lora(model.model(), &targets, &LoraOptions::default(), 1).unwrap();
    model.model_mut().add_adapter("new", &adapter).unwrap();
    let (_, stats) = answer(&mut chat, &model, " there was", 8);
    assert_eq!(stats.cached_tokens, 0);
    let (_, stats) = answer(&mut chat, &model, " a castle", 8);
    assert!(stats.cached_tokens > 0);
    model.model_mut().set_adapters(&[]).unwrap();
    let (_, stats) = answer(&mut chat, &model, " and then", 8);
    assert_eq!(stats.cached_tokens, 0);
}

#[test]
fn ignores_cache_of_another_model() {
    let (model, other) = (load(), load());
    let mut chat = Chat::new(ChatTemplate::Plain, Vec::new()).unwrap();
    answer(&mut chat, &model, "Once upon a time", 8);
    let (text, stats) = answer(&mut chat, &other, " there was", 8);
    assert_eq!(stats.cached_tokens, 0);
    let answer = &chat.messages()[1].content;
    assert_eq!(
        text,
        afresh(&other, &format!("Once upon a time{answer} there was"), 8)
    );
}

#[test]
fn repeated_prompt_prefills_its_last_token() {
    let model = load();
    let ids = model.tokenizer().encode_prompt("Once upon a time").unwrap();
    let begin = |cache: PromptCache| {
        let (network, tokenizer) = (model.model(), Some(model.tokenizer()));
        Generation::with_cache(network, tokenizer, ids.clone(), greedy(16), cache).unwrap()
    };
    let mut first = begin(PromptCache::default());
    run(&mut first);
    let text = first.text().to_owned();
    let cache = first.into_cache();
    assert_eq!(
        (cache.tokens().len(), cache.offset()),
        (ids.len() + 16, ids.len() + 15)
    );
    let mut again = begin(cache);
    let (_, stats) = run(&mut again);
    assert_eq!(stats.cached_tokens, ids.len() - 1);
    assert_eq!(again.text(), text);
}

#[test]
fn keeps_the_tokens_of_a_cancelled_answer() {
    let model = load();
    let mut chat = Chat::new(ChatTemplate::Plain, Vec::new()).unwrap();
    let mut generation = chat.start(&model, "Once upon a time", greedy(50)).unwrap();
    let mut tokens = 0;
    while let Some(event) = generation.next() {
        if matches!(event.unwrap(), Event::Token(_)) {
            tokens += 1;
            if tokens == 4 {
                generation.cancel_handle().cancel();
            }
        }
    }
    assert_eq!(tokens, 4);
    let text = generation.text().to_owned();
    chat.finish(generation);
    assert_eq!(chat.messages()[1].content, text);
    let (next, _) = answer(&mut chat, &model, " there was", 8);
    assert_eq!(
        next,
        afresh(&model, &format!("Once upon a time{text} there was"), 8)
    );

    // Cancelled before any text: the question stays, with an empty answer.
    let before = chat.messages().len();
    let mut generation = chat.start(&model, " a dragon", greedy(50)).unwrap();
    generation.cancel_handle().cancel();
    assert_eq!(run(&mut generation).0, FinishReason::Cancelled);
    chat.finish(generation);
    let last: Vec<_> = chat.messages()[before..]
        .iter()
        .map(|m| &*m.content)
        .collect();
    assert_eq!(last, [" a dragon", ""]);
    answer(&mut chat, &model, " was there", 2);
}

#[test]
fn too_long_message_keeps_the_conversation() {
    let model = load();
    let mut chat = Chat::new(ChatTemplate::Plain, Vec::new()).unwrap();
    answer(&mut chat, &model, "Once upon a time", 8);
    let long = " and then".repeat(600);
    let error = chat.start(&model, &long, greedy(8)).unwrap_err();
    assert!(
        matches!(error, Error::PromptTooLong { context: 512, .. }),
        "{error}"
    );
    let error = chat.start(&model, "", greedy(8)).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Option {
                option: "prompt",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(chat.messages().len(), 2);
    let (_, stats) = answer(&mut chat, &model, " there was", 8);
    assert!(stats.cached_tokens > 0, "the cache is kept");
}

#[test]
fn owned_generation_outlives_model_changes() {
    let mut model = load();
    let expected = afresh(&model, "Once upon a time", 16);
    let options = greedy(16);
    let mut generation = model
        .generate("Once upon a time", options)
        .unwrap()
        .into_owned();
    let targets = TargetModules::default();
    let lora = LoraOptions {
        scale: 1e6,
        ..LoraOptions::default()
    };
    let adapter = Adapter::lora(model.model(), &targets, &lora, 1).unwrap();
    model.model_mut().add_adapter("loud", &adapter).unwrap();
    drop(model);
    generation.settle().unwrap();
    run(&mut generation);
    assert_eq!(generation.text(), expected);
}

#[test]
fn continues_from_a_transcript() {
    let model = load();
    let messages = ["Once upon a time", " there was a king"];
    let roles = [Role::User, Role::Assistant];
    let messages = std::iter::zip(roles, messages).map(|(role, content)| Message {
        role,
        content: content.to_owned(),
    });
    let mut chat = Chat::new(ChatTemplate::Plain, messages.collect()).unwrap();
    let (text, _) = answer(&mut chat, &model, " who", 8);
    assert_eq!(
        text,
        afresh(&model, "Once upon a time there was a king who", 8)
    );
}

/// Answers that fill the context of 512 positions after a few turns.
fn long_conversation(
    chat: &mut Chat,
    model: &LanguageModel,
    turns: usize,
) -> Result<Vec<usize>, Error> {
    let question = " and then the wolf said".repeat(12);
    let mut dropped = Vec::new();
    for _ in 0..turns {
        let options = GenerateOptions {
            ignore_eos: true,
            ..greedy(40)
        };
        let mut generation = chat.start(model, &question, options)?;
        let (reason, stats) = run(&mut generation);
        assert_eq!((reason, stats.generated_tokens), (FinishReason::Length, 40));
        chat.finish(generation);
        dropped.push(chat.dropped_messages());
    }
    Ok(dropped)
}

#[test]
fn long_conversation_is_an_error_by_default() {
    let model = load();
    let mut chat = Chat::new(ChatTemplate::Plain, Vec::new()).unwrap();
    let error = long_conversation(&mut chat, &model, 12).unwrap_err();
    assert!(matches!(error, Error::PromptTooLong { .. }), "{error}");
    assert_eq!(chat.dropped_messages(), 0);
}

#[test]
fn oldest_turns_are_dropped_by_choice() {
    let model = load();
    let system = Message {
        role: Role::System,
        content: "Be brief, my child.".into(),
    };
    let mut chat = Chat::new(ChatTemplate::Plain, vec![system.clone()]).unwrap();
    chat.set_context_overflow(ContextOverflow::DropOldestTurns);
    let dropped = long_conversation(&mut chat, &model, 12).unwrap();
    assert_eq!(dropped[0], 0);
    assert!(dropped.is_sorted() && dropped[11] > 0, "{dropped:?}");
    assert!(dropped.iter().all(|n| n.is_multiple_of(2)), "{dropped:?}");
    // Nothing of the transcript is lost.
    assert_eq!(chat.messages().len(), 1 + 24);

    // The prompt is the instructions and the turns that are not dropped.
    let dropped = chat.dropped_messages();
    let kept: String = chat.messages()[1 + dropped..]
        .iter()
        .map(|message| message.content.as_str())
        .collect();
    let question = " But";
    let (text, stats) = answer(&mut chat, &model, question, 4);
    assert_eq!(chat.dropped_messages(), dropped);
    assert!(stats.cached_tokens > 0, "{stats:?}");
    let whole = format!("{}{kept}{question}", system.content);
    assert_eq!(text, afresh(&model, &whole, 4));

    // A question alone that is too long stays an error.
    let error = chat
        .start(&model, &" and then".repeat(600), greedy(8))
        .unwrap_err();
    assert!(
        matches!(error, Error::PromptTooLong { context: 512, .. }),
        "{error}"
    );
    // The default choice again: the whole conversation.
    chat.set_context_overflow(ContextOverflow::Error);
    chat.start(&model, question, greedy(1)).unwrap_err();
}

#[test]
fn a_rotating_cache_needs_no_drop() {
    let model = load();
    let mut chat = Chat::new(ChatTemplate::Plain, Vec::new()).unwrap();
    let options = GenerateOptions {
        kv_cache: KvCacheOptions {
            max_kv_size: Some(64),
            ..KvCacheOptions::default()
        },
        ..greedy(4)
    };
    let question = " and then".repeat(600);
    let mut generation = chat.start(&model, &question, options).unwrap();
    let (_, stats) = run(&mut generation);
    assert!(stats.prompt_tokens > 512);
    chat.finish(generation);
    assert_eq!(chat.dropped_messages(), 0);
}
