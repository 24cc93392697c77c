//! The repair of text that was decoded in a wrong encoding.

use std::sync::LazyLock;

use regex::Regex;

use crate::{
    badness::{expression, is_bad},
    bytes, characters,
    encodings::{ENCODINGS, Encoding, Kind, windows_1252},
};

// Characters of UTF-8's bytes in encodings like Latin-1, as parts of regular expressions.

/// Of C2 to DF.
const FIRST_OF_2: &str = "ÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞßĂĆČĎĐĘĚĞİĹŃŇŐŘŞŢŮŰ\
    ΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩΪΫάέήίВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ";
/// Of E0 to EF.
const FIRST_OF_3: &str = "àáâãäåæçèéêëìíîïăćčďęěĺŕΰαβγδεζηθικλμνξοабвгдежзийклмноп";
/// Of F0 and F3.
const FIRST_OF_4: &str = "ðóđğπσру";
/// Of 80 to BF, that seldom stand for themselves.
const STRICT: &str =
    r"\u{80}-\u{BF}ĄąĽľŁłŒœŚśŞşŠšŤťŸŹźŻżŽžƒˆˇ˘˛˜˝΄΅ΆΈΉΊΌΎΏЁЂЃЄЅІЇЈЉЊЋЌЎЏёђѓєѕіїјљњћќўџҐґ†‡•‰‹›€№™";
/// The others of 80 to BF, and the space that U+00A0 may have become.
const LOOSE: &str = "–—―‘’‚“”„… ";

/// A UTF-8 sequence in an encoding like Latin-1.
static SEQUENCE: LazyLock<Regex> = LazyLock::new(|| expression(&sequence()));

/// UTF-8 in an encoding like Latin-1.
static SEQUENCES: LazyLock<Regex> = LazyLock::new(|| expression(&format!("(?:{})+", sequence())));

fn sequence() -> String {
    let next = format!("[{STRICT}{LOOSE}]");
    format!("[{FIRST_OF_2}]{next}|[{FIRST_OF_3}]{next}{{2}}|[{FIRST_OF_4}]{next}{{3}}")
}

/// Repairs `text` step by step until nothing changes.
pub(crate) fn fix(text: String) -> String {
    let mut text = text;
    while let Some(fixed) = step(&text).filter(|fixed| *fixed != text) {
        text = fixed;
    }
    text
}

/// One repair; `None` if there is none.
fn step(text: &str) -> Option<String> {
    if text.is_ascii() || !is_bad(text) {
        return None;
    }
    let mut latin1 = None;
    for encoding in ENCODINGS.iter() {
        let Some(mut bytes) = encoding.encode(text) else {
            continue;
        };
        if encoding.kind() == Kind::Latin1 {
            latin1 = Some(bytes.clone());
        }
        if encoding.kind() != Kind::MacRoman {
            bytes = bytes::restore_a0(bytes);
        }
        if encoding.kind() == Kind::Sloppy {
            bytes = bytes::replace_lossy(bytes);
        }
        if let Some(fixed) = bytes::decode(bytes) {
            return Some(fixed);
        }
    }
    if let Some(fixed) = fix_embedded(text) {
        return Some(fixed);
    }
    if let Some(fixed) = latin1.and_then(|bytes| strict_windows_1252(&bytes))
        && fixed != text
    {
        return Some(fixed);
    }
    characters::has_c1(text).then(|| characters::fix_c1(text))
}

/// Repairs sequences of mojibake within other text.
fn fix_embedded(text: &str) -> Option<String> {
    let is_strict = |character: char| {
        static STRICT_ONLY: LazyLock<Regex> = LazyLock::new(|| expression(&format!("[{STRICT}]")));
        STRICT_ONLY.is_match(character.encode_utf8(&mut [0; 4]))
    };
    let mut fixed = String::new();
    let (mut done, mut from) = (0, 0);
    while let Some(found) = SEQUENCE.find_at(text, from) {
        let before = text.get(..found.start()).unwrap_or_default();
        // Not after a character that could be a part of a longer sequence.
        if before.chars().next_back().is_some_and(is_strict) {
            let first = found.as_str().chars().next();
            from = found.start() + first.map_or(1, char::len_utf8);
            continue;
        }
        let found = SEQUENCES.find_at(text, found.start()).unwrap_or(found);
        let part = found.as_str();
        fixed.push_str(text.get(done..found.start()).unwrap_or_default());
        if part.len() < text.len() && is_bad(part) {
            fixed.push_str(&fix(part.to_owned()));
        } else {
            fixed.push_str(part);
        }
        (done, from) = (found.end(), found.end());
    }
    if done == 0 {
        return None;
    }
    fixed.push_str(text.get(done..).unwrap_or_default());
    (fixed != text).then_some(fixed)
}

/// The text of bytes in Windows-1252; `None` if one is not assigned.
fn strict_windows_1252(bytes: &[u8]) -> Option<String> {
    let encoding: &Encoding = windows_1252();
    let character = |&byte: &u8| {
        let is_unassigned = matches!(byte, 0x81 | 0x8D | 0x8F | 0x90 | 0x9D);
        (!is_unassigned).then(|| encoding.character(byte))
    };
    bytes.iter().map(character).collect()
}
