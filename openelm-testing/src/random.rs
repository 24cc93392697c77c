//! Deterministic random cases.

use std::iter::repeat_n;

/// xorshift64*, <https://arxiv.org/abs/1402.6246>. The seed must not be 0.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next 53 bits.
    #[allow(
        clippy::should_implement_trait,
        reason = "an endless generator is not an iterator"
    )]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// An index below `end`, which is at least 1.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// One of `values`.
    pub fn pick<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        &values[self.below(values.len())]
    }
}

/// Text of all kinds of characters except U+2581, which SentencePiece uses for a space.
pub fn random_text(random: &mut Random) -> String {
    let mut text = String::new();
    for _ in 0..random.below(24) {
        let at = random.next() as u32;
        let code = match random.below(8) {
            0..4 => 0x20 + at % 0x5f,
            4 => at % 0x20,
            5 => 0xa0 + at % 0x300,
            6 => 0x1f300 + at % 0x800,
            _ => at % 0x11_0000,
        };
        let spaces = if random.below(6) == 0 {
            random.below(20)
        } else {
            0
        };
        text.extend(repeat_n(' ', spaces));
        text.extend(char::from_u32(code).filter(|&character| character != '▁'));
    }
    text
}
