//! How many tokens a text may be, without a tokenizer: a bound for holds, an estimate for cut streams. Pure.

use domain::{Classes, Tokens};
use std::num::NonZeroU64;

/// What a provider adds to a prompt of two messages, in tokens. OpenAI's cookbook ("How to count tokens with
/// tiktoken") counts 3 a message, 1 for its role and 3 that begin the reply: 11. The rest is slack for models whose
/// messages are wrapped in more.
pub const PROMPT_OVERHEAD_TOKENS: u32 = 32;

/// What it adds by the same source, without slack: an estimate is charged, and slack is not used.
const PROMPT_OVERHEAD_ESTIMATE_TOKENS: u32 = 11;

/// UTF-8 bytes to a token, in an estimate. OpenAI's rule of thumb is "one token is about 4 characters of English";
/// bytes instead of characters, because other scripts take more tokens to a character and more bytes too.
const BYTES_PER_TOKEN: NonZeroU64 = NonZeroU64::new(4).unwrap();

/// The most tokens that this prompt can be: its UTF-8 bytes plus [`PROMPT_OVERHEAD_TOKENS`]. A token of a byte-level
/// tokenizer, which OpenAI's are, stands for at least one byte. A tokenizer that first expands characters
/// (compatibility normalisation) can exceed it; what it takes beyond the hold is absorbed.
pub fn prompt_bound(system: &str, user: &str) -> Tokens {
    prompt_bytes(system, user).saturating_add(Tokens::from_u32(PROMPT_OVERHEAD_TOKENS))
}

/// What a cut stream is taken to have used: a quarter of the UTF-8 bytes of the prompt and of the `output_bytes` that
/// were streamed, each rounded up, plus 11 for the messages' frame. So text that was streamed is never 0 tokens.
///
/// Nothing is known of the provider's cache and of hidden reasoning, so all of the prompt counts as first read, and
/// reasoning as none.
pub fn estimate(system: &str, user: &str, output_bytes: usize) -> Classes {
    let frame = Tokens::from_u32(PROMPT_OVERHEAD_ESTIMATE_TOKENS);
    Classes {
        input: prompt_bytes(system, user).div_ceil(BYTES_PER_TOKEN).saturating_add(frame),
        output: tokens(output_bytes),
        ..Classes::default()
    }
}

/// A quarter of the bytes, rounded up.
pub(crate) fn tokens(bytes: usize) -> Tokens {
    Tokens::from_len(bytes).div_ceil(BYTES_PER_TOKEN)
}

fn prompt_bytes(system: &str, user: &str) -> Tokens {
    Tokens::from_len(system.len()).saturating_add(Tokens::from_len(user.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f05_text_that_was_streamed_is_never_zero_tokens() {
        assert_eq!(estimate("", "", 0).output, Tokens::ZERO);
        for (bytes, tokens) in [(1, 1), (4, 1), (5, 2), (4_000, 1_000)] {
            assert_eq!(estimate("", "", bytes).output, Tokens::from_u32(tokens), "{bytes}");
        }
        assert_eq!(estimate("abcd", "e", 0).input, Tokens::from_u32(2 + 11));
    }

    /// Texts of the kinds that are written here, their tokens by OpenAI's `o200k_base` (gpt-tokenizer 4), and what the
    /// estimate makes of them in percent of that, rounded down.
    const GOLDEN: [(&str, &str, u32, u64); 10] = [
        (
            "English, copy",
            "Meet the Trailhead 28: a weatherproof daypack that carries your laptop on Monday and your rope on Saturday. Two side pockets take a one-litre bottle each, and the hip belt tucks away when you do not need it. Built from recycled nylon, backed by a lifetime guarantee.",
            60,
            111,
        ),
        (
            "English, social post",
            "🚀 New drop! Our cold-brew concentrate is back in stock ☕✨ First 100 orders ship free. #coldbrew #coffeelover #mondaymood 👉 link in bio",
            41,
            87,
        ),
        (
            "German",
            "Der wetterfeste Tagesrucksack begleitet Sie montags ins Büro und samstags an den Fels. Zwei Seitentaschen fassen je eine Literflasche, und der Hüftgurt verschwindet, wenn Sie ihn nicht brauchen.",
            50,
            98,
        ),
        (
            "French",
            "Ce sac à dos imperméable vous accompagne au bureau le lundi et à l'escalade le samedi. Deux poches latérales accueillent chacune une bouteille d'un litre.",
            36,
            111,
        ),
        (
            "Russian",
            "Этот непромокаемый рюкзак пригодится вам в офисе в понедельник и на скалах в субботу. В два боковых кармана помещается по литровой бутылке.",
            43,
            148,
        ),
        (
            "Chinese",
            "这款防水背包，周一陪你上班，周六陪你攀岩。两侧口袋各可放一升水壶，不需要时腰带可以收起。采用再生尼龙制成，终身保修。",
            56,
            78,
        ),
        (
            "Japanese",
            "この防水バックパックは、月曜日はオフィスへ、土曜日は岩場へとお供します。両サイドのポケットには一リットルのボトルが一本ずつ入ります。",
            50,
            100,
        ),
        (
            "Arabic",
            "حقيبة ظهر مقاومة للماء ترافقك إلى المكتب يوم الاثنين وإلى الجبل يوم السبت. تتسع الجيوب الجانبية لزجاجتين سعة لتر واحد.",
            39,
            138,
        ),
        (
            "JSON",
            "{\"name\":\"Trailhead 28\",\"price\":{\"amount\":8900,\"currency\":\"EUR\"},\"tags\":[\"outdoor\",\"daypack\"],\"inStock\":true}",
            34,
            79,
        ),
        (
            "Markdown table",
            "## Trailhead 28\n\n- **Weight:** 0.9 kg\n- **Volume:** 28 l\n- **Colours:** moss, slate, sand\n\n| Size | Back length |\n|---|---|\n| S | 40-44 cm |\n| M | 45-49 cm |\n",
            63,
            63,
        ),
    ];

    #[test]
    fn the_error_of_the_estimate_is_known() {
        let (mut estimated, mut counted) = (0, 0);
        for (name, text, tokens, percent) in GOLDEN {
            let estimate = estimate("", "", text.len()).output.get();
            assert_eq!(estimate * 100 / u64::from(tokens), percent, "{name}");
            assert!(prompt_bound("", text) > Tokens::from_u32(tokens), "{name}");
            estimated += estimate;
            counted += u64::from(tokens);
        }
        assert_eq!(estimated * 100 / counted, 99, "all together");
    }

    #[test]
    fn a_prompt_is_bounded_by_its_bytes() {
        assert_eq!(prompt_bound("", ""), Tokens::from_u32(32));
        assert_eq!(prompt_bound("ab", "ü"), Tokens::from_u32(2 + 2 + 32));
    }
}
