//! Single-byte encodings that UTF-8 text is often decoded from by mistake.

use std::{collections::HashMap, sync::LazyLock};

/// A single-byte encoding.
pub(crate) struct Encoding {
    kind: Kind,
    /// The characters of the bytes from 0x80 on; byte numbers for Latin-1.
    bytes: HashMap<char, u8>,
    characters: Vec<char>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Latin1,
    /// Windows' code pages, in which an unassigned byte is the character with its number, and the
    /// byte 0x1A stands for U+FFFD.
    Sloppy,
    Iso,
    MacRoman,
    Dos,
}

/// The encodings in the order of the attempts.
pub(crate) static ENCODINGS: LazyLock<Vec<Encoding>> = LazyLock::new(|| {
    let latin1: String = (0x80_u8..=0xFF).map(char::from).collect();
    [
        (Kind::Latin1, &*latin1),
        (Kind::Sloppy, WINDOWS_1252),
        (Kind::Sloppy, WINDOWS_1251),
        (Kind::Sloppy, WINDOWS_1250),
        (Kind::Sloppy, WINDOWS_1253),
        (Kind::Sloppy, WINDOWS_1254),
        (Kind::Iso, ISO_8859_2),
        (Kind::MacRoman, MAC_ROMAN),
        (Kind::Dos, CP437),
    ]
    .map(|(kind, characters)| Encoding::new(kind, characters))
    .into()
});

impl Encoding {
    fn new(kind: Kind, characters: &str) -> Self {
        let mut bytes: HashMap<char, u8> = characters.chars().zip(0x80..=0xFF).collect();
        if kind == Kind::Sloppy {
            bytes.insert('\u{FFFD}', 0x1A);
        }
        Self {
            kind,
            bytes,
            characters: characters.chars().collect(),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The bytes of `text`; `None` if a character is not in the encoding.
    pub(crate) fn encode(&self, text: &str) -> Option<Vec<u8>> {
        let byte = |character: char| match character {
            '\u{1A}' if self.kind == Kind::Sloppy => None,
            '\0'..='\x7F' => u8::try_from(character).ok(),
            _ => self.bytes.get(&character).copied(),
        };
        text.chars().map(byte).collect()
    }

    /// The character of a byte from 0x80 on, or of an ASCII byte.
    pub(crate) fn character(&self, byte: u8) -> char {
        let place = byte.checked_sub(0x80).map(usize::from);
        let found = place.and_then(|place| self.characters.get(place));
        found.copied().unwrap_or(char::from(byte))
    }
}

/// Windows-1252, with unassigned bytes as in Latin-1.
pub(crate) fn windows_1252() -> &'static Encoding {
    // The list has nine.
    &ENCODINGS[1]
}

const WINDOWS_1252: &str = concat!(
    "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8D}Ž\u{8F}",
    "\u{90}‘’“”•–—˜™š›œ\u{9D}žŸ",
    "\u{A0}¡¢£¤¥¦§¨©ª«¬\u{AD}®¯",
    "°±²³´µ¶·¸¹º»¼½¾¿",
    "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏ",
    "ÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞß",
    "àáâãäåæçèéêëìíîï",
    "ðñòóôõö÷øùúûüýþÿ",
);
const WINDOWS_1251: &str = concat!(
    "ЂЃ‚ѓ„…†‡€‰Љ‹ЊЌЋЏ",
    "ђ‘’“”•–—\u{98}™љ›њќћџ",
    "\u{A0}ЎўЈ¤Ґ¦§Ё©Є«¬\u{AD}®Ї",
    "°±Ііґµ¶·ё№є»јЅѕї",
    "АБВГДЕЖЗИЙКЛМНОП",
    "РСТУФХЦЧШЩЪЫЬЭЮЯ",
    "абвгдежзийклмноп",
    "рстуфхцчшщъыьэюя",
);
const WINDOWS_1250: &str = concat!(
    "€\u{81}‚\u{83}„…†‡\u{88}‰Š‹ŚŤŽŹ",
    "\u{90}‘’“”•–—\u{98}™š›śťžź",
    "\u{A0}ˇ˘Ł¤Ą¦§¨©Ş«¬\u{AD}®Ż",
    "°±˛ł´µ¶·¸ąş»Ľ˝ľż",
    "ŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎ",
    "ĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢß",
    "ŕáâăäĺćçčéęëěíîď",
    "đńňóôőö÷řůúűüýţ˙",
);
const WINDOWS_1253: &str = concat!(
    "€\u{81}‚ƒ„…†‡\u{88}‰\u{8A}‹\u{8C}\u{8D}\u{8E}\u{8F}",
    "\u{90}‘’“”•–—\u{98}™\u{9A}›\u{9C}\u{9D}\u{9E}\u{9F}",
    "\u{A0}΅Ά£¤¥¦§¨©ª«¬\u{AD}®―",
    "°±²³΄µ¶·ΈΉΊ»Ό½ΎΏ",
    "ΐΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟ",
    "ΠΡÒΣΤΥΦΧΨΩΪΫάέήί",
    "ΰαβγδεζηθικλμνξο",
    "πρςστυφχψωϊϋόύώÿ",
);
const WINDOWS_1254: &str = concat!(
    "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8D}\u{8E}\u{8F}",
    "\u{90}‘’“”•–—˜™š›œ\u{9D}\u{9E}Ÿ",
    "\u{A0}¡¢£¤¥¦§¨©ª«¬\u{AD}®¯",
    "°±²³´µ¶·¸¹º»¼½¾¿",
    "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏ",
    "ĞÑÒÓÔÕÖ×ØÙÚÛÜİŞß",
    "àáâãäåæçèéêëìíîï",
    "ğñòóôõö÷øùúûüışÿ",
);
const ISO_8859_2: &str = concat!(
    "\u{80}\u{81}\u{82}\u{83}\u{84}\u{85}\u{86}\u{87}\u{88}\u{89}\u{8A}\u{8B}\u{8C}\u{8D}\u{8E}\u{8F}",
    "\u{90}\u{91}\u{92}\u{93}\u{94}\u{95}\u{96}\u{97}\u{98}\u{99}\u{9A}\u{9B}\u{9C}\u{9D}\u{9E}\u{9F}",
    "\u{A0}Ą˘Ł¤ĽŚ§¨ŠŞŤŹ\u{AD}ŽŻ",
    "°ą˛ł´ľśˇ¸šşťź˝žż",
    "ŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎ",
    "ĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢß",
    "ŕáâăäĺćçčéęëěíîď",
    "đńňóôőö÷řůúűüýţ˙",
);
const MAC_ROMAN: &str = concat!(
    "ÄÅÇÉÑÖÜáàâäãåçéè",
    "êëíìîïñóòôöõúùûü",
    "†°¢£§•¶ß®©™´¨≠ÆØ",
    "∞±≤≥¥µ∂∑∏π∫ªºΩæø",
    "¿¡¬√ƒ≈∆«»…\u{A0}ÀÃÕŒœ",
    "–—“”‘’÷◊ÿŸ⁄€‹›\u{FB01}\u{FB02}",
    "‡·‚„‰ÂÊÁËÈÍÎÏÌÓÔ",
    "\u{F8FF}ÒÚÛÙıˆ˜¯˘˙˚¸˝˛ˇ",
);
const CP437: &str = concat!(
    "ÇüéâäàåçêëèïîìÄÅ",
    "ÉæÆôöòûùÿÖÜ¢£¥₧ƒ",
    "áíóúñÑªº¿⌐¬½¼¡«»",
    "░▒▓│┤╡╢╖╕╣║╗╝╜╛┐",
    "└┴┬├─┼╞╟╚╔╩╦╠═╬╧",
    "╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀",
    "αßΓπΣσµτΦΘΩδ∞φε∩",
    "≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{A0}",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_the_upper_half_has_a_character() {
        for encoding in ENCODINGS.iter() {
            assert_eq!(encoding.characters.len(), 128);
            let text: String = (0x80..=0xFF).map(|byte| encoding.character(byte)).collect();
            let bytes: Vec<u8> = (0x80..=0xFF).collect();
            assert_eq!(encoding.encode(&text).unwrap(), bytes);
        }
    }
}
