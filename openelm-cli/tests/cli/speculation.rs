//! Prompt lookup and draft models.

use openelm_testing::{fails, run, works};

use crate::tool::{generate, openelm, parse, small, tales, with_model};

const PROMPT: &str = "the cat sat on the mat. the cat sat on the mat. the cat sat on the mat. the cat \
                      sat on the mat. ";

#[test]
fn drafts_keep_the_text_and_are_counted() {
    let args = ["-p", PROMPT, "-n", "40"];
    let plain = works(generate(&args));
    let lookup = ["--prompt-lookup", "8"];
    let alias = ["--prompt-lookup-num-tokens", "8"];
    let draft = ["--draft-model", &tales(), "--num-draft-tokens", "2"];
    for options in [&lookup[..], &alias, &draft] {
        let outcome = run(generate(&[&args[..], options].concat()));
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert_eq!(outcome.stdout, plain);
        assert!(outcome.stderr.contains("accepted drafts: "), "{outcome:?}");
        let lines = works(generate(&[&args[..], options, &["--json"]].concat()));
        let end = parse(lines.lines().last().unwrap());
        let (drafted, accepted) = (&end["drafted_tokens"], &end["accepted_tokens"]);
        assert!(drafted.as_u64().unwrap() >= accepted.as_u64().unwrap());
        assert!(accepted.as_u64().unwrap() > 0, "{end}");
    }
    let outcome = run(generate(&args));
    assert!(!outcome.stderr.contains("drafts"), "{outcome:?}");
}

#[test]
fn a_draft_model_without_a_tokenizer_has_that_of_the_model() {
    let args = ["-p", PROMPT, "-n", "8"];
    let zeros = with_model(&small(2048));
    let draft = ["--draft-model", zeros.as_str()];
    let plain = works(generate(&args));
    assert_eq!(works(generate(&[&args[..], &draft].concat())), plain);
}

#[test]
fn refuses_unsuitable_draft_models() {
    let args = ["-p", PROMPT, "-n", "8"];
    let with = |options: &[&str]| generate(&[&args[..], options].concat());
    // 100 ids are fewer than the tokenizer's.
    let few = with_model(&small(100));
    let outcome = run(with(&["--draft-model", few.as_str()]));
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    let error = "openelm: --draft-model: expected a vocabulary of at least 2048, found 100\n";
    assert!(outcome.stderr.ends_with(error), "{outcome:?}");
    fails(
        with(&["--draft-model", "nowhere"]),
        1,
        &["nowhere", "no such file or folder"],
    );
    let draft = ["--draft-model", &tales()];
    fails(
        with(&[&draft[..], &["--num-draft-tokens", "0"]].concat()),
        2,
        &["--num-draft-tokens", "at least 1"],
    );
    for (options, name) in [
        (
            &[&draft[..], &["--prompt-lookup", "2"]].concat()[..],
            "--prompt-lookup",
        ),
        (&["--num-draft-tokens", "2"], "--draft-model"),
    ] {
        let outcome = run(with(options));
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains(name), "{outcome:?}");
    }
    let outcome = run(openelm(&["bench", "-m", &tales(), "--prompt-lookup", "x"]));
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
}
