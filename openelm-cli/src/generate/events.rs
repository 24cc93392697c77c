//! Events of a generation: as text, as JSON, and as statistics.

use openelm_core::{
    Tokenizer,
    generation::{Event, FinishReason, Stats, Token, TokenLogprob},
    memory,
};
use serde_json::json;

use crate::{error::Error, output};

/// Prints the text of an event.
pub(super) fn print_text(event: &Event) -> Result<(), Error> {
    match event {
        Event::Token(token) if !token.text.is_empty() => output::write_text(&token.text),
        Event::Finished { .. } => output::write(b"\n"),
        _ => Ok(()),
    }
}

/// The event as a JSON object.
pub(super) fn to_json(event: &Event, tokenizer: &Tokenizer) -> Result<serde_json::Value, Error> {
    Ok(match event {
        Event::Prefill {
            processed,
            total,
            logprobs,
        } => {
            let mut object = json!({ "event": "prefill", "processed": processed, "total": total });
            if !logprobs.is_empty() {
                let tokens = logprobs.iter().map(|token| {
                    let piece = tokenizer.piece(token.id).unwrap_or_default();
                    let top = top_json(&token.top_logprobs, tokenizer);
                    json!({ "id": token.id, "piece": piece, "logprob": token.logprob,
                        "top_logprobs": top })
                });
                object["logprobs"] = tokens.collect();
            }
            object
        }
        Event::Token(Token {
            id,
            text,
            logprob,
            top_logprobs,
        }) => {
            let mut object = json!({ "event": "token", "id": id, "text": text });
            if let Some(logprob) = logprob {
                object["logprob"] = json!(logprob);
                object["top_logprobs"] = top_json(top_logprobs, tokenizer);
            }
            object
        }
        Event::Finished { reason, stats } => json!({
            "event": "finished",
            "reason": reason.as_str(),
            "prompt_tokens": stats.prompt_tokens,
            "generated_tokens": stats.generated_tokens,
            "drafted_tokens": stats.drafted_tokens,
            "accepted_tokens": stats.accepted_tokens,
            "prefill_seconds": stats.prefill.as_secs_f64(),
            "decode_seconds": stats.decode.as_secs_f64(),
            "prefill_tokens_per_second": stats.prefill_tokens_per_second(),
            "decode_tokens_per_second": stats.decode_tokens_per_second(),
            "peak_memory_bytes": memory::peak_resident_bytes()?,
            "seed": stats.seed,
        }),
    })
}

/// The most likely tokens.
fn top_json(top: &[TokenLogprob], tokenizer: &Tokenizer) -> serde_json::Value {
    let tokens = top.iter().map(|top| {
        let piece = tokenizer.piece(top.id).unwrap_or_default();
        json!({ "id": top.id, "piece": piece, "logprob": top.logprob })
    });
    tokens.collect()
}

/// Prints the statistics of a text on standard error.
pub(super) fn print_stats(
    reason: FinishReason,
    stats: &Stats,
    drawn: bool,
    speculates: bool,
) -> Result<(), Error> {
    let why = match reason {
        FinishReason::Eos => "end of text",
        FinishReason::Stop => "stop string",
        FinishReason::Length => "--max-tokens reached",
        FinishReason::Context => "context full",
        FinishReason::Cancelled => "interrupted",
    };
    output::note(&format!(
        "[{why}] prompt: {} tokens, {:.1} tokens/s; generated: {} tokens, {:.1} tokens/s; \
         {}peak memory: {}{}",
        stats.prompt_tokens,
        stats.prefill_tokens_per_second(),
        stats.generated_tokens,
        stats.decode_tokens_per_second(),
        if speculates {
            let (accepted, drafted) = (stats.accepted_tokens, stats.drafted_tokens);
            format!("accepted drafts: {accepted} of {drafted}; ")
        } else {
            String::new()
        },
        output::bytes(memory::peak_resident_bytes()?),
        if drawn {
            format!("; seed: {}", stats.seed)
        } else {
            String::new()
        },
    ));
    Ok(())
}
