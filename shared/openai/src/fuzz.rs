//! The fuzz target of both parsers: streams made of what providers send, streams that are damaged, and bytes. A stream
//! that was made says what must come of it; of any other only what is true of every stream is asked.
//!
//! `cargo test` runs some thousand cases, `infra/check/fuzz.sh` as many as it is told. What was found is kept in
//! `proptest-regressions` and run first.

use crate::{Event, FinishReason, StreamError, incoming::Incoming, sse::EVENT_BYTES_MAX};
use domain::{Classes, Tokens};
use proptest::{collection::vec, option, prelude::*, sample::Index};
use serde_json::{Value, json};
use std::{collections::VecDeque, fmt::Write as _};

/// Cases of each property, unless `PROPTEST_CASES` says more.
const CASES: u32 = 1_000;
/// A property of streams without end gets that part of the cases.
const FEWER: u32 = 8;
/// Streams up to this length are read byte by byte as well, in bytes.
const BYTEWISE_MAX: usize = 16 * 1_024;
/// A line and an event.
const KEPT_BYTES_MAX: usize = 2 * EVENT_BYTES_MAX;
/// So much of a wave is longer than a line and an event, however little of it is data.
const ENDLESS_BYTES: usize = 4 * EVENT_BYTES_MAX;
/// A flood is at most so long, in bytes: longer than anything that may be kept.
const FLOOD_BYTES_MAX: usize = 3 * EVENT_BYTES_MAX;

/// What came of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) events: Vec<Event>,
    pub(crate) error: Option<StreamError>,
    output_bytes: usize,
    reasoning_bytes: usize,
    counted: Option<Classes>,
}

/// Reads `pieces` as the pieces of a body that then ends, as a client's stream does. Checks what is held meanwhile.
pub(crate) fn read<'b>(pieces: impl IntoIterator<Item = &'b [u8]>) -> Outcome {
    let (mut body, mut events, mut error) = (Incoming::default(), VecDeque::new(), None);
    for piece in pieces {
        error = body.take(piece, &mut events).err();
        assert!(body.kept() <= KEPT_BYTES_MAX, "{} bytes are kept", body.kept());
        if error.is_some() || body.answer.is_done() {
            break;
        }
    }
    let error = error.or_else(|| body.answer.end(&mut events).err());
    Outcome {
        events: events.into(),
        error,
        output_bytes: body.answer.output_bytes(),
        reasoning_bytes: body.answer.reasoning_bytes(),
        counted: body.answer.counted(),
    }
}

/// What is true of every stream: its events come in their order, and it is either done or in error.
fn check_order(outcome: &Outcome) {
    let Outcome { events, error, .. } = outcome;
    let rank = |event: &Event| match event {
        Event::Text(_) => 0,
        Event::Finish(_) => 1,
        Event::Usage(_) => 2,
        Event::Done => 3,
    };
    let ranks: Vec<_> = events.iter().map(rank).collect();
    assert!(ranks.is_sorted(), "{events:?}");
    for once in 1..=3 {
        assert!(ranks.iter().filter(|rank| **rank == once).count() <= 1, "{events:?}");
    }
    assert_eq!(ranks.contains(&3), error.is_none(), "{events:?} {error:?}");
    assert!(!ranks.contains(&3) || ranks.contains(&1), "done without a finish: {events:?}");
    let texts = events.iter().filter_map(|event| match event {
        Event::Text(text) => Some(text.len()),
        _ => None,
    });
    assert!(texts.clone().all(|bytes| bytes > 0));
    assert_eq!(texts.sum::<usize>(), outcome.output_bytes);
    let used = events.iter().find_map(|event| match event {
        Event::Usage(used) => Some(*used),
        _ => None,
    });
    if error.is_none() {
        assert_eq!(used, outcome.counted);
    }
    for used in used.iter().chain(&outcome.counted) {
        assert!(used.prompt() > Tokens::ZERO && used.prompt() <= Tokens::MAX);
        assert!(outcome.output_bytes == 0 || used.completion() > Tokens::ZERO);
    }
}

/// Checks a stream whatever it is, and that it means the same however it is split.
fn check(bytes: &[u8], cuts: &[Index]) -> Outcome {
    let whole = read([bytes]);
    check_order(&whole);
    let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    assert_eq!(read(at.windows(2).map(|pair| &bytes[pair[0]..pair[1]])), whole);
    if bytes.len() <= BYTEWISE_MAX {
        assert_eq!(read(bytes.chunks(1)), whole);
    }
    whole
}

/// A usage as a provider claims it.
#[derive(Clone, Copy, Debug)]
struct Figures {
    prompt: u64,
    completion: u64,
    cached: Option<u64>,
    write: Option<u64>,
    reasoning: Option<u64>,
}

impl Figures {
    fn json(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt, "completion_tokens": self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached, "cache_write_tokens": self.write},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        })
    }

    fn classes(&self) -> Classes {
        let cached = self.cached.unwrap_or(0).min(self.prompt);
        let write = self.write.unwrap_or(0).min(self.prompt - cached);
        let reasoning = self.reasoning.unwrap_or(0).min(self.completion);
        let tokens = |count| Tokens::new(count).unwrap();
        Classes {
            input: tokens(self.prompt - cached - write),
            cached_input: tokens(cached),
            cache_write: tokens(write),
            output: tokens(self.completion - reasoning),
            reasoning: tokens(reasoning),
        }
    }
}

/// What a provider writes: mostly one event.
#[derive(Clone, Debug)]
enum Piece {
    /// A line that is no event's.
    Line(String),
    Text(&'static str, String),
    Parts(Vec<String>),
    Reasoning(&'static str, String),
    /// A chunk that says nothing of the answer.
    Chunk(Value),
    Usage(Figures),
    Finish(&'static str),
    Error(&'static str),
    Done,
}

impl Piece {
    /// The lines of it, without the empty one that ends an event.
    fn data(&self) -> Result<String, &str> {
        let delta =
            |delta: Value| json!({"id": "c", "choices": [{"index": 0, "delta": delta}], "usage": null});
        let chunk = match self {
            Self::Line(line) => return Err(line),
            Self::Error(data) => return Ok((*data).to_owned()),
            Self::Done => return Ok("[DONE]".to_owned()),
            Self::Text(member, text) | Self::Reasoning(member, text) => delta(json!({*member: text})),
            Self::Parts(texts) => {
                let parts: Vec<_> = texts.iter().map(|text| json!({"type": "text", "text": text})).collect();
                delta(json!({"content": parts}))
            }
            Self::Chunk(chunk) => chunk.clone(),
            Self::Usage(figures) => json!({"choices": [], "usage": figures.json()}),
            Self::Finish(reason) => {
                json!({"choices": [{"delta": {}, "finish_reason": reason}], "error": null})
            }
        };
        Ok(chunk.to_string())
    }
}

/// How a piece is written.
#[derive(Clone, Debug)]
struct Style {
    line_end: &'static str,
    space: bool,
    /// Each member on a data line of its own.
    wrapped: bool,
    /// What is not ASCII as escapes.
    escaped: bool,
}

fn write(out: &mut Vec<u8>, piece: &Piece, style: &Style) {
    let end = style.line_end;
    match piece.data() {
        Err(line) => out.extend(format!("{line}{end}").into_bytes()),
        Ok(data) => {
            let mut data = match serde_json::from_str::<Value>(&data) {
                Ok(value) if style.wrapped => serde_json::to_string_pretty(&value).unwrap(),
                _ => data,
            };
            if style.escaped {
                data = escaped(&data);
            }
            for line in data.lines() {
                let space = if style.space { " " } else { "" };
                out.extend(format!("data:{space}{line}{end}").into_bytes());
            }
            out.extend(end.as_bytes());
        }
    }
}

/// What is not ASCII stands in strings alone, where JSON can escape it.
fn escaped(json: &str) -> String {
    let mut out = String::new();
    for letter in json.chars() {
        if letter.is_ascii() {
            out.push(letter);
        } else {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}").unwrap();
            }
        }
    }
    out
}

/// A stream, and what must come of it.
#[derive(Debug)]
struct Script {
    bytes: Vec<u8>,
    expected: Vec<Event>,
    is_whole: bool,
    reasoning_bytes: usize,
}

/// Writes `pieces` down and says what they mean. They come in an order that a provider may choose.
fn script(pieces: &[(Piece, Style)], byte_order_mark: bool) -> Script {
    let mut script = Script {
        bytes: if byte_order_mark { "\u{feff}".into() } else { vec![] },
        expected: vec![],
        is_whole: false,
        reasoning_bytes: 0,
    };
    let (mut finished, mut done, mut failed, mut figures) = (false, false, false, None);
    for (piece, style) in pieces {
        write(&mut script.bytes, piece, style);
        if done || failed {
            continue;
        }
        match piece {
            Piece::Text(_, text) => script.expected.push(Event::Text(text.clone())),
            Piece::Parts(texts) => script.expected.push(Event::Text(texts.concat())),
            Piece::Reasoning(_, text) => script.reasoning_bytes += text.len(),
            Piece::Usage(told) => figures = Some(*told),
            Piece::Finish(reason) if !finished => {
                finished = true;
                let reason = if *reason == "length" { FinishReason::Length } else { FinishReason::Stop };
                script.expected.push(Event::Finish(reason));
            }
            Piece::Error(_) => failed = true,
            Piece::Done => done = true,
            Piece::Line(_) | Piece::Chunk(_) | Piece::Finish(_) => {}
        }
    }
    script.expected.retain(|event| !matches!(event, Event::Text(text) if text.is_empty()));
    script.is_whole = !failed && finished && (done || figures.is_some());
    if script.is_whole {
        script.expected.extend(figures.map(|told| Event::Usage(told.classes())));
        script.expected.push(Event::Done);
    }
    script
}

fn figures() -> impl Strategy<Value = Figures> {
    let count = || prop_oneof![4 => 1_u64..5_000, 1 => Just(1_000_000_000_u64)];
    let part = || option::of(prop_oneof![4 => 0_u64..5_000, 1 => Just(u64::MAX)]);
    (count(), count(), part(), part(), part()).prop_map(|(prompt, completion, cached, write, reasoning)| {
        Figures { prompt, completion, cached, write, reasoning }
    })
}

fn style() -> impl Strategy<Value = Style> {
    let end = prop::sample::select(vec!["\n", "\r\n", "\r"]);
    (end, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(line_end, space, wrapped, escaped)| Style {
        line_end,
        space,
        wrapped,
        escaped,
    })
}

/// What may come anywhere before the end of an answer and is not text of it.
fn filler() -> impl Strategy<Value = Piece> {
    let line = "[^\r\n]{0,12}".prop_map(|text| Piece::Line(format!(": {text}")));
    let other = prop::sample::select(vec!["id: 7", "retry: 10", "event: message", "unknown", "unknown: x"]);
    let filtered = json!({"hate": {"filtered": false, "severity": "safe"}});
    let chunk = prop::sample::select(vec![
        json!({}),
        json!({"choices": null}),
        json!({"choices": [], "usage": null, "obfuscation": "aB3"}),
        json!({"choices": [{"index": 0, "delta": {"role": "assistant", "content": "", "refusal": null}, "finish_reason": null}]}),
        json!({"choices": [{"index": 0, "delta": {"content": null}, "finish_reason": ""}]}),
        json!({"choices": [{"index": 1, "delta": {"content": "not asked for"}, "finish_reason": "stop"}]}),
        json!({"choices": [], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": filtered}]}),
        json!({"choices": [{"index": 0, "finish_reason": null, "content_filter_results": filtered, "content_filter_offsets": {"end_offset": 4}}]}),
        json!({"choices": [], "moderation": {"output": {"flagged": false}}}),
    ]);
    prop_oneof![
        line,
        other.prop_map(|line| Piece::Line(line.to_owned())),
        chunk.prop_map(Piece::Chunk),
        figures().prop_map(Piece::Usage),
    ]
}

fn text() -> impl Strategy<Value = Piece> {
    let member = prop::sample::select(vec!["content", "content", "content", "refusal"]);
    let reasoning = prop::sample::select(vec!["reasoning", "reasoning_content"]);
    prop_oneof![
        6 => (member, any::<String>()).prop_map(|(member, text)| Piece::Text(member, text)),
        1 => vec(any::<String>(), 0..3).prop_map(Piece::Parts),
        1 => (reasoning, any::<String>()).prop_map(|(member, text)| Piece::Reasoning(member, text)),
    ]
}

fn error() -> impl Strategy<Value = Piece> {
    let shapes = vec![
        r#"{"error":{"message":"x","type":"server_error","code":null}}"#,
        r#"{"error":{"code":502,"message":"x"},"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}"#,
        r#"{"error":"x"}"#,
        r#"{"object":"error","message":"x","type":"BadRequestError","code":400}"#,
        r#"{"choices":[{"index":0,"delta":{},"finish_reason":"insufficient_system_resource"}]}"#,
        r#"{"choices":[{"index":0,"error":{"code":500}}]}"#,
        "not json",
        r#"{"choices":[{"delta":{"content":7}}]}"#,
    ];
    prop::sample::select(shapes).prop_map(Piece::Error)
}

/// Text and fillers; a finish and fillers; `[DONE]`. Each of the last two may be missing, and an error may come
/// anywhere.
fn pieces() -> impl Strategy<Value = Vec<(Piece, Style)>> {
    let before = vec(prop_oneof![3 => text(), 2 => filler()], 0..8);
    let finish = option::weighted(0.9, prop::sample::select(vec!["stop", "length"]).prop_map(Piece::Finish));
    let after = vec(filler(), 0..3);
    let done = option::weighted(0.8, Just(Piece::Done));
    let fault = option::weighted(0.2, (any::<Index>(), error()));
    let order = (before, finish, after, done, fault).prop_map(|(before, finish, after, done, fault)| {
        let mut pieces: Vec<Piece> = before.into_iter().chain(finish).chain(after).chain(done).collect();
        if let Some((at, error)) = fault {
            pieces.insert(at.index(pieces.len() + 1), error);
        }
        pieces
    });
    order.prop_flat_map(|pieces| {
        let count = pieces.len();
        vec(style(), count).prop_map(move |styles| pieces.iter().cloned().zip(styles).collect())
    })
}

/// Damage on the way.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Token(Index, &'static str),
    Delete(Index, usize),
    Repeat(Index, usize),
    Cut(Index),
    /// The same again and again, up to so many bytes.
    Flood(Index, &'static str, usize),
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |index: &Index| index.index(bytes.len() + 1);
        match self {
            Self::Flip(index, mask) => {
                let at = place(index);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= mask;
                }
            }
            Self::Insert(index, new) => drop(bytes.splice(place(index)..place(index), new.iter().copied())),
            Self::Token(index, token) => drop(bytes.splice(place(index)..place(index), token.bytes())),
            Self::Delete(index, count) => {
                let from = place(index);
                drop(bytes.drain(from..(from + count).min(bytes.len())));
            }
            Self::Repeat(index, count) => {
                let from = place(index);
                let copy = bytes[from..(from + count).min(bytes.len())].to_vec();
                drop(bytes.splice(from..from, copy));
            }
            Self::Cut(index) => bytes.truncate(place(index)),
            Self::Flood(index, wave, length) => {
                let flood = wave.bytes().cycle().take(*length);
                drop(bytes.splice(place(index)..place(index), flood));
            }
        }
    }
}

fn token() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "\r\r",
        "\u{feff}",
        "data:",
        "data: ",
        "data",
        "event: error\n",
        ": ",
        "[DONE]",
        "data: [DONE]\n\n",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "\\",
        "\\ud83d",
        "\\ude00",
        "null",
        "1e999",
        "-1",
        "0.5",
        "18446744073709551616",
        "9007199254740993",
        "{\"error\":",
        "\"usage\":{",
        "\"finish_reason\":\"stop\"",
        "\"choices\":[",
        "\"delta\":{\"content\":\"",
        "\"prompt_tokens\":",
        "\u{2028}",
        "\0",
        "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0}}\n\n",
    ])
}

/// What an endless stream is made of; no wave ends an event.
fn wave() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "x",
        "[",
        "{\"a\":",
        "0",
        " ",
        "\n",
        "\r",
        ":",
        "data: 0123456789abcdef\n",
        "\ndata:x",
        "\u{1f600}",
        "\\u",
    ])
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    prop_oneof![
        40 => (at(), 1_u8..).prop_map(|(at, mask)| Damage::Flip(at, mask)),
        30 => (at(), vec(any::<u8>(), 1..6)).prop_map(|(at, new)| Damage::Insert(at, new)),
        60 => (at(), token()).prop_map(|(at, token)| Damage::Token(at, token)),
        30 => (at(), 1_usize..60).prop_map(|(at, count)| Damage::Delete(at, count)),
        30 => (at(), 1_usize..300).prop_map(|(at, count)| Damage::Repeat(at, count)),
        10 => at().prop_map(Damage::Cut),
        4 => (at(), wave(), 1..FLOOD_BYTES_MAX).prop_map(|(at, wave, length)| Damage::Flood(at, wave, length)),
    ]
}

fn cuts() -> impl Strategy<Value = Vec<Index>> {
    vec(any::<Index>(), 0..6)
}

fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig { cases: config.cases.max(CASES), ..config }
}

/// Fewer cases, for streams of a megabyte.
fn few() -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig { cases: config.cases.div_ceil(FEWER), ..config }
}

/// What was found, said once more in full, because a seed means another case when a generator changes.
#[test]
fn f18_f28_what_was_found_stays_mended() {
    // Bytes without end behind the answer's end, in the same read: the answer was done, and then it was too long.
    let whole = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    let outcome = check(format!("{whole}{}", "x".repeat(EVENT_BYTES_MAX + 1)).as_bytes(), &[]);
    assert_eq!((outcome.events.len(), outcome.error), (2, None));
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn f18_a_stream_without_end_ends(pieces in vec((text(), style()), 0..4), wave in wave(), size in 1..70_000_usize) {
        let mut bytes = script(&pieces, false).bytes;
        bytes.extend(b"data:");
        bytes.extend(wave.bytes().cycle().take(ENDLESS_BYTES));
        let outcome = read(bytes.chunks(size));
        let expected = if wave.trim_end_matches(['\r', '\n']).is_empty() { StreamError::Cut } else { StreamError::TooLong };
        prop_assert_eq!(outcome.error, Some(expected));
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn f05_f06_f28_a_stream_means_what_was_written(pieces in pieces(), mark in any::<bool>(), cuts in cuts()) {
        let script = script(&pieces, mark);
        let outcome = check(&script.bytes, &cuts);
        prop_assert_eq!(&outcome.events, &script.expected);
        prop_assert_eq!(outcome.error.is_none(), script.is_whole);
        prop_assert_eq!(outcome.reasoning_bytes, script.reasoning_bytes);
    }

    #[test]
    fn f18_f28_a_damaged_stream_does_no_damage(
        pieces in pieces(), mark in any::<bool>(), damages in vec(damage(), 1..5), cuts in cuts(),
    ) {
        let mut bytes = script(&pieces, mark).bytes;
        for damage in &damages {
            damage.apply(&mut bytes);
        }
        check(&bytes, &cuts);
    }

    #[test]
    fn f18_f28_no_bytes_do_damage(
        pieces in vec(prop_oneof![token().prop_map(|token| token.as_bytes().to_vec()), vec(any::<u8>(), 0..8)], 0..60),
        cuts in cuts(),
    ) {
        check(&pieces.concat(), &cuts);
    }
}
