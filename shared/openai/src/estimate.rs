//! How many tokens a text may be, without a tokenizer: a bound for holds, an estimate for cut streams. Pure.

use crate::Turn;
use domain::{Classes, Tokens};
use std::num::NonZeroU64;

/// What a provider adds to a message of a prompt, in tokens. OpenAI's cookbook ("How to count tokens with tiktoken")
/// counts 3 a message and 1 for its role. The rest is slack for models whose messages are wrapped in more.
const MESSAGE_OVERHEAD_TOKENS: u32 = 8;

/// What it adds to the prompt as a whole: by the same source 3, which begin the reply. The rest is slack.
const PROMPT_OVERHEAD_TOKENS: u32 = 16;

/// What it adds to a message by the same source, without slack: an estimate is charged, and slack is not used.
const MESSAGE_OVERHEAD_ESTIMATE_TOKENS: u32 = 4;

/// What it adds to the prompt as a whole, without slack.
const PROMPT_OVERHEAD_ESTIMATE_TOKENS: u32 = 3;

/// UTF-8 bytes to a token, in an estimate. OpenAI's rule of thumb is "one token is about 4 characters of English";
/// bytes instead of characters, because other scripts take more tokens to a character and more bytes too.
const BYTES_PER_TOKEN: NonZeroU64 = NonZeroU64::new(4).unwrap();

/// The most tokens that this prompt can be: its UTF-8 bytes, plus 8 for each of its messages and 16 for the whole. A token
/// of a byte-level tokenizer, which OpenAI's are, stands for at least one byte. A tokenizer that first expands characters
/// (compatibility normalisation) can exceed it; what it takes beyond the hold is absorbed.
pub fn prompt_bound(system: &str, turns: &[Turn]) -> Tokens {
    let frame = frame(system, turns, MESSAGE_OVERHEAD_TOKENS, PROMPT_OVERHEAD_TOKENS);
    prompt_bytes(system, turns).saturating_add(frame)
}

/// What a cut stream is taken to have used: a quarter of the UTF-8 bytes of the prompt and of the `output_bytes` that
/// were streamed, each rounded up, plus 4 for each message and 3 for the whole. So text that was streamed is never 0 tokens.
///
/// Nothing is known of the provider's cache and of hidden reasoning, so all of the prompt counts as first read, and
/// reasoning as none.
pub fn estimate(system: &str, turns: &[Turn], output_bytes: usize) -> Classes {
    let frame = frame(system, turns, MESSAGE_OVERHEAD_ESTIMATE_TOKENS, PROMPT_OVERHEAD_ESTIMATE_TOKENS);
    Classes {
        input: prompt_bytes(system, turns).div_ceil(BYTES_PER_TOKEN).saturating_add(frame),
        output: tokens(output_bytes),
        ..Classes::default()
    }
}

/// A quarter of the bytes, rounded up.
pub(crate) fn tokens(bytes: usize) -> Tokens {
    Tokens::from_len(bytes).div_ceil(BYTES_PER_TOKEN)
}

fn prompt_bytes(system: &str, turns: &[Turn]) -> Tokens {
    Tokens::from_len(system.len())
        .saturating_add(turns.iter().map(|turn| Tokens::from_len(turn.text.len())).sum())
}

/// What the provider adds to these messages, at so much for each and for the whole. An empty system is not sent.
fn frame(system: &str, turns: &[Turn], message_tokens: u32, prompt_tokens: u32) -> Tokens {
    let messages = turns.len().saturating_add(usize::from(!system.is_empty()));
    let all: Tokens = std::iter::repeat_n(Tokens::from_u32(message_tokens), messages).sum();
    all.saturating_add(Tokens::from_u32(prompt_tokens))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Speaker, request::tests::turn};

    fn user(text: &str) -> Vec<Turn> {
        vec![turn(Speaker::User, text)]
    }

    #[test]
    fn f05_text_that_was_streamed_is_never_zero_tokens() {
        assert_eq!(estimate("", &[], 0).output, Tokens::ZERO);
        for (bytes, tokens) in [(1, 1), (4, 1), (5, 2), (4_000, 1_000)] {
            assert_eq!(estimate("", &[], bytes).output, Tokens::from_u32(tokens), "{bytes}");
        }
        assert_eq!(estimate("abcd", &user("e"), 0).input, Tokens::from_u32(2 + 11));
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
            let estimate = estimate("", &[], text.len()).output.get();
            assert_eq!(estimate * 100 / u64::from(tokens), percent, "{name}");
            assert!(prompt_bound("", &user(text)) > Tokens::from_u32(tokens), "{name}");
            estimated += estimate;
            counted += u64::from(tokens);
        }
        assert_eq!(estimated * 100 / counted, 99, "all together");
    }

    #[test]
    fn a_prompt_is_bounded_by_its_bytes_and_its_messages() {
        assert_eq!(prompt_bound("", &[]), Tokens::from_u32(16));
        assert_eq!(prompt_bound("ab", &user("ü")), Tokens::from_u32(2 + 2 + 32));
        assert_eq!(prompt_bound("", &user("ü")), Tokens::from_u32(2 + 24), "an empty system is not sent");
    }

    /// A message of one byte is a token of text and by the cookbook's count four of frame: the bound has to hold for many of
    /// them too, where the frame is most of the prompt.
    #[test]
    fn the_bound_holds_for_as_many_messages_as_there_are() {
        for messages in 1..=32 {
            let turns = vec![turn(Speaker::User, "x"); messages];
            let counted = u64::try_from(messages * (3 + 1 + 1) + 3 + (3 + 1 + 1)).unwrap();
            assert!(prompt_bound("s", &turns).get() >= counted, "{messages}");
            let bytes = u64::try_from(messages + 1).unwrap();
            let frame = counted - bytes;
            assert_eq!(estimate("s", &turns, 0).input.get(), bytes.div_ceil(4) + frame, "{messages}");
        }
    }
}
