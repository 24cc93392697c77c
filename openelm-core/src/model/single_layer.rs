//! One layer of the network by itself, over whole sequences: for work that goes through a model
//! layer by layer.

use mlx_rs::Array;

use super::{
    block::TransformerBlock,
    forward_context::ForwardContext,
    linear::{LinearVisitor, NormVisitor},
    model::no_layer,
    rope::Rope,
};
use crate::{
    config::{
        Config,
        tensor_names::{ATTN_NORM, FFN_NORM, OUT_PROJ, PROJ_1, PROJ_2, QKV_PROJ},
    },
    error::{Error, Result},
    mlx::{Device, Matrix},
    weights::Weights,
};

/// The projections of a layer, in the order of the computation.
pub(crate) const PROJECTIONS: [&str; 4] = [QKV_PROJ, OUT_PROJ, PROJ_1, PROJ_2];

/// A layer with its position embedding. A clone shares the weights with its original.
#[derive(Debug, Clone)]
pub(crate) struct SingleLayer {
    block: TransformerBlock,
    rope: Rope,
}

impl SingleLayer {
    /// Takes the tensors of the layer `index` from `weights`.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] or [`Error::TensorShape`] if the weights do not match the layer,
    /// [`Error::Option`] if there is no such layer.
    pub(crate) fn new(config: &Config, index: usize, weights: &mut Weights) -> Result<Self> {
        let sizes = config.layers().get(index).ok_or_else(|| no_layer(index))?;
        let device = Device::current()?;
        Ok(Self {
            block: TransformerBlock::new(config, sizes, index, weights)?,
            rope: Rope::new(config.head_dim(), config.rope_freq_constant(), device),
        })
    }

    /// The layer's output for whole sequences `x`, both `[B, L, D]`. It can be differentiated.
    pub(crate) fn forward(&self, x: &Array) -> Result<Array> {
        self.block.forward(x, &self.context(x), &mut [])
    }

    /// The input `[B, L, in]` of the projection `name` for the layer's input `x` `[B, L, D]`.
    ///
    /// # Errors
    /// [`Error::Option`] if there is no such projection; [`Error::Mlx`].
    pub(crate) fn input_of(&self, name: &str, x: &Array) -> Result<Array> {
        let block = &self.block;
        let normed = block.attn_norm.forward(x)?;
        if name == QKV_PROJ {
            return Ok(normed);
        }
        let context = self.context(x);
        if name == OUT_PROJ {
            return block.attn.attended(&normed, &context, &mut []);
        }
        let x = block.attn.forward(&normed, x, &context, &mut [])?;
        let normed = block.ffn_norm.forward(&x)?;
        match name {
            PROJ_1 => Ok(normed),
            PROJ_2 => block.ffn.inner(&normed, true),
            _ => Err(Error::option(
                "projection",
                format!("a layer has no projection `{name}`"),
            )),
        }
    }

    /// The matrix of each projection, in the order of [`PROJECTIONS`].
    pub(crate) fn matrices(&mut self) -> Result<Vec<Matrix>> {
        let mut found = Vec::with_capacity(PROJECTIONS.len());
        self.visit_linears(&mut |_, linear| {
            found.push(linear.matrix.clone());
            Ok(())
        })?;
        Ok(found)
    }

    /// Replaces the matrix of the projection `name`.
    pub(crate) fn set_matrix(&mut self, name: &str, matrix: &Matrix) -> Result<()> {
        self.visit_linears(&mut |found, linear| {
            if found == name {
                linear.matrix = matrix.clone();
            }
            Ok(())
        })
    }

    /// Calls `visit` with the name within the layer of each projection.
    pub(crate) fn visit_linears(&mut self, visit: &mut LinearVisitor<'_>) -> Result<()> {
        self.block.attn.visit_linears(visit)?;
        self.block.ffn.visit_linears(visit)
    }

    /// Calls `visit` with the name within the layer and the weight of each norm.
    pub(crate) fn visit_norms(&mut self, visit: &mut NormVisitor<'_>) -> Result<()> {
        visit(ATTN_NORM, &mut self.block.attn_norm.weight)?;
        self.block.attn.visit_norms(visit)?;
        visit(FFN_NORM, &mut self.block.ffn_norm.weight)?;
        Ok(())
    }

    fn context(&self, x: &Array) -> ForwardContext<'_> {
        ForwardContext::whole(&self.rope, x.dim(1) as usize, None)
    }
}
