//! Fixes of the bytes that mojibake stands for, and their decoding.

use std::sync::LazyLock;

use regex::bytes::{Captures, Regex};

/// UTF-8 sequences in which a byte A0 became a space.
static ALTERED: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r"(?-u)[\xC2\xC3\xC5\xCE\xD0\xD9][ ]|[\xE2\xE3][ ][\x80-\x84\x86-\x9F\xA1-\xBF]|[\xE0-\xE3][\x80-\x84\x86-\x9F\xA1-\xBF][ ]|[\xF0][ ][\x80-\xBF][\x80-\xBF]|[\xF0][\x80-\xBF][ ][\x80-\xBF]|[\xF0][\x80-\xBF][\x80-\xBF][ ]",
    )
});

/// UTF-8 sequences in which bytes became U+FFFD, here 1A, or one of them `?`.
static LOSSY: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r"(?-u)[\xC2-\xDF]\x1A|[\xC2-\xC3][?]|\xED[\xA0-\xAF][\x1A?]\xED[\xB0-\xBF][\x1A?\x80-\xBF]|\xED[\xA0-\xAF][\x1A?\x80-\xBF]\xED[\xB0-\xBF][\x1A?]|[\xE0-\xEF][\x1A?][\x1A\x80-\xBF]|[\xE0-\xEF][\x1A\x80-\xBF][\x1A?]|[\xF0-\xF4][\x1A?][\x1A\x80-\xBF][\x1A\x80-\xBF]|[\xF0-\xF4][\x1A\x80-\xBF][\x1A?][\x1A\x80-\xBF]|[\xF0-\xF4][\x1A\x80-\xBF][\x1A\x80-\xBF][\x1A?]|\x1A",
    )
});

/// Puts back bytes A0 of UTF-8 sequences that became spaces. A single `Ã` before a space is the word
/// `à`, which keeps the space, but for Portuguese contractions.
pub(crate) fn restore_a0(bytes: Vec<u8>) -> Vec<u8> {
    if !ALTERED.is_match(&bytes) {
        return bytes;
    }
    let mut words = Vec::with_capacity(bytes.len());
    let mut rest = bytes.as_slice();
    while let Some((&first, after)) = rest.split_first() {
        let follows = after.strip_prefix(b" ");
        let is_contraction = |text: &[u8]| {
            let ends: [&[u8]; 5] = [b" ", b"quele", b"quela", b"quilo", b"s "];
            ends.iter().any(|end| text.starts_with(end))
        };
        match follows {
            Some(text) if first == 0xC3 && !is_contraction(text) => {
                words.extend(b"\xC3\xA0 ");
                rest = text;
            }
            _ => {
                words.push(first);
                rest = after;
            }
        }
    }
    let put_back = |found: &Captures<'_>| -> Vec<u8> {
        let bytes = found.get(0).map(|found| found.as_bytes());
        let bytes = bytes.unwrap_or_default().iter();
        bytes
            .map(|&byte| if byte == b' ' { 0xA0 } else { byte })
            .collect()
    };
    ALTERED.replace_all(&words, put_back).into_owned()
}

/// Replaces UTF-8 sequences with lost bytes by that of U+FFFD.
pub(crate) fn replace_lossy(bytes: Vec<u8>) -> Vec<u8> {
    if !LOSSY.is_match(&bytes) {
        return bytes;
    }
    LOSSY
        .replace_all(&bytes, "\u{FFFD}".as_bytes())
        .into_owned()
}

/// The text of UTF-8, also with surrogate pairs as in CESU-8, and C0 80 for U+0000 as in Java.
pub(crate) fn decode(bytes: Vec<u8>) -> Option<String> {
    if !bytes.contains(&0xED) && !bytes.contains(&0xC0) {
        return String::from_utf8(bytes).ok();
    }
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes.as_slice();
    loop {
        match rest {
            [] => return String::from_utf8(plain).ok(),
            [0xC0, 0x80, after @ ..] => {
                plain.push(0);
                rest = after;
            }
            // The line's end in place of the second byte is a quirk of ftfy's expressions.
            [0xC0, b'\n'] => {
                plain.push(0);
                rest = &[];
            }
            [
                0xED,
                a @ 0xA0..=0xAF,
                b @ 0x80..=0xBF,
                0xED,
                c @ 0xB0..=0xBF,
                d,
                after @ ..,
            ] if matches!(d, 0x80..=0xBF) || (*d == b'\n' && after.is_empty()) => {
                let bits = |byte: &u8, mask: u8, shift: u32| u32::from(byte & mask) << shift;
                let low = bits(c, 0x0F, 6) + bits(d, 0x3F, 0);
                let number = bits(a, 0x0F, 16) + bits(b, 0x3F, 10) + low + 0x1_0000;
                let mut encoded = [0; 4];
                plain.extend(char::from_u32(number)?.encode_utf8(&mut encoded).as_bytes());
                rest = after;
            }
            [byte, after @ ..] => {
                plain.push(*byte);
                rest = after;
            }
        }
    }
}

#[expect(clippy::expect_used, reason = "a constant, which every test compiles")]
fn expression(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a valid expression")
}
