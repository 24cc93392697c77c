//! Checks a source's tensors against its architecture; CoreNet's padding rows are allowed.

use std::collections::{BTreeSet, HashMap};

use super::source_model::{Files, SourceModel};
use crate::{
    config::{
        CORENET_VOCAB, VOCAB,
        tensor_names::{EMBEDDING, weight},
    },
    error::{Error, Result},
    weights::derived::is_inv_freq,
};

impl SourceModel {
    /// Gives the architecture the rows of the stored embedding.
    pub(super) fn keep_padding_rows(&mut self) -> Result<()> {
        let rows = self.corenet_rows();
        if rows != Some(CORENET_VOCAB) {
            let found = match rows {
                Some(rows) => format!("{rows} rows"),
                None => format!("a {}", self.format),
            };
            let problem = format!(
                "expected a checkpoint of CoreNet with {CORENET_VOCAB} rows of the embedding, found \
                 {found}"
            );
            return Err(Error::option("keep_padding_rows", problem));
        }
        if self.config.vocab_size() == VOCAB {
            self.config = self.config.clone().with_vocab_size(CORENET_VOCAB)?;
            self.shapes = self.config.tensors().into_iter().collect();
        }
        Ok(())
    }

    /// Rows of the stored embedding of a CoreNet checkpoint.
    fn corenet_rows(&self) -> Option<usize> {
        let name = self.stored_name(&weight(EMBEDDING));
        match &self.files {
            Files::Torch(file) => file.tensors().get(&name)?.shape.first().copied(),
            Files::Safetensors(checkpoint) if self.corenet_names => {
                checkpoint.tensors().get(&name)?.shape.first().copied()
            }
            _ => None,
        }
    }

    /// Checks that the tensors match the architecture; the embedding may have padding rows.
    pub(super) fn check(&self) -> Result<()> {
        if self.format == "Hugging Face folder" || self.format == "quantised MLX folder" {
            // `Checkpoint::check` has already checked these.
            return Ok(());
        }
        let stored: HashMap<&String, &[usize]> = match &self.files {
            Files::Safetensors(checkpoint) => checkpoint
                .tensors()
                .iter()
                .map(|(n, t)| (n, t.shape.as_slice()))
                .collect(),
            Files::Torch(file) => file
                .tensors()
                .iter()
                .map(|(n, t)| (n, t.shape.as_slice()))
                .collect(),
            Files::Gguf(_) => return Ok(()),
        };
        let mut known = BTreeSet::new();
        for (name, shape) in self.config.tensors() {
            let stem = name.strip_suffix(".weight").unwrap_or(&name);
            let mut parts = vec![(self.stored_name(&name), shape.clone())];
            if let (Some(packing), &[rows, width]) = (self.packing(stem), shape.as_slice()) {
                let stem = self.stored_name(stem);
                let groups = packing.scales_shape(rows, width).to_vec();
                parts = vec![
                    (
                        format!("{stem}.weight"),
                        packing.packed_shape(rows, width).to_vec(),
                    ),
                    (format!("{stem}.scales"), groups.clone()),
                ];
                if packing.has_biases() {
                    parts.push((format!("{stem}.biases"), groups));
                }
            }
            for (stored_name, expected) in parts {
                let Some(found) = stored.get(&stored_name) else {
                    let path = self.path.clone();
                    return Err(Error::MissingTensor {
                        path,
                        name: stored_name,
                        shape: expected,
                    });
                };
                if !fits(found, &expected) {
                    return Err(Error::TensorShape {
                        path: self.path.clone(),
                        name: stored_name,
                        expected,
                        found: found.to_vec(),
                    });
                }
                known.insert(stored_name);
            }
        }
        // Rotary frequencies follow from the architecture.
        let mut unknown = stored.keys().filter(|name| !is_inv_freq(name));
        match unknown.find(|name| !known.contains(**name)) {
            None => Ok(()),
            Some(name) => {
                let path = self.path.clone();
                Err(Error::UnexpectedTensor {
                    path,
                    name: (*name).clone(),
                })
            }
        }
    }
}

/// True if the shapes are equal, or differ only by the padding rows of CoreNet's embedding.
pub(super) fn fits(found: &[usize], expected: &[usize]) -> bool {
    found == expected || (found == [CORENET_VOCAB, last(found)] && expected == [VOCAB, last(found)])
}

fn last(shape: &[usize]) -> usize {
    shape.last().copied().unwrap_or(0)
}

/// Number of tokens of an embedding with `rows` rows.
pub(super) fn tokens(rows: usize) -> usize {
    if rows == CORENET_VOCAB { VOCAB } else { rows }
}
