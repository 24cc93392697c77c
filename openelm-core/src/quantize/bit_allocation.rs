//! The bit width of each matrix for a size of the whole model: the widths with the smallest sum of
//! divergences, a knapsack problem.

/// A width of a matrix.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub(super) bits: usize,
    /// Size of the matrix with its scales and biases.
    pub(super) bytes: u64,
    /// Expected divergence of the model if only this matrix is quantised.
    pub(super) kl: f64,
}

/// Steps into which a budget is divided.
const STEPS: u64 = 20_000;

/// The index of the candidate of each matrix: the least sum of `kl` whose sizes are at most
/// `budget`. `None` if even the smallest candidates do not fit. Sizes beyond the smallest ones are
/// rounded up to a 20,000th of what is left of the budget.
pub(super) fn allocate(matrices: &[Vec<Candidate>], budget: u64) -> Option<Vec<usize>> {
    let smallest = |candidates: &Vec<Candidate>| candidates.iter().map(|c| c.bytes).min();
    let least: Vec<u64> = matrices.iter().map(smallest).collect::<Option<_>>()?;
    let left = budget.checked_sub(least.iter().sum())?;
    let unit = left.div_ceil(STEPS).max(1);
    let steps = (left / unit) as usize;
    // The least sum for each size so far, and the candidate of each matrix that gives it.
    let mut sums = vec![0.0; steps + 1];
    let mut choices = Vec::with_capacity(matrices.len());
    for (candidates, least) in matrices.iter().zip(&least) {
        let mut next = vec![f64::INFINITY; steps + 1];
        let mut choice = vec![0; steps + 1];
        for (index, candidate) in candidates.iter().enumerate() {
            let size = (candidate.bytes - least).div_ceil(unit) as usize;
            for at in size..=steps {
                let sum = sums[at - size] + candidate.kl;
                if sum < next[at] {
                    (next[at], choice[at]) = (sum, index);
                }
            }
        }
        sums = next;
        choices.push(choice);
    }
    let mut at = steps;
    let mut chosen = vec![0; matrices.len()];
    for (index, candidates) in matrices.iter().enumerate().rev() {
        let choice = choices[index][at];
        chosen[index] = choice;
        at -= (candidates[choice].bytes - least[index]).div_ceil(unit) as usize;
    }
    Some(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(weights: u64, kl: f64) -> Vec<Candidate> {
        let of = |bits: usize| Candidate {
            bits,
            bytes: weights * bits as u64 / 8,
            kl: kl * 0.25_f64.powi(bits as i32),
        };
        [2, 3, 4, 8].map(of).to_vec()
    }

    #[test]
    fn the_best_choice_is_found() {
        let matrices: Vec<_> = [(800, 1.0), (1600, 9.0), (80, 40.0), (2400, 0.1)]
            .map(|(weights, kl)| candidates(weights, kl))
            .to_vec();
        for budget in [1220, 1300, 1500, 2000, 3000, 4000, 4880, 9999] {
            let found = allocate(&matrices, budget).unwrap();
            let total = |choice: &[usize]| {
                let chosen = matrices.iter().zip(choice).map(|(m, &i)| m[i]);
                chosen.fold((0, 0.0), |(bytes, kl), c| (bytes + c.bytes, kl + c.kl))
            };
            let mut best = f64::INFINITY;
            for code in 0..256 {
                let choice = [code & 3, code >> 2 & 3, code >> 4 & 3, code >> 6];
                let (bytes, kl) = total(&choice);
                if bytes <= budget {
                    best = best.min(kl);
                }
            }
            let (bytes, kl) = total(&found);
            assert!(bytes <= budget);
            assert!((kl - best).abs() < 1e-12, "{budget}: {kl} {best}");
        }
        assert_eq!(allocate(&matrices, 1219), None);
    }
}
