//! Repositories with LLaMA's tokenizer, which Apple's OpenELM repositories do not contain.

use std::path::{Path, PathBuf};

use openelm_core::{ErrorKind, Tokenizer};

use super::{fetch::local, files::Files};
use crate::{error::Error, output};

/// Value of `--tokenizer` that searches these repositories.
const AUTO: &str = "auto";

/// Repositories with the tokenizer that need no token, in the order in which `auto` tries them.
const UNGATED: [&str; 2] = [
    "mlx-community/OpenELM-270M-Instruct",
    "mlx-community/OpenELM-3B",
];
/// Meta's own repository, which needs a licence and a token.
const GATED: &str = "meta-llama/Llama-2-7b-hf";

/// Advice for a model without a tokenizer.
pub(crate) fn advice() -> String {
    let [first, ..] = UNGATED;
    format!(
        "--tokenizer PATH|REPO sets it: `--tokenizer {first}` (a copy, not gated), `--tokenizer \
         {GATED}` (gated: accept its licence on its page and set HF_TOKEN), or `--tokenizer \
         {AUTO}`, which tries the copies"
    )
}

/// The path of the tokenizer `given` for the model in `folder`: a path, the name of a repository, or
/// [`AUTO`]; `None` for the model's own.
///
/// # Errors
/// The errors of the Hub.
pub(crate) fn tokenizer(
    given: &Path,
    folder: &Path,
    quiet: bool,
) -> Result<Option<PathBuf>, Error> {
    if given != Path::new(AUTO) || given.symlink_metadata().is_ok() {
        return local(given, &Files::Tokenizer, quiet).map(Some);
    }
    let own = Tokenizer::find(folder, None);
    if !own.is_err_and(|error| error.kind() == ErrorKind::MissingFile) {
        return Ok(None);
    }
    let mut problem = None;
    for name in UNGATED {
        match local(Path::new(name), &Files::Tokenizer, quiet) {
            Ok(path) => {
                if !quiet {
                    output::note(&format!("the tokenizer is a copy of LLaMA's, from {name}"));
                }
                return Ok(Some(path));
            }
            Err(error) => problem = problem.or(Some(error)),
        }
    }
    let problem = problem.map_or_else(String::new, |error| error.to_string());
    Err(Error::Usage(format!(
        "--tokenizer {AUTO}: no copy was found: {problem}; {}",
        advice()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{RepoType, Repository};

    #[test]
    fn the_advice_names_repositories() {
        for name in UNGATED.iter().chain([&GATED]) {
            assert!(Repository::parse(name, RepoType::Model).is_some());
        }
        assert!(advice().contains(UNGATED[0]) && advice().contains(GATED));
    }
}
