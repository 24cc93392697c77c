//! Log-probabilities of tokens from the hidden states before them, in blocks of rows.

use mlx_rs::{
    Array, Dtype,
    ops::{indexing::argmax_axis, logsumexp_axis},
};

use crate::{error::Result, mlx::evaluation, model::Model};

/// Logits that are held at once, in numbers.
const BLOCK: usize = 1 << 21;

/// The score of a token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TokenScore {
    /// Log-probability in nats.
    pub(super) logprob: f32,
    /// It is the most likely token.
    pub(super) is_greedy: bool,
}

/// Number of rows of a block of logits.
pub(super) fn block_rows(model: &Model) -> usize {
    (BLOCK / model.config().vocab_size()).max(1)
}

/// f32 logits `[R, V]` of the `rows` of `hidden` `[1, L, D]`.
pub(super) fn logits_of(model: &Model, hidden: &Array, rows: &[usize]) -> Result<Array> {
    let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    let rows = Array::from_slice(&rows, &[rows.len() as i32]);
    let rows = hidden.squeeze_axes(&[0])?.take_axis(&rows, 0)?;
    Ok(model.logits(&rows)?.as_dtype(Dtype::Float32)?)
}

/// The scores of `pairs`, each a row of `hidden` `[1, L, D]` and the token after it. The head runs
/// once for a row, over `block` rows at a time. `None` if a value is not finite. Waits for the
/// device.
pub(super) fn score_rows(
    model: &Model,
    hidden: &Array,
    pairs: &[(usize, u32)],
    block: usize,
) -> Result<Option<Vec<TokenScore>>> {
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    order.sort_by_key(|&index| pairs[index].0);
    let of_rows: Vec<&[usize]> = order.chunk_by(|&a, &b| pairs[a].0 == pairs[b].0).collect();
    let none = TokenScore {
        logprob: f32::NAN,
        is_greedy: false,
    };
    let mut scores = vec![none; pairs.len()];
    for of_rows in of_rows.chunks(block) {
        let rows: Vec<usize> = of_rows.iter().map(|of_row| pairs[of_row[0]].0).collect();
        let logits = logits_of(model, hidden, &rows)?;
        let vocab = logits.dim(1) as u32;
        let of_block = (0..).zip(of_rows);
        let places: Vec<(u32, usize)> = of_block
            .flat_map(|(row, of_row)| of_row.iter().map(move |&index| (row, index)))
            .collect();
        let flat = places
            .iter()
            .map(|&(row, index)| row * vocab + pairs[index].1);
        let flat: Vec<u32> = flat.collect();
        let flat = Array::from_slice(&flat, &[flat.len() as i32]);
        let sums = logsumexp_axis(&logits, -1, false)?;
        let likeliest = argmax_axis(&logits, -1, false)?;
        let chosen = logits.flatten(None, None)?.take(&flat)?;
        evaluation::complete([&sums, &likeliest, &chosen])?;
        let (sums, likeliest) = (
            sums.to_vec_exact::<f32>()?,
            likeliest.to_vec_exact::<u32>()?,
        );
        for ((row, index), chosen) in places.into_iter().zip(chosen.to_vec_exact::<f32>()?) {
            let logprob = chosen - sums[row as usize];
            if !logprob.is_finite() {
                return Ok(None);
            }
            scores[index] = TokenScore {
                logprob,
                is_greedy: likeliest[row as usize] == pairs[index].1,
            };
        }
    }
    Ok(Some(scores))
}

#[cfg(test)]
mod tests {
    use mlx_rs::random::normal;

    use super::*;
    use crate::{
        config::{Config, LayerWiseConfig},
        mlx,
        weights::random_weights,
    };

    #[test]
    fn blocks_of_rows_equal_the_whole() {
        let config = Config::layer_wise(LayerWiseConfig {
            num_transformer_layers: 1,
            model_dim: 16,
            head_dim: 8,
            num_gqa_groups: Some(1),
            ffn_dim_divisor: 8,
            vocab_size: 50,
            ..LayerWiseConfig::default()
        })
        .unwrap();
        let dtype = mlx::Dtype::Float32;
        let weights = random_weights(&config, dtype, 1).unwrap();
        let model = Model::new(config, weights, dtype).unwrap();
        let key = mlx_rs::random::key(3).unwrap();
        let hidden = normal::<f32>(&[1, 9, 16], None, None, &key).unwrap();
        let all = model.logits(&hidden).unwrap();
        let all = all
            .subtract(all.logsumexp_axes(&[-1], true).unwrap())
            .unwrap();
        let all = all.to_vec_exact::<f32>().unwrap();
        let greedy = |row: usize| {
            let row = &all[row * 50..(row + 1) * 50];
            let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            row.iter().position(|&x| x == best).unwrap() as u32
        };
        // Rows in any order, one of them with three tokens.
        let pairs = [
            (8, 1),
            (2, 0),
            (3, greedy(3)),
            (2, 49),
            (0, 7),
            (2, greedy(2)),
        ];
        for block in [1, 2, 4, 100] {
            let scores = score_rows(&model, &hidden, &pairs, block).unwrap().unwrap();
            for (score, (row, token)) in scores.iter().zip(pairs) {
                let expected = all[row * 50 + token as usize];
                assert!(
                    (score.logprob - expected).abs() < 1e-5,
                    "{block}: {score:?}"
                );
                assert_eq!(score.is_greedy, token == greedy(row), "{block}: {score:?}");
            }
        }
        let bad = hidden.multiply(Array::from_f32(f32::NAN)).unwrap();
        assert_eq!(score_rows(&model, &bad, &pairs, 2).unwrap(), None);
    }
}
