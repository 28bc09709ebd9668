//! Texts that are looked for without regard to case.

/// A text in lower case, prepared so that looking for it takes one pass and no memory, whatever the other text is.
#[derive(Debug)]
pub(crate) struct Needle {
    lower: Box<[char]>,
    /// For each prefix, how much of it still fits when the next character does not (Knuth, Morris, Pratt).
    borders: Box<[usize]>,
}

fn lower(text: &str) -> impl DoubleEndedIterator<Item = char> {
    text.chars().flat_map(char::to_lowercase)
}

impl Needle {
    pub(crate) fn new(text: &str) -> Self {
        let mut needle = Self { lower: lower(text).collect(), borders: Box::default() };
        let mut borders = vec![0; needle.lower.len()];
        let mut fits = 0;
        for at in 1..borders.len() {
            fits = needle.advance(&borders, fits, needle.lower[at]);
            borders[at] = fits;
        }
        needle.borders = borders.into();
        needle
    }

    /// How much fits after one more character.
    fn advance(&self, borders: &[usize], mut fits: usize, next: char) -> usize {
        loop {
            match self.lower.get(fits) {
                Some(wanted) if *wanted == next => return fits + 1,
                _ if fits == 0 => return 0,
                _ => fits = borders[fits - 1],
            }
        }
    }

    pub(crate) fn is_in(&self, text: &str) -> bool {
        let mut fits = 0;
        self.lower.is_empty()
            || lower(text).any(|next| {
                fits = self.advance(&self.borders, fits, next);
                fits == self.lower.len()
            })
    }

    pub(crate) fn starts(&self, text: &str) -> bool {
        let mut chars = lower(text);
        self.lower.iter().all(|wanted| chars.next() == Some(*wanted))
    }

    pub(crate) fn ends(&self, text: &str) -> bool {
        let mut chars = lower(text).rev();
        self.lower.iter().rev().all(|wanted| chars.next() == Some(*wanted))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn case_does_not_count_in_any_script() {
        for (needle, text) in
            [("ÄB", "xäBy"), ("strasse", "STRASSE"), ("σ", "ΑΣ"), ("k", "\u{212a}"), ("", ""), ("", "x")]
        {
            assert!(Needle::new(needle).is_in(text), "{needle} {text}");
        }
        assert!(!Needle::new("ß").is_in("SS"));
        assert!(!Needle::new("abc").is_in("ab"));
        assert!(Needle::new("ÉA").starts("éab") && Needle::new("Bé").ends("abÉ"));
        assert!(!Needle::new("ab").starts("a") && !Needle::new("ab").ends("b"));
    }

    proptest! {
        #[test]
        fn the_answers_are_those_of_lower_cased_texts(needle in "[abAÄäİ]{0,6}", text in "[abAÄäİ]{0,30}") {
            let found = Needle::new(&needle);
            let lowered = |text: &str| lower(text).collect::<String>();
            let (needle, text) = (lowered(&needle), lowered(&text));
            prop_assert_eq!(found.is_in(&text), text.contains(&needle));
            prop_assert_eq!(found.starts(&text), text.starts_with(&needle));
            prop_assert_eq!(found.ends(&text), text.ends_with(&needle));
        }
    }
}
