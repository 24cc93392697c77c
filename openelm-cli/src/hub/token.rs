//! The access token of the Hub.

use std::{fmt, path::Path};

use openelm_core::text::read_text_file;

use super::environment::invalid;
use crate::error::Error;

/// Longest file of a token, in bytes.
const MAX_FILE: u64 = 1 << 16;

/// An access token. Its text is only in the header of a request to the Hub: `Debug` hides it.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    /// A token from `place`, a variable or a file; `None` if it is empty.
    ///
    /// # Errors
    /// [`Error::Usage`] if it has characters that no token has.
    pub(super) fn parse(text: &str, place: &str) -> Result<Option<Self>, Error> {
        // As huggingface_hub, which removes line breaks inside.
        let text = text.replace(['\r', '\n'], "");
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        if !text.chars().all(|c| c.is_ascii_graphic()) {
            return Err(invalid(place, "a token", "other characters"));
        }
        Ok(Some(Self(text.to_owned())))
    }

    /// The token in a file; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Usage`] if the file is no token, [`Error::HubCache`] if it cannot be read.
    pub(super) fn read(file: &Path) -> Result<Option<Self>, Error> {
        match read_text_file(file, MAX_FILE) {
            Ok(text) => Self::parse(&text, &file.display().to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::hub_cache(file, error)),
        }
    }

    /// The value of the header `Authorization`.
    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hides_its_text() {
        let token = Token::parse(" hf_abc\n", "HF_TOKEN").unwrap().unwrap();
        assert_eq!(token.header(), "Bearer hf_abc");
        assert!(!format!("{token:?}").contains("abc"));
        assert!(Token::parse(" \n", "HF_TOKEN").unwrap().is_none());
        Token::read(Path::new("/dev/zero")).unwrap_err();
        let error = Token::parse("hf é", "HF_TOKEN").unwrap_err().to_string();
        assert_eq!(error, "HF_TOKEN: expected a token, found other characters");
    }
}
