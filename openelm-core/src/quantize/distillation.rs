//! Distilled weight quantisation: scales and biases are trained to give the predictions of the
//! unquantised model, as in mlx-lm's `dwq`.
//!
//! The loss is the mean divergence `KL(unquantised ‖ quantised)` of the next tokens. The pass stores
//! the inputs of the layers only; the weights of one layer are dense at a time.

use mlx_rs::{
    Array,
    ops::{concatenate, indexing::TryIndexOp, matmul, softmax_axis, zeros_like},
    transforms::fallible_vjp,
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use super::{
    event::QuantizeEvent,
    model_reader::ModelReader,
    options::QuantizeOptions,
    passes::replaced,
    quality::{Outputs, block_rows},
    state::State,
    texts::token_array,
    trained_matrix::TrainedMatrix,
    widths::MatrixShape,
};
use crate::{
    cancel::CancelHandle,
    config::tensor_names::{EMBEDDING, HEAD, layer as layer_name, parse_layer},
    error::{Error, Result},
    gate::pause_point,
    mlx::{Matrix, QuantizationMap, evaluation, runtime},
    model::{PROJECTIONS, SingleLayer},
    seed::{derive_seed, shuffle},
    training::{Optimizer, OptimizerKind, OptimizerState, Schedule, ScheduleKind, into_exception},
    weights::Tensors,
};

/// The file of the trained numbers.
const PART: &str = "distillation";
/// Dense integers that are kept between steps, in numbers of all matrices together.
const KEPT: usize = 1 << 27;

/// The norm of the last layer's output.
type FinalNorm = dyn Fn(&Array) -> Result<Array>;
/// The index, the name and the current numbers of a trained matrix of a layer.
type Trained = (usize, &'static str, Array);

/// A distillation in progress.
pub(super) struct Distillation<'a> {
    options: &'a QuantizeOptions,
    sequences: &'a [Vec<u32>],
    teacher: &'a Outputs,
    state: &'a State,
    cancel: &'a CancelHandle,
    /// The layers, whose quantised matrices are replaced in every pass.
    layers: Vec<SingleLayer>,
    norm: Box<FinalNorm>,
    /// The embedding, if it is not quantised.
    own_embedding: Option<Array>,
    /// The head, if it is neither the embedding nor quantised.
    own_head: Option<Array>,
    tied: bool,
    matrices: Vec<TrainedMatrix>,
    /// For each matrix `s` and `c` in shares of its unit.
    parameters: Vec<Array>,
    optimizer: OptimizerState,
    step: u64,
}

impl<'a> Distillation<'a> {
    /// Begins with the finished parts of `state`, or continues.
    #[expect(clippy::too_many_arguments, reason = "the parts of a run")]
    pub(super) fn new(
        options: &'a QuantizeOptions,
        reader: &ModelReader,
        shapes: &[MatrixShape],
        widths: &QuantizationMap,
        sequences: &'a [Vec<u32>],
        teacher: &'a Outputs,
        state: &'a State,
        cancel: &'a CancelHandle,
    ) -> Result<Self> {
        let mut matrices = Vec::new();
        let mut parameters = Vec::new();
        let numbers: usize = shapes.iter().map(|shape| shape.rows * shape.width).sum();
        for shape in shapes {
            let Some(packed) = state.matrix(&shape.stem, widths)? else {
                continue;
            };
            let (mut matrix, start) = TrainedMatrix::new(shape, packed)?;
            if numbers <= KEPT {
                matrix.keep()?;
            }
            matrices.push(matrix);
            parameters.extend(start);
        }
        let mut layers = Vec::new();
        for index in 0..reader.config().num_transformer_layers() {
            let learned = |name: &str, _: &Array| match parse_layer(name) {
                // A placeholder.
                Some((_, part)) if PROJECTIONS.contains(&part) => {
                    let is_trained = matrices.iter().any(|matrix| matrix.stem == name);
                    Ok(is_trained.then(|| Array::from_f32(0.0)))
                }
                _ => state.float32(name, widths),
            };
            layers.push(replaced(&reader.layer(index)?, index, &learned)?);
        }
        let is_trained = |stem: &str| matrices.iter().any(|matrix| matrix.stem == stem);
        let tied = reader.config().share_input_output_layers();
        let own_embedding = if is_trained(EMBEDDING) {
            None
        } else {
            Some(reader.embedding()?)
        };
        let own_head = if tied || is_trained(HEAD) {
            None
        } else {
            Some(reader.head()?)
        };
        let names: Vec<String> = matrices
            .iter()
            .flat_map(|m| [format!("{}.s", m.stem), format!("{}.c", m.stem)])
            .collect();
        let rule = Optimizer {
            bias_correction: true,
            ..Optimizer::new(OptimizerKind::Adam)
        };
        let mut distillation = Self {
            options,
            sequences,
            teacher,
            state,
            cancel,
            layers,
            norm: Box::new(reader.final_norm()?),
            own_embedding,
            own_head,
            tied,
            optimizer: OptimizerState::new(rule, &names, &parameters)?,
            matrices,
            parameters,
            step: 0,
        };
        distillation.resume(&names)?;
        Ok(distillation)
    }

    /// Trains to the end, with a save of the progress every few steps. Returns the trained scales
    /// and biases by name.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the loss is not finite; [`Error::Cancelled`], with the progress saved;
    /// [`Error::Io`]; [`Error::Mlx`].
    pub(super) fn run(mut self, progress: &mut dyn FnMut(QuantizeEvent)) -> Result<Tensors> {
        let per_epoch = self.sequences.len().div_ceil(self.options.batch_size) as u64;
        let total = per_epoch * self.options.epochs as u64;
        let schedule = Schedule {
            kind: ScheduleKind::Cosine {
                end: 0.0,
                steps: total,
            },
            learning_rate: self.options.learning_rate,
            ..Schedule::default()
        };
        while self.step < total {
            if let Err(error) = self.cancel.check() {
                self.save()?;
                return Err(error);
            }
            pause_point(self.cancel, runtime::synchronize)?;
            let order = order(
                self.sequences.len(),
                self.options.seed,
                self.step / per_epoch,
            );
            let first = (self.step % per_epoch) as usize * self.options.batch_size;
            let batch = &order[first..(first + self.options.batch_size).min(order.len())];
            let (loss, gradients) = self.gradients(batch)?;
            if !loss.is_finite() {
                return Err(Error::Diverged {
                    iteration: self.step + 1,
                    loss: loss as f32,
                });
            }
            let rate = schedule.at(self.step);
            self.optimizer.step(&mut self.parameters, gradients, rate)?;
            evaluation::complete(self.parameters.iter().chain(self.optimizer.arrays()))?;
            self.step += 1;
            if self.step.is_multiple_of(self.options.save_every as u64) || self.step == total {
                self.save()?;
            }
            progress(QuantizeEvent::Distilled {
                done: self.step,
                total,
                loss,
            });
        }
        self.result()
    }

    /// The trained scales and biases in their stored type.
    fn result(&self) -> Result<Tensors> {
        let mut tensors = Tensors::new();
        for (matrix, parameters) in self.matrices.iter().zip(self.parameters.chunks(2)) {
            let [s, c] = parameters else { continue };
            let [scales, biases] = matrix.scales_and_biases(s, c)?;
            tensors.insert(format!("{}.scales", matrix.stem), scales);
            tensors.insert(format!("{}.biases", matrix.stem), biases);
        }
        Ok(tensors)
    }

    /// The loss of the sequences `batch` and the gradients of all parameters.
    fn gradients(&self, batch: &[usize]) -> Result<(f64, Vec<Array>)> {
        let chosen: Vec<Vec<u32>> = batch.iter().map(|&i| self.sequences[i].clone()).collect();
        let tokens = token_array(&chosen);
        let embedding = self.dense(EMBEDDING, self.own_embedding.as_ref())?;
        let mut x = embedding.take_axis(&tokens, 0)?;
        evaluation::complete([&x])?;
        let mut inputs = Vec::with_capacity(self.layers.len());
        for index in 0..self.layers.len() {
            let (layer, _) = self.layer(index)?;
            let y = layer.forward(&x)?;
            evaluation::complete([&y])?;
            inputs.push(std::mem::replace(&mut x, y));
        }
        let (hidden, mut by_head) = ((self.norm)(&x)?, None);
        let head = if self.tied {
            embedding.clone()
        } else {
            self.dense(HEAD, self.own_head.as_ref())?
        };
        let (loss, by_hidden) = self.head(batch, &hidden, &head, &mut by_head)?;
        let mut gradients: Vec<Option<Array>> = vec![None; self.parameters.len()];
        let normed = |x: &[Array]| {
            let [x] = x else { return Ok(Vec::new()) };
            (self.norm)(x).map(|y| vec![y]).map_err(into_exception)
        };
        let mut by_x = first(fallible_vjp(normed, &[x], &[by_hidden])?.1)?;
        for index in (0..self.layers.len()).rev() {
            self.cancel.check()?;
            let (layer, dense) = self.layer(index)?;
            let names: Vec<&str> = dense.iter().map(|(_, name, _)| *name).collect();
            let mut arguments: Vec<Array> = dense.iter().map(|(.., w)| w.clone()).collect();
            arguments.extend(inputs.pop());
            let forward = |arguments: &[Array]| {
                let run = || {
                    let mut layer = layer.clone();
                    for (name, weight) in names.iter().zip(arguments) {
                        layer.set_matrix(name, &Matrix::Dense(weight.clone()))?;
                    }
                    match arguments.last() {
                        Some(x) => layer.forward(x),
                        None => Err(Error::option("layer", "it has no input")),
                    }
                };
                run().map(|y| vec![y]).map_err(into_exception)
            };
            let (_, mut found) = fallible_vjp(forward, &arguments, &[by_x])?;
            evaluation::complete(&found)?;
            by_x = found
                .pop()
                .ok_or_else(|| Error::option("layer", "it has no input"))?;
            for ((place, ..), gradient) in dense.iter().zip(found) {
                self.collect(*place, &gradient, &mut gradients)?;
            }
        }
        if let Some(place) = self.place(EMBEDDING) {
            let look_up = |matrix: &[Array]| {
                let [matrix] = matrix else {
                    return Ok(Vec::new());
                };
                Ok::<_, mlx_rs::error::Exception>(vec![matrix.take_axis(&tokens, 0)?])
            };
            let mut by_rows = first(fallible_vjp(look_up, &[embedding], &[by_x])?.1)?;
            if let (true, Some(by_head)) = (self.tied, &by_head) {
                by_rows = by_rows.add(by_head)?;
            }
            self.collect(place, &by_rows, &mut gradients)?;
        }
        if let (false, Some(place), Some(by_head)) = (self.tied, self.place(HEAD), &by_head) {
            self.collect(place, by_head, &mut gradients)?;
        }
        let zeros = gradients.into_iter().zip(&self.parameters);
        let gradients = zeros.map(|(gradient, parameter)| match gradient {
            Some(gradient) => Ok(gradient),
            None => Ok(zeros_like(parameter)?),
        });
        Ok((loss, gradients.collect::<Result<_>>()?))
    }

    /// The mean divergence of the predictions of `hidden` `[B, L, D]` with the `head` `[V, D]`, and
    /// its gradient by `hidden`; the gradient by the head is added to `by_head`.
    fn head(
        &self,
        batch: &[usize],
        hidden: &Array,
        head: &Array,
        by_head: &mut Option<Array>,
    ) -> Result<(f64, Array)> {
        let rows = block_rows(head.dim(0) as usize) as i32;
        let (count, length) = (hidden.dim(0), hidden.dim(1));
        let share = Array::from_f32(1.0 / (count * length) as f32);
        let mut loss = 0.0;
        let mut by_hidden = Vec::with_capacity(batch.len());
        for (row, &sequence) in (0..).zip(batch) {
            let theirs = self.teacher_hidden(sequence)?;
            let mut parts = Vec::new();
            for start in (0..length).step_by(rows as usize) {
                let end = (start + rows).min(length);
                let x = hidden.try_index((row, start..end))?;
                let p = matmul(theirs.try_index(start..end)?, self.teacher.head.t())?;
                let q = matmul(&x, head.t())?;
                let log = |z: &Array| z.subtract(z.logsumexp_axis(-1, true)?);
                let p_share = softmax_axis(&p, -1, None)?;
                let kl = p_share.multiply(log(&p)?.subtract(log(&q)?)?)?.sum(None)?;
                // The gradient of the divergence by the logits.
                let by_logits = softmax_axis(&q, -1, None)?.subtract(p_share)?;
                let by_logits = by_logits.multiply(&share)?;
                let by_x = matmul(&by_logits, head)?;
                let by_matrix = matmul(by_logits.t(), &x)?;
                let sum = match by_head.take() {
                    Some(sum) => sum.add(by_matrix)?,
                    None => by_matrix,
                };
                evaluation::complete([&kl, &by_x, &sum])?;
                loss += f64::from(kl.try_item_exact::<f32>()?);
                *by_head = Some(sum);
                parts.push(by_x);
            }
            by_hidden.push(concatenate(&parts, 0)?.expand_dims(0)?);
        }
        let mean = loss / f64::from(count * length);
        Ok((mean, concatenate(&by_hidden, 0)?))
    }

    /// The last hidden states `[L, D]` of the unquantised model for a sequence.
    fn teacher_hidden(&self, sequence: usize) -> Result<Array> {
        let mut before = 0;
        for part in &self.teacher.hidden {
            let count = part.dim(0) as usize;
            if sequence < before + count {
                return Ok(part.try_index((sequence - before) as i32)?);
            }
            before += count;
        }
        Err(Error::option("data", "a sequence has no hidden states"))
    }

    /// The layer `index` with its current matrices, and for each of them that is trained its index,
    /// name and numbers.
    fn layer(&self, index: usize) -> Result<(SingleLayer, Vec<Trained>)> {
        let mut layer = self.layers[index].clone();
        let mut dense = Vec::new();
        for name in PROJECTIONS {
            if let Some(place) = self.place(&layer_name(index, name)) {
                let weight = self.weight(place)?;
                layer.set_matrix(name, &Matrix::Dense(weight.clone()))?;
                dense.push((place, name, weight));
            }
        }
        Ok((layer, dense))
    }

    fn place(&self, stem: &str) -> Option<usize> {
        self.matrices.iter().position(|matrix| matrix.stem == stem)
    }

    /// The current numbers of the matrix `stem`, or `own`, which is not trained.
    fn dense(&self, stem: &str, own: Option<&Array>) -> Result<Array> {
        let missing = || Error::option("model", format!("there is no matrix `{stem}`"));
        match self.place(stem) {
            Some(place) => self.weight(place),
            None => own.cloned().ok_or_else(missing),
        }
    }

    /// The current numbers f32 `[rows, width]` of a matrix, evaluated.
    fn weight(&self, place: usize) -> Result<Array> {
        let [s, c] = [0, 1].map(|part| &self.parameters[2 * place + part]);
        self.matrices[place].weight(s, c)
    }

    /// Stores the gradients of the parameters of a matrix, of which `gradient` `[rows, width]` is
    /// the gradient of the numbers.
    fn collect(
        &self,
        place: usize,
        gradient: &Array,
        gradients: &mut [Option<Array>],
    ) -> Result<()> {
        let [by_s, by_c] = self.matrices[place].gradients(gradient)?;
        gradients[2 * place] = Some(by_s);
        gradients[2 * place + 1] = Some(by_c);
        Ok(())
    }

    /// Saves the progress.
    fn save(&self) -> Result<()> {
        let mut tensors = Tensors::new();
        for (matrix, parameters) in self.matrices.iter().zip(self.parameters.chunks(2)) {
            for (name, parameter) in ["s", "c"].into_iter().zip(parameters) {
                tensors.insert(format!("{}.{name}", matrix.stem), parameter.clone());
            }
        }
        for (_, name, array) in self.optimizer.named() {
            tensors.insert(name, array.clone());
        }
        self.state.save(PART, &tensors, self.step)
    }

    /// Continues a saved distillation.
    fn resume(&mut self, names: &[String]) -> Result<()> {
        if !self.state.has(PART) {
            return Ok(());
        }
        let mut tensors = self.state.load(PART)?;
        let step = self.state.number(PART)?;
        let missing = |name: String| {
            Error::checkpoint(PART, format!("`{name}` is missing or has another shape"))
        };
        for (parameter, name) in self.parameters.iter_mut().zip(names) {
            match tensors.remove(name) {
                Some(found) if found.shape() == parameter.shape() => *parameter = found,
                _ => return Err(missing(name.clone())),
            }
        }
        self.optimizer.restore(tensors, step).map_err(missing)?;
        self.step = step;
        Ok(())
    }
}

/// The order of `count` sequences in an epoch.
fn order(count: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut random = ChaCha8Rng::seed_from_u64(derive_seed(seed, epoch));
    let mut order: Vec<usize> = (0..count).collect();
    shuffle(&mut order, &mut random);
    order
}

fn first(arrays: Vec<Array>) -> Result<Array> {
    let missing = || Error::option("layer", "a gradient is missing");
    let array = arrays.into_iter().next().ok_or_else(missing)?;
    evaluation::complete([&array])?;
    Ok(array)
}
