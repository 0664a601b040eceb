//! What a user can ask for beside the text itself, each in the form in which it cannot be wrong. A name on the wire is
//! spelled here and nowhere else.

use std::fmt;
use std::num::NonZeroU8;

/// An enumeration whose members have names on the wire.
macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$member_doc:meta])* $member:ident = $wire:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$member_doc])* $member,)+
        }

        impl $name {
            /// All of them, in the order in which they are offered.
            pub const ALL: &[Self] = &[$(Self::$member,)+];

            /// The name as it is on the wire.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$member => $wire,)+
                }
            }

            /// The one of this name.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == text)
            }
        }
    };
}

names! {
    /// What kind of text is asked for.
    Kind {
        /// The user's text, better written.
        Rewrite = "rewrite",
        /// A description of a product from notes on it.
        ProductDescription = "product_description",
        /// A post for social media.
        SocialPost = "social_post",
    }
}

names! {
    /// In which voice.
    Tone {
        /// Plain and factual.
        Neutral = "neutral",
        /// Warm.
        Friendly = "friendly",
        /// Precise and courteous.
        Professional = "professional",
        /// Light, with some wit.
        Playful = "playful",
        /// Short and sure of itself.
        Bold = "bold",
        /// Unhurried and elegant.
        Luxurious = "luxurious",
    }
}

names! {
    /// How long; what that means depends on the kind.
    Length {
        /// Shorter than usual.
        Short = "short",
        /// As usual.
        Medium = "medium",
        /// Longer than usual.
        Long = "long",
    }
}

names! {
    /// Where a post will be published.
    Platform {
        /// X, once Twitter.
        X = "x",
        /// Bluesky.
        Bluesky = "bluesky",
        /// Threads.
        Threads = "threads",
        /// Mastodon, at its usual limit.
        Mastodon = "mastodon",
        /// The caption of an Instagram post.
        Instagram = "instagram",
        /// `LinkedIn`.
        Linkedin = "linkedin",
        /// Facebook.
        Facebook = "facebook",
    }
}

/// Who will read it, in the user's words: 1 to 120 characters, not blank, no control characters. Prints its length only.
#[derive(Clone, PartialEq, Eq)]
pub struct Audience(Box<str>);

impl Audience {
    /// The longest, in characters.
    pub const CHARACTERS_MAX: usize = 120;

    /// Reads an audience; none if it is blank, too long or has control characters.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = text.chars().count() <= Self::CHARACTERS_MAX && !text.chars().any(char::is_control);
        (fits && !text.trim().is_empty()).then(|| Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Audience({} bytes)", self.0.len())
    }
}

/// A language, as its tag in the form of BCP 47 (RFC 5646): language, script and region, such as `pt-BR`.
///
/// A tag may have more parts: variants, extensions and private use. They are read and left out, because they name no other
/// language to write in, and since almost any word fits them, they would be a place for words to the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Language(String);

impl Language {
    /// The longest tag, in characters: what RFC 5646 (4.4.1) recommends to have room for.
    pub const CHARACTERS_MAX: usize = 35;

    /// Reads a tag; none if it is too long or not well-formed. Case does not count.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > Self::CHARACTERS_MAX {
            return None;
        }
        let mut parts = text.split('-').peekable();
        let language = parts.next().filter(|part| letters(part, 2..=3))?;
        let mut tag = language.to_ascii_lowercase();
        if let Some(extended) = parts.next_if(|part| letters(part, 3..=3)) {
            tag = format!("{tag}-{}", extended.to_ascii_lowercase());
        }
        if let Some(script) = parts.next_if(|part| letters(part, 4..=4)) {
            let (first, rest) = script.split_at(1);
            tag = format!("{tag}-{}{}", first.to_ascii_uppercase(), rest.to_ascii_lowercase());
        }
        if let Some(region) = parts.next_if(|part| letters(part, 2..=2) || is_area(part)) {
            tag = format!("{tag}-{}", region.to_ascii_uppercase());
        }
        while parts.next_if(|part| is_variant(part)).is_some() {}
        well_formed_rest(&mut parts).then_some(Self(tag))
    }

    /// The tag in its usual case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn letters(part: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphabetic())
}

fn alphanumeric(part: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// A number of the UN's list of areas, such as 419 for Latin America.
fn is_area(part: &str) -> bool {
    part.len() == 3 && part.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_variant(part: &str) -> bool {
    let digit_first = part.bytes().next().is_some_and(|byte| byte.is_ascii_digit());
    alphanumeric(part, 5..=8) || (digit_first && alphanumeric(part, 4..=4))
}

/// Extensions and private use: a single letter or digit, then at least one part.
fn well_formed_rest<'a>(parts: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> bool {
    while let Some(singleton) = parts.next() {
        if !alphanumeric(singleton, 1..=1) {
            return false;
        }
        let shortest = if singleton.eq_ignore_ascii_case("x") { 1 } else { 2 };
        if parts.next_if(|part| alphanumeric(part, shortest..=8)).is_none() {
            return false;
        }
        while parts.next_if(|part| alphanumeric(part, shortest..=8)).is_some() {}
    }
    true
}

/// How many versions of the text: 1 to 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variants(NonZeroU8);

impl Variants {
    /// The most.
    pub const MAX: u8 = 5;
    /// One, which is what is written where nothing is said.
    pub const ONE: Self = Self(NonZeroU8::MIN);

    /// Reads a number.
    pub fn new(number: u64) -> Option<Self> {
        let number = u8::try_from(number).ok().and_then(NonZeroU8::new)?;
        (number.get() <= Self::MAX).then_some(Self(number))
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0.get()
    }
}

/// What is asked for beside the text itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// In which voice; none leaves it to the kind.
    pub tone: Option<Tone>,
    /// For whom.
    pub audience: Option<Audience>,
    /// How long; none leaves it to the kind.
    pub length: Option<Length>,
    /// In which language; none is the material's own.
    pub language: Option<Language>,
    /// For which platform; of [`Kind::SocialPost`] only.
    pub platform: Option<Platform>,
    /// How many versions.
    pub variants: Variants,
}

impl Options {
    /// Nothing in particular.
    pub const NONE: Self = Self {
        tone: None,
        audience: None,
        length: None,
        language: None,
        platform: None,
        variants: Variants::ONE,
    };
}
