//! The betas of an optimizer as an option: `0.9,0.95`, or a list of two numbers in a TOML file.

use std::{fmt, str::FromStr};

use serde::Deserialize;

/// The decay of the first and of the second moment.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Written")]
pub(crate) struct Betas(pub(crate) [f32; 2]);

/// The forms in a TOML file.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected two numbers in a list, such as [0.9, 0.95]"
)]
enum Written {
    List([f32; 2]),
    Text(String),
}

impl TryFrom<Written> for Betas {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::List(numbers) => Ok(Self(numbers)),
            Written::Text(text) => text.parse(),
        }
    }
}

impl FromStr for Betas {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Result<Vec<f32>, _> =
            text.split(',').map(|part| part.trim().parse()).collect();
        match numbers.as_deref() {
            Ok(&[first, second]) => Ok(Self([first, second])),
            _ => Err("expected two numbers separated by a comma, such as 0.9,0.95".into()),
        }
    }
}

impl fmt::Display for Betas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.0[0], self.0[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_numbers_are_betas() {
        assert_eq!("0.9, 0.95".parse(), Ok(Betas([0.9, 0.95])));
        assert_eq!(Betas([0.9, 0.95]).to_string(), "0.9,0.95");
        for wrong in ["", "0.9", "0.9,0.95,1", "0.9,x"] {
            let problem = wrong.parse::<Betas>().unwrap_err();
            assert!(problem.starts_with("expected two numbers"), "{problem}");
        }
    }
}
