//! The detection of mojibake: sequences of characters that are unlikely in text, but arise if UTF-8
//! is decoded in a single-byte encoding.

use std::sync::LazyLock;

use regex::Regex;

// Classes of characters, as parts of regular expressions.

/// Characters of many contexts.
const COMMON: &str = r"\u{A0}\u{AD}·´–—―…’";
/// C1 control characters.
const C1: &str = r"\u{80}-\u{9F}";
/// Characters that are nearly always mojibake.
const BAD: &str = r"¦¤¨¬¯¶§¸ƒˆˇ˘˛˜†‡‰⌐◊\u{FFFD}ªº";
const CURRENCY: &str = "¢£¥₧€";
const START: &str = r"¡«¿©΄΅‘‚“„•‹\u{F8FF}";
const END: &str = "®»˝”›™";
const NUMERIC: &str = "²³¹±¼½¾×µ÷⁄∂∆∏∑√∞∩∫≈≠≡≤≥№";
/// Letters of emoticons.
const KAOMOJI: &str = "Ò-ÖÙ-Üò-öø-üŐ°";
const UPPER_ACCENTED: &str = "À-ÑØÜÝĂĄĆČĎĐĘĚĞİĹĽŁŃŇŒŘŚŞŠŢŤŮŰŸŹŻŽҐ";
const LOWER_ACCENTED: &str = r"ßà-ñăąćčďđęěğĺľłœŕśşšťüźżžґ\u{FB01}\u{FB02}";
const UPPER_COMMON: &str = "ÞΑ-ΩΆΈΉΊΌΎΏΪΫЁ-Я";
const LOWER_COMMON: &str = "α-ωάέήίΰа-џ";
const BOX: &str = "│┌┐┘├┤┬┼═-╬▀▄█▌▐░▒▓";

/// True if `text` looks as if it had mojibake.
pub(crate) fn is_bad(text: &str) -> bool {
    static BADNESS: LazyLock<Regex> = LazyLock::new(|| expression(&sequences().join("|")));
    BADNESS.is_match(text)
}

#[expect(clippy::expect_used, reason = "a constant, which every test compiles")]
pub(crate) fn expression(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a valid expression")
}

/// The sequences of ftfy's `BADNESS_RE`, in its order.
fn sequences() -> Vec<String> {
    let class = |parts: &[&str]| format!("[{}]", parts.concat());
    let (bad, upper, lower) = (BAD, UPPER_ACCENTED, LOWER_ACCENTED);
    let marks = [BOX, START, END, CURRENCY, NUMERIC].concat();
    let arabic = class(&[COMMON, CURRENCY, BAD, NUMERIC, START, "ŸŠ®°µ»"]);
    let mut all: Vec<String> = [
        &[&*class(&[C1])][..],
        &[&class(&[bad, lower, upper, &marks]), &class(&[bad])],
        &[
            "[a-zA-Z]",
            &class(&[LOWER_COMMON, UPPER_COMMON]),
            &class(&[bad]),
        ],
        &[&class(&[bad]), &class(&[lower, upper, &marks])],
        &[
            &class(&[lower, LOWER_COMMON, BOX, END, CURRENCY, NUMERIC]),
            &class(&[upper]),
        ],
        &[&class(&[BOX, END, CURRENCY, NUMERIC]), &class(&[lower])],
        &[&class(&[lower, BOX, END]), &class(&[CURRENCY])],
        &[SPACE, &class(&[upper]), &class(&[CURRENCY])],
        &[&class(&[upper, BOX]), &class(&[NUMERIC])],
        &[
            &class(&[lower, upper, BOX, CURRENCY, END]),
            &class(&[START]),
            &class(&[NUMERIC]),
        ],
        &[
            &class(&[lower, upper, CURRENCY, NUMERIC, BOX]),
            &class(&[END]),
            &class(&[START]),
        ],
        &[&class(&[CURRENCY, NUMERIC, BOX]), &class(&[START])],
        &["[a-z]", &class(&[upper]), &class(&[START, CURRENCY])],
        &[&class(&[BOX]), &class(&[KAOMOJI])],
        &[
            &class(&[lower, upper, CURRENCY, NUMERIC, START, END]),
            &class(&[BOX]),
        ],
        &[&class(&[BOX]), &class(&[END])],
        &[&class(&[lower, upper]), &class(&[END]), WORD],
        // The ligature œ, if no unaccented Latin letter follows.
        &["[Œœ][^A-Za-z]"],
        // Windows-1252.
        &[
            "[ÂÃÎÐ]",
            &class(&[r"€Šš¢£Ÿž\u{A0}\u{AD}®©°·»", START, END, "–—´"]),
        ],
        &["×[²³]"],
        // Arabic in Windows-1252.
        &["[ØÙ]", &arabic, "[ØÙ]", &arabic],
        // South Asian alphabets in Windows-1252.
        &["à[²µ¹¼½¾]"],
    ]
    .map(<[&str]>::concat)
    .into();
    let pairs = [C1, BAD, START, END, CURRENCY].concat();
    all.extend(
        [
            // Mac Roman.
            "√[±∂†≠®™´≤≥¥µø]",
            "≈[°¢]",
            "‚Ä[ìîïòôúùû†°¢π]",
            "‚[âó][àä°ê]",
            // Windows-1251.
            "вЂ",
            &format!("[ВГРС][{pairs}°µ][ВГРС]"),
            "ГўВЂВ.[A-Za-z ]",
            // Windows-1252 of à, á and U+00A0, and of Â before the character that it encodes.
            r"Ã[\u{A0}¡]",
            &format!("[a-z]{SPACE}?[ÃÂ][ ]"),
            "^[ÃÂ][ ]",
            &format!("[a-z.,?!{END}]Â[ {START}{END}]"),
            // Windows-1253.
            r"β€[™\u{A0}Ά\u{AD}®°]",
            &format!("[ΒΓΞΟ][{pairs}°][ΒΓΞΟ]"),
        ]
        .map(str::to_owned),
    );
    all
}

/// Python's `\w` and `\s`.
const WORD: &str = r"[\p{L}\p{N}_]";
const SPACE: &str = r"[\s\x1C-\x1F]";
