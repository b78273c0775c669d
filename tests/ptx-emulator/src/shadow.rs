//! One bit for each byte of a memory: was it ever written?

/// Which bytes of a memory hold something.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shadow {
    words: Vec<u64>,
    /// Bytes never written; at zero no check has to look at the bits.
    undefined: u64,
}

impl Shadow {
    /// Nothing of `bytes` bytes is defined.
    pub fn undefined(bytes: u64) -> Self {
        Shadow { words: vec![0; bytes.div_ceil(64) as usize], undefined: bytes }
    }

    /// Marks bytes as written.
    #[inline]
    pub fn define(&mut self, start: u64, length: u64) {
        if self.undefined > 0 {
            self.update(start, length, |word, mask| word | mask);
        }
    }

    /// Marks bytes as holding nothing.
    pub fn forget(&mut self, start: u64, length: u64) {
        self.update(start, length, |word, mask| word & !mask);
    }

    fn update(&mut self, start: u64, length: u64, change: impl Fn(u64, u64) -> u64) {
        let mut at = start;
        while at < start + length {
            let (word, mask) = place(at, start + length);
            let old = self.words[word];
            let new = change(old, mask);
            self.undefined += u64::from(old.count_ones());
            self.undefined -= u64::from(new.count_ones());
            self.words[word] = new;
            at = (at / 64 + 1) * 64;
        }
    }

    /// Whether all of the bytes were written.
    #[inline]
    pub fn is_defined(&self, start: u64, length: u64) -> bool {
        self.undefined == 0 || self.undefined_bytes(start, length) == 0
    }

    /// How many of the bytes were never written.
    pub fn undefined_bytes(&self, start: u64, length: u64) -> u64 {
        let (mut at, mut count) = (start, 0);
        while at < start + length {
            let (word, mask) = place(at, start + length);
            count += u64::from((!self.words[word] & mask).count_ones());
            at = (at / 64 + 1) * 64;
        }
        count
    }
}

/// The word that holds the bit of byte `at`, and the mask of the bytes from there to `end` inside of it.
#[inline]
fn place(at: u64, end: u64) -> (usize, u64) {
    let first = at % 64;
    let count = (end - at).min(64 - first);
    ((at / 64) as usize, (u64::MAX >> (64 - count)) << first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_across_words() {
        let mut shadow = Shadow::undefined(200);
        shadow.define(60, 70);
        assert_eq!(shadow.undefined_bytes(0, 200), 130);
        assert!(shadow.is_defined(60, 70) && !shadow.is_defined(59, 2) && !shadow.is_defined(129, 2));
        shadow.forget(64, 1);
        assert!(!shadow.is_defined(60, 70));
        shadow.define(0, 200);
        assert!(shadow.is_defined(0, 200));
    }
}
