//! The evaluation of a step, which is repeated without compiled functions if MLX's compiler fails.

use mlx_rs::{Array, error::Exception};

use super::{
    step_function::{Arguments, Results},
    trainer::{Step, Trainer},
};
use crate::{
    data::batch::Batch,
    error::{Error, Result},
    mlx::{compiler_failed, evaluation, memory},
};

/// Number of parts in which a large state is evaluated.
const PARTS: usize = 32;

/// Size of a state that is evaluated at once, in bytes.
const SMALL: usize = 32 << 20;

impl Trainer {
    /// Runs a step, evaluates its results and takes its state.
    ///
    /// An evaluation reuses the memory of the state before it, so a step that fails has lost it.
    /// Only the first evaluation of a compiled function, in which MLX compiles its kernels, keeps
    /// that state, if it fits into the memory: after a failure of the compiler, the same step runs
    /// without compilation, and so do all later ones.
    pub(super) fn evaluated(&mut self, arguments: Arguments) -> Result<Results> {
        let mut kept = Some(arguments.clone());
        let failure = match self.evaluate_step(arguments, &mut kept) {
            Err(error) if compiler_failed(&error) => error,
            result => return result,
        };
        self.compiled = None;
        match kept {
            Some(arguments) => self.evaluate_step(arguments, &mut None),
            None => Err(without_state(&failure)),
        }
    }

    /// Like [`evaluated`](Self::evaluated), without the repetition. Drops `kept`, unless kernels may
    /// have to be compiled.
    fn evaluate_step(
        &mut self,
        arguments: Arguments,
        kept: &mut Option<Arguments>,
    ) -> Result<Results> {
        let mut results = self.call(arguments)?;
        let compiles = self.compiled.as_ref().is_some_and(|step| step.was_first());
        if !compiles || !kept.as_ref().is_some_and(fits_again) {
            *kept = None;
        }
        let updated = results.updated.take();
        let updates = updated.is_some();
        if let Some(updated) = updated {
            self.parameters = updated.parameters;
            self.optimizer.replace(updated.slots);
            self.average = updated.average;
        }
        let gradients = results.gradients.iter().flatten();
        let losses = results.losses.iter().flatten();
        let reported = losses.chain(&results.gradient_norm);
        let state_bytes: usize = self.state().map(Array::nbytes).sum();
        if !updates || self.compiled.is_none() || state_bytes <= SMALL {
            evaluation::complete(self.state().chain(gradients).chain(reported))?;
        } else {
            let mut before: Vec<&Array> = reported.collect();
            evaluation::start(before.iter().copied())?;
            for part in self.state_in_parts(state_bytes / PARTS) {
                evaluation::start(part.iter().copied())?;
                evaluation::wait(before)?;
                before = part;
            }
            evaluation::wait(before)?;
        }
        if updates {
            let updates = self.optimizer.updates() + 1;
            self.optimizer.set_updates(updates);
        }
        Ok(results)
    }

    /// The finished step on `batch`, from its `results`.
    pub(super) fn report(
        &self,
        results: &Results,
        learning_rate: f32,
        batch: &Batch,
    ) -> Result<Step> {
        let [loss, z_loss] = results.losses()?;
        let step = Step {
            iteration: self.iteration,
            loss,
            z_loss,
            targets: batch.target_count(),
            learning_rate,
            gradient_norm: results.gradient_norm()?,
        };
        self.check_step(step, Some(batch))
    }

    /// Refuses numbers that are not finite. The updated weights may be non-finite although the loss
    /// was finite.
    pub(super) fn check_step(&self, step: Step, batch: Option<&Batch>) -> Result<Step> {
        self.check_finite(step.loss, batch)?;
        self.check_finite(step.gradient_norm.unwrap_or_default(), batch)?;
        Ok(step)
    }

    /// The state in parts of at most `most` bytes, or one parameter. They are evaluated one after the
    /// other, two at a time.
    ///
    /// The kernel of a compiled update allocates a parameter and its moments, and the ones before it
    /// are freed when it has run. MLX allocates the results of many kernels before it runs the
    /// first one, so an evaluation of the whole state needs much of it twice.
    fn state_in_parts(&self, most: usize) -> Vec<Vec<&Array>> {
        let mut average = self.average.iter().flatten();
        let slots = self.optimizer.arrays_by_parameter();
        let (mut parts, mut filled) = (Vec::<Vec<&Array>>::new(), 0);
        for (parameter, slots) in self.parameters.iter().zip(slots) {
            let mut own = vec![parameter];
            own.extend(slots);
            own.extend(average.next());
            let size: usize = own.iter().map(|array| array.nbytes()).sum();
            match parts.last_mut() {
                Some(part) if filled + size <= most => {
                    part.extend(own);
                    filled += size;
                }
                _ => {
                    parts.push(own);
                    filled = size;
                }
            }
        }
        parts
    }

    /// The arrays that persist between steps.
    pub(super) fn state(&self) -> impl Iterator<Item = &Array> {
        let average = self.average.iter().flatten();
        let parameters = self.parameters.iter();
        parameters.chain(self.optimizer.arrays()).chain(average)
    }
}

/// True if the state of `arguments` and the one after the step fit into the memory, with as much
/// again for the step.
fn fits_again(arguments: &Arguments) -> bool {
    let needed = arguments.state_bytes().saturating_mul(2);
    memory::allocatable_bytes().is_none_or(|available| needed <= available)
}

fn without_state(failure: &Error) -> Error {
    let failure = failure.to_string();
    let failure = failure.strip_prefix("mlx: ").unwrap_or(&failure);
    Exception::custom(format!(
        "{failure}; with the environment variable MLX_DISABLE_COMPILE=1 nothing is compiled"
    ))
    .into()
}

#[cfg(test)]
mod tests {
    use std::{env, fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

    use openelm_testing::TempDir;

    use super::*;
    use crate::{
        config::{Config, LayerWiseConfig, Preset},
        data::{batch::Padding, dataset::Example},
        mlx::{Device, Dtype, available::assume_available, compiles},
        training::{Optimizer, OptimizerKind, TrainerOptions},
        weights::random_weights,
    };

    /// The folder of a compiler that fails once the number in the folder's file `left` is 0.
    const COMPILER: &str = "OPENELM_TEST_COMPILER";

    /// Checkpointing, gradient accumulation, and kernels that are compiled before the compiler fails.
    const CASE: &str = "OPENELM_TEST_CASE";

    const SCRIPT: &str = r#"#!/bin/sh
left=$(cat "$OPENELM_TEST_COMPILER/left" 2>/dev/null || echo 1000)
[ "$left" -gt 0 ] || exit 1
echo $((left - 1)) > "$OPENELM_TEST_COMPILER/left"
"#;

    /// Runs the ignored test `name` in a process of its own with such a compiler.
    fn with_a_failing_compiler(name: &str, case: &str) {
        let path = env::var_os("PATH").unwrap_or_default();
        let found = env::split_paths(&path).find(|folder| folder.join("g++").is_file());
        let Some(found) = found.filter(|_| cfg!(target_os = "linux")) else {
            eprintln!("SKIPPED: there is no g++");
            return;
        };
        let folder = TempDir::new();
        let compiler = folder.join("g++");
        let real = found.join("g++");
        fs::write(
            &compiler,
            format!("{SCRIPT}exec '{}' \"$@\" -O0\n", real.display()),
        )
        .unwrap();
        fs::set_permissions(&compiler, fs::Permissions::from_mode(0o755)).unwrap();
        let paths = [folder.to_path_buf()].into_iter();
        let paths = env::join_paths(paths.chain(env::split_paths(&path))).unwrap();
        let name = format!("training::step_evaluation::tests::{name}");
        let child = Command::new(env::current_exe().unwrap())
            .args(["--ignored", "--exact", &name])
            .env("PATH", paths)
            // MLX keeps compiled functions in the folder of temporary files.
            .env("TMPDIR", &*folder)
            .envs([(COMPILER, &*folder)])
            .env(CASE, case)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stdout);
        assert!(
            child.status.success() && text.contains("1 passed"),
            "{case}: {text}"
        );
    }

    /// Number of kernels that the compiler compiles before it fails.
    fn fail_after(left: &str) {
        let folder = env::var_os(COMPILER).unwrap();
        fs::write(Path::new(&folder).join("left"), left).unwrap();
    }

    fn batch(length: u32) -> Batch {
        let example = Example {
            tokens: (1..length + 2).collect(),
            first_target: 1,
        };
        Batch::new(&[&example], Padding::default())
    }

    /// Trains all weights. Matrices decay and norms do not, so that an update has two kernels.
    fn trainer(options: &TrainerOptions) -> Trainer {
        let mut options = options.clone();
        options.schedule.learning_rate = 1e-3;
        options.clip_norm = Some(1.0);
        options.optimizer = Optimizer {
            weight_decay: 0.1,
            ..Optimizer::new(OptimizerKind::AdamW)
        };
        let config = Config::layer_wise(LayerWiseConfig {
            num_transformer_layers: 2,
            model_dim: 64,
            head_dim: 16,
            vocab_size: 50,
            ..Preset::Size270M.settings()
        })
        .unwrap();
        let start = random_weights(&config, Dtype::Float32, 3).unwrap();
        Trainer::from_scratch(config, start, Dtype::Float32, options).unwrap()
    }

    #[test]
    fn steps_continue_without_a_compiler_that_fails() {
        // The compiler fails in the gradient, and in the second kernel of the optimizer.
        for case in ["false 1 0", "false 2 0", "true 1 4"] {
            with_a_failing_compiler("continues_without_compilation", case);
        }
    }

    #[test]
    #[ignore = "run by steps_continue_without_a_compiler_that_fails"]
    fn continues_without_compilation() {
        let case = env::var(CASE).unwrap();
        let [checkpoint, accumulation, left] = case.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{case}");
        };
        let options = |compile| TrainerOptions {
            compile: Some(compile),
            grad_checkpoint: checkpoint == "true",
            grad_accumulation_steps: accumulation.parse().unwrap(),
            ..TrainerOptions::default()
        };
        let _gpu = Device::Gpu.select();
        let batches = [batch(20), batch(40)];
        let results = |trainer: &mut Trainer| {
            let mut results: Vec<f32> = Vec::new();
            for nth in 0..4 {
                results.push(trainer.step(&batches[nth % 2]).unwrap().loss);
            }
            results.push(trainer.update(&batches, None).unwrap().loss);
            results.push(trainer.evaluate(&batches).unwrap() as f32);
            results.extend(trainer.log_probabilities(&batches[0]).unwrap());
            let norms = trainer.state().map(|array| {
                let norm = array.square().unwrap().sum(None).unwrap().sqrt().unwrap();
                norm.try_item_exact::<f32>().unwrap()
            });
            results.extend(norms);
            results
        };
        let mut compiled = trainer(&options(true));
        assert!(compiles());
        fail_after(left);
        let found = results(&mut compiled);
        assert!(!compiles() && compiled.compiled_functions() == 0);
        assert_eq!(
            compiled.optimizer.updates(),
            if accumulation == "1" { 5 } else { 3 }
        );
        let expected = results(&mut trainer(&options(false)));
        for (a, b) in found.iter().zip(&expected) {
            assert!((a - b).abs() <= 1e-3 * a.abs().max(1e-3), "{a} {b}");
        }
    }

    #[test]
    fn a_state_that_does_not_fit_twice_is_lost() {
        with_a_failing_compiler("loses_a_large_state", "");
    }

    #[test]
    #[ignore = "run by a_state_that_does_not_fit_twice_is_lost"]
    fn loses_a_large_state() {
        let _gpu = Device::Gpu.select();
        let mut trainer = trainer(&TrainerOptions::default());
        assert!(compiles());
        fail_after("0");
        let needed = trainer.parameter_count() * 4 * 3 * 2;
        let _available = assume_available(Some(needed - 1));
        let error = trainer.step(&batch(20)).unwrap_err().to_string();
        assert!(error.contains("MLX_DISABLE_COMPILE=1"), "{error}");
        let error = trainer.step(&batch(20)).unwrap_err();
        assert!(matches!(error, Error::FailedTrainer { .. }), "{error}");
        // Other work does without compilation, also if the compiler is back.
        fail_after("1000");
        let mut trainer = self::trainer(&TrainerOptions::default());
        trainer.step(&batch(20)).unwrap();
        assert_eq!(trainer.compiled_functions(), 0);
    }
}
