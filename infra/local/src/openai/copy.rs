//! Deterministic marketing copy. It owns the words and nothing else: the same prompt gives the same text for ever,
//! and a longer answer to it begins with the shorter one.

use sha2::{Digest, Sha256};

/// One place of a sentence: a fixed word, or one drawn from a list.
#[derive(Clone, Copy)]
enum Slot {
    Word(&'static str),
    Draw(&'static [&'static str]),
}

use Slot::{Draw, Word};

const VERBS: &[&str] = &[
    "Meet", "Wear", "Share", "Taste", "Try", "Love", "Find", "Gift", "Pack", "Feel", "Own", "Enjoy",
    "Choose", "Keep",
];
const ADJECTIVES: &[&str] = &[
    "warm", "soft", "bright", "bold", "calm", "crisp", "fresh", "light", "fine", "smart", "sleek", "pure",
    "rich", "quiet", "deep", "clean",
];
const THINGS: &[&str] = &[
    "mug", "lamp", "coat", "chair", "scarf", "blend", "bag", "watch", "desk", "bowl", "knife", "pen", "boot",
    "quilt", "tent", "bike",
];
const MAKERS: &[&str] =
    &["hands", "care", "oak", "wool", "glass", "clay", "steel", "pride", "love", "skill", "linen", "cork"];
const TIMES: &[&str] =
    &["day", "dawn", "trip", "walk", "meal", "game", "night", "week", "break", "hour", "year", "call"];
const ACTIONS: &[&str] =
    &["lasts", "glows", "fits", "shines", "works", "travels", "helps", "stays", "waits", "sings"];

const GREETING: &[Slot] = &[
    Draw(VERBS),
    Word("the"),
    Draw(ADJECTIVES),
    Draw(THINGS),
    Word("that"),
    Draw(ACTIONS),
    Word("all"),
    Draw(TIMES),
    Word("long"),
];
const SENTENCES: &[&[Slot]] = &[
    GREETING,
    &[
        Word("Made"),
        Word("with"),
        Draw(MAKERS),
        Word("and"),
        Draw(MAKERS),
        Word("for"),
        Word("every"),
        Draw(TIMES),
    ],
    &[
        Word("So"),
        Draw(ADJECTIVES),
        Word("it"),
        Draw(ACTIONS),
        Word("like"),
        Word("no"),
        Word("other"),
        Draw(THINGS),
    ],
    &[
        Draw(VERBS),
        Word("it"),
        Word("once"),
        Word("and"),
        Word("it"),
        Draw(ACTIONS),
        Word("for"),
        Word("you"),
    ],
    &[
        Word("Your"),
        Draw(TIMES),
        Word("needs"),
        Word("a"),
        Draw(ADJECTIVES),
        Draw(THINGS),
        Word("of"),
        Draw(MAKERS),
    ],
];

/// The seed of a prompt: of all its messages' texts, in order.
pub(super) fn seed<'a>(texts: impl Iterator<Item = &'a str>) -> u64 {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text.as_bytes());
        // A separator that UTF-8 cannot contain, so that moving a byte between messages changes the seed.
        hash.update([0xff]);
    }
    hash.finalize().iter().take(8).fold(0, |seed, byte| (seed << 8) | u64::from(*byte))
}

/// Splitmix64 (Steele, Lea and Flood 2014): a small generator with no state but its counter.
#[derive(Clone, Debug)]
pub(super) struct Draws(u64);

impl Draws {
    /// The draws of this seed.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub(super) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn pick<T: Copy>(&mut self, list: &[T], fallback: T) -> T {
        let length = u64::try_from(list.len()).unwrap_or(1).max(1);
        let index = usize::try_from(self.draw() % length).unwrap_or(0);
        list.get(index).copied().unwrap_or(fallback)
    }

    /// `length` letters and digits.
    pub(super) fn letters(&mut self, length: usize) -> String {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        (0..length).map(|_| char::from(self.pick(LETTERS, b'x'))).collect()
    }
}

/// The tokens of an answer, without end: one short word each, with the space before it except for the first.
#[derive(Debug)]
pub(super) struct Prose {
    draws: Draws,
    sentence: &'static [Slot],
    place: usize,
    started: bool,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Slot")
    }
}

impl Prose {
    /// The text of a prompt's [`seed`].
    pub(super) fn new(seed: u64) -> Self {
        Self { draws: Draws::new(seed), sentence: GREETING, place: 0, started: false }
    }

    /// The next token.
    pub(super) fn next_token(&mut self) -> String {
        if self.place >= self.sentence.len() {
            self.sentence = self.draws.pick(SENTENCES, GREETING);
            self.place = 0;
        }
        let word = match self.sentence.get(self.place) {
            Some(Draw(list)) => self.draws.pick(list, "good"),
            Some(Word(word)) => word,
            None => "good",
        };
        self.place += 1;
        let space = if self.started { " " } else { "" };
        let stop = if self.place == self.sentence.len() { "." } else { "" };
        self.started = true;
        format!("{space}{word}{stop}")
    }
}
