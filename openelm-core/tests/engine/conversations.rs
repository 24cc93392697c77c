//! Conversations: files, reading before a question, draft models, a full context.

use openelm_core::{
    CancelHandle, LanguageModel, LoadOptions,
    chat::{ChatTemplate, ContextOverflow},
    engine::{ChatHandle, ModelHandle, RequestOptions},
    evaluate::PerplexityOptions,
    generation::{Event, Stats},
};
use openelm_testing::{TempDir, block_on, tales};

use super::{greedy, load, read_stats as read};

fn plain(model: &ModelHandle) -> ChatHandle {
    model.chat(ChatTemplate::Plain, Vec::new()).unwrap()
}

fn answer(chat: &ChatHandle, question: &str) -> (String, Stats) {
    read(&chat.respond(question, greedy(12)).unwrap())
}

#[test]
fn a_saved_conversation_continues_in_another_engine() {
    let folder = TempDir::new();
    let file = folder.join("chat.safetensors");
    let model = load();
    let chat = plain(&model);
    answer(&chat, "Once upon a time there was a fox.");
    block_on(chat.save(file.clone())).unwrap();
    // The file is replaced.
    answer(&chat, " The fox met a bear.");
    block_on(chat.save(file.clone())).unwrap();
    let messages = block_on(chat.messages()).unwrap();
    let (expected, _) = answer(&chat, " They");

    let model = load();
    let restored = block_on(model.load_chat(file.clone())).unwrap();
    assert_eq!(block_on(restored.messages()).unwrap(), messages);
    let (text, stats) = answer(&restored, " They");
    assert_eq!(text, expected);
    assert!(stats.cached_tokens > 30, "{stats:?}");
    let missing = block_on(model.load_chat(folder.join("none"))).unwrap_err();
    let place = folder.join("none");
    let expected = format!(
        "{}: there is no file of a conversation here",
        place.display()
    );
    assert_eq!(missing.to_string(), expected);
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let cut = block_on(model.load_chat(file)).unwrap_err().to_string();
    assert!(
        cut.contains("truncated") || cut.contains("malformed"),
        "{cut}"
    );
}

/// The engine reads the request while the handle cancels it and reads the messages.
#[test]
fn the_question_of_a_cancelled_answer_is_shown_at_once() {
    let model = load();
    for number in 0..1500 {
        let chat = plain(&model);
        let events = chat.respond("A fox", greedy(400)).unwrap();
        let delay = std::time::Instant::now();
        while delay.elapsed() < std::time::Duration::from_micros(number % 12) {}
        drop(events);
        let messages = block_on(chat.messages()).unwrap();
        let question = messages.first().map(|message| message.content.as_str());
        assert_eq!(question, Some("A fox"), "{number}: {messages:?}");
    }
}

#[test]
fn a_conversation_without_an_answer_is_saved() {
    let folder = TempDir::new();
    let file = folder.join("chat.safetensors");
    let model = load();
    block_on(plain(&model).save(file.clone())).unwrap();
    let restored = block_on(model.load_chat(file.clone())).unwrap();
    assert!(block_on(restored.messages()).unwrap().is_empty());
    // A prompt cache and a conversation do not replace each other, although they have one format.
    let base = LanguageModel::load(tales(), &LoadOptions::default()).unwrap();
    let mut generation = base.generate("A fox", greedy(1)).unwrap();
    while generation.next().is_some() {}
    let kept = folder.join("cache.safetensors");
    let cache = generation.into_cache();
    cache.save(&kept, base.model(), "tales").unwrap();
    let error = block_on(restored.save(kept)).unwrap_err().to_string();
    assert!(
        error.ends_with("is not a conversation of openelm; choose another path"),
        "{error}"
    );
    let error = cache.save(&file, base.model(), "tales").unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("is not a prompt cache of openelm; choose another path"),
        "{error}"
    );
    let other = folder.join("notes.txt");
    folder.write("notes.txt", "notes");
    let error = block_on(restored.save(other.clone())).unwrap_err();
    assert!(error.to_string().contains("choose another path"), "{error}");
    assert_eq!(std::fs::read(other).unwrap(), b"notes");
}

#[test]
fn a_question_that_was_read_before_begins_sooner() {
    let story = "Once upon a time there was a little girl named Lily. She liked to play";
    let (expected, stats) = answer(&plain(&load()), story);
    assert_eq!(stats.cached_tokens, 0);
    let model = load();
    let chat = plain(&model);
    chat.prewarm("Once upon a time there was a little girl named Lily.")
        .unwrap();
    // This work has no reader. A text of another request follows it.
    read(&model.generate("A bear", greedy(16)).unwrap());
    let (text, stats) = answer(&chat, story);
    assert_eq!(text, expected);
    assert!(stats.cached_tokens > 8, "{stats:?}");
    assert_eq!(block_on(chat.messages()).unwrap().len(), 2);
    // A question that is not valid, and one while an answer is running, have no effect.
    chat.prewarm("The fox ".repeat(2_000)).unwrap();
    let events = chat.respond(" The fox", greedy(400)).unwrap();
    chat.prewarm(" The fox").unwrap();
    read(&events);
    assert_eq!(block_on(chat.messages()).unwrap().len(), 4);
}

#[test]
fn a_draft_model_changes_no_text() {
    let model = load();
    let draft = model
        .engine()
        .load_blocking(tales(), LoadOptions::default())
        .unwrap();
    let with = || RequestOptions {
        draft: Some((draft.clone(), 4)),
        ..RequestOptions::default()
    };
    let (expected, _) = read(&model.generate("The fox", greedy(24)).unwrap());
    let events = model.generate_with("The fox", greedy(24), with()).unwrap();
    let (text, stats) = read(&events);
    assert_eq!(text, expected);
    assert!(stats.accepted_tokens > 8, "{stats:?}");
    let (expected, _) = answer(&plain(&model), "The bear");
    let chat = plain(&model);
    let events = chat.respond_with("The bear", greedy(12), with());
    let (text, stats) = read(&events.unwrap());
    assert_eq!(text, expected);
    assert!(stats.accepted_tokens > 4, "{stats:?}");

    let chat = plain(&model);
    block_on(draft.unload()).unwrap();
    let events = chat.respond_with("The bear", greedy(12), with()).unwrap();
    let error = events.next_blocking().unwrap_err();
    assert_eq!(error.to_string(), "the model was unloaded");
    // The conversation is as before.
    assert!(block_on(chat.messages()).unwrap().is_empty());
    assert_eq!(answer(&chat, "The bear").0, expected);
}

#[test]
fn a_full_context_leaves_out_the_oldest_turns() {
    let model = load();
    let chat = plain(&model);
    let long = |chat: &ChatHandle, overflow: ContextOverflow| {
        let with = RequestOptions {
            context_overflow: overflow,
            ..RequestOptions::default()
        };
        let question = "The fox had apples and pears. ".repeat(12);
        chat.respond_with(question, greedy(8), with).unwrap()
    };
    let mut events = long(&chat, ContextOverflow::Error);
    for _ in 0..40 {
        while let Ok(Some(event)) = events.next_blocking() {
            if matches!(event, Event::Finished { .. }) {
                break;
            }
        }
        events = long(&chat, ContextOverflow::Error);
        let first = events.next_blocking();
        if let Err(error) = first {
            assert!(error.to_string().contains("the model's context"), "{error}");
            let before = block_on(chat.messages()).unwrap().len();
            read(&long(&chat, ContextOverflow::DropOldestTurns));
            assert!(chat.dropped_messages() > 0);
            assert_eq!(block_on(chat.messages()).unwrap().len(), before + 2);
            return;
        }
    }
    panic!("the context did not fill");
}

#[test]
fn texts_have_a_perplexity() {
    let model = load();
    let texts = |texts: &[&str]| {
        let texts = texts.iter().map(|&text| text.to_owned()).collect();
        block_on(model.perplexity(
            texts,
            PerplexityOptions::default(),
            &CancelHandle::default(),
        ))
    };
    let story = "Once upon a time there was a little fox.";
    let good = texts(&[story, "", "The bear was happy."]).unwrap();
    assert_eq!((good.documents, good.bytes), (2, story.len() + 19));
    let bad = texts(&["fox little a was there time a upon Once."]).unwrap();
    assert!(good.perplexity() < bad.perplexity() / 2.0);
    let none = texts(&[""]).unwrap_err().to_string();
    assert_eq!(none, "texts: expected a text with tokens, found none");
    // As the sum of the tokens after BOS.
    let request = openelm_core::evaluate::ScoreRequest {
        context: "".into(),
        continuation: story.into(),
    };
    let scored = block_on(model.log_likelihoods(vec![request], &CancelHandle::default())).unwrap();
    let alone = texts(&[story]).unwrap();
    assert!((alone.nats + scored[0].sum).abs() < 1e-3);
}

#[test]
fn a_pause_does_not_block_the_caller() {
    let model = load();
    let events = model.generate("A bear", greedy(200)).unwrap();
    events.next_blocking().unwrap();
    let second = std::time::Duration::from_secs(1);
    assert!(block_on(model.engine().pause_async(second)));
    model.engine().resume();
    read(&events);
}
