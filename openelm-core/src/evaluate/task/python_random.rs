//! The random numbers of Python's `random.Random`, from which lm-eval draws examples.

use rand_mt::Mt;

/// Python's generator.
pub(super) struct PythonRandom(Mt);

impl PythonRandom {
    /// `random.Random(seed)`.
    pub(super) fn new(seed: u64) -> Self {
        let (low, high) = (seed as u32, (seed >> 32) as u32);
        let key = if high == 0 {
            vec![low]
        } else {
            vec![low, high]
        };
        Self(Mt::new_with_key(key))
    }

    /// Positions of `random.sample(population, count)` in a population of `size`; `None` if it is
    /// too small.
    pub(super) fn sample(&mut self, size: usize, count: usize) -> Option<Vec<usize>> {
        if count > size {
            return None;
        }
        let mut drawn = Vec::with_capacity(count);
        // Python copies small populations, and rejects repetitions in large ones.
        let mut copied = 21_usize;
        if count > 5 {
            let mut power = 1_usize;
            while power < count.saturating_mul(3) {
                power = power.saturating_mul(4);
            }
            copied = copied.saturating_add(power);
        }
        if size <= copied {
            let mut pool: Vec<usize> = (0..size).collect();
            for taken in 0..count {
                let at = self.below(size - taken)?;
                drawn.push(*pool.get(at)?);
                let last = *pool.get(size - taken - 1)?;
                *pool.get_mut(at)? = last;
            }
        } else {
            while drawn.len() < count {
                let at = self.below(size)?;
                if !drawn.contains(&at) {
                    drawn.push(at);
                }
            }
        }
        Some(drawn)
    }

    /// A number below `bound`; `None` if it is 0 or above 2³².
    fn below(&mut self, bound: usize) -> Option<usize> {
        let bits = usize::BITS - bound.leading_zeros();
        if !(1..=32).contains(&bits) {
            return None;
        }
        loop {
            let number = (self.0.next_u32() >> (32 - bits)) as usize;
            if number < bound {
                return Some(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of Python 3.11: `r = random.Random(1234); r.sample(range(n), k)`, in this order.
    #[test]
    fn draws_as_python() {
        let mut random = PythonRandom::new(1234);
        for (size, count, expected) in EXPECTED {
            assert_eq!(random.sample(*size, *count).unwrap(), *expected);
        }
        assert_eq!(random.sample(3, 4), None);
        let mut large = PythonRandom::new(0x1_2345_6789);
        assert_eq!(large.sample(1_000_000, 3).unwrap(), LARGE);
    }

    const EXPECTED: &[(usize, usize, &[usize])] = &[
        (10, 0, &[]),
        (10, 10, &[7, 1, 0, 9, 4, 6, 5, 3, 8, 2]),
        (21, 5, &[0, 20, 19, 11, 15]),
        (22, 5, &[19, 14, 4, 2, 5]),
        (30, 6, &[22, 3, 27, 0, 16, 15]),
        (
            101,
            25,
            &[
                31, 8, 85, 69, 59, 99, 76, 86, 11, 65, 74, 5, 34, 71, 95, 82, 38, 61, 45, 88, 100,
                25, 58, 67, 2,
            ],
        ),
        (
            400,
            25,
            &[
                260, 36, 2, 170, 73, 363, 242, 336, 193, 85, 27, 39, 300, 254, 83, 38, 285, 110,
                13, 177, 394, 56, 271, 72, 343,
            ],
        ),
        (
            39905,
            10,
            &[
                20014, 29762, 2594, 27279, 18139, 2634, 11622, 17804, 10129, 19678,
            ],
        ),
        (1, 1, &[0]),
    ];
    const LARGE: [usize; 3] = [53237, 860894, 658894];
}
